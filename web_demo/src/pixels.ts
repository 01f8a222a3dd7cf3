/** Pictures of any size as the raw pixels of a model. */

import type {InputSpec} from './manifest.js';

/** A picture: red, green, blue and opacity of each pixel, as `ImageData` has it. */
export interface Picture {
  readonly data: Uint8ClampedArray|Uint8Array;
  readonly width: number;
  readonly height: number;
}

/** What of an `InputSpec` decides how pictures are read. */
export type PictureSpec = Pick<InputSpec, 'height'|'width'|'channels'|'crops'>;

/** A part of a picture, in pixels. */
export interface Window {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/**
 * What a model sees of a picture of `width` × `height` pixels: all of it or, where
 * `spec.crops` says so, the largest part about its centre with the image's proportions.
 */
export function windowOf(spec: PictureSpec, width: number, height: number): Window {
  if (!spec.crops) return {left: 0, top: 0, width, height};
  const wide = Math.max(1, Math.min(width, Math.floor(height * spec.width / spec.height)));
  const high = Math.max(1, Math.min(height, Math.floor(width * spec.height / spec.width)));
  const left = Math.floor((width - wide) / 2);
  const top = Math.floor((height - high) / 2);
  return {left, top, width: wide, height: high};
}

/**
 * Scales a picture to the model's shape and converts it to raw pixel values, one byte each,
 * rows from the top, channels last, as Python's `read_image` does: transparent pixels lie
 * over white, grey is the luma of BT.601, and what `windowOf` gives of the picture is
 * stretched bilinearly and with antialiasing.
 */
export function convertPixels(picture: Picture, spec: PictureSpec): Uint8Array {
  const window = windowOf(spec, picture.width, picture.height);
  const {channels} = spec;
  const stride = spec.width * channels;
  const columns = weights(window.width, spec.width);
  const rows = weights(window.height, spec.height);
  const row = new Uint8Array(window.width * channels);
  const narrow = new Uint8Array(window.height * stride);
  for (let y = 0; y < window.height; y++) {
    readRow(picture, window, y, channels, row);
    for (let x = 0; x < stride; x++) {
      const column = columns[Math.floor(x / channels)]!;
      narrow[y * stride + x] = mean(column, row, x % channels, channels);
    }
  }
  const pixels = new Uint8Array(spec.height * stride);
  for (let y = 0; y < spec.height; y++) {
    for (let x = 0; x < stride; x++) {
      pixels[y * stride + x] = mean(rows[y]!, narrow, x, stride);
    }
  }
  return pixels;
}

/** The channels of row `y` of the window, over white. */
function readRow(
    picture: Picture, window: Window, y: number, channels: number,
    row: Uint8Array): void {
  let from = 4 * ((window.top + y) * picture.width + window.left);
  let to = 0;
  for (let x = 0; x < window.width; x++, from += 4) {
    const opacity = picture.data[from + 3]!;
    const red = overWhite(picture.data[from]!, opacity);
    const green = overWhite(picture.data[from + 1]!, opacity);
    const blue = overWhite(picture.data[from + 2]!, opacity);
    if (channels === 1) {
      // 0.299, 0.587 and 0.114 of 2^16.
      row[to++] = (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16;
    } else {
      row[to++] = red;
      row[to++] = green;
      row[to++] = blue;
    }
  }
}

function overWhite(value: number, opacity: number): number {
  return Math.floor((value * opacity + 255 * (255 - opacity) + 127) / 255);
}

/** What one new value is made of: shares of old ones from `first` on, in 2^-22. */
interface Share {
  readonly first: number;
  readonly parts: readonly number[];
}

const ONE = 1 << 22;

/**
 * How `size` values become `wanted` ones: means under triangles as wide as two of the wider
 * steps, in Pillow's fixed-point arithmetic, so that no value differs from Python's.
 */
function weights(size: number, wanted: number): Share[] {
  const step = size / wanted;
  const reach = Math.max(step, 1);
  return Array.from({length: wanted}, (_, index) => {
    const centre = (index + 0.5) * step;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach + 0.5), size);
    const shares = Array.from(
        {length: end - first},
        (_, i) => Math.max(1 - Math.abs(first + i + 0.5 - centre) / reach, 0));
    const total = shares.reduce((sum, share) => sum + share, 0);
    return {first, parts: shares.map(share => Math.trunc(share / total * ONE + 0.5))};
  });
}

/** The mean of values that lie `stride` apart, from `start` on. */
function mean({first, parts}: Share, values: Uint8Array, start: number, stride: number) {
  let sum = ONE / 2;
  let place = start + first * stride;
  for (const part of parts) {
    sum += part * values[place]!;
    place += stride;
  }
  return Math.min(Math.max(Math.floor(sum / ONE), 0), 255);
}

/** A pixel value 0-255 for each stored value of the model's image tensor. */
export function storedPixels(
    spec: Pick<InputSpec, 'type'|'quantization'>): Float32Array|Uint8Array|Int8Array {
  if (spec.type === 'float32') return Float32Array.from({length: 256}, (_, value) => value);
  const {scale, zeroPoint} = spec.quantization ?? {scale: 1, zeroPoint: 0};
  const [low, high, kind] = spec.type === 'int8' ? [-128, 127, Int8Array] as const :
                                                   [0, 255, Uint8Array] as const;
  return kind.from(Array.from({length: 256}, (_, value) => {
    const stored = roundHalfToEven(value / scale) + zeroPoint;
    return Math.min(Math.max(stored, low), high);
  }));
}

function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  const up = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0);
  return up ? floor + 1 : floor;
}
