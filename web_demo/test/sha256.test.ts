import assert from 'node:assert/strict';
import {createHash} from 'node:crypto';
import {test} from 'node:test';

import {sha256} from '../src/sha256.js';

test('as Node\'s, for every length around a block', () => {
  for (let length = 0; length < 200; length++) {
    const data = Uint8Array.from({length}, (_, i) => 7 * i + length);
    assert.equal(sha256(data), createHash('sha256').update(data).digest('hex'));
  }
});
