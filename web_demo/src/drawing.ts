/** A square to draw on, white on black like the images that the models are trained on. */

/** Width of the pen: MNIST's strokes are about 3 of 50 pixels wide. */
const PEN = 0.06;
/** Side of the image that is classified, a few times that of the model's. */
const RENDERED = 200;
/** What an arrow key moves the pen by. */
const KEY_STEP = 0.04;

/** From 0 to 1, from the upper left corner. */
type Point = readonly [number, number];

const ARROWS: Readonly<Record<string, Point>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/** Drawing by pointer and by keys; or a picture, which drawing takes away. */
export class Drawing {
  /** Called when the drawing has changed; `ended` when a stroke is complete. */
  changed: (ended: boolean) => void = () => {};
  /** Called when it is to be cleared by a key. */
  cleared: () => void = () => {};
  /** Whether one may draw. */
  enabled = true;

  private strokes: Point[][] = [];
  private picture: CanvasImageSource|null = null;
  private pen: Point = [0.5, 0.5];
  private penIsDown = false;
  private penIsSeen = false;

  constructor(private readonly canvas: HTMLCanvasElement) {
    canvas.addEventListener('pointerdown', event => this.press(event));
    canvas.addEventListener('pointermove', event => this.drag(event));
    for (const name of ['pointerup', 'pointercancel'] as const) {
      canvas.addEventListener(name, event => this.release(event));
    }
    canvas.addEventListener('keydown', event => this.key(event));
    canvas.addEventListener('blur', () => this.lift());
  }

  get isEmpty(): boolean {
    return this.strokes.length === 0 && this.picture === null;
  }

  clear(): void {
    this.strokes = [];
    this.picture = null;
    this.penIsDown = false;
    this.paint();
  }

  /** Shows a picture in place of what is there. */
  show(picture: CanvasImageSource): void {
    this.clear();
    this.picture = picture;
    this.paint();
  }

  /** The strokes alone, to be classified. */
  render(): ImageData {
    const canvas = new OffscreenCanvas(RENDERED, RENDERED);
    const context = canvas.getContext('2d')!;
    this.paintStrokes(context, RENDERED);
    return context.getImageData(0, 0, RENDERED, RENDERED);
  }

  private press(event: PointerEvent): void {
    if (!this.enabled || event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.penIsSeen = false;
    this.begin(this.place(event));
  }

  private drag(event: PointerEvent): void {
    if (!this.canvas.hasPointerCapture(event.pointerId)) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.extend(this.place(each));
    this.changed(false);
  }

  private release(event: PointerEvent): void {
    if (this.canvas.hasPointerCapture(event.pointerId)) this.changed(true);
  }

  private key(event: KeyboardEvent): void {
    if (!this.enabled) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      const move = (at: number, by: number) =>
          Math.min(Math.max(at + by * KEY_STEP, 0), 1);
      this.pen = [move(this.pen[0], arrow[0]), move(this.pen[1], arrow[1])];
      if (this.penIsDown) {
        this.extend(this.pen);
        this.changed(false);
      }
    } else if (event.key === ' ') {
      if (this.penIsDown) this.lift();
      else this.lower();
    } else if (event.key === 'Delete' || event.key === 'Backspace') {
      this.cleared();
    } else {
      return;
    }
    event.preventDefault();
    this.penIsSeen = true;
    this.paint();
  }

  private lower(): void {
    this.begin(this.pen);
    this.penIsDown = true;
  }

  private lift(): void {
    if (this.penIsDown) this.changed(true);
    this.penIsDown = false;
    this.penIsSeen = false;
    this.paint();
  }

  private begin(point: Point): void {
    this.picture = null;
    this.strokes.push([point]);
    this.paint();
    this.changed(false);
  }

  private extend(point: Point): void {
    this.strokes.at(-1)?.push(point);
    this.paint();
  }

  private place(event: PointerEvent): Point {
    const {left, top, width, height} = this.canvas.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }

  private paint(): void {
    const context = this.canvas.getContext('2d')!;
    const {width, height} = this.canvas;
    this.paintStrokes(context, width);
    context.imageSmoothingEnabled = false;
    if (this.picture) context.drawImage(this.picture, 0, 0, width, height);
    if (!this.penIsSeen) return;
    context.beginPath();
    context.arc(this.pen[0] * width, this.pen[1] * height, PEN * width, 0, 2 * Math.PI);
    context.lineWidth = this.penIsDown ? 8 : 3;
    context.strokeStyle = '#6FD8D6';
    context.stroke();
  }

  private paintStrokes(
      context: CanvasRenderingContext2D|OffscreenCanvasRenderingContext2D,
      side: number): void {
    context.fillStyle = '#000';
    context.fillRect(0, 0, side, side);
    context.strokeStyle = '#fff';
    context.lineWidth = side * PEN;
    context.lineCap = context.lineJoin = 'round';
    for (const stroke of this.strokes) {
      context.beginPath();
      // A touch that does not move is a dot.
      for (const [x, y] of [stroke[0]!, ...stroke]) context.lineTo(x * side, y * side);
      context.stroke();
    }
  }
}
