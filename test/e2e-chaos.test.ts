/**
 * A story in flight: a drone is updated while failures are done to it and its hub link, by the injector, in the harness's own
 * parts: the link partitioned at the moment the update is to begin, the injector killed meanwhile, the agent's disk full.
 * The drone has no camera.
 * MIDAIR_TEST_ENGINE is hub's and drone's engine both.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { ChaosClient } from '#cli/chaos/client.ts';
import { mountAgentDisk, startChaos, startLink } from '#cli/chaos/harness.ts';
import { openIn, readLedger } from '#cli/chaos/ledger.ts';
import { linkState } from '#cli/chaos/wire/client.ts';
import type { Child } from '#cli/demo/child.ts';
import type { Repository } from '#cli/demo/repository.ts';
import { Scope } from '#cli/demo/scope.ts';
import { World } from '#cli/demo/world.ts';
import { engineAt } from '#cli/engine.ts';
import { nowUs } from '#handover/native.ts';

const scope = new Scope();
const directory = mkdtempSync('/tmp/midair-e2e-');
const device = `chaos-${process.pid}`;
const world = new World({ scope, directory, signal: new AbortController().signal, device });
let app: Repository;
let client: ChaosClient;
let child: Child;
let control: string;
let failed = false;

beforeAll(async () => {
  const engine = await engineAt(process.env.MIDAIR_TEST_ENGINE ?? '');
  world.useEngines(engine, engine);
  await world.startHub();
  await world.startSim(['--no-camera']);
  control = await startLink(world);
  await mountAgentDisk(scope, world, 448 * 2 ** 20);
  await world.startAgent();
  ({ client, child } = await startChaos(world));
  app = await world.repository('hover');
  app.overlay('drone');
  await push('V1');
  await world.updated('v1');
  await world.hovering();
}, 240_000);

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

async function push(subject: string): Promise<void> {
  await app.commit(subject);
  await app.push();
}

/** One owner, never two; and the drone stayed where it was. */
async function expectFlown(fromUs: number, release: string): Promise<void> {
  await world.pause(500);
  const judged = await world.sim.judge(fromUs, nowUs());
  expect(judged).toMatchObject({ stale: 0, doubled: 0, failsafes: 0 });
  // The disturbed link and disk are not felt by the control loop; what is, is how busy this machine is.
  expect(judged.attitudeDegMax).toBeLessThan(25);
  expect((await world.current())?.owner?.release).toBe(release);
  const filters = { label: [`io.midair.device=${device}`] };
  expect((await world.droneEngine.docker.listContainers({ filters })).length).toBe(1);
}

const happened = async (type: string) => (await client.events()).filter((one) => one.type === type);

test('updated while its hub link is partitioned: it flies on, hears of it when the link is back, and is updated', async () => {
  const fromUs = nowUs();
  const { experiment, matches } = await client.create({
    ...{ failure: 'partition', criteria: 'service=main,role=owner', frequencyMs: 250, probability: 1 },
    ...{ durationMs: 60_000, forMs: 60_250, seed: 1 },
  });
  expect(matches).toEqual([`link of ${device}`]);
  await world.until('the partition', async () =>
    (await linkState(control)).faults.length > 0 ? 1 : undefined,
  );
  app.overlay('drone-v2');
  await push('Add a thermal camera view');
  // The target is at the hub; of it the device hears nothing.
  await world.pause(1_000);
  expect((await world.current())?.owner?.release).toBe('v1');
  expect((await linkState(control)).faults.length).toBe(1);
  await client.stop(experiment.id);
  await world.updated('v2');
  expect((await happened('undone')).map((one) => one.text).join()).toContain('the link passes bytes again');
  await expectFlown(fromUs, 'v2');
}, 120_000);

test('its disk is full when the next one comes, and the injector is killed: it flies on, and is updated when there is room', async () => {
  const fromUs = nowUs();
  const criteria = `device=${device},role=agent`;
  await client.create({
    failure: 'disk-full',
    criteria,
    frequencyMs: 250,
    probability: 1,
    durationMs: 60_000,
  });
  await world.until('the disk to be full', async () =>
    (await happened('on')).some((one) => one.text.includes('bytes written')) ? 1 : undefined,
  );
  app.overlay('drone');
  app.write('change.txt', 'something else');
  await push('V1 again');
  const release = (await world.hub.status()).target.release?.id ?? '';
  const told = await world.until('the device to say that its disk is full', async () => {
    const events = await world.hub.events();
    return events.find((one) => /DISK|ENOSPC|JOURNAL/.test(`${String(one.data.code)} ${one.text}`))?.text;
  });
  expect(told).toMatch(/full|no space/i);
  world.expectEnd(child);
  process.kill(child.id.pid, 'SIGKILL');
  await child.ended;
  // It says of each try that it failed; there is room now, so that the next one does not.
  await world.until(
    `${release} to fly`,
    async () => {
      const current = await world.current();
      return current?.update.status === 'done' && current.owner?.release === release ? 1 : undefined;
    },
    90_000,
  );
  await expectFlown(fromUs, release);
  expect(openIn(readLedger(world.path('chaos', 'ledger')))).toEqual([]);
}, 120_000);
