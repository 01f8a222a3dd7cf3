/**
 * Runs EPNet bundles in a browser, and stops where their policy says so.
 *
 *     import {EarlyExitClassifier, filesAt, loadLiteRt} from './runtime.js';
 *
 *     const liteRt = await loadLiteRt('./litert.wasm.gz');
 *     const classifier = await EarlyExitClassifier.open(liteRt, filesAt('./bundles/maxmin/'));
 *     const answer = classifier.classify(pixels, {beta: 4e-7});
 *     console.log(classifier.manifest.labels[answer.label], answer.exit, answer.macs);
 *
 * Works in a page and in a worker of type `module`. Every fault is an `EarlyExitError` with
 * one sentence: file, found, expected.
 */

import {EarlyExitError, fault} from './fault.js';
import {described, LiteRt, type Model, type Signature, type Tensor, type TensorInfo, unpacked} from './litert.js';
import {BETA_NAME, logitsName, type FileSpec, type InputSpec, type Manifest, MANIFEST_FILE, noSegments, readManifest, type SegmentSpec, stopName} from './manifest.js';
import {convertPixels, type Picture, storedPixels} from './pixels.js';
import {sha256} from './sha256.js';

export {convertPixels, EarlyExitError, LiteRt, readManifest, unpacked};
export {readPicture} from './pictures.js';
export type {InputSpec, Manifest, Picture, SegmentSpec};
export type {ModelSpec, Policy, PolicyType} from './manifest.js';

/** Where a bundle's files are. */
export interface BundleFiles {
  /** Full name of a file, for messages. */
  describe(file: string): string;
  /** The whole of a file, or null where there is no such file. */
  read(file: string): Promise<Uint8Array|null>;
}

/** Called while a file comes, with the bytes so far and, where the server says, of all. */
export type Progress = (file: string, received: number, total: number|null) => void;

/** The files at a URL that ends with a slash. */
export function filesAt(url: string, progress?: Progress): BundleFiles {
  const describe = (file: string) => `${url}${file}`;
  return {describe, read: file => fetched(describe(file), progress)};
}

/** Loads and starts LiteRT from the URL of its WebAssembly; see `LiteRt.start`. */
export async function loadLiteRt(url: string, progress?: Progress): Promise<LiteRt> {
  const content = await fetched(url, progress);
  if (content === null) throw fault(url, 'no file', 'LiteRT\'s WebAssembly');
  return LiteRt.start(content);
}

/** The content at a URL; null where the server says that there is none. */
export async function fetched(url: string, progress?: Progress): Promise<Uint8Array|null> {
  try {
    const response = await fetch(url);
    if (response.status === 404) return null;
    if (!response.ok) throw new Error(`status ${response.status}`);
    return await received(url, response, progress);
  } catch (error) {
    const found = `a file that cannot be read (${(error as Error).message})`;
    throw fault(url, found, 'a readable file');
  }
}

async function received(
    url: string, response: Response, progress?: Progress): Promise<Uint8Array> {
  if (!response.body || !progress) return new Uint8Array(await response.arrayBuffer());
  const length = response.headers.get('Content-Length');
  const parts: Uint8Array[] = [];
  let size = 0;
  for (const reader = response.body.getReader();;) {
    const {done, value} = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    progress(url, size, length === null ? null : Number(length));
  }
  return new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
}

/** How one image is classified. */
export interface Options {
  /** Cost sensitivity per unit of cost, for a bundle with a `betaRange` and only for one. */
  readonly beta?: number;
  /** The exit that answers at the latest, to keep a deadline. */
  readonly maxExit?: number;
}

/** How one image is classified segment by segment. */
export interface SegmentOptions extends Options {
  /** The exit that answers at the earliest; the last one, to run them all. */
  readonly minExit?: number;
}

/** What one exit said on the way. */
export class ExitAnswer {
  private cached: Float32Array|null = null;

  constructor(
      /** Counted from 1. */
      readonly exit: number,
      readonly logits: Float32Array,
      /** Above the policy's threshold it stops; NaN at the last exit. */
      readonly stopLogit: number,
      /** Multiply-adds spent up to and with this exit. */
      readonly macs: number,
      /** What leaving here costs, in the manifest's `costUnit`. */
      readonly cost: number,
      /** Milliseconds of this segment; browsers round them. */
      readonly ms: number) {}

  /** Index of the class in the manifest's labels. */
  get label(): number {
    return this.logits.indexOf(Math.max(...this.logits));
  }

  get probabilities(): Float32Array {
    return this.cached ??= softmax(this.logits);
  }

  /** Probability of `label`. */
  get confidence(): number {
    return this.probabilities[this.label]!;
  }
}

/** What the model answered for one image. */
export class Answer {
  constructor(
      /** Every exit that was evaluated, in order; the last one is the answer. */
      readonly passed: readonly ExitAnswer[],
      /** Whether `maxExit` ended it rather than the policy or the last exit. */
      readonly forced: boolean) {}

  private get final(): ExitAnswer {
    return this.passed.at(-1)!;
  }

  /** Index of the class in the manifest's labels. */
  get label(): number {
    return this.final.label;
  }
  get logits(): Float32Array {
    return this.final.logits;
  }
  get confidence(): number {
    return this.final.confidence;
  }
  /** The exit that answered, counted from 1. */
  get exit(): number {
    return this.final.exit;
  }
  /** Multiply-adds spent. */
  get macs(): number {
    return this.final.macs;
  }
  /** Milliseconds of all segments that ran. */
  get ms(): number {
    return this.passed.reduce((sum, exit) => sum + exit.ms, 0);
  }
}

/** Opens and checks the manifest of a bundle. */
export async function openManifest(files: BundleFiles): Promise<Manifest> {
  const where = files.describe(MANIFEST_FILE);
  const content = await files.read(MANIFEST_FILE);
  if (content === null) throw fault(where, 'no file', 'a manifest');
  await checkChecksum(files, content);
  return readManifest(new TextDecoder().decode(content), where);
}

/** A bundle may bring `epnet.json.sha256`, as `sha256sum` writes it; then it must be right. */
async function checkChecksum(files: BundleFiles, manifest: Uint8Array): Promise<void> {
  const name = `${MANIFEST_FILE}.sha256`;
  const content = await files.read(name);
  if (content === null) return;
  const line = new TextDecoder().decode(content);
  const found = sha256(manifest);
  if (line !== `${found}  ${MANIFEST_FILE}\n`) {
    const where = files.describe(MANIFEST_FILE);
    throw fault(where, `sha256 ${found}`, `"${line.trim()}" of ${name}`);
  }
}

/** A .tflite of a bundle, which is the one that the manifest speaks of. */
async function readModel(files: BundleFiles, spec: FileSpec): Promise<Uint8Array> {
  const where = files.describe(spec.file);
  const content = await files.read(spec.file);
  if (content === null) throw fault(where, 'no file', `${spec.bytes} bytes`);
  if (content.length !== spec.bytes) {
    throw fault(where, `${content.length} bytes`, spec.bytes);
  }
  const found = sha256(content);
  if (found !== spec.sha256) throw fault(where, `sha256 ${found}`, spec.sha256);
  return content;
}

/**
 * Classifies images with a bundle of segments, one after another, and stops where the
 * bundle's policy says so. A segment is opened when the first image reaches it.
 */
export class EarlyExitClassifier {
  private readonly segments: Segment[] = [];
  private readonly inputs: Inputs;
  private closed = false;

  private constructor(
      /** What the bundle says about itself. */
      readonly manifest: Manifest, private readonly liteRt: LiteRt,
      private readonly files: BundleFiles, private readonly models: readonly Uint8Array[]) {
    this.inputs = new Inputs(liteRt, manifest.input);
  }

  /** Opens and checks a bundle: manifest, segments, their sha256. */
  static async open(liteRt: LiteRt, files: BundleFiles): Promise<EarlyExitClassifier> {
    const manifest = await openManifest(files);
    if (manifest.segments.length === 0) throw noSegments(files.describe(MANIFEST_FILE));
    const models =
        await Promise.all(manifest.segments.map(spec => readModel(files, spec)));
    return new EarlyExitClassifier(manifest, liteRt, files, models);
  }

  /** The number of segments opened so far. */
  get opened(): number {
    return this.segments.length;
  }

  /**
   * Classifies one image.
   *
   * @param image raw pixel values 0-255, rows from the top, channels last; or a picture of
   *     any size, see `convertPixels`.
   */
  classify(image: Uint8Array|Picture, options: SegmentOptions = {}): Answer {
    if (this.closed) throw fault('classifier', 'a closed one', 'an open one');
    checkOptions(this.manifest, options);
    this.inputs.set(image, options.beta);
    const live = new Map<string, Tensor>();
    try {
      return this.run(options.minExit ?? 0, options.maxExit ?? Infinity, live);
    } finally {
      for (const tensor of live.values()) tensor.delete();
    }
  }

  /** Gives back the memory. The classifier cannot be used afterwards. */
  close(): void {
    this.closed = true;
    this.inputs.close();
    for (const segment of this.segments) segment.close();
    this.segments.length = 0;
  }

  private run(minExit: number, maxExit: number, live: Map<string, Tensor>): Answer {
    const {segments, policy, costs} = this.manifest;
    const passed: ExitAnswer[] = [];
    for (const [index, cost] of costs.entries()) {
      const exit = this.segment(index).run(this.inputs, live, cost);
      passed.push(exit);
      if (exit.stopLogit > policy.threshold && exit.exit >= minExit) break;
      const next = segments[index + 1];
      if (next && next.exit > maxExit) return new Answer(passed, true);
    }
    return new Answer(passed, false);
  }

  private segment(index: number): Segment {
    if (index === this.segments.length) this.segments.push(this.openSegment(index));
    return this.segments[index]!;
  }

  private openSegment(index: number): Segment {
    const spec = this.manifest.segments[index]!;
    const where = this.files.describe(spec.file);
    const model = this.liteRt.open(this.models[index]!, where);
    try {
      return new Segment(
          this.liteRt, where, model, spec, this.manifest, this.segments);
    } catch (error) {
      model.close();
      throw error;
    }
  }
}

/** A tensor that a segment may read, and who makes it. */
interface Made extends TensorInfo {
  readonly maker: string;
}

/** One open segment; its tensors are bound by the names in its signature. */
class Segment {
  /** What it makes. */
  readonly made: readonly Made[];
  private readonly signature: Signature;
  private readonly logits: number;
  /** -1 at the last exit, which has no say. */
  private readonly stop: number;

  /** @param earlier the segments before. */
  constructor(
      private readonly liteRt: LiteRt, where: string, private readonly model: Model,
      private readonly spec: SegmentSpec, manifest: Manifest, earlier: readonly Segment[]) {
    const [signature, ...others] = model.signatures.values();
    if (!signature || others.length > 0) {
      throw fault(where, `${model.signatures.size} signatures`, 'one');
    }
    this.signature = signature;
    checkNames(`${where}, inputs`, signature.inputs, spec.inputs);
    checkNames(`${where}, outputs`, signature.outputs, spec.outputs);
    const known = [...givenTensors(manifest), ...earlier.flatMap(segment => segment.made)];
    for (const input of signature.inputs) checkInput(where, input, known);
    this.made = signature.outputs.map(output => ({...output, maker: where}));
    this.logits =
        headPlace(where, signature, logitsName(spec.exit), manifest.labels.length);
    const last = spec === manifest.segments.at(-1);
    this.stop = last ? -1 : headPlace(where, signature, stopName(spec.exit), 1);
  }

  /** Runs on the inputs and on what earlier segments made, and adds what it makes. */
  run(inputs: Inputs, live: Map<string, Tensor>, cost: number): ExitAnswer {
    const start = performance.now();
    const outputs = this.signature.run(this.signature.inputs.map(
        ({name}) => live.get(name) ?? inputs.tensor(name, this.signature)));
    this.signature.outputs.forEach(({name}, i) => live.set(name, outputs[i]!));
    const logits = this.floats(outputs[this.logits]!);
    const [stopLogit = NaN] = this.stop < 0 ? [] : this.floats(outputs[this.stop]!);
    const ms = performance.now() - start;
    const {exit, cumulativeMacs} = this.spec;
    return new ExitAnswer(exit, logits, stopLogit, cumulativeMacs, cost, ms);
  }

  close(): void {
    this.model.close();
  }

  private floats(tensor: Tensor): Float32Array {
    return new Float32Array(this.liteRt.read(tensor));
  }
}

/**
 * Classifies images with the bundle's model in one file, which stops by itself: the same
 * answers as `EarlyExitClassifier`'s, by one call of LiteRT. What the exits before said
 * stays in the model.
 */
export class OneFileClassifier {
  private readonly inputs: Inputs;
  private closed = false;

  private constructor(
      /** What the bundle says about itself. */
      readonly manifest: Manifest, private readonly liteRt: LiteRt,
      private readonly where: string, private readonly model: Model) {
    this.inputs = new Inputs(liteRt, manifest.input);
    const names = givenTensors(manifest).map(({name}) => name);
    const signature = this.signature(NO_LIMIT);
    checkNames(`${where}, inputs`, signature.inputs, names);
    for (const input of signature.inputs) checkInput(where, input, givenTensors(manifest));
    headPlace(where, signature, 'logits', manifest.labels.length);
  }

  /** Opens and checks a bundle: manifest, model, its sha256. */
  static async open(liteRt: LiteRt, files: BundleFiles): Promise<OneFileClassifier> {
    const manifest = await openManifest(files);
    if (manifest.model === null) {
      const where = `${files.describe(MANIFEST_FILE)}, model`;
      throw fault(where, 'nothing', 'the model in one file');
    }
    const where = files.describe(manifest.model.file);
    const model = liteRt.open(await readModel(files, manifest.model), where);
    try {
      return new OneFileClassifier(manifest, liteRt, where, model);
    } catch (error) {
      model.close();
      throw error;
    }
  }

  /** Classifies one image; see `EarlyExitClassifier.classify`. */
  classify(image: Uint8Array|Picture, options: Options = {}): ExitAnswer {
    if (this.closed) throw fault('classifier', 'a closed one', 'an open one');
    checkOptions(this.manifest, options);
    this.inputs.set(image, options.beta, options.maxExit);
    const signature = this.signature(options.maxExit === undefined ? NO_LIMIT : MAX_EXIT);
    const start = performance.now();
    const outputs = signature.run(
        signature.inputs.map(({name}) => this.inputs.tensor(name, signature)));
    const read = (name: string) => this.liteRt.read(outputs[placeOf(signature, name)]!);
    const logits = new Float32Array(read('logits'));
    const [exit = 0] = new Int32Array(read('exit'));
    const ms = performance.now() - start;
    for (const tensor of outputs) tensor.delete();
    const {exits, costs, model} = this.manifest;
    const macs = model!.cumulativeMacs[exit - 1];
    const cost = costs[exits.indexOf(exit)];
    if (macs === undefined || cost === undefined) {
      throw fault(`${this.where}, exit`, exit, `one of ${rangeOf(exits)}`);
    }
    return new ExitAnswer(exit, logits, NaN, macs, cost, ms);
  }

  /** Gives back the memory. The classifier cannot be used afterwards. */
  close(): void {
    this.closed = true;
    this.inputs.close();
    this.model.close();
  }

  private signature(key: string): Signature {
    const signature = this.model.signatures.get(key);
    if (signature) return signature;
    const found = [...this.model.signatures.keys()];
    throw fault(`${this.where}, signatures`, found, `also ${key}`);
  }
}

/** Names of the signatures of a model that stops by itself. */
const NO_LIMIT = 'serving_default';
const MAX_EXIT = 'max_exit';

/** The tensors that are given with each image; they are made once. */
class Inputs {
  private readonly stored: Float32Array|Uint8Array|Int8Array;
  private readonly values = new Map<string, Uint8Array>();
  private readonly tensors = new Map<string, Tensor>();

  constructor(private readonly liteRt: LiteRt, private readonly spec: InputSpec) {
    this.stored = storedPixels(spec);
  }

  /** Takes what is to be classified next. */
  set(image: Uint8Array|Picture, beta?: number, maxExit?: number): void {
    const pixels = image instanceof Uint8Array ? image : convertPixels(image, this.spec);
    const {height, width, channels} = this.spec;
    const size = height * width * channels;
    if (pixels.length !== size) {
      const expected = `${size} (${height} x ${width} x ${channels})`;
      throw fault('image, bytes', pixels.length, expected);
    }
    const {stored} = this;
    const values = stored.slice(0, 0).constructor as typeof Float32Array;
    this.values.set(this.spec.name, bytesOf(values.from(pixels, value => stored[value]!)));
    if (beta !== undefined) this.values.set(BETA_NAME, bytesOf(Float32Array.of(beta)));
    if (maxExit !== undefined) this.values.set(MAX_EXIT, bytesOf(Int32Array.of(maxExit)));
  }

  /** The tensor `name`, for an input of the signature. */
  tensor(name: string, signature: Signature): Tensor {
    const tensor = this.tensors.get(name) ?? signature.tensor(name);
    this.tensors.set(name, tensor);
    const value = this.values.get(name);
    if (value) this.liteRt.write(tensor, value);
    this.values.delete(name);
    return tensor;
  }

  close(): void {
    for (const tensor of this.tensors.values()) tensor.delete();
    this.tensors.clear();
  }
}

function bytesOf({buffer, byteOffset, byteLength}: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** The tensors that are given with an image, as the manifest has them. */
function givenTensors({input, policy}: Manifest): Made[] {
  const {name, height, width, channels} = input;
  const maker = MANIFEST_FILE;
  const type = input.type.toUpperCase();
  const image = {name, type, shape: [1, height, width, channels], maker};
  const beta = {name: BETA_NAME, type: 'FLOAT32', shape: [1, 1], maker};
  return policy.betaRange === null ? [image] : [image, beta];
}

function checkOptions(
    {policy, exits}: Manifest, {beta, minExit, maxExit}: SegmentOptions): void {
  if (maxExit !== undefined && !exits.includes(maxExit)) {
    throw fault('maxExit', maxExit, `one of ${rangeOf(exits)}`);
  }
  const until = exits.slice(0, exits.indexOf(maxExit ?? exits.at(-1)!) + 1);
  if (minExit !== undefined && !until.includes(minExit)) {
    throw fault('minExit', minExit, `one of ${rangeOf(until)}`);
  }
  const range = policy.betaRange;
  if (range === null && beta !== undefined) {
    const expected = `none: the bundle is for beta ${policy.beta} alone`;
    throw fault('beta', beta, expected);
  }
  // NaN compares as false.
  if (range !== null && !(beta !== undefined && beta >= range[0] && beta <= range[1])) {
    throw fault('beta', beta ?? 'none', `${range[0]} to ${range[1]}`);
  }
}

function rangeOf(exits: readonly number[]): string {
  return `${exits[0]}..${exits.at(-1)}`;
}

function checkNames(
    where: string, tensors: readonly TensorInfo[], expected: readonly string[]): void {
  const found = tensors.map(({name}) => name).sort();
  const wanted = [...expected].sort();
  if (found.join() !== wanted.join()) {
    throw fault(where, found, `[${wanted.join(', ')}] as in ${MANIFEST_FILE}`);
  }
}

/** An input is like the tensor that was made for it. */
function checkInput(where: string, input: TensorInfo, known: readonly Made[]): void {
  const given = known.find(({name}) => name === input.name)!;
  if (described(given) !== described(input)) {
    const expected = `${described(given)} of ${given.maker}`;
    throw fault(`${where}, input ${input.name}`, described(input), expected);
  }
}

function placeOf(signature: Signature, name: string): number {
  return signature.outputs.findIndex(output => output.name === name);
}

/** The place among the outputs of one that holds `size` numbers. */
function headPlace(
    where: string, signature: Signature, name: string, size: number): number {
  const place = placeOf(signature, name);
  const output = signature.outputs[place];
  const wanted = described({type: 'FLOAT32', shape: [1, size]});
  if (!output || described(output) !== wanted) {
    throw fault(`${where}, output ${name}`, output ? described(output) : 'nothing', wanted);
  }
  return place;
}

function softmax(logits: Float32Array): Float32Array {
  const largest = Math.max(...logits);
  const powers = logits.map(logit => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map(power => power / sum);
}
