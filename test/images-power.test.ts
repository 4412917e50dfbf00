/**
 * The power is cut: agent, patcher and engine die at one moment, and start again on the same disk (@flight).
 *
 * A process that is killed loses nothing that it wrote; what a disk loses on top of that, when its power goes, is not tried here.
 */
import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { createImages } from '#agent/images/index.ts';
import { connect } from '#cli/engine.ts';
import type { Image } from '#fleet/protocol.ts';
import {
  addDelta,
  type Hub,
  inFront,
  type Lab,
  noise,
  openHub,
  openLab,
  quiet,
  until,
} from '#test/images-lab.ts';

let root: string;
let url: string;
let engine: ChildProcess | undefined;
let lab: Lab;
let hub: Hub;
let directory: string;
let v1: Image;
let target: Image;

async function startEngine(): Promise<void> {
  const args = [
    ['--config-file', join(root, 'daemon.json'), '--data-root', join(root, 'data')],
    ['--exec-root', join(root, 'exec'), '--pidfile', join(root, 'pid'), '--host', url],
    ['--bridge=none', '--iptables=false', '--ip-masq=false', '--ip-forward=false', '--userland-proxy=false'],
    ['--exec-opt', 'native.cgroupdriver=cgroupfs'],
  ].flat();
  engine = spawn('dockerd', args, { stdio: 'ignore', detached: true });
  await until(
    'the engine answers',
    () =>
      connect(url)
        .ping()
        .then(
          () => true,
          () => false,
        ),
    120_000,
  );
}

/** The engine and the container runtime that it started, at once. */
async function killEngine(): Promise<void> {
  if (!engine || engine.exitCode !== null || engine.signalCode !== null) return;
  const gone = once(engine, 'exit');
  const file = join(root, 'exec', 'containerd', 'containerd.pid');
  const runtime = existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
  engine.kill('SIGKILL');
  if (runtime > 1) process.kill(runtime, 'SIGKILL');
  await gone;
  for (const left of ['pid', 'exec/containerd/containerd.pid']) rmSync(join(root, left), { force: true });
}

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'midair-power-'));
  url = `unix://${join(root, 'docker.sock')}`;
  writeFileSync(join(root, 'daemon.json'), '{}\n');
  await startEngine();
  lab = await openLab(url);
  hub = await openHub();
  const code = noise('code', 6_000_000);
  const changed = Buffer.concat([
    code.subarray(0, 3_000_000),
    noise('new', 200_000),
    code.subarray(3_000_000),
  ]);
  const [one, two] = [await lab.build([{ 'app/code': code }]), await lab.build([{ 'app/code': changed }])];
  v1 = await lab.take(one, hub);
  target = await addDelta(v1, await lab.take(two, hub), hub, lab);
  for (const id of [one, two]) await lab.removeImage(id);
}, 300_000);
afterAll(async () => {
  await hub?.close();
  await lab?.close();
  // A kill would leave its mounts.
  if (engine && engine.exitCode === null && engine.signalCode === null) {
    const gone = once(engine, 'exit');
    engine.kill('SIGTERM');
    await gone;
  }
  // What engines that were killed had mounted, the last first.
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path.startsWith(`${root}/`));
  for (const path of mounts.toReversed()) execFileSync('umount', [path]);
  rmSync(root, { recursive: true, force: true });
}, 60_000);
beforeEach(async () => {
  directory = mkdtempSync(join(lab.directory, 'images-'));
  const images = await createImages({
    engine: lab.docker,
    hubUrl: hub.url,
    directory,
    log: quiet,
    standBack: inFront,
  });
  await images.install(v1, { app: lab.name, signal: new AbortController().signal });
  await images.close();
});
afterEach(async () => {
  for (const { id } of [target, v1]) await lab.removeImage(id);
});

/** An agent of its own that installs the target; everything dies when `moment` has come. */
async function cutWhen(moment: (agent: ChildProcess) => Promise<unknown>): Promise<void> {
  const agent = fork(join(import.meta.dirname, 'images-child.ts'), [], { execArgv: [], stdio: 'inherit' });
  agent.send({ engineUrl: url, hubUrl: hub.url, directory, image: target, app: lab.name });
  await moment(agent);
  const gone = once(agent, 'exit');
  agent.kill('SIGKILL');
  await Promise.all([gone, killEngine()]);
}

const bytes = (): number => target.config.bytes + (target.deltas[0]?.blob.bytes ?? 0);

const deltaPart = (): string =>
  join(directory, 'downloads', `${target.deltas[0]?.blob.digest.slice(7)}.part`);
test.each<[string, (agent: ChildProcess) => Promise<unknown>]>([
  [
    'while the delta is fetched',
    async () => {
      hub.fault({ do: 'slow', bytesPerSecond: 100_000 }, 1, target.deltas[0]?.blob.digest);
      await until(
        'some of it is there',
        () => existsSync(deltaPart()) && statSync(deltaPart()).size > 40_000,
        60_000,
      );
    },
  ],
  ['when the engine is to pull', (agent) => once(agent, 'message')],
  [
    'in the middle of the pull',
    async (agent) => {
      await once(agent, 'message');
      await sleep(60);
    },
  ],
  [
    'near its end',
    async (agent) => {
      await once(agent, 'message');
      await sleep(250);
    },
  ],
])(
  '%s: afterwards nothing is fetched twice, and the image is right',
  async (_when, moment) => {
    mkdirSync(directory, { recursive: true });
    const before = hub.sentAll();
    await cutWhen(moment);
    await startEngine();
    const images = await createImages({
      engine: lab.docker,
      hubUrl: hub.url,
      directory,
      log: quiet,
      standBack: inFront,
    });
    const fetched = await images.install(target, { app: lab.name, signal: new AbortController().signal });
    await images.close();
    expect((await lab.docker.getImage(target.id).inspect()).Id).toBe(target.id);
    // What was on the wire, and not yet on the disk, is all that may have come again.
    expect(hub.sentAll() - before).toBeGreaterThanOrEqual(bytes());
    expect(hub.sentAll() - before).toBeLessThanOrEqual(bytes() + 64 * 1024);
    expect(fetched.bytes).toBeLessThan(bytes());
  },
  240_000,
);
