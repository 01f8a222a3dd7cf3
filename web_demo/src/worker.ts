/** All that takes time, apart from the page, which stays free to move. */

import {type Answer, type BundleFiles, convertPixels, EarlyExitClassifier, EarlyExitError, filesAt, type LiteRt, loadLiteRt, type Options, type Picture, readPicture, unpacked} from './runtime.js';
import type {Evaluation, Example, Opened, Passed, Question, Reply, Requests, Score, Source, Way} from './messages.js';

/** What images.json says of the test images. */
interface TestImages {
  readonly labels: readonly number[];
  readonly difficulties: readonly string[];
  readonly difficulty: readonly number[];
  readonly examples: readonly number[];
}

/** A bundle, the plain network without early exits or null, and test images. */
interface Model {
  readonly early: EarlyExitClassifier;
  readonly network: EarlyExitClassifier|null;
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

async function open(name: string, hasNetwork: boolean): Promise<Opened> {
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
  const classifier = async (files: BundleFiles) =>
      EarlyExitClassifier.open(await liteRt!, files);
  const [early, network, described, packed] = await Promise.all([
    classifier(files),
    hasNetwork ? classifier(filesAt(`${folder}network/`, progress)) : null,
    read('images.json'),
    read('images.bin.gz'),
  ]);
  model?.early.close();
  model?.network?.close();
  const images = JSON.parse(new TextDecoder().decode(described)) as TestImages;
  model = {early, network, images, pixels: await unpacked(packed)};
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
    confidence: policy.confidence,
    hasNetwork: model.network !== null,
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

/** Classifies without early exit. */
function classifyWhole({early, network}: Model, pixels: Uint8Array, options: Options): Answer {
  if (network) return network.classify(pixels);
  return early.classify(pixels, {...options, minExit: early.manifest.exits.at(-1)!});
}

async function classify(source: Source, beta?: number): Promise<Way> {
  const model = ready();
  const {early} = model;
  const image: Uint8Array|Picture = typeof source === 'number' ? testImage(model, source) :
      source instanceof Blob ? await readPicture(source, nameOf(source)) : source;
  const pixels =
      image instanceof Uint8Array ? image : convertPixels(image, early.manifest.input);
  const options = beta === undefined ? {} : {beta};
  const answers = timed(() => early.classify(pixels, options));
  const others = timed(() => classifyWhole(model, pixels, options));
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

/** With and without early exit in turn, image by image. */
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
    whole.push(classifyWhole(model, pixels, options));
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
