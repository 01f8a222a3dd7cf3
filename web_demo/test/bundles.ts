/** Bundles that the tests read. */

import {join} from 'node:path';

import {SITE} from './server.js';

/** The page's Max-Min bundle, whose controllers take beta. */
export const BUNDLE = join(SITE, 'bundles', 'maxmin');

