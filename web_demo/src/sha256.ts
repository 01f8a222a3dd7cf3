/** SHA-256: the browser's own is missing on pages without https. */

const CONSTANTS = new Int32Array(64);
const START = new Int32Array(8);

/** The first 32 bits of the fraction of a root. */
function fraction(root: number): number {
  return ((root - Math.floor(root)) * 2 ** 32) | 0;
}

for (let count = 0, candidate = 2; count < 64; candidate++) {
  let prime = true;
  for (let divisor = 2; divisor * divisor <= candidate; divisor++) {
    prime &&= candidate % divisor !== 0;
  }
  if (!prime) continue;
  if (count < 8) START[count] = fraction(Math.sqrt(candidate));
  CONSTANTS[count++] = fraction(Math.cbrt(candidate));
}

/** The SHA-256 of `data`, in hexadecimal. */
export function sha256(data: Uint8Array): string {
  const padded = new Uint8Array((data.length + 8 >> 6) + 1 << 6);
  padded.set(data);
  padded[data.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(data.length / 2 ** 29));
  view.setUint32(padded.length - 4, data.length << 3);
  const state = START.slice();
  const words = new Int32Array(64);
  for (let start = 0; start < padded.length; start += 64) mix(state, view, start, words);
  return [...state].map(word => (word >>> 0).toString(16).padStart(8, '0')).join('');
}

function turn(word: number, bits: number): number {
  return word >>> bits | word << 32 - bits;
}

function mix(state: Int32Array, view: DataView, start: number, words: Int32Array): void {
  for (let i = 0; i < 16; i++) words[i] = view.getInt32(start + 4 * i);
  for (let i = 16; i < 64; i++) {
    const early = words[i - 15]!, late = words[i - 2]!;
    const first = turn(early, 7) ^ turn(early, 18) ^ early >>> 3;
    const second = turn(late, 17) ^ turn(late, 19) ^ late >>> 10;
    words[i] = words[i - 16]! + first + words[i - 7]! + second;
  }
  let [a, b, c, d, e, f, g, h] =
      state as unknown as [number, number, number, number, number, number, number, number];
  for (let i = 0; i < 64; i++) {
    const second = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
    const chosen = e & f ^ ~e & g;
    const one = h + second + chosen + CONSTANTS[i]! + words[i]! | 0;
    const first = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
    const most = a & b ^ a & c ^ b & c;
    [h, g, f, e, d, c, b, a] = [g, f, e, d + one | 0, c, b, a, one + first + most | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, i) => state[i]! += word);
}
