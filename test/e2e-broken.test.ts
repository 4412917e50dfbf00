/**
 * Versions that are broken, and parts that die, on the real engine: V1 flies on, the device says why, the next
 * push works. One flight, one story; MIDAIR_TEST_ENGINE is hub's and drone's engine both.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { PanelClient } from '#cli/demo/panel-client.ts';
import type { Repository } from '#cli/demo/repository.ts';
import { Scope } from '#cli/demo/scope.ts';
import { World } from '#cli/demo/world.ts';
import { engineAt } from '#cli/engine.ts';
import { LIMITS } from '#handover/limits.ts';
import { nowUs } from '#handover/native.ts';

/** Instead of a minute: the warm-up itself takes one second, on a busy machine a few. */
const WARM_SEC_MAX = 10;

const scope = new Scope();
const directory = mkdtempSync('/tmp/midair-e2e-');
const world = new World({
  scope,
  directory,
  signal: new AbortController().signal,
  device: `broken-${process.pid}`,
});
let app: Repository;
let panel: PanelClient;
let failed = false;
/** What flies, by the story so far. */
let owner = '';

beforeAll(async () => {
  const engine = await engineAt(process.env.MIDAIR_TEST_ENGINE ?? '');
  world.useEngines(engine, engine);
  await world.startHub();
  await world.startSim();
  await world.startAgent(['--warm-timeout', String(WARM_SEC_MAX)]);
  app = await world.repository('hover');
  app.overlay('drone');
  owner = await push('V1');
  await world.updated(owner);
  await world.hovering();
  panel = await look();
});

const look = () =>
  scope.use(
    'panel client',
    () => PanelClient.connect(world.panelUrl, world.signal),
    (client) => client.close(),
  );

afterAll(async () => {
  const { releases } = await world.hub.status();
  const [error] = await scope.close();
  // Logs of a story that went wrong stay.
  if (failed) process.stderr.write(`logs: ${directory}/logs\n`);
  else rmSync(directory, { recursive: true, force: true });
  if (error !== undefined) throw error;
  const images = (await world.droneEngine.docker.listImages({ all: true })).map(({ Id }) => Id);
  const left = releases.flatMap(({ services }) => Object.values(services).map(({ image }) => image.id));
  if (left.some((id) => images.includes(id))) throw new Error('images of this flight are left on the engine');
}, 60_000);

afterEach(({ task }) => {
  failed ||= task.result?.state === 'fail';
});

/** Commits what lies there, pushes; returns the release. */
async function push(subject: string): Promise<string> {
  await app.commit(subject);
  await app.push();
  return (await world.hub.status()).target.release?.id ?? '';
}

/** Lays a broken version over V1's tree, pushes it, and waits for the device's verdict. */
async function pushBroken(folder: string): Promise<{ code: string; text: string }> {
  app.overlay(`broken/${folder}`);
  const release = await push(`Break it: ${folder}`);
  const msMax = WARM_SEC_MAX * 1000 + 30_000;
  return world.until(
    `${release} to fail`,
    async () => {
      const update = (await world.current())?.update;
      return update?.status === 'failed' && update.release === release ? update.failure : undefined;
    },
    msMax,
  );
}

/** The drone is where it was, in the same hands, and nobody saw anything. */
async function expectUndisturbed(fromUs: number): Promise<void> {
  expect((await world.current())?.owner?.release).toBe(owner);
  const judged = await world.sim.judge(fromUs, nowUs());
  expect(judged).toMatchObject({ stale: 0, doubled: 0, failsafes: 0 });
  expect(judged.attitudeDegMax).toBeLessThan(5);
  expect(judged.altitudeErrorMMax).toBeLessThan(0.3);
  expect(panel.closes).toBe(0);
  expect(panel.framesLost).toBe(0);
}

/** No container but the owner's is left. */
async function containers(): Promise<number> {
  const filters = { label: [`io.midair.device=${world.device}`] };
  return (await world.droneEngine.docker.listContainers({ all: true, filters })).length;
}

test('exits at start: V1 flies on, and its last words are told', async () => {
  const fromUs = nowUs();
  const failure = await pushBroken('exits-at-start');
  expect(failure.text).toContain('cannot read its configuration');
  await expectUndisturbed(fromUs);
  expect(
    await world.until('the dead one to be removed', async () => ((await containers()) === 1 ? 1 : undefined)),
  ).toBe(1);
});

test('never ready: given up after its time, V1 flies on', async () => {
  const fromUs = nowUs();
  app.overlay('drone');
  const failure = await pushBroken('never-ready');
  expect(failure.code).toBe('TIMEOUT');
  await expectUndisturbed(fromUs);
});

test('diverges in the shadow: never gets the rotors, and it is told by how much and when', async () => {
  const fromUs = nowUs();
  app.overlay('drone');
  const failure = await pushBroken('diverges');
  expect(failure.code).toBe('DIVERGED');
  const told = /up to ([\d.]+) from the prior's, at cycle (\d+), (\d+) ms into .* for 50 cycles/.exec(
    failure.text,
  );
  expect(told, failure.text).not.toBe(null);
  const [divergence = 0, cycle = 0, atMs = 0] = told?.slice(1).map(Number) ?? [];
  expect(divergence).toBeGreaterThan(LIMITS.divergenceMax);
  expect(cycle).toBeGreaterThan(50);
  expect(atMs).toBeGreaterThan(0);
  await expectUndisturbed(fromUs);
  // One owner, one epoch: it commanded nothing.
  expect((await world.sim.judge(fromUs, nowUs())).epochs.length).toBe(1);
});

test('crashes after it got the rotors: V1 has them back', async () => {
  const fromUs = nowUs();
  app.overlay('drone');
  const failure = await pushBroken('crashes-after-grant');
  expect(failure.text).toContain('a bug that no warm-up shows');
  await world.hovering();
  const judged = await world.sim.judge(fromUs, nowUs());
  expect(judged).toMatchObject({ stale: 0, doubled: 0, failsafes: 0 });
  expect((await world.current())?.owner?.release).toBe(owner);
  // V1, the broken one, V1 again: the epoch only rises.
  expect(judged.epochs.length).toBeGreaterThanOrEqual(3);
  // The broken one had spoken on it: it is closed in order, and the page connects again.
  expect(panel.closes).toBe(1);
  panel = await look();
});

test('the agent dies: V1 flies on; started again, it finds V1 and updates it', async () => {
  const fromUs = nowUs();
  await world.killAgent();
  await world.pause(1_000);
  const alone = await world.sim.judge(fromUs, nowUs());
  expect(alone).toMatchObject({ stale: 0, doubled: 0, failsafes: 0 });
  expect(alone.commands).toBeGreaterThan(200);
  await world.startAgent(['--warm-timeout', String(WARM_SEC_MAX)]);
  await world.until('the agent to know its owner', async () =>
    (await world.current())?.owner?.release === owner ? true : undefined,
  );
  await expectUndisturbed(fromUs);
});

test('the next push works', async () => {
  const fromUs = nowUs();
  app.overlay('drone');
  app.overlay('drone-v2');
  owner = await push('Add a thermal camera view');
  const { owner: flies } = await world.updated(owner);
  const image = (await world.hub.status()).target.release?.services.main?.image;
  expect(flies?.imageId).toBe(image?.id);
  await world.pause(1_000);
  await expectUndisturbed(fromUs);
  expect(panel.seen(1).frames).toBeGreaterThan(0);
  expect(await containers()).toBe(1);
});
