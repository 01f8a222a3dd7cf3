/** LiteRT.js's WebAssembly, by the names of signatures and tensors. */

import type {LiteRt as CoreLiteRt} from '@litertjs/core';
import createModule from 'litert-module';

import {fault} from './fault.js';

type Wasm = CoreLiteRt['liteRtWasm'];
type Environment = ReturnType<Wasm['LiteRtEnvironment']['create']>;
type WasmModel = ReturnType<Wasm['loadModel']>;
type Compiled = Awaited<ReturnType<Wasm['compileModel']>>;

/** A tensor of LiteRT's, in its memory; `delete()` gives it back. */
export type Tensor = ReturnType<Wasm['LiteRtTensorBuffer']['createManaged']>;

// A function that returns a vector of four 32-bit numbers.
const WITH_SIMD = Uint8Array.of(
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65,
    0, 253, 15, 253, 98, 11);

/** LiteRT's names of the types that a bundle's tensors have. */
const TYPES: Readonly<Record<number, string>> = {
  1: 'FLOAT32',
  2: 'INT32',
  3: 'UINT8',
  9: 'INT8',
};

const ONE_THREAD = {
  accelerator: 'wasm',
  cpuOptions: {numThreads: 1},
  gpuOptions: {},
  webNNOptions: {},
} as const;

/** What a signature says of one of its tensors. */
export interface TensorInfo {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly number[];
}

/** Type and shape, as in messages. */
export function described({type, shape}: Pick<TensorInfo, 'type'|'shape'>): string {
  return `${type} [${shape.join(', ')}]`;
}

/** LiteRT, loaded. */
export class LiteRt {
  private constructor(
      private readonly wasm: Wasm, private readonly environment: Environment,
      private readonly complaints: string[]) {}

  /**
   * Starts LiteRT; it runs on the processor, on one thread.
   *
   * @param content LiteRT.js's `litert_wasm_compat_internal.wasm`, gzipped or not.
   * @throws EarlyExitError where the browser cannot run it.
   */
  static async start(content: Uint8Array): Promise<LiteRt> {
    if (typeof WebAssembly !== 'object' || !WebAssembly.validate(WITH_SIMD)) {
      const expected = 'a browser of 2023 or later';
      throw fault('This browser', 'no WebAssembly with SIMD', expected);
    }
    const complaints: string[] = [];
    const note = (line: string) => {
      if (!/^(INFO|WARNING)/.test(line)) complaints.push(line);
    };
    try {
      const wasmBinary = await unpacked(content);
      const options = {wasmBinary, print: note, printErr: note};
      const wasm: Wasm = await createModule(options);
      return new LiteRt(wasm, wasm.LiteRtEnvironment.create(null), complaints);
    } catch (error) {
      const found = `a file that does not start (${reason(error)})`;
      throw fault('LiteRT\'s WebAssembly', found, 'LiteRT.js\'s own');
    }
  }

  /**
   * Opens a .tflite model.
   *
   * @param where name of the file, for messages.
   */
  open(content: Uint8Array, where: string): Model {
    return this.attempt(where, 'a model that LiteRT cannot open', () => {
      const place = this.wasm._malloc(content.length);
      this.wasm.HEAPU8.set(content, place);
      const model = this.wasm.loadModel(this.environment, place, content.length);
      const compiled = this.wasm.compileModel(this.environment, model, ONE_THREAD);
      if (compiled instanceof Promise) throw new Error('it is compiled asynchronously');
      return new Model(this, where, model, compiled, () => this.wasm._free(place));
    });
  }

  /** Makes a tensor like the input `index` of a model's signature. */
  tensor(model: WasmModel, signature: number, index: number): Tensor {
    const type = model.getInputTensorType(signature, index);
    const {HOST_MEMORY} = this.wasm.LiteRtTensorBufferType;
    const tensor = this.wasm.LiteRtTensorBuffer.createManaged(
        this.environment, HOST_MEMORY, type, type.bytes());
    type.delete();
    return tensor;
  }

  /** Copies bytes into a tensor. */
  write(tensor: Tensor, bytes: Uint8Array): void {
    const place = tensor.lock(this.wasm.LiteRtTensorBufferLockMode.WRITE);
    this.wasm.HEAPU8.set(bytes, place);
    tensor.unlock();
  }

  /** A copy of a tensor's bytes. */
  read(tensor: Tensor): ArrayBuffer {
    const place = tensor.lock(this.wasm.LiteRtTensorBufferLockMode.READ);
    const bytes = this.wasm.HEAPU8.slice(place, place + tensor.packedSize());
    tensor.unlock();
    return bytes.buffer as ArrayBuffer;
  }

  /** Does what LiteRT may refuse to do. */
  attempt<Result>(where: string, found: string, action: () => Result): Result {
    this.complaints.length = 0;
    try {
      return action();
    } catch (error) {
      const why = this.complaints.at(-1) ?? reason(error);
      throw fault(where, `${found} (${why})`, 'a file as converted');
    }
  }
}

/** An open .tflite model. */
export class Model {
  /** By key. */
  readonly signatures: ReadonlyMap<string, Signature>;

  /** @param free gives back the memory of the file. */
  constructor(
      liteRt: LiteRt, where: string, private readonly model: WasmModel,
      private readonly compiled: Compiled, private readonly free: () => void) {
    const signatures = Array.from(
        {length: model.getNumSignatures()},
        (_, index) => new Signature(liteRt, where, model, compiled, index));
    this.signatures = new Map(signatures.map(signature => [signature.key, signature]));
  }

  close(): void {
    this.compiled.delete();
    this.model.delete();
    this.free();
  }
}

/** One way to run a model. */
export class Signature {
  readonly key: string;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];

  constructor(
      private readonly liteRt: LiteRt, private readonly where: string,
      private readonly model: WasmModel, private readonly compiled: Compiled,
      private readonly index: number) {
    const signature = model.getSignature(index);
    this.key = signature.key();
    this.inputs = elements(signature.inputNames())
        .map((name, i) => info(name, model.getInputTensorType(index, i)));
    this.outputs = elements(signature.outputNames())
        .map((name, i) => info(name, model.getOutputTensorType(index, i)));
    signature.delete();
  }

  /** Makes a tensor for one of the inputs. */
  tensor(name: string): Tensor {
    const place = this.inputs.findIndex(input => input.name === name);
    return this.liteRt.tensor(this.model, this.index, place);
  }

  /** Runs; takes tensors in the order of `inputs`, gives new ones in that of `outputs`. */
  run(inputs: Tensor[]): Tensor[] {
    return this.liteRt.attempt(this.where, 'a model that fails', () => {
      const outputs = this.compiled.run(this.index, inputs);
      if (outputs instanceof Promise) throw new Error('it runs asynchronously');
      return outputs;
    });
  }
}

type TensorType = ReturnType<WasmModel['getInputTensorType']>;

function info(name: string, tensor: TensorType): TensorInfo {
  const number = tensor.elementType().value;
  const layout = tensor.layout();
  const shape = elements(layout.dimensions());
  layout.delete();
  tensor.delete();
  return {name, type: TYPES[number] ?? `type ${number}`, shape};
}

/** The elements of one of the module's vectors, which is given back. */
function elements<T>(vector: {size(): number, get(i: number): T, delete(): void}): T[] {
  const array = Array.from({length: vector.size()}, (_, i) => vector.get(i));
  vector.delete();
  return array;
}

/**
 * What is in a file that may be gzipped. (Some servers say that such a file is
 * compressed on the way; then the browser has unpacked it already.)
 */
export async function unpacked(content: Uint8Array): Promise<Uint8Array> {
  if (content[0] !== 0x1f || content[1] !== 0x8b) return content;
  const stream = new Blob([content as BlobPart]).stream();
  const whole = new Response(stream.pipeThrough(new DecompressionStream('gzip')));
  return new Uint8Array(await whole.arrayBuffer());
}

function reason(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).trim();
}
