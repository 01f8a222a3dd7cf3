/** The page: what its controls do. */

import {Drawing} from './drawing.js';
import type {Example, Opened, Question, Reply, Requests, Source, Way} from './messages.js';
import {windowOf} from './pixels.js';
import {betaText, drawPixels, element, percent, policyText, say, showEvaluation, showExamples, showWay, wayInWords, wholeName} from './view.js';

/** What models.json says of each model. */
interface ModelInfo {
  /** Of its folder in `bundles`. */
  readonly name: string;
  readonly title: string;
  /** Whether drawings make sense. */
  readonly draw: boolean;
  /** Whether the plain network without early exits is there to compare with. */
  readonly network: boolean;
  readonly task: string;
}

const DRAWING_KEYS = 'Draw with a pointer; or with the keyboard: arrow keys move the pen, ' +
    'space lowers and lifts it, delete clears.';
const BETA_STEPS = 20;

/** The worker, whose answers are promises. */
class Computer {
  /** Called with how far a long task is. */
  progress: (done: number, all: number|null, of: string) => void = () => {};
  private readonly worker = new Worker(new URL('worker.js', location.href), {type: 'module'});
  private readonly waiting =
      new Map<number, {done(value: any): void, failed(error: Error): void}>();
  private count = 0;

  constructor() {
    this.worker.addEventListener('message', ({data}: MessageEvent<Reply>) => {
      if ('of' in data) {
        this.progress(data.done, data.all, data.of);
        return;
      }
      const waiting = this.waiting.get(data.id)!;
      this.waiting.delete(data.id);
      if ('value' in data) waiting.done(data.value);
      else waiting.failed(new Error(data.message));
    });
    this.worker.addEventListener('error', event => {
      const error = new Error(event.message || 'The page\'s worker cannot be loaded.');
      for (const {failed} of this.waiting.values()) failed(error);
      this.waiting.clear();
    });
  }

  ask<Name extends keyof Requests>(name: Name, ...given: Parameters<Requests[Name]>):
      Promise<ReturnType<Requests[Name]>> {
    const question: Question<Name> = {id: this.count++, name, given};
    return new Promise((done, failed) => {
      this.waiting.set(question.id, {done, failed});
      this.worker.postMessage(question);
    });
  }
}

/** What is shown now; all methods are for the controls. */
class Page {
  private computer = new Computer();
  private readonly drawing = new Drawing(element('canvas', HTMLCanvasElement));
  private readonly slider = element('beta', HTMLInputElement);
  private model: ModelInfo|null = null;
  private opened: Opened|null = null;
  private source: (() => Source)|null = null;
  private classifying = false;
  private changed = false;
  private slowly = true;

  constructor() {
    this.drawing.changed = ended => this.drawn(ended);
    this.drawing.cleared = () => this.clear();
    this.listen();
  }

  /** Opens a model in place of the one before. */
  async open(model: ModelInfo): Promise<void> {
    this.model = model;
    this.opened = null;
    this.source = null;
    element('fault', HTMLElement).hidden = true;
    this.setState('loading');
    try {
      this.computer.progress = loadingProgress;
      const opened = await this.computer.ask('open', model.name, model.network);
      // Another may have been chosen meanwhile.
      if (this.model !== model) return;
      this.opened = opened;
      this.describe(opened, model);
      this.choose(opened.examples[0]!);
    } catch (error) {
      if (this.model === model) this.fail(error as Error);
    }
  }

  private describe(opened: Opened, model: ModelInfo): void {
    say('task', model.task);
    say('keys', model.draw ? DRAWING_KEYS : '');
    say('run', `Run ${opened.testImages} test images`);
    this.drawing.enabled = model.draw;
    showExamples(opened, example => this.choose(example));
    showWay(opened, null, false);
    showEvaluation(opened, null);
    element('beta-choice', HTMLElement).hidden = typeof opened.beta === 'number';
    say('policy', policyText(opened));
    say('whole-name', wholeName(opened));
    this.showBeta();
  }

  private listen(): void {
    element('clear', HTMLElement).addEventListener('click', () => this.clear());
    element('again', HTMLElement).addEventListener('click', () => {
      this.computer = new Computer();
      if (this.model) void this.open(this.model);
    });
    element('run', HTMLElement).addEventListener('click', () => void this.run());
    this.slider.addEventListener('input', () => this.moveBeta());
    const input = element('file', HTMLInputElement);
    input.addEventListener('change', () => {
      const [file] = input.files ?? [];
      if (file) void this.take(file);
      // The same file may be chosen again.
      input.value = '';
    });
    this.listenToDrops();
  }

  private listenToDrops(): void {
    const canvas = element('canvas', HTMLElement);
    for (const name of ['dragover', 'drop'] as const) {
      document.addEventListener(name, event => {
        event.preventDefault();
        canvas.classList.toggle('over', name === 'dragover');
      });
    }
    document.addEventListener('dragleave', () => canvas.classList.remove('over'));
    document.addEventListener('drop', event => {
      const [file] = event.dataTransfer?.files ?? [];
      if (file) void this.take(file);
    });
  }

  /** β as the model takes it; undefined where it has one of its own. */
  private get beta(): number|undefined {
    const beta = this.opened?.beta;
    if (beta === undefined || typeof beta === 'number') return undefined;
    const [low, high] = beta;
    const step = Number(this.slider.value) / BETA_STEPS;
    return Math.min(Math.max(low * (high / low) ** step, low), high);
  }

  private showBeta(): void {
    if (!this.opened) return;
    const text = betaText(this.beta ?? this.opened.beta as number, this.opened);
    say('beta-value', text);
    this.slider.setAttribute('aria-valuetext', text);
  }

  private moveBeta(): void {
    if (!this.opened) return;
    this.showBeta();
    showEvaluation(this.opened, null);
    this.slowly = false;
    this.refresh();
  }

  private choose(example: Example): void {
    if (!this.opened) return;
    const canvas = new OffscreenCanvas(1, 1);
    drawPixels(canvas, example.pixels, this.opened);
    this.drawing.show(canvas);
    say('correct', `Correct: ${example.label}`);
    this.show(() => example.index);
  }

  /** Takes a file, which is shown as the model sees it. */
  private async take(file: File): Promise<void> {
    if (!this.opened) return;
    say('correct', '');
    this.show(() => file);
    const bitmap = await createImageBitmap(file).catch(() => null);
    // What cannot be read, the worker complains of.
    if (!bitmap || !this.opened) return;
    const {left, top, width, height} = windowOf(this.opened, bitmap.width, bitmap.height);
    const canvas = new OffscreenCanvas(this.opened.width, this.opened.height);
    const context = canvas.getContext('2d')!;
    context.drawImage(bitmap, left, top, width, height, 0, 0, canvas.width, canvas.height);
    this.drawing.show(canvas);
  }

  private drawn(ended: boolean): void {
    say('correct', '');
    this.show(() => this.drawing.render(), ended);
  }

  private clear(): void {
    this.drawing.clear();
    this.source = null;
    say('correct', '');
    if (this.opened) showWay(this.opened, null, false);
  }

  private show(source: () => Source, slowly = true): void {
    this.source = source;
    this.slowly = slowly;
    this.refresh();
  }

  /** Classifies what is shown, unless that is going on: then again afterwards. */
  private refresh(): void {
    this.changed = this.classifying;
    if (this.classifying || !this.source || !this.opened) return;
    this.setClassifying(true);
    void this.classify(this.source, this.opened).finally(() => {
      this.setClassifying(false);
      if (this.changed) this.refresh();
    });
  }

  private setClassifying(value: boolean): void {
    this.classifying = value;
    element('way', HTMLElement).ariaBusy = String(value);
  }

  private async classify(source: () => Source, opened: Opened): Promise<void> {
    const {slowly} = this;
    try {
      const way = await this.computer.ask('classify', source(), this.beta);
      if (this.source === null || this.opened !== opened) return;
      element('fault', HTMLElement).hidden = true;
      this.answer(way, opened, slowly);
    } catch (error) {
      if (this.opened === opened) this.complain(error as Error);
    }
  }

  private answer(way: Way, opened: Opened, slowly: boolean): void {
    showWay(opened, way, slowly);
    // While a stroke is drawn or β is moved, every answer would be spoken.
    if (!this.changed) say('spoken', wayInWords(opened, way));
    if (document.documentElement.dataset['state'] === 'loading') this.setState('ready');
  }

  private async run(): Promise<void> {
    const {opened} = this;
    if (!opened) return;
    const button = element('run', HTMLButtonElement);
    const bar = element('run-bar', HTMLProgressElement);
    button.disabled = true;
    bar.hidden = false;
    this.computer.progress = (done, all) => {
      bar.max = all ?? 1;
      bar.value = done;
    };
    try {
      const evaluation = await this.computer.ask('evaluate', this.beta);
      if (this.opened !== opened) return;
      showEvaluation(opened, evaluation);
      const {early, whole} = evaluation;
      say('spoken', `Accuracy ${percent(early.accuracy, 1)} with early exit, ` +
          `${percent(whole.accuracy, 1)} of the ${wholeName(opened)}.`);
    } catch (error) {
      this.complain(error as Error);
    } finally {
      button.disabled = false;
      bar.hidden = true;
    }
  }

  private fail(error: Error): void {
    this.setState('failed');
    this.complain(error);
  }

  private complain(error: Error): void {
    say('fault-text', error.message);
    element('fault', HTMLElement).hidden = false;
  }

  private setState(state: 'loading'|'ready'|'failed'): void {
    document.documentElement.dataset['state'] = state;
    element('loading', HTMLElement).hidden = state !== 'loading';
    element('run', HTMLButtonElement).disabled = state !== 'ready';
    if (state !== 'ready') return;
    performance.mark('ready');
    keepForOffline();
  }
}

function loadingProgress(done: number, all: number|null, of: string): void {
  if (of !== 'bytes') return;
  const bar = element('loading-bar', HTMLProgressElement);
  if (all !== null) {
    bar.max = all;
    bar.value = done;
  }
  say('loading-text', `Loading… ${(done / 1e6).toFixed(1)} MB`);
}

/** Once the page has answered, so as not to hold it up. */
function keepForOffline(): void {
  // Missing on pages without https.
  if (!('serviceWorker' in navigator)) return;
  navigator.serviceWorker.register('service_worker.js').catch(() => {});
  void navigator.serviceWorker.ready.then(
      () => element('offline', HTMLElement).hidden = false);
}

/** Light or dark, as chosen here or, without a choice, in the system. */
function followTheme(): void {
  const choice = element('theme', HTMLSelectElement);
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => {
    const theme = choice.value || (dark.matches ? 'dark' : 'light');
    document.documentElement.dataset['theme'] = theme;
  };
  choice.value = localStorage.getItem('theme') ?? '';
  choice.addEventListener('change', () => {
    localStorage.setItem('theme', choice.value);
    apply();
  });
  dark.addEventListener('change', apply);
  apply();
}

/** One tab for each model; the first one is opened. */
async function start(): Promise<void> {
  followTheme();
  const response = await fetch('models.json');
  const models = await response.json() as ModelInfo[];
  const page = new Page();
  const tabs = models.map((model, i) => {
    const label = document.createElement('label');
    const input = document.createElement('input');
    input.type = 'radio';
    input.name = 'model';
    input.checked = i === 0;
    input.addEventListener('change', () => void page.open(model));
    label.append(input, model.title);
    return label;
  });
  element('models', HTMLElement).append(...tabs);
  await page.open(models[0]!);
}

void start();
