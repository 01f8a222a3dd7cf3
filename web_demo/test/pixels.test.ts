/** Pictures become pixels as in Python and Kotlin. */

import assert from 'node:assert/strict';
import {test} from 'node:test';

import {convertPixels, storedPixels, windowOf} from '../src/pixels.js';

const spec = (height: number, width: number, channels: number, crops = false) =>
    ({height, width, channels, crops});

function grey(...values: number[]): Uint8Array {
  return Uint8Array.from(values.flatMap(value => [value, value, value, 255]));
}

test('transparent pixels lie over white, and grey is luma', () => {
  const one = (data: number[], channels: number) => [...convertPixels(
      {data: Uint8Array.from(data), width: 1, height: 1}, spec(1, 1, channels))];
  assert.deepEqual(one([255, 0, 0, 0], 3), [255, 255, 255]);
  assert.deepEqual(one([255, 0, 0, 255], 3), [255, 0, 0]);
  assert.deepEqual(one([255, 0, 0, 255], 1), [76]);
  assert.deepEqual(one([0, 0, 0, 128], 1), [127]);
});

test('pictures are stretched with antialiasing', () => {
  const data = grey(0, 100, 200, 40);
  const to = (width: number) =>
      [...convertPixels({data, width: 4, height: 1}, spec(1, width, 1))];
  assert.deepEqual(to(4), [0, 100, 200, 40]);
  // Weights 3:3:1 under a triangle two wide, by hand: (3 · 0 + 3 · 100 + 200) / 7 = 71.4.
  assert.deepEqual(to(2), [71, 117]);
});

test('the window is the largest of the image\'s proportions about the centre', () => {
  const window = (width: number, height: number, ...shape: [number, number]) =>
      Object.values(windowOf(spec(...shape, 3, true), width, height));
  assert.deepEqual(
      Object.values(windowOf(spec(96, 96, 3), 40, 30)), [0, 0, 40, 30]);
  assert.deepEqual(window(40, 30, 96, 96), [5, 0, 30, 30]);
  assert.deepEqual(window(30, 40, 96, 96), [0, 5, 30, 30]);
  // Twice as wide as high; what is left over is one pixel more on the far side.
  assert.deepEqual(window(11, 10, 2, 4), [0, 2, 11, 5]);
  assert.deepEqual(window(101, 1, 1000, 1), [50, 0, 1, 1]);
});

test('cropping leaves out the edges', () => {
  const picture = {data: grey(1, 10, 20, 2, 3, 30, 40, 4), width: 4, height: 2};
  assert.deepEqual([...convertPixels(picture, spec(2, 2, 1, true))], [10, 20, 30, 40]);
});

test('the image tensor holds raw pixels in the model\'s type', () => {
  assert.equal(storedPixels({type: 'float32', quantization: null})[255], 255);
  const uint8 = storedPixels({type: 'uint8', quantization: null});
  assert.deepEqual([uint8[0], uint8[255]], [0, 255]);
  const int8 = storedPixels({type: 'int8', quantization: {scale: 2, zeroPoint: -128}});
  // Halves go to even: 1 / 2 to 0, 3 / 2 to 2.
  assert.deepEqual([...int8].slice(0, 4), [-128, -128, -127, -126]);
  assert.equal(int8[255], 0);
});
