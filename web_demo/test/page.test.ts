/** The page in Chromium, used as people do. */

import assert from 'node:assert/strict';
import {mkdirSync, readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {after, before, test, type TestContext} from 'node:test';

import type {Browser, BrowserContextOptions, Page} from 'playwright-core';

import {startChromium, TIMEOUT} from './chromium.js';
import {ROOT, Server, SITE} from './server.js';

const PICTURES = join(ROOT, 'android_demo/app/src/jvmTest/resources/pictures');
const APP_PHOTOS = join(ROOT, 'android_demo/app/src/main/assets/photos');
const ANSWERS = join(ROOT, 'web_demo/build/answers');
const SHOTS = join(ROOT, 'web_demo/build/screenshots');
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let browser: Browser;

before(async () => {
  browser = await startChromium();
}, {timeout: TIMEOUT});

after(() => browser.close());

/** A server and a page of their own; what the page complains of fails the test. */
interface Visit {
  server: Server;
  address: string;
  page: Page;
}

/** Runs `action` as a test with a visit. */
function visit(
    name: string, action: (visit: Visit, context: TestContext) => Promise<void>,
    options: BrowserContextOptions = {}): void {
  test(name, {timeout: TIMEOUT}, async context => {
    const server = new Server();
    const address = await server.start();
    const browsing = await browser.newContext({reducedMotion: 'reduce', ...options});
    const page = await browsing.newPage();
    page.setDefaultTimeout(TIMEOUT);
    const errors: Error[] = [];
    page.on('pageerror', error => errors.push(error));
    try {
      await action({server, address, page}, context);
      assert.deepEqual(errors, []);
    } finally {
      await browsing.close();
      server.stop();
    }
  });
}

async function opened({page, address}: Visit): Promise<void> {
  await page.goto(`${address}/`);
  await page.waitForSelector('[data-state=ready]');
}

/** Does what changes the answer, and waits until it has. */
async function changes(page: Page, action: () => Promise<unknown>): Promise<void> {
  const mark = await page.evaluate(() => {
    const item = document.querySelector('#way li')!;
    item.id = 'before';
    return item.id;
  });
  await action();
  await page.waitForSelector(`#${mark}`, {state: 'detached'});
}

/** Waits until nothing is classified any more, and reads what is shown. */
async function answer(page: Page): Promise<{label: string, exit: number}> {
  await page.waitForFunction(() => document.getElementById('way')!.ariaBusy !== 'true');
  const label = await page.textContent('#label');
  const exit = await page.textContent('#exit');
  return {label: label!, exit: Number(/Exit (\d+) of/.exec(exit!)?.[1])};
}

/** Draws strokes, given from 0 to 1, with the mouse. */
async function draw(page: Page, ...strokes: [number, number][][]): Promise<void> {
  const {x, y, width, height} = (await page.locator('#canvas').boundingBox())!;
  for (const stroke of strokes) {
    const [first, ...others] = stroke.map(([u, v]) => [x + u * width, y + v * height] as const);
    await page.mouse.move(...first!);
    await page.mouse.down();
    for (const place of others) await page.mouse.move(...place, {steps: 4});
    await page.mouse.up();
  }
}

const ONE: [number, number][] = [[0.5, 0.3], [0.5, 0.7]];
const SEVEN_AND_ONE: [number, number][][] =
    [[[0.1, 0.2], [0.4, 0.2], [0.22, 0.6]], [[0.75, 0.42], [0.75, 0.85]]];

visit('the first image is answered by itself, and read out', async visit => {
  await opened(visit);
  const {label, exit} = await answer(visit.page);
  const lit = await visit.page.locator('#way .passed').count();
  assert.equal(lit, exit);
  assert.match((await visit.page.textContent('#correct'))!, /^Correct: \d$/);
  const text = (await visit.page.textContent('#macs'))!;
  const [, part, whole] = /^([\d.]+) M of ([\d.]+) M /.exec(text)!;
  const [bar, filled] = await Promise.all(['.bar:has(#macs-bar)', '#macs-bar'].map(
      async place => (await visit.page.locator(place).boundingBox())!.width));
  assert.ok(Math.abs(filled! / bar! - Number(part) / Number(whole)) < 0.02);
  const spoken = await visit.page.textContent('#spoken');
  assert.match(spoken!, new RegExp(`^Exit ${exit} of \\d+ answers ${label}, \\d+ % sure`));
});

visit('digits are drawn with a pointer', async visit => {
  await opened(visit);
  const {page} = visit;
  await page.click('#clear');
  assert.equal(await page.textContent('#label'), '–');
  await changes(page, () => draw(page, ONE));
  assert.equal((await answer(page)).label, '1');
  await page.click('#clear');
  await changes(page, () => draw(page, ...SEVEN_AND_ONE));
  assert.equal((await answer(page)).label, '6');
});

visit('a digit is drawn with the keyboard', async visit => {
  await opened(visit);
  const {page} = visit;
  await page.focus('#canvas');
  await page.keyboard.press('Delete');
  assert.equal(await page.textContent('#label'), '–');
  for (let i = 0; i < 5; i++) await page.keyboard.press('ArrowUp');
  await changes(page, () => page.keyboard.press('Space'));
  for (let i = 0; i < 10; i++) await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Space');
  assert.equal((await answer(page)).label, '1');
});

visit('the same images stop earlier where computing costs more', async visit => {
  await opened(visit);
  const {page} = visit;
  const sums = [];
  for (const step of ['0', '20']) {
    await changes(page, () => page.fill('#beta', step));
    let sum = 0;
    const examples = await page.locator('#examples button').all();
    for (const example of examples) {
      await changes(page, () => example.click());
      sum += (await answer(page)).exit;
    }
    sums.push(sum);
  }
  assert.ok(sums[1]! < sums[0]!, `sums of exits: ${sums}`);
  const text = await page.textContent('#beta-value');
  assert.match(text!, /points of accuracy for a million multiply-adds \(β\u00a0=\u00a0[\d.e−]+\)$/);
  assert.equal(await page.getAttribute('#beta', 'aria-valuetext'), text);
});

function json(...place: string[]): any {
  return JSON.parse(readFileSync(join(...place), 'utf8'));
}

/** Opens another model. */
async function openModel(page: Page, title: string): Promise<void> {
  await changes(page, () => page.getByLabel(title).check());
  await page.waitForSelector('[data-state=ready]');
}

/** Runs the test images; they leave and are answered as Python says. */
async function runAll(
    {page}: Visit, context: TestContext, bundle: string, exits: number[],
    found: number[]): Promise<void> {
  await page.click('#run');
  await page.waitForSelector('#results:not([hidden])');
  const counts = await page.locator('#histogram li span:last-child').allTextContents();
  assert.deepEqual(
      counts.map(Number),
      counts.map((_, i) => exits.filter(exit => exit === i + 1).length));
  const {labels} = json(SITE, 'bundles', bundle, 'images.json');
  const right = found.filter((label, i) => label === labels[i]).length;
  assert.equal(
      await page.textContent('#early-accuracy'),
      `${(100 * right / found.length).toFixed(1)} %`);
  assert.ok(await page.isHidden('#run-bar'));
  context.diagnostic(`${await page.textContent('#early-ms')} ms early, ` +
      `${await page.textContent('#whole-ms')} ms whole`);
}

visit('all test images, as Python', async (visit, context) => {
  await opened(visit);
  await openModel(visit.page, 'Objects');
  const {exits, labels} = json(ANSWERS, 'cifar10-int8', 'answers.json');
  await runAll(visit, context, 'cifar10', exits[0], labels[0]);
  assert.equal(await visit.page.textContent('#whole-name'), 'whole network');
});

visit('the bundle for photos is the app\'s, and beside its last exit', async (visit, context) => {
  const name = readFileSync(join(APP_PHOTOS, 'bundles/names.txt'), 'utf8').trim();
  const manifest = json(SITE, 'bundles/photos/epnet.json');
  assert.deepEqual(manifest, json(APP_PHOTOS, 'bundles', name, 'epnet.json'));
  await opened(visit);
  const {page} = visit;
  await openModel(page, 'Photos');
  const last = manifest.segments.length;
  assert.match((await page.textContent('#spoken'))!, / The last exit says \w+\.$/);
  // It has one β and takes no other.
  assert.ok(await page.isHidden('#beta'));
  const {confidence} = manifest.policy;
  const percents = confidence?.map((share: number) => (100 * share).toFixed(0)).join(', ');
  assert.equal(
      await page.textContent('#policy'),
      confidence ? `An exit answers when it is surer than its threshold: ${percents} %.` :
                   'A learned controller at each exit decides.');
  const {exits, labels} = json(APP_PHOTOS, 'answers', `${name}.json`);
  await runAll(visit, context, 'photos', exits, labels);
  assert.equal(await page.textContent('#whole-name'), 'last exit');
  const all = manifest.segments[last - 1].cumulative_macs;
  assert.equal(await page.textContent('#whole-macs'), `${(all / 1e6).toFixed(1)} M`);
});

visit('photos are chosen and dropped', async visit => {
  await opened(visit);
  const {page} = visit;
  await openModel(page, 'Photos');
  const file = join(PICTURES, 'exif-6.jpg');
  await changes(page, () => page.setInputFiles('#file', file));
  assert.equal(await page.textContent('#correct'), '');
  const data = await page.evaluateHandle(base64 => {
    const bytes = Uint8Array.from(atob(base64), each => each.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], 'dropped.jpg'));
    return transfer;
  }, readFileSync(file).toString('base64'));
  const chosen = await answer(page);
  await changes(page, () => page.dispatchEvent('#canvas', 'drop', {dataTransfer: data}));
  assert.deepEqual(await answer(page), chosen);
});

visit('a file that is no picture is a sentence, and the page goes on', async visit => {
  await opened(visit);
  const {page} = visit;
  const file = {name: 'x.png', mimeType: 'image/png', buffer: Buffer.from('nothing')};
  await page.setInputFiles('#file', file);
  await page.waitForSelector('#fault:not([hidden])');
  assert.equal(
      await page.textContent('#fault-text'),
      'x.png: found no picture that this browser can read, expected an image file.');
  await changes(page, () => page.locator('#examples button').first().click());
  assert.ok(await page.isHidden('#fault'));
});

visit('a damaged bundle is a sentence, and a second attempt works', async visit => {
  const {page, server, address} = visit;
  const place = '/bundles/maxmin/segment_03.tflite';
  const damaged = readFileSync(join(SITE, place));
  damaged[700]! ^= 1;
  server.others.set(place, damaged);
  await page.goto(`${address}/`);
  await page.waitForSelector('[data-state=failed]');
  assert.match(
      (await page.textContent('#fault-text'))!,
      /\/bundles\/maxmin\/segment_03\.tflite: found sha256 \w{64}, expected \w{64}\.$/);
  assert.ok(await page.isDisabled('#run'));
  server.others.delete(place);
  await page.click('#again');
  await page.waitForSelector('[data-state=ready]');
  assert.ok(await page.isHidden('#fault'));
});

visit('a slow network: the page says how far it is, and can be used', async visit => {
  const {page, server, address} = visit;
  const release = server.hold('/litert.wasm.gz');
  await page.goto(`${address}/`);
  // What comes, comes in its own time.
  await page.waitForFunction(
      () => (document.getElementById('loading-bar') as HTMLProgressElement).position > 0.4);
  assert.match((await page.textContent('#loading-text'))!, /^Loading… [1-9]/);
  const bar = page.locator('#loading-bar');
  const share = await bar.evaluate((element: HTMLProgressElement) => element.position);
  assert.ok(share < 0.6, `${share}`);
  assert.ok(await page.isDisabled('#run'));
  await page.selectOption('#theme', 'dark');
  assert.equal(await page.getAttribute('html', 'data-theme'), 'dark');
  release();
  await page.waitForSelector('[data-state=ready]');
  assert.ok(await page.isHidden('#loading'));
});

visit('a browser without WebAssembly\'s SIMD', async visit => {
  const {page, server, address} = visit;
  // The page asks in its worker, where Playwright's scripts do not get.
  const runtime = readFileSync(join(SITE, 'worker.js'), 'utf8');
  const without = `WebAssembly.validate = () => false;\n${runtime}`;
  server.others.set('/worker.js', Buffer.from(without));
  await page.goto(`${address}/`);
  await page.waitForSelector('[data-state=failed]');
  assert.equal(
      await page.textContent('#fault-text'),
      'This browser: found no WebAssembly with SIMD, expected a browser of 2023 or later.');
});

visit('it works without a network once it has been loaded', async visit => {
  await opened(visit);
  const {page, server} = visit;
  await page.waitForSelector('#offline:not([hidden])');
  server.stop();
  await page.context().setOffline(true);
  await page.reload();
  await page.waitForSelector('[data-state=ready]');
  await openModel(page, 'Objects');
});

visit('the theme follows the system until one is chosen, and is kept', async visit => {
  await opened(visit);
  const {page} = visit;
  const theme = (name: string) => page.waitForSelector(`html[data-theme=${name}]`);
  await theme('light');
  // The page hears of it in its own time.
  await page.emulateMedia({colorScheme: 'dark'});
  await theme('dark');
  await page.selectOption('#theme', 'light');
  await theme('light');
  await page.reload();
  await theme('light');
});

/** Shows all that there is to see, and keeps a screenshot to be looked at. */
async function checkLooks(page: Page, name: string): Promise<void> {
  await changes(page, () => page.locator('#examples button').last().click());
  await page.click('#run');
  await page.waitForSelector('#results:not([hidden])');
  mkdirSync(SHOTS, {recursive: true});
  await page.screenshot({path: join(SHOTS, `${name}.png`), fullPage: true});
  assert.ok(await page.evaluate(
      () => document.documentElement.scrollWidth <= document.documentElement.clientWidth));
  await page.evaluate(AXE);
  const found = await page.evaluate(() => (window as any).axe.run());
  const serious = found.violations.filter(
      ({impact}: {impact: string}) => ['serious', 'critical'].includes(impact));
  assert.deepEqual(
      serious.map(({id, nodes}: any) => [id, nodes.map((node: any) => node.html)]), []);
}

for (const colorScheme of ['light', 'dark'] as const) {
  for (const [device, width, height] of [['phone', 360, 780], ['desktop', 1280, 900]] as const) {
    visit(`accessible and in one piece: ${colorScheme}, ${device}`, async visit => {
      await opened(visit);
      await checkLooks(visit.page, `${colorScheme}-${device}-digits`);
      await openModel(visit.page, 'Photos');
      await checkLooks(visit.page, `${colorScheme}-${device}-photos`);
    }, {colorScheme, viewport: {width, height}});
  }
}
