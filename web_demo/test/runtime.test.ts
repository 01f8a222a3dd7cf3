/** The runtime in Chromium answers as Python does, and says what is wrong in a sentence. */

import assert from 'node:assert/strict';
import {createHash} from 'node:crypto';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, test} from 'node:test';

import type {Browser, Page} from 'playwright-core';

import type * as Runtime from '../src/runtime.js';
import {startChromium, TIMEOUT} from './chromium.js';
import {ROOT, Server} from './server.js';

declare global {
  interface Window {
    runtime: typeof Runtime;
    liteRt: Runtime.LiteRt;
  }
}

// Runtimes round float32 differently; docs/browser.md has what was measured. An int8 value
// that is one off moves logits by tenths.
const TOLERANCE = 1e-3;
const PAGE = '<!doctype html><title>Test</title><script type="module">' +
    'window.runtime = await import("/runtime.js");</script>';
const SMALL = 'android_demo/engine/src/jvmTest/resources/bundles/beta-range';
const APP = 'android_demo/app/src/main/assets';
const PICTURES = 'android_demo/app/src/jvmTest/resources/pictures';

interface Answers {
  exits: number[];
  labels: number[];
  logits: number[][];
}

/** How a folder's images are to be classified. */
interface Run {
  folder: string;
  images: string;
  count: number;
  beta?: number;
  maxExit?: number;
  oneFile?: boolean;
}

const server = new Server();
let address: string;
let browser: Browser;
let page: Page;

before(async () => {
  address = await server.start();
  server.others.set('/blank.html', Buffer.from(PAGE));
  browser = await startChromium();
  page = await newPage();
  await page.evaluate(async () => {
    window.liteRt = await window.runtime.loadLiteRt('/litert.wasm.gz');
  });
}, {timeout: TIMEOUT});

after(async () => {
  await browser.close();
  server.stop();
});

async function newPage(): Promise<Page> {
  const opened = await browser.newPage();
  opened.setDefaultTimeout(TIMEOUT);
  await opened.goto(`${address}/blank.html`);
  await opened.waitForFunction(() => 'runtime' in window);
  return opened;
}

/** What the page's runtime answers. */
function answered(run: Run): Promise<Answers> {
  return page.evaluate(async ({folder, images, count, beta, maxExit, oneFile}) => {
    const {EarlyExitClassifier, OneFileClassifier, fetched, filesAt} = window.runtime;
    const kind = oneFile ? OneFileClassifier : EarlyExitClassifier;
    const classifier = await kind.open(window.liteRt, filesAt(`/repository/${folder}/`));
    const pixels = (await fetched(`/repository/${images}`))!;
    const {height, width, channels} = classifier.manifest.input;
    const size = height * width * channels;
    const answers: Answers = {exits: [], labels: [], logits: []};
    const options = {...beta && {beta}, ...maxExit && {maxExit}};
    for (let i = 0; i < count; i++) {
      const answer = classifier.classify(pixels.subarray(i * size, (i + 1) * size), options);
      answers.exits.push(answer.exit);
      answers.labels.push(answer.label);
      answers.logits.push([...answer.logits]);
    }
    classifier.close();
    return answers;
  }, run);
}

/** Fails where exit or label differ, or logits by more than rounding; returns how far. */
function compare(found: Answers, expected: Answers): number {
  const count = found.exits.length;
  assert.deepEqual(found.exits, expected.exits.slice(0, count));
  assert.deepEqual(found.labels, expected.labels.slice(0, count));
  const far = Math.max(...found.logits.flatMap(
      (row, i) => row.map((logit, k) => Math.abs(logit - expected.logits[i]![k]!))));
  assert.ok(far <= TOLERANCE, `logits differ by ${far}`);
  return far;
}

/** A folder with answers for several beta, without and with `max_exit`. */
async function compareAll(folder: string, oneFile = false): Promise<string> {
  const all = JSON.parse(readFileSync(join(ROOT, folder, 'answers.json'), 'utf8'));
  const images = `${folder}/images.bin`;
  let far = 0;
  let count = 0;
  for (const [k, beta] of (all.betas as number[]).entries()) {
    for (const [answers, limit] of [[all, {}], [all.limited, {maxExit: all.max_exit}]]) {
      const expected = {
        exits: answers.exits[k], labels: answers.labels[k], logits: answers.logits[k],
      };
      count = expected.exits.length;
      const run = {folder, images, count, beta, oneFile, ...limit};
      far = Math.max(far, compare(await answered(run), expected));
    }
  }
  return `${count} images at ${all.betas.length} beta, logits within ${far.toExponential(1)}`;
}

for (const name of ['maxmin-int8', 'maxmin-float32', 'cifar10-int8']) {
  test(`as Python: ${name}`, {timeout: TIMEOUT}, async context => {
    context.diagnostic(await compareAll(`web_demo/build/answers/${name}`));
  });
}

for (const oneFile of [false, true]) {
  const kind = oneFile ? 'in one file' : 'in segments';
  test(`as Python, small, ${kind}`, {timeout: TIMEOUT}, async context => {
    context.diagnostic(await compareAll(SMALL, oneFile));
  });
}

for (const [collection, folder] of [['digits', APP], ['photos', `${APP}/photos`]] as const) {
  test(`as Python: the app's ${collection}, with a beta of their own`, {timeout: TIMEOUT}, async context => {
    const read = (file: string) => readFileSync(join(ROOT, folder, file), 'utf8');
    const images = `${folder}/test_images/images.bin`;
    const count = Math.min(100, JSON.parse(read('test_images/images.json')).count);
    for (const name of read('bundles/names.txt').trim().split('\n')) {
      const expected = JSON.parse(read(`answers/${name}.json`));
      const run = {folder: `${folder}/bundles/${name}`, images, count};
      const far = compare(await answered(run), expected);
      context.diagnostic(`${name}: logits within ${far.toExponential(1)}`);
      const {model} = JSON.parse(read(`bundles/${name}/epnet.json`));
      if (model) compare(await answered({...run, oneFile: true}), expected);
    }
  });
}

test('what is behind an exit is not opened', {timeout: TIMEOUT}, async () => {
  const seen = await page.evaluate(async folder => {
    const {EarlyExitClassifier, filesAt} = window.runtime;
    const files = filesAt(`/repository/${folder}/`);
    const classifier = await EarlyExitClassifier.open(window.liteRt, files);
    const image = new Uint8Array(24 * 24);
    const before = classifier.opened;
    const answer = classifier.classify(image, {beta: 1e-6, maxExit: 1});
    const {exit, forced, macs, passed} = answer;
    const between = classifier.opened;
    const free = classifier.classify(image, {beta: 1e-6});
    const freelyOpened = classifier.opened;
    const all = classifier.classify(image, {beta: 1e-6, minExit: 3});
    const probabilities = [...passed[0]!.probabilities];
    return {
      before, between, exit, forced, macs,
      exits: passed.map(one => one.exit),
      freely: {opened: freelyOpened, exit: free.exit, forced: free.forced},
      all: {exit: all.exit, forced: all.forced, passed: all.passed.length},
      sum: probabilities.reduce((sum, p) => sum + p, 0),
      sure: answer.confidence === Math.max(...probabilities),
    };
  }, SMALL);
  const {sum, ...others} = seen;
  assert.ok(Math.abs(sum - 1) < 1e-6);
  assert.deepEqual(others, {
    before: 0, between: 1, exit: 1, forced: true, macs: 10392, exits: [1], sure: true,
    freely: {opened: 2, exit: 2, forced: false},
    all: {exit: 3, forced: false, passed: 3},
  });
});

/** The sentence of opening `folder` and classifying an empty image. */
function sentence(options: object = {}, oneFile = false): Promise<string> {
  return page.evaluate(async ({options, oneFile}) => {
    const {EarlyExitClassifier, OneFileClassifier, EarlyExitError, filesAt} =
        window.runtime;
    try {
      const kind = oneFile ? OneFileClassifier : EarlyExitClassifier;
      const classifier = await kind.open(window.liteRt, filesAt('/bundle/'));
      classifier.classify(new Uint8Array(24 * 24), {beta: 1e-6, ...options});
      return 'no error';
    } catch (error) {
      return error instanceof EarlyExitError ? error.message : `another error: ${error}`;
    }
  }, {options, oneFile});
}

const SMALL_FILES = [
  'epnet.json', 'epnet.json.sha256', 'model.tflite', 'segment_01.tflite',
  'segment_02.tflite', 'segment_03.tflite',
];

/** Serves the small bundle at /bundle/, as it is. */
function serveSmall(): Map<string, Buffer> {
  const files = new Map(
      SMALL_FILES.map(file => [file, readFileSync(join(ROOT, SMALL, file))] as const));
  for (const [file, content] of files) server.others.set(`/bundle/${file}`, content);
  return files;
}

/** Serves the small bundle with a changed manifest and without a checksum of it. */
function serveChanged(change: (json: any) => void): void {
  const json = JSON.parse(serveSmall().get('epnet.json')!.toString());
  change(json);
  server.others.set('/bundle/epnet.json', Buffer.from(JSON.stringify(json)));
  server.others.set('/bundle/epnet.json.sha256', null);
}

test('a good bundle', async () => {
  serveSmall();
  assert.equal(await sentence(), 'no error');
  assert.equal(await sentence({}, true), 'no error');
});

test('damaged and missing files', async () => {
  const segment = serveSmall().get('segment_02.tflite')!;
  const place = '/bundle/segment_02.tflite';
  const altered = Buffer.from(segment);
  altered[500]! ^= 1;
  server.others.set(place, altered);
  assert.match(
      await sentence(), /^\/bundle\/segment_02\.tflite: found sha256 \w{64}, expected \w{64}\.$/);
  server.others.set(place, segment.subarray(0, 100));
  assert.equal(await sentence(), `${place}: found 100 bytes, expected ${segment.length}.`);
  server.others.set(place, null);
  assert.equal(await sentence(), `${place}: found no file, expected ${segment.length} bytes.`);
  server.others.set('/bundle/epnet.json', null);
  assert.equal(await sentence(), '/bundle/epnet.json: found no file, expected a manifest.');
});

test('the checksum of the manifest is checked where there is one', async () => {
  const manifest = serveSmall().get('epnet.json')!;
  server.others.set('/bundle/epnet.json', Buffer.concat([manifest, Buffer.from('\n')]));
  assert.match(
      await sentence(),
      /^\/bundle\/epnet\.json: found sha256 \w{64}, expected "\w{64}  epnet\.json" of /);
});

test('a file that is no model, with its own checksum', async () => {
  const content = Buffer.from(Uint8Array.from({length: 4000}, (_, i) => i));
  serveChanged(({segments: [first]}) => {
    first.bytes = content.length;
    first.sha256 = createHash('sha256').update(content).digest('hex');
  });
  server.others.set('/bundle/segment_01.tflite', content);
  assert.match(
      await sentence(),
      /^\/bundle\/segment_01\.tflite: found a model that LiteRT cannot open \(.+\), expected a/);
});

test('segments that are not as the manifest says', async () => {
  const file = '/bundle/segment_01.tflite';
  serveChanged(json => json.labels = ['a', 'b']);
  assert.equal(
      await sentence(),
      `${file}, output logits_01: found FLOAT32 [1, 10], expected FLOAT32 [1, 2].`);
  serveChanged(json => json.input.shape = [1, 12, 48, 1]);
  assert.equal(
      await sentence(),
      `${file}, input image: found FLOAT32 [1, 24, 24, 1], ` +
          'expected FLOAT32 [1, 12, 48, 1] of epnet.json.');
  serveChanged(json => json.segments[0].outputs.push('more'));
  assert.match(await sentence(), /segment_01\.tflite, outputs: found \[features_01_1, /);
  serveChanged(json => delete json.model);
  assert.equal(
      await sentence({}, true),
      '/bundle/epnet.json, model: found nothing, expected the model in one file.');
});

test('arguments', async () => {
  serveSmall();
  const range = 'expected 0.000001 to 0.001.';
  assert.equal(await sentence({beta: undefined}), `beta: found none, ${range}`);
  assert.equal(await sentence({beta: 1}), `beta: found 1, ${range}`);
  assert.equal(await sentence({beta: NaN}), `beta: found NaN, ${range}`);
  assert.equal(await sentence({maxExit: 4}), 'maxExit: found 4, expected one of 1..3.');
  assert.equal(await sentence({minExit: 0}), 'minExit: found 0, expected one of 1..3.');
  assert.equal(
      await sentence({minExit: 3, maxExit: 2}), 'minExit: found 3, expected one of 1..2.');
  serveChanged(({policy}) => {
    delete policy.beta_range;
    policy.beta = 2;
  });
  assert.match(await sentence(), /inputs of segment_01\.tflite: found beta, expected tensors/);
});

test('an image of another size, and a closed classifier', async () => {
  const sentences = await page.evaluate(async folder => {
    const {EarlyExitClassifier, filesAt} = window.runtime;
    const files = filesAt(`/repository/${folder}/`);
    const classifier = await EarlyExitClassifier.open(window.liteRt, files);
    const said = (size: number) => {
      try {
        classifier.classify(new Uint8Array(size), {beta: 1e-6});
        return 'no error';
      } catch (error) {
        return (error as Error).message;
      }
    };
    const [small, right] = [said(10), said(24 * 24)];
    classifier.close();
    return [small, right, said(24 * 24)];
  }, SMALL);
  assert.deepEqual(sentences, [
    'image, bytes: found 10, expected 576 (24 x 24 x 1).', 'no error',
    'classifier: found a closed one, expected an open one.',
  ]);
});

/** The sentence of loading LiteRT in a page of its own, after `change`. */
async function loading(change: () => void): Promise<string> {
  const other = await newPage();
  await other.evaluate(change);
  const message = await other.evaluate(
      () => window.runtime.loadLiteRt('/litert.wasm.gz')
                .then(() => 'no error', (error: Error) => error.message));
  await other.close();
  return message;
}

test('a browser without what LiteRT needs', async () => {
  const expected =
      'This browser: found no WebAssembly with SIMD, expected a browser of 2023 or later.';
  assert.equal(await loading(() => WebAssembly.validate = () => false), expected);
  assert.equal(await loading(() => delete (window as any).WebAssembly), expected);
});

test('WebAssembly that is damaged or missing', async () => {
  server.others.set('/litert.wasm.gz', Buffer.from('\0asm nonsense'));
  assert.match(await loading(() => {}), /^LiteRT's WebAssembly: found a file that does not/);
  server.others.set('/litert.wasm.gz', null);
  assert.equal(
      await loading(() => {}),
      '/litert.wasm.gz: found no file, expected LiteRT\'s WebAssembly.');
  server.others.delete('/litert.wasm.gz');
  assert.equal(await loading(() => {}), 'no error');
});

test('picture files look as in Python', async () => {
  const seen = JSON.parse(readFileSync(join(ROOT, PICTURES, 'pictures.json'), 'utf8'));
  const found = await page.evaluate(async ({folder, entries}) => {
    const {convertPixels, fetched, readPicture} = window.runtime;
    return Promise.all(entries.map(async ({file, shape, crop}) => {
      const content = (await fetched(`/repository/${folder}/${file}`))!;
      const picture = await readPicture(new Blob([content as BlobPart]), file);
      const [height, width, channels] = shape as [number, number, number];
      return [...convertPixels(picture, {height, width, channels, crops: crop ?? false})];
    }));
  }, {folder: PICTURES, entries: seen as {file: string, shape: number[], crop?: boolean}[]});
  const wrong = [];
  for (const [i, {file, shape, pixels}] of seen.entries()) {
    const expected = Buffer.from(pixels, 'base64');
    assert.equal(found[i]!.length, expected.length);
    const off = Math.max(...found[i]!.map((value, k) => Math.abs(value - expected[k]!)));
    // Decoders of JPEG round in their own ways; colours under transparency are kept
    // multiplied by it.
    const allowed = file.endsWith('.jpg') ? 3 : file.includes('transparent') ? 1 : 0;
    if (off > allowed) wrong.push(`${file} as ${shape}: off by ${off}, at most ${allowed}`);
  }
  assert.deepEqual(wrong, []);
});

test('a file that is no picture', async () => {
  const message = await page.evaluate(
      () => window.runtime.readPicture(new Blob(['no picture']), 'x.png')
                .then(() => 'no error', (error: Error) => error.message));
  assert.equal(message, 'x.png: found no picture that this browser can read, expected an image file.');
});

test('the code of docs/browser.md', {timeout: TIMEOUT}, async () => {
  const text = readFileSync(join(ROOT, 'docs', 'browser.md'), 'utf8');
  const [, code] = /```js\n(.*?)```/s.exec(text)!;
  const end = 'document.title = "done";';
  const html = `<!doctype html><title>Docs</title><script type="module">${code}${end}</script>`;
  server.others.set('/docs.html', Buffer.from(html));
  server.others.set('/photo.jpg', readFileSync(join(ROOT, PICTURES, 'colours.jpg')));
  const shown = await browser.newPage();
  const lines: string[] = [];
  shown.on('console', message => lines.push(message.text()));
  await shown.goto(`${address}/docs.html`);
  const failed = shown.waitForEvent('pageerror', {timeout: TIMEOUT}).then(error => {
    throw error;
  });
  const done = shown.waitForFunction(
      () => document.title === 'done', null, {timeout: TIMEOUT});
  await Promise.race([done, failed]);
  failed.catch(() => {});
  await shown.close();
  const [first, ...exits] = lines.filter(line => !line.startsWith('Failed to load'));
  assert.match(first!, /^\d [\d.]+ \d+$/);
  assert.ok(exits.length > 0);
  for (const line of exits) assert.match(line, /^exit \d+: \d, [\d.]+ sure, [\d.]+ ms$/);
});
