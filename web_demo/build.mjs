/**
 * Builds what of the page is made of TypeScript and of LiteRT.js.
 *
 *     node build.mjs           writes it into site/
 *     node build.mjs --check   fails where site/ has another
 *     node build.mjs --tests   builds the tests into build/test/
 */

import {createHash} from 'node:crypto';
import {existsSync, readdirSync, readFileSync, statSync, writeFileSync} from 'node:fs';
import {dirname, join, relative} from 'node:path';
import {fileURLToPath} from 'node:url';
import {gunzipSync, gzipSync} from 'node:zlib';

import {build} from 'esbuild';

const HERE = dirname(fileURLToPath(import.meta.url));
const SITE = join(HERE, 'site');
const LITERT = join(HERE, 'node_modules', '@litertjs', 'core', 'wasm');
// Needs no relaxed SIMD, which Safari lacks, and is no slower.
const VARIANT = 'litert_wasm_compat_internal';
const WASM = 'litert.wasm.gz';
const SERVICE_WORKER = 'service_worker.js';

/** LiteRT's loader is a classic script; as a module it needs no global name. */
const litertModule = {
  name: 'litert-module',
  setup({onResolve, onLoad}) {
    onResolve({filter: /^litert-module$/}, () => ({path: VARIANT, namespace: 'litert'}));
    onLoad({filter: /.*/, namespace: 'litert'}, () => {
      const script = readFileSync(join(LITERT, `${VARIANT}.js`), 'utf8');
      // What it does in Node's own kind of module means nothing here.
      const [shared] = script.split('// Export using a UMD style');
      return {contents: `${shared}\nexport default ModuleFactory;\n`};
    });
  },
};

/** The scripts of the page, by name; the runtime is in a file of its own. */
async function scripts(entries, options = {}) {
  const result = await build({
    absWorkingDir: HERE,
    entryPoints: entries,
    outdir: SITE,
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    logLevel: 'warning',
    ...options,
  });
  // None where they were written.
  return (result.outputFiles ?? []).map(({path, contents}) => [relative(SITE, path), contents]);
}

/** Every file of the page with a hash of its content, to be kept for when offline. */
function kept(made) {
  const others = readdirSync(SITE, {recursive: true})
                     .filter(file => statSync(join(SITE, file)).isFile())
                     // Such as what a file manager leaves.
                     .filter(file => !/(^|\/)\./.test(file))
                     .filter(file => file !== SERVICE_WORKER && !made.has(file));
  const hashes = [...made, ...others.map(file => [file, readFileSync(join(SITE, file))])]
                     .map(([file, content]) => [file, digest(content)])
                     .sort(([a], [b]) => a < b ? -1 : 1);
  return {files: hashes.map(([file]) => file), version: digest(JSON.stringify(hashes))};
}

function digest(content) {
  return createHash('sha256').update(content).digest('hex').slice(0, 16);
}

/** The WebAssembly; the one that is there, where zlib alone packs it otherwise. */
function wasm() {
  const content = readFileSync(join(LITERT, `${VARIANT}.wasm`));
  const place = join(SITE, WASM);
  const there = existsSync(place) ? readFileSync(place) : null;
  const same = there && gunzipSync(there).equals(content);
  return same ? there : gzipSync(content, {level: 9});
}

async function site() {
  const made = new Map([
    ...await scripts(['src/runtime.ts'], {plugins: [litertModule], external: ['node:*']}),
    ...await scripts(['src/page.ts', 'src/worker.ts'], {external: ['./runtime.js']}),
    [WASM, wasm()],
  ]);
  const {files, version} = kept(made);
  const define = {FILES: JSON.stringify(files), VERSION: JSON.stringify(version)};
  const [worker] = await scripts(['src/service_worker.ts'], {define, format: 'iife'});
  return made.set(...worker);
}

async function tests() {
  const names = readdirSync(join(HERE, 'test'))
                    .filter(name => name.endsWith('.test.ts') || name === 'times.ts');
  await scripts(names.map(name => `test/${name}`), {
    outdir: join(HERE, 'build', 'test'),
    platform: 'node',
    packages: 'external',
    minify: false,
    sourcemap: 'inline',
    write: true,
  });
}

if (process.argv.includes('--tests')) {
  await tests();
} else if (process.argv.includes('--check')) {
  const different = [...await site()].filter(([file, content]) => {
    const place = join(SITE, file);
    return !existsSync(place) || !readFileSync(place).equals(Buffer.from(content));
  });
  if (different.length > 0) {
    const names = different.map(([file]) => file).join(', ');
    console.error(`Expected site/ as "make web-build" makes it. Received others: ${names}`);
    process.exit(1);
  }
} else {
  for (const [file, content] of await site()) writeFileSync(join(SITE, file), content);
}
