/** LiteRT.js's loader of its WebAssembly, which build.mjs finds in the package. */
declare module 'litert-module' {
  import type {LiteRt} from '@litertjs/core';

  export default function createModule(options: {
    wasmBinary: Uint8Array,
    print(line: string): void,
    printErr(line: string): void,
  }): Promise<LiteRt['liteRtWasm']>;
}
