/** All that takes time, apart from the page, which stays free to move. */

import {type Answer, convertPixels, EarlyExitClassifier, EarlyExitError, filesAt, type LiteRt, loadLiteRt, type Picture, readPicture, unpacked} from './runtime.js';
import type {Evaluation, Example, Opened, Passed, Question, Reply, Requests, Score, Source, Way} from './messages.js';

/** What images.json says of the test images. */
interface TestImages {
  readonly labels: readonly number[];
  readonly difficulties: readonly string[];
  readonly difficulty: readonly number[];
  readonly examples: readonly number[];
}

/** A bundle, the plain network without early exits, and test images. */
interface Model {
  readonly early: EarlyExitClassifier;
  readonly whole: EarlyExitClassifier;
  readonly images: TestImages;
  readonly pixels: Uint8Array;
}

/** A picture is run for so many milliseconds, or so often, to be timed. */
const TIMED_MS = 40;
const TIMED_RUNS = 20;
/** Test images between two reports of how far it is. */
const STEP = 10;

let liteRt: Promise<LiteRt>|null = null;
let model: Model|null = null;

function tell(reply: Reply): void {
  postMessage(reply);
}

/** Sums up what has come of several files. */
function loadingReporter(): (file: string, received: number, total: number|null) => void {
  const files = new Map<string, [number, number|null]>();
  return (file, received, total) => {
    files.set(file, [received, total]);
    const sizes = [...files.values()];
    const done = sizes.reduce((sum, [size]) => sum + size, 0);
    const known = sizes.every(([, size]) => size !== null);
    const all = known ? sizes.reduce((sum, [, size]) => sum + size!, 0) : null;
    tell({done, all, of: 'bytes'});
  };
}

async function open(name: string): Promise<Opened> {
  const progress = loadingReporter();
  liteRt ??= loadLiteRt(new URL('litert.wasm.gz', location.href).href, progress);
  // The next attempt begins anew.
  liteRt.catch(() => liteRt = null);
  const folder = new URL(`bundles/${name}/`, location.href).href;
  const files = filesAt(folder, progress);
  const read = async (file: string) => {
    const content = await files.read(file);
    if (content !== null) return content;
    const where = files.describe(file);
    throw new EarlyExitError(`${where}: found no file, expected test images.`);
  };
  const [early, whole, described, packed] = await Promise.all([
    EarlyExitClassifier.open(await liteRt, files),
    EarlyExitClassifier.open(await liteRt, filesAt(`${folder}network/`, progress)),
    read('images.json'),
    read('images.bin.gz'),
  ]);
  model?.early.close();
  model?.whole.close();
  const images = JSON.parse(new TextDecoder().decode(described)) as TestImages;
  model = {early, whole, images, pixels: await unpacked(packed)};
  return openedOf(model);
}

function openedOf(model: Model): Opened {
  const {input, policy, exits, fullMacs, costUnit, quantization, labels} =
      model.early.manifest;
  const {height, width, channels, crops} = input;
  const {images} = model;
  const examples = images.examples.map((index): Example => ({
    index,
    label: labels[images.labels[index]!]!,
    difficulty: images.difficulties[images.difficulty[index]!] ?? '',
    pixels: testImage(model, index),
  }));
  return {
    height, width, channels, crops, quantization, exits, fullMacs, costUnit,
    beta: policy.betaRange ?? policy.beta!,
    testImages: images.labels.length,
    examples,
  };
}

/** Raw pixels of a test image. */
function testImage({early, pixels}: Model, index: number): Uint8Array {
  const {height, width, channels} = early.manifest.input;
  const size = height * width * channels;
  return pixels.subarray(index * size, (index + 1) * size);
}

function ready(): Model {
  if (model === null) throw new EarlyExitError('Model: found none, expected an open one.');
  return model;
}

async function classify(source: Source, beta?: number): Promise<Way> {
  const {early, whole} = ready();
  const image: Uint8Array|Picture = typeof source === 'number' ? testImage(ready(), source) :
      source instanceof Blob ? await readPicture(source, nameOf(source)) : source;
  const pixels =
      image instanceof Uint8Array ? image : convertPixels(image, early.manifest.input);
  const options = beta === undefined ? {} : {beta};
  const answers = timed(() => early.classify(pixels, options));
  const others = timed(() => whole.classify(pixels));
  const {labels} = early.manifest;
  return {
    passed: passedOf(answers, labels),
    whole: passedOf(others, labels).at(-1)!,
  };
}

function nameOf(file: Blob): string {
  return file instanceof File ? file.name : 'picture';
}

/**
 * Answers for one image, again and again: the faster half. Nothing else got in their way,
 * and a mean is finer than the browser's clock. The first opens segments and does not count.
 */
function timed(classify: () => Answer): Answer[] {
  classify();
  const start = performance.now();
  const answers: Answer[] = [];
  do {
    answers.push(classify());
  } while (performance.now() - start < TIMED_MS && answers.length < TIMED_RUNS);
  answers.sort((one, other) => one.ms - other.ms);
  return answers.slice(0, Math.ceil(answers.length / 2));
}

/** The exits of one image, with the means of the times. */
function passedOf(answers: readonly Answer[], labels: readonly string[]): Passed[] {
  let ms = 0;
  return answers[0]!.passed.map((exit, k) => {
    const times = answers.map(answer => answer.passed[k]!.ms);
    ms += times.reduce((sum, time) => sum + time, 0) / times.length;
    const {label, confidence, macs} = exit;
    return {exit: exit.exit, label: labels[label]!, confidence, macs, ms};
  });
}

/** Early exit and the whole network in turn, image by image. */
function evaluate(beta?: number): Evaluation {
  const model = ready();
  const options = beta === undefined ? {} : {beta};
  const {labels} = model.images;
  const early: Answer[] = [];
  const whole: Answer[] = [];
  for (const [index] of labels.entries()) {
    if (index % STEP === 0) tell({done: index, all: labels.length, of: 'images'});
    const pixels = testImage(model, index);
    early.push(model.early.classify(pixels, options));
    whole.push(model.whole.classify(pixels));
  }
  const {exits} = model.early.manifest;
  return {
    images: labels.length,
    early: score(early, labels),
    whole: score(whole, labels),
    histogram: exits.map(exit => early.filter(answer => answer.exit === exit).length),
  };
}

function score(answers: readonly Answer[], labels: readonly number[]): Score {
  const mean = (values: readonly number[]) =>
      values.reduce((sum, value) => sum + value, 0) / values.length;
  return {
    accuracy: mean(answers.map((answer, i) => Number(answer.label === labels[i]))),
    meanMacs: mean(answers.map(answer => answer.macs)),
    meanMs: mean(answers.map(answer => answer.ms)),
  };
}

const requests: {[Name in keyof Requests]: (...given: Parameters<Requests[Name]>) =>
    ReturnType<Requests[Name]>|Promise<ReturnType<Requests[Name]>>} =
    {open, classify, evaluate};

addEventListener('message', async ({data}: MessageEvent<Question>) => {
  const {id, name, given} = data;
  try {
    const answer = requests[name] as (...given: unknown[]) => unknown;
    tell({id, value: await answer(...given)});
  } catch (error) {
    tell({id, message: (error as Error).message});
  }
});
