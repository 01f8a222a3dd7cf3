/** What the page and its worker say to each other. */

/** A test image that the page shows to choose from. */
export interface Example {
  readonly index: number;
  readonly label: string;
  /** Such as `hard`; empty where the data set has none. */
  readonly difficulty: string;
  /** Raw pixels, as the model takes them. */
  readonly pixels: Uint8Array;
}

/** A model that is open. */
export interface Opened {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly crops: boolean;
  readonly quantization: string;
  readonly exits: readonly number[];
  readonly fullMacs: number;
  /** What beta counts costs in. */
  readonly costUnit: string;
  /** The one beta of the bundle, or the lowest and highest. */
  readonly beta: number|readonly [number, number];
  /** How sure each exit but the last must be to answer; null where controllers decide. */
  readonly confidence: readonly number[]|null;
  /** Whether early exit is seen beside the plain network, or else beside the last exit. */
  readonly hasNetwork: boolean;
  readonly testImages: number;
  readonly examples: readonly Example[];
}

/** What is to be classified: a test image, a drawing, or a file. */
export type Source = number|ImageData|Blob;

/** What one exit said. */
export interface Passed {
  readonly exit: number;
  readonly label: string;
  readonly confidence: number;
  /** Multiply-adds spent up to and with this exit. */
  readonly macs: number;
  /** Milliseconds up to and with this exit. */
  readonly ms: number;
}

/** The way of one image through the network, and what it says without early exit. */
export interface Way {
  readonly passed: readonly Passed[];
  readonly whole: Passed;
}

/** What was achieved on the test images, with or without early exit. */
export interface Score {
  readonly accuracy: number;
  readonly meanMacs: number;
  readonly meanMs: number;
}

/** All test images. */
export interface Evaluation {
  readonly images: number;
  readonly early: Score;
  readonly whole: Score;
  /** Images that left through each exit, the first one first. */
  readonly histogram: readonly number[];
}

/** What the worker can be asked; `beta` only where the model takes one. */
export interface Requests {
  open(name: string, hasNetwork: boolean): Opened;
  classify(source: Source, beta?: number): Way;
  evaluate(beta?: number): Evaluation;
}

/** A question, by the place of the answer. */
export interface Question<Name extends keyof Requests = keyof Requests> {
  readonly id: number;
  readonly name: Name;
  readonly given: Parameters<Requests[Name]>;
}

/** An answer, an error, or how far the worker is. */
export type Reply = {id: number, value: unknown}|{id: number, message: string}|
    {done: number, all: number|null, of: string};
