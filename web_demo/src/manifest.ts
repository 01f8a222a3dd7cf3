/** What `epnet.json` says, and whether it makes sense. */

import {decimal, fault} from './fault.js';
import {JsonFields} from './json_fields.js';

/** Name of the manifest in every bundle. */
export const MANIFEST_FILE = 'epnet.json';

/** Name of the tensor that takes beta in bundles with a `betaRange`. */
export const BETA_NAME = 'beta';

/** The unit of cost where a bundle names none: multiply-adds. */
export const MACS = 'macs';

const FORMAT = 'epnet-bundle';
const VERSION = 1;
const SHA256 = /^[0-9a-f]{64}$/;
const PLAIN_FILE_NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]*$/;
const MAX_SIDE = 4096;
const DTYPES = ['float32', 'uint8', 'int8'] as const;
const POLICIES = ['controller', 'threshold'] as const;

/** Type of the model's image tensor. */
export type PixelType = typeof DTYPES[number];

/** What decides where to stop: a learned controller at each exit, or a confidence for each. */
export type PolicyType = typeof POLICIES[number];

/** Real value = scale · (stored value - zeroPoint). */
export interface Quantization {
  readonly scale: number;
  readonly zeroPoint: number;
}

/** The model's image: height × width × channels raw pixel values 0-255. */
export interface InputSpec {
  readonly name: string;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly type: PixelType;
  readonly quantization: Quantization|null;
  /** Whether a picture of other proportions is cropped about its centre, or stretched. */
  readonly crops: boolean;
}

/** A file of a bundle, as the manifest knows it. */
export interface FileSpec {
  readonly file: string;
  readonly sha256: string;
  readonly bytes: number;
}

/** The layers from the exit before up to this exit, counted from 1, and the exit's heads. */
export interface SegmentSpec extends FileSpec {
  readonly exit: number;
  /** Name of the layer that the exit hangs on. */
  readonly layer: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Multiply-adds of this segment. */
  readonly macs: number;
  /** Multiply-adds up to and with this exit. */
  readonly cumulativeMacs: number;
}

/** The whole model in one file, which stops by itself. */
export interface ModelSpec extends FileSpec {
  /** Multiply-adds up to and with each exit. */
  readonly cumulativeMacs: readonly number[];
}

/** When to stop. */
export interface Policy {
  readonly type: PolicyType;
  /** An exit stops when its stop logit is greater than this. */
  readonly threshold: number;
  /** Of a threshold policy, for each exit but the last: it stops where it is surer. */
  readonly confidence: readonly number[]|null;
  /** Cost sensitivity per unit of cost that the policy is for; null with `betaRange`. */
  readonly beta: number|null;
  /** Lowest and highest cost sensitivity that the controllers take as an input, or null. */
  readonly betaRange: readonly [number, number]|null;
}

/** What `epnet.json` says about a bundle. MACs are multiply-adds; exits count from 1. */
export interface Manifest {
  readonly name: string;
  readonly input: InputSpec;
  /** Names of the classes, in the order of the logits. */
  readonly labels: readonly string[];
  readonly quantization: string;
  readonly policy: Policy;
  /** Multiply-adds of the plain network with its one classifier. */
  readonly fullMacs: number;
  /** What costs are counted in: `macs`, `ms`, or the user's own word. */
  readonly costUnit: string;
  /** What leaving through each exit costs, in `costUnit`. */
  readonly costs: readonly number[];
  /** What the plain network costs, in `costUnit`. */
  readonly fullCost: number;
  /** In the order in which they run; none where there is the one file alone. */
  readonly segments: readonly SegmentSpec[];
  readonly model: ModelSpec|null;
  /** The exits, rising. */
  readonly exits: readonly number[];
}

/** Name of the tensor with an exit's logits. */
export function logitsName(exit: number): string {
  return `logits_${String(exit).padStart(2, '0')}`;
}

/** Name of the tensor with an exit's stop logit. */
export function stopName(exit: number): string {
  return `stop_${String(exit).padStart(2, '0')}`;
}

/**
 * Reads a manifest from the `text` of the file `where` and checks that it is one that this
 * version understands and that its parts fit together.
 *
 * @throws EarlyExitError where it is not.
 */
export function readManifest(text: string, where: string): Manifest {
  const json = JsonFields.parse(text, where);
  checkFormat(json);
  const input = readInput(json.fields('input'), json.fieldsOrNull('preprocessing'));
  const labels = json.texts('labels');
  if (labels.length === 0) throw fault(json.at('labels'), 'none', 'at least one');
  const segments = json.objects('segments').map(readSegment);
  const modelFields = json.fieldsOrNull('model');
  const model = modelFields && readModel(modelFields);
  const macs = segments.length ? segments.map(segment => segment.cumulativeMacs) :
                                 model?.cumulativeMacs;
  if (macs === undefined) throw noSegments(where);
  const policy = readPolicy(json.fields('policy'), macs.length - 1);
  checkSegments(segments, json.at('segments'));
  checkTensors(segments, input.name, policy.betaRange !== null, where);
  return {
    name: json.text('name'),
    input,
    labels,
    quantization: json.text('quantization'),
    policy,
    fullMacs: json.wholeNumber('full_macs'),
    ...readCosts(json, macs),
    segments,
    model,
    exits: segments.length ? segments.map(segment => segment.exit) :
                             macs.map((_, index) => index + 1),
  };
}

/** What is wrong with a manifest, from the file `where`, that needs segments. */
export function noSegments(where: string): Error {
  return fault(`${where}, segments`, 'none', 'at least one');
}

function checkFormat(json: JsonFields): void {
  const format = json.text('format');
  if (format !== FORMAT) throw fault(json.at('format'), format, FORMAT);
  const version = json.wholeNumber('version');
  if (version !== VERSION) throw fault(json.at('version'), version, VERSION);
}

/** The text at `key`, which is one of `names`. */
function oneOf<Name extends string>(
    json: JsonFields, key: string, names: readonly Name[]): Name {
  const found = json.text(key);
  const name = names.find(candidate => candidate === found);
  if (name !== undefined) return name;
  const expected = `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
  throw fault(json.at(key), found, expected);
}

function readInput(json: JsonFields, preprocessing: JsonFields|null): InputSpec {
  const type = oneOf(json, 'dtype', DTYPES);
  const fields = json.fieldsOrNull('quantization');
  if (fields === null && type === 'int8') {
    throw fault(json.at('quantization'), 'none', 'scale and zero_point, for int8');
  }
  const [height, width, channels] = readShape(json);
  return {
    name: json.text('name'),
    height,
    width,
    channels,
    type,
    quantization: fields && readQuantization(fields),
    crops: preprocessing !== null && readCrops(preprocessing, height, width, channels),
  };
}

function readQuantization(json: JsonFields): Quantization {
  const scale = json.number('scale');
  if (scale <= 0) throw fault(json.at('scale'), decimal(scale), 'more than 0');
  return {scale, zeroPoint: Math.trunc(json.number('zero_point'))};
}

/** Height, width and channels, with or without the batch of 1 before them. */
function readShape(json: JsonFields): [number, number, number] {
  const shape = json.numbers('shape').map(Math.trunc);
  const image = shape.length === 4 && shape[0] === 1 ? shape.slice(1) : shape;
  const [height = 0, width = 0, channels = 0] = image;
  if (image.length !== 3 || image.some(side => side < 1 || side > MAX_SIDE) ||
      ![1, 3].includes(channels)) {
    throw fault(json.at('shape'), shape, '[1, height, width, 1 or 3]');
  }
  return [height, width, channels];
}

/** Whether pictures are cropped; all else that may be said of them has to be what is done. */
function readCrops(
    json: JsonFields, height: number, width: number, channels: number): boolean {
  const check = (key: string, found: unknown, expected: unknown) => {
    if (String(found) !== String(expected)) throw fault(json.at(key), found, expected);
  };
  check('height', json.wholeNumber('height'), height);
  check('width', json.wholeNumber('width'), width);
  check('channels', json.text('channels'), channels === 1 ? 'L' : 'RGB');
  check('resize', json.text('resize'), 'bilinear');
  check('antialias', json.flag('antialias'), true);
  check('range', json.numbers('range').map(decimal), ['0.0', '255.0']);
  return oneOf(json, 'crop', ['none', 'center']) === 'center';
}

function readPolicy(json: JsonFields, controlled: number): Policy {
  const type = oneOf(json, 'type', POLICIES);
  const betaRange = readBetaRange(json, type);
  return {
    type,
    // As stop logits are.
    threshold: Math.fround(json.number('threshold')),
    confidence: readConfidence(json, type, controlled),
    beta: betaRange === null ? json.number('beta') : null,
    betaRange,
  };
}

function readBetaRange(json: JsonFields, type: PolicyType): [number, number]|null {
  if (!json.has('beta_range')) return null;
  const range = json.numbers('beta_range');
  if (type === 'threshold') {
    const found = range.map(decimal);
    throw fault(json.at('beta_range'), found, 'none: thresholds are for one beta');
  }
  const [low = 0, high = 0] = range;
  if (range.length !== 2 || low <= 0 || high < low) {
    const expected = '[low, high] with 0 < low <= high';
    throw fault(json.at('beta_range'), range.map(decimal), expected);
  }
  return [low, high];
}

/** A probability for each of the `controlled` exits; controllers have none. */
function readConfidence(
    json: JsonFields, type: PolicyType, controlled: number): number[]|null {
  if (type === 'controller' && !json.has('confidence')) return null;
  const confidence = json.numbers('confidence');
  const found = confidence.map(decimal);
  if (type === 'controller') {
    throw fault(json.at('confidence'), found, 'none: controllers decide');
  }
  if (confidence.length !== controlled || confidence.some(c => c < 0 || c > 1)) {
    throw fault(json.at('confidence'), found, `${controlled} numbers from 0 to 1`);
  }
  return confidence;
}

/** Costs in the bundle's unit or, where it names none, the multiply-adds. */
function readCosts(json: JsonFields, macs: readonly number[]):
    Pick<Manifest, 'costUnit'|'costs'|'fullCost'> {
  const costUnit = json.has('cost_unit') ? json.text('cost_unit') : MACS;
  if (costUnit === MACS) {
    for (const key of ['costs', 'full_cost']) {
      if (json.has(key)) {
        throw fault(json.at(key), 'some', `none where cost_unit is ${MACS}`);
      }
    }
    return {costUnit, costs: macs, fullCost: json.number('full_macs')};
  }
  if (costUnit.trim() === '') throw fault(json.at('cost_unit'), 'no word', 'a unit');
  const costs = json.numbers('costs');
  const rise = costs.every((cost, i) => cost > 0 && cost >= (costs[i - 1] ?? 0));
  if (costs.length !== macs.length || !rise) {
    const expected = `${macs.length} numbers above 0 that do not fall`;
    throw fault(json.at('costs'), costs.map(decimal), expected);
  }
  const fullCost = json.number('full_cost');
  if (fullCost <= 0) throw fault(json.at('full_cost'), decimal(fullCost), 'more than 0');
  return {costUnit, costs, fullCost};
}

function readModel(json: JsonFields): ModelSpec {
  const exits = json.objects('exits');
  if (exits.length === 0) throw fault(json.at('exits'), 'none', 'at least one');
  const cumulativeMacs = exits.map(exit => exit.wholeNumber('cumulative_macs'));
  return {...readFileSpec(json), cumulativeMacs};
}

function readFileSpec(json: JsonFields): FileSpec {
  const file = json.text('file');
  if (!PLAIN_FILE_NAME.test(file)) {
    throw fault(json.at('file'), file, 'the name of a file in the bundle');
  }
  const sha256 = json.text('sha256');
  if (!SHA256.test(sha256)) {
    throw fault(json.at('sha256'), sha256, '64 hexadecimal digits');
  }
  return {file, sha256, bytes: json.wholeNumber('bytes')};
}

function readSegment(json: JsonFields): SegmentSpec {
  return {
    ...readFileSpec(json),
    exit: json.wholeNumber('exit'),
    layer: json.text('layer'),
    inputs: json.texts('inputs'),
    outputs: json.texts('outputs'),
    macs: json.wholeNumber('macs'),
    cumulativeMacs: json.wholeNumber('cumulative_macs'),
  };
}

/** Exits rise from at least 1, and the cumulative MACs are the sums of the MACs. */
function checkSegments(segments: readonly SegmentSpec[], where: string): void {
  let exit = 0;
  let macs = 0;
  for (const segment of segments) {
    if (segment.exit <= exit) {
      const name = `${where}, exit of ${segment.file}`;
      throw fault(name, segment.exit, `more than ${exit}`);
    }
    macs += segment.macs;
    if (segment.cumulativeMacs !== macs) {
      const name = `${where}, cumulative_macs of ${segment.file}`;
      throw fault(name, segment.cumulativeMacs, macs);
    }
    exit = segment.exit;
  }
}

/** Every tensor is made before it is read, and every exit answers. */
function checkTensors(
    segments: readonly SegmentSpec[], image: string, takesBeta: boolean,
    where: string): void {
  const made = new Set(takesBeta ? [image, BETA_NAME] : [image]);
  for (const segment of segments) {
    for (const name of segment.inputs) {
      if (!made.has(name)) {
        const expected = `tensors that earlier segments made: [${[...made].join(', ')}]`;
        throw fault(`${where}, inputs of ${segment.file}`, name, expected);
      }
    }
    const heads = [logitsName(segment.exit)];
    if (segment !== segments.at(-1)) heads.push(stopName(segment.exit));
    for (const name of heads) {
      if (!segment.outputs.includes(name)) {
        const place = `${where}, outputs of ${segment.file}`;
        throw fault(place, segment.outputs, `also ${name}`);
      }
    }
    for (const name of segment.outputs) made.add(name);
  }
}
