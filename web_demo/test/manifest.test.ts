/** Every fault of a manifest is one sentence, the one that the Kotlin engine says. */

import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {test} from 'node:test';

import {EarlyExitError} from '../src/fault.js';
import {readManifest} from '../src/manifest.js';
import {BUNDLE} from './bundles.js';

type Json = any;
type Change = (json: Json) => void;

const good = readFileSync(`${BUNDLE}/epnet.json`, 'utf8');
const EXITS = JSON.parse(good).segments.length as number;
const RISING = Array.from({length: EXITS}, (_, k) => k + 1);
const SURE = RISING.slice(1).map(() => 0.9);

function changed(change: Change): string {
  const json = JSON.parse(good);
  change(json);
  return JSON.stringify(json);
}

function assertFaults(cases: Record<string, Change>): void {
  for (const [message, change] of Object.entries(cases)) {
    assert.throws(
        () => readManifest(changed(change), 'm'),
        error => error instanceof EarlyExitError && error.message === `m${message}`,
        message);
  }
}

test('formats and versions', () => {
  assertFaults({
    ', version: found 2, expected 1.': json => json.version = 2,
    ', format: found zip, expected epnet-bundle.': json => json.format = 'zip',
    ', format: found nothing, expected a text.': json => delete json.format,
  });
  for (const text of ['[1]', '{', '']) {
    const start = /^m: found text that is not JSON \(.*\), expected a JSON object\.$/s;
    assert.throws(() => readManifest(text, 'm'), {name: 'EarlyExitError', message: start});
  }
});

test('values of the wrong kind', () => assertFaults({
  ', full_macs: found many, expected a number.': json => json.full_macs = 'many',
  ', full_macs: found -1.0, expected a whole number of at least 0.': json =>
      json.full_macs = -1,
  ', labels: found none, expected at least one.': json => json.labels = [],
  ', labels: found 3, expected a list of texts.': json => json.labels = [3],
  ', labels: found null, expected a list of texts.': json => json.labels = ['a', null],
  ', input, shape: found [50, 50], expected [1, height, width, 1 or 3].': json =>
      json.input.shape = [50, 50],
  ', input, dtype: found int64, expected float32, uint8 or int8.': json =>
      json.input.dtype = 'int64',
  ', input, quantization: found none, expected scale and zero_point, for int8.': json =>
      json.input.dtype = 'int8',
  ', policy, type: found entropy, expected controller or threshold.': json =>
      json.policy.type = 'entropy',
  ', policy, beta_range: found [2.0, 1.0], expected [low, high] with 0 < low <= high.':
      json => json.policy.beta_range = [2, 1],
  ', segments: found none, expected at least one.': json => {
    json.segments = [];
    delete json.model;
  },
  ', model, exits: found none, expected at least one.': json =>
      json.model = {...json.segments[0], exits: []},
  ', segments[1], file: found ../x.tflite, expected the name of a file in the bundle.':
      json => json.segments[1].file = '../x.tflite',
  ', segments[1], sha256: found abc, expected 64 hexadecimal digits.': json =>
      json.segments[1].sha256 = 'abc',
}));

test('parts that do not fit together', () => {
  const {macs} = JSON.parse(good).segments[0];
  assertFaults({
    ', segments, exit of segment_02.tflite: found 1, expected more than 1.': json =>
        json.segments[1].exit = 1,
    [`, segments, cumulative_macs of segment_01.tflite: found 7, expected ${macs}.`]:
        json => json.segments[0].cumulative_macs = 7,
    [', inputs of segment_01.tflite: found ghost, expected ' +
        'tensors that earlier segments made: [image].']: json => {
      json.policy.beta = 1e-6;
      delete json.policy.beta_range;
      json.segments[0].inputs = ['ghost'];
    },
    ', outputs of segment_01.tflite: found [stop_01], expected also logits_01.': json =>
        json.segments[0].outputs = ['stop_01'],
  });
});

test('the threshold is of the type of what it is compared with', () => {
  const text = changed(json => json.policy.threshold = 0.1);
  assert.equal(readManifest(text, 'm').policy.threshold, new Float32Array([0.1])[0]);
});

test('thresholds that do not fit', () => {
  const threshold = (confidence: unknown, more: object = {}): Change => json =>
      json.policy = {type: 'threshold', threshold: 0, beta: 1e-6, confidence, ...more};
  const wrong = (last: number) => [...SURE.slice(1), last];
  const numbers = `${EXITS - 1} numbers from 0 to 1`;
  assertFaults({
    ', policy, confidence: found nothing, expected a list of numbers.':
        threshold(undefined),
    [`, policy, confidence: found [0.9], expected ${numbers}.`]: threshold([0.9]),
    [`, policy, confidence: found [${wrong(1.1).join(', ')}], expected ${numbers}.`]:
        threshold(wrong(1.1)),
    [`, policy, confidence: found [${wrong(-0.1).join(', ')}], expected ${numbers}.`]:
        threshold(wrong(-0.1)),
    ', policy, confidence: found [0.9], expected none: controllers decide.': json =>
        json.policy.confidence = [0.9],
    ', policy, beta_range: found [1.0, 2.0], expected none: thresholds are for one beta.':
        threshold(SURE, {beta_range: [1, 2]}),
  });
});

test('costs that do not fit', () => {
  const costs = (values: unknown, full: unknown = EXITS): Change => json =>
      Object.assign(json, {cost_unit: 'ms', costs: values, full_cost: full});
  const expected = `${EXITS} numbers above 0 that do not fall`;
  const falling = [...RISING.slice(0, -1), 0.5];
  const shown = falling.map((cost, k) => k === EXITS - 1 ? '0.5' : `${cost}.0`).join(', ');
  assertFaults({
    [`, costs: found [1.0], expected ${expected}.`]: costs([1]),
    [`, costs: found [0.0, 1.0], expected ${expected}.`]: costs([0, 1]),
    [`, costs: found [${shown}], expected ${expected}.`]: costs(falling),
    ', costs: found nothing, expected a list of numbers.': json => json.cost_unit = 'ms',
    ', full_cost: found 0.0, expected more than 0.': costs(RISING, 0),
    ', full_cost: found nothing, expected a number.': costs(RISING, null),
    ', cost_unit: found no word, expected a unit.': json => json.cost_unit = ' ',
    ', costs: found some, expected none where cost_unit is macs.': json =>
        json.costs = [1],
    ', full_cost: found some, expected none where cost_unit is macs.': json =>
        Object.assign(json, {cost_unit: 'macs', full_cost: 1}),
  });
});

const PREPROCESSING = {
  height: 50, width: 50, resize: 'bilinear', antialias: true, crop: 'none',
  range: [0, 255], channels: 'L',
};

test('preprocessing that is not what is done', () => {
  const but = (change: object): Change => json =>
      json.preprocessing = {...PREPROCESSING, ...change};
  assertFaults({
    ', preprocessing, height: found 96, expected 50.': but({height: 96}),
    ', preprocessing, channels: found RGB, expected L.': but({channels: 'RGB'}),
    ', preprocessing, resize: found bicubic, expected bilinear.': but({resize: 'bicubic'}),
    ', preprocessing, antialias: found false, expected true.': but({antialias: false}),
    ', preprocessing, antialias: found 1, expected true or false.': but({antialias: 1}),
    ', preprocessing, range: found [0.0, 1.0], expected [0.0, 255.0].':
        but({range: [0, 1]}),
    ', preprocessing, crop: found top, expected none or center.': but({crop: 'top'}),
  });
});

test('what a bundle says of policy, costs and pictures is read', () => {
  const plain = readManifest(good, 'm');
  assert.equal(plain.policy.type, 'controller');
  assert.equal(plain.policy.confidence, null);
  assert.equal(plain.costUnit, 'macs');
  assert.equal(plain.fullCost, plain.fullMacs);
  assert.deepEqual(plain.costs, plain.segments.map(segment => segment.cumulativeMacs));
  assert.deepEqual(plain.exits, RISING);
  const other = readManifest(changed(json => {
    Object.assign(json, {
      policy: {type: 'threshold', threshold: 0, beta: 2, confidence: SURE},
      cost_unit: 'mJ', costs: RISING, full_cost: 5.5,
      preprocessing: {...PREPROCESSING, crop: 'center'},
    });
    for (const segment of json.segments) {
      segment.inputs = segment.inputs.filter((name: string) => name !== 'beta');
    }
  }), 'm');
  assert.deepEqual(
      other.policy,
      {type: 'threshold', threshold: 0, confidence: SURE, beta: 2, betaRange: null});
  assert.deepEqual([other.costUnit, other.costs, other.fullCost], ['mJ', RISING, 5.5]);
  assert.equal(other.input.crops, true);
});
