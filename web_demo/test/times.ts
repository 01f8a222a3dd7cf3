/**
 * How fast the page is: until its first answer, and early exit against the whole network.
 *
 *     make web-times
 */

import type {Browser, Page} from 'playwright-core';

import {startChromium, TIMEOUT} from './chromium.js';
import {Server} from './server.js';

/** Rounds, of which the best is told: others had the machine for themselves less. */
const ROUNDS = 5;
/** By how much the share of the time may exceed that of the multiply-adds. */
const ALLOWED = 0.15;

/** Milliseconds from the call of a page to its first answer. */
async function untilReady(browser: Browser, address: string): Promise<number> {
  const page = await opened(browser, address);
  const ms = await page.evaluate(() => performance.getEntriesByName('ready')[0]!.startTime);
  await page.context().close();
  return ms;
}

/** A page in a context of its own, which has nothing stored. */
async function opened(browser: Browser, address: string): Promise<Page> {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(TIMEOUT);
  await page.goto(`${address}/`);
  await page.waitForSelector('[data-state=ready]');
  return page;
}

async function number(page: Page, id: string): Promise<number> {
  return parseFloat((await page.textContent(`#${id}`))!);
}

/** Runs the test images of a model again and again, at the β in the middle. */
async function tellModel(page: Page, title: string): Promise<void> {
  await page.getByLabel(title).check();
  await page.waitForSelector('#results', {state: 'hidden'});
  await page.waitForSelector('[data-state=ready]');
  let [early, whole] = [Infinity, Infinity];
  for (let round = 0; round < ROUNDS; round++) {
    await page.click('#run');
    await page.waitForSelector('#run:not([disabled])');
    const ms = await number(page, 'early-ms');
    if (ms < early) [early, whole] = [ms, await number(page, 'whole-ms')];
  }
  const [part, all] = [await number(page, 'early-macs'), await number(page, 'whole-macs')];
  const [ratio, share] = [early / whole, part / all];
  const verdict = ratio <= share + ALLOWED ? 'within' : 'MISSED, more than';
  console.log(
      `${title}: ${early} of ${whole} ms, ratio ${ratio.toFixed(2)}, ` +
      `${verdict} the share of multiply-adds ${share.toFixed(2)} + ${ALLOWED}`);
}

const server = new Server();
const address = await server.start();
const browser = await startChromium();
const times = [];
for (let round = 0; round < ROUNDS; round++) times.push(await untilReady(browser, address));
console.log(`first answer after ${times.map(Math.round).join(', ')} ms`);
const page = await opened(browser, address);
const titles = await page.locator('#models label').allTextContents();
for (const title of titles) await tellModel(page, title);
await browser.close();
server.stop();
