/** What the page shows, from what the worker says. */

import type {Evaluation, Example, Opened, Passed, Score, Way} from './messages.js';

/** An element of the page, which is of that class. */
export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (found instanceof kind) return found;
  throw new Error(`Expected an element "${id}" of kind ${kind.name}.`);
}

export function say(id: string, text: string): void {
  element(id, HTMLElement).textContent = text;
}

export function percent(share: number, digits = 0): string {
  return `${(100 * share).toFixed(digits)} %`;
}

function millions(macs: number): string {
  return (macs / 1e6).toFixed(1);
}

/** Milliseconds, with as many digits as are worth reading. */
function milliseconds(ms: number): string {
  return ms.toFixed(ms < 10 ? 2 : 1);
}

/** How much less than the whole, or more. */
function saving(part: number, whole: number): string {
  const saved = Math.round(100 * (1 - part / whole));
  // A space would let the line break before the sign.
  return saved < 0 ? `${-saved}\u00a0% more` : `${saved}\u00a0% saved`;
}

/** What one pays for computing, as a sentence. */
export function betaText(beta: number, {costUnit}: Opened): string {
  const macs = costUnit === 'macs';
  const points = (macs ? 1e6 * beta : beta).toPrecision(2);
  const unit = macs ? 'a million multiply-adds' : `one ${costUnit}`;
  // Behind a hyphen or a space the line could break.
  const shown = beta.toPrecision(2).replace('-', '−');
  return `${Number(points)} points of accuracy for ${unit} (β\u00a0=\u00a0${shown})`;
}

/** What decides where to stop. */
export function policyText({confidence}: Opened): string {
  if (!confidence) return 'A learned controller at each exit decides.';
  const percents = confidence.map(share => (100 * share).toFixed(0)).join(', ');
  return `An exit answers when it is surer than its threshold: ${percents} %.`;
}

/** What early exit is seen beside. */
export function wholeName({hasNetwork}: Opened): string {
  return hasNetwork ? 'whole network' : 'last exit';
}

/** Draws raw pixels. */
export function drawPixels(
    canvas: HTMLCanvasElement|OffscreenCanvas, pixels: Uint8Array,
    {height, width, channels}: Opened): void {
  canvas.width = width;
  canvas.height = height;
  const data = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      data.data[4 * i + c] = pixels[i * channels + c % channels]!;
    }
    data.data[4 * i + 3] = 255;
  }
  (canvas.getContext('2d') as CanvasRenderingContext2D).putImageData(data, 0, 0);
}

/** Buttons with the examples. */
export function showExamples(opened: Opened, choose: (example: Example) => void): void {
  const buttons = opened.examples.map((example, i) => {
    const button = document.createElement('button');
    button.type = 'button';
    const kind = example.difficulty && ` ${example.difficulty},`;
    button.ariaLabel = `Test image ${i + 1},${kind} correct answer ${example.label}`;
    const canvas = document.createElement('canvas');
    drawPixels(canvas, example.pixels, opened);
    button.append(canvas);
    button.addEventListener('click', () => choose(example));
    return button;
  });
  element('examples', HTMLElement).replaceChildren(...buttons);
}

/**
 * The exits, those that were passed lit up.
 *
 * @param slowly one after another.
 */
export function showWay(opened: Opened, way: Way|null, slowly: boolean): void {
  const passed = way?.passed ?? [];
  const items = opened.exits.map((exit, i) => exitItem(exit, i, passed));
  const list = element('way', HTMLElement);
  list.classList.toggle('lit', slowly);
  list.classList.toggle('words', passed.some(({label}) => isWord(label)));
  list.replaceChildren(...items);
  const last = passed.at(-1);
  say('label', last?.label ?? '–');
  element('label', HTMLElement).parentElement!.classList.toggle(
      'word', last !== undefined && isWord(last.label));
  if (!way || !last) {
    for (const id of ['confidence', 'exit', 'whole', 'macs', 'time']) say(id, '');
    for (const id of ['macs-bar', 'time-bar']) element(id, HTMLElement).style.width = '0';
    return;
  }
  const {whole} = way;
  say('confidence', `${percent(last.confidence)} sure`);
  say('exit', `Exit ${last.exit} of ${opened.exits.at(-1)}`);
  say('whole', `The ${wholeName(opened)}: ${whole.label}`);
  say('macs', `${millions(last.macs)} M of ${millions(opened.fullMacs)} M ` +
      `multiply-adds, ${saving(last.macs, opened.fullMacs)}`);
  say('time', `${milliseconds(last.ms)} of ${milliseconds(whole.ms)} ms, ` +
      saving(last.ms, whole.ms));
  showShare('macs-bar', last.macs / opened.fullMacs);
  showShare('time-bar', last.ms / whole.ms);
}

/** Whether a label is too long to be shown as large as a digit. */
function isWord(label: string): boolean {
  return label.length > 2;
}

function showShare(id: string, share: number): void {
  element(id, HTMLElement).style.width = `${100 * Math.min(share, 1)}%`;
}

function exitItem(exit: number, index: number, passed: readonly Passed[]): HTMLElement {
  const item = document.createElement('li');
  const said = passed[index];
  const name = document.createElement('span');
  name.textContent = `exit ${exit}`;
  item.append(name);
  item.style.setProperty('--order', String(index));
  item.classList.toggle('passed', said !== undefined);
  item.classList.toggle('stopped', said !== undefined && said === passed.at(-1));
  if (said) {
    const label = document.createElement('b');
    label.textContent = said.label;
    const details = document.createElement('span');
    details.innerText =
        `${percent(said.confidence)}\n${millions(said.macs)} M\n${milliseconds(said.ms)} ms`;
    item.append(label, details);
  }
  return item;
}

/** The way in words, for those who do not see it. */
export function wayInWords(opened: Opened, {passed, whole}: Way): string {
  const last = passed.at(-1)!;
  return `Exit ${last.exit} of ${opened.exits.at(-1)} answers ${last.label}, ` +
      `${percent(last.confidence)} sure, after ${millions(last.macs)} of ` +
      `${millions(opened.fullMacs)} million multiply-adds. ` +
      `The ${wholeName(opened)} says ${whole.label}.`;
}

/** The results of all test images; null takes them away. */
export function showEvaluation(opened: Opened, evaluation: Evaluation|null): void {
  element('results', HTMLElement).hidden = evaluation === null;
  if (evaluation === null) return;
  showScore('early', evaluation.early);
  showScore('whole', evaluation.whole);
  const items = opened.exits.map((exit, i) => {
    const count = evaluation.histogram[i]!;
    const item = document.createElement('li');
    const [name, number] = [document.createElement('span'), document.createElement('span')];
    name.textContent = `exit ${exit}`;
    number.textContent = String(count);
    const bar = document.createElement('div');
    bar.className = 'bar';
    const filled = document.createElement('div');
    filled.style.width = `${100 * count / evaluation.images}%`;
    bar.append(filled);
    item.append(name, bar, number);
    return item;
  });
  element('histogram', HTMLElement).replaceChildren(...items);
}

function showScore(who: 'early'|'whole', {accuracy, meanMacs, meanMs}: Score): void {
  say(`${who}-accuracy`, percent(accuracy, 1));
  say(`${who}-macs`, `${millions(meanMacs)} M`);
  say(`${who}-ms`, meanMs.toFixed(3));
}
