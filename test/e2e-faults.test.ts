/**
 * A few rows of the fault matrix, flown on the real engine; `npm run bench -- faults` flies them all. Chosen so that each
 * way out is taken: on to V2, back to V1, V1 as it was, and on after the agent's death. In strict mode: a gate has the tty,
 * and outlives the agent.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { Scope } from '#cli/demo/scope.ts';
import { World } from '#cli/demo/world.ts';
import { engineAt } from '#cli/engine.ts';
import { FaultLab } from './faults/lab.ts';
import { rowName, rows } from './faults/rows.ts';

const CHOSEN = [
  'v1/SIGKILL/sent-RELEASED-camera',
  'v1/SIGSTOP/heard-RELEASE-rotors',
  'v2/SIGKILL/heard-GRANT-rotors',
  'v2/garbage/sent-GRANTED-camera',
  'agent/SIGKILL/sent-GRANT-connections',
];

const scope = new Scope();
const directory = mkdtempSync('/tmp/midair-e2e-');
const world = new World({
  scope,
  directory,
  signal: new AbortController().signal,
  device: `faults-${process.pid}`,
  gate: true,
});
const lab = new FaultLab(world);
let failed = false;

beforeAll(async () => {
  const engine = await engineAt(process.env.MIDAIR_TEST_ENGINE ?? '');
  world.useEngines(engine, engine);
  await lab.open();
}, 120_000);

afterEach(({ task }) => {
  failed ||= task.result?.state === 'fail';
});

afterAll(async () => {
  const [error] = await scope.close();
  // Logs of a story that went wrong stay.
  if (failed) process.stderr.write(`logs: ${directory}/logs\n`);
  else rmSync(directory, { recursive: true, force: true });
  if (error !== undefined) throw error;
}, 60_000);

it.each(CHOSEN)('%s ends as the failure matrix says', async (name) => {
  const row = rows().find((one) => rowName(one) === name);
  if (row === undefined) throw new RangeError(`there is no row ${name}`);
  const { done, result, judged, told } = await lab.fly(row);
  expect(done, 'the step came').toBe(true);
  expect(row.expected, told).toContain(result);
  expect(judged).toMatchObject({ stale: 0, doubled: 0, failsafes: 0 });
});
