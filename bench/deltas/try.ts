/** `node bench/deltas/try.ts DELTA SPOOLED.json`: applies the delta to nothing and tells, as JSON, what it took (deltas/trial.ts). */
import { readFileSync } from 'node:fs';
import { fileAccess, openDelta, openSpooled, type SpooledBasis, tryDelta } from '#deltas/index.ts';

const [path, spooled] = process.argv.slice(2) as [string, string];
const file = await fileAccess(path);
const basis = await openSpooled(JSON.parse(readFileSync(spooled, 'utf8')) as SpooledBasis);
const startMs = performance.now();
const cost = await tryDelta(await openDelta(file), basis);
console.log(JSON.stringify({ ...cost, ms: performance.now() - startMs }));
