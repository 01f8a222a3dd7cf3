/** Chromium without a screen. */

import {type Browser, chromium} from 'playwright-core';

/** Starts it; it asks the machine's network for nothing. */
export function startChromium(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
    timeout: TIMEOUT,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/** Milliseconds until a test gives up; much more than a busy machine needs. */
export const TIMEOUT = 300_000;
