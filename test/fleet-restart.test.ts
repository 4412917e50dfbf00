/** A hub that is killed at any time goes on where it was. The hub is a process of its own here (MIDAIR_TEST_ENGINE). */
import { spawn } from 'node:child_process';
import { readdir, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, expect, test } from 'vitest';
import { openSqliteStore } from '#fleet/sqlite.ts';
import type { DeviceRecord, EventRecord, TargetRecord } from '#fleet/store.ts';
import {
  Checkout,
  Cleanup,
  Device,
  eventually,
  FLEET,
  getJson,
  run,
  temporaryDirectory,
  testEngine,
} from '#test/fleet-kit.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

interface Killable {
  url: string;
  mqttUrl: string;
  /** `kill -9`; resolves when the process is gone. */
  kill(): Promise<void>;
  close(): Promise<void>;
}

const ENGINE = process.env.MIDAIR_TEST_ENGINE ?? process.env.DOCKER_HOST ?? '';

async function hubProcess(directory: string, ports = { http: 0, mqtt: 0 }): Promise<Killable> {
  testEngine();
  const options = {
    dir: directory,
    http: `127.0.0.1:${ports.http}`,
    mqtt: `127.0.0.1:${ports.mqtt}`,
    engine: ENGINE,
    fleet: FLEET,
    logLevel: 'silent',
  };
  const script = `import { run } from '#fleet/main.ts'; await run(${JSON.stringify(options)});`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    cwd: join(import.meta.dirname, '..'),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
  cleanup.add(() => {
    child.kill('SIGKILL');
    return gone;
  });
  const line = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).once('line', resolve);
    child.once('close', () => reject(new Error('the hub ended before it was ready')));
  });
  const ready = JSON.parse(line) as { ready: boolean; url: string; mqtt: string; git: string };
  expect(ready).toMatchObject({ ready: true, git: `${ready.url}/git/{app}.git` });
  const end = async (signal: NodeJS.Signals) => {
    child.kill(signal);
    await gone;
  };
  return { url: ready.url, mqttUrl: ready.mqtt, kill: () => end('SIGKILL'), close: () => end('SIGTERM') };
}

const portsOf = (hub: Killable) => ({
  http: Number(new URL(hub.url).port),
  mqtt: Number(new URL(hub.mqttUrl).port),
});
const statusOf = (hub: Killable) =>
  getJson<{ target: TargetRecord; devices: DeviceRecord[] }>(`${hub.url}/v1/status`);

const V1 = { Dockerfile: 'FROM scratch\nCOPY . /app/\n', main: 'one\n' };

test('killed and started again: releases, target, states and events are there, and devices come back', async () => {
  const directory = await temporaryDirectory(cleanup);
  const first = await hubProcess(directory);
  const device = await Device.connect(cleanup, first, 'drone-1');
  const checkout = await Checkout.create(cleanup, `${first.url}/git/hover.git`);
  await checkout.commit(V1);
  expect(await checkout.push()).toMatchObject({ status: 0 });
  const target = await device.target(1);
  await device.report({ sequence: 7, generation: 1 });
  await device.say(
    'event',
    JSON.stringify({ device: 'drone-1', key: 'k', atMs: 1, type: 't', text: 'acknowledged, so kept' }),
  );
  await first.kill();

  device.targets.length = 0;
  const second = await hubProcess(directory, portsOf(first));
  // Truth is in the store; the broker's retained copies were published again.
  expect(await device.target(1)).toEqual(target);
  const status = await statusOf(second);
  expect(status.target).toMatchObject({ generation: 1, release: { id: 'v1' } });
  expect(status.devices).toMatchObject([{ name: 'drone-1', current: { sequence: 7 } }]);
  const { events } = await getJson<{ events: EventRecord[] }>(`${second.url}/v1/events`);
  expect(events).toMatchObject([{ key: 'k' }]);

  await checkout.commit({ main: 'two\n' });
  expect((await checkout.push()).text).toContain('hover v2 is the target of fleet test-fleet (generation 2)');
  await device.target(2);
  await second.close();
});

test('killed in the middle of a build: the pusher is told, nothing changed, the next push works', async () => {
  const directory = await temporaryDirectory(cleanup);
  const first = await hubProcess(directory);
  const checkout = await Checkout.create(cleanup, `${first.url}/git/hover.git`);
  const good = await checkout.commit(V1);
  await checkout.push();
  const program = 'console.log("begun"); setTimeout(() => {}, 60000)';
  await checkout.commit({
    Dockerfile: `FROM midair/node24\nRUN ["node", "-e", ${JSON.stringify(program)}]\n`,
  });
  const push = checkout.startPush('main');
  await eventually('the build', () => push.text().includes('remote: begun'));
  await first.kill();
  expect((await push.done).status).not.toBe(0);
  const objects = join(directory, 'git', 'hover.git', 'objects');
  const quarantines = async () => (await readdir(objects)).filter((name) => name.startsWith('tmp_objdir'));
  for (const name of await quarantines()) await utimes(join(objects, name), 0, 0);

  const second = await hubProcess(directory, portsOf(first));
  expect((await statusOf(second)).target).toMatchObject({ generation: 1, release: { id: 'v1' } });
  // The hook had no answer, which is a no: the branch is where it was, and what was pushed is gone.
  expect((await checkout.git('ls-remote', 'hub', 'main')).text).toContain(good);
  expect(await quarantines()).toEqual([]);
  await checkout.commit({ ...V1, main: 'three\n' });
  expect(await checkout.push()).toMatchObject({ status: 0 });
  expect((await statusOf(second)).target).toMatchObject({ generation: 2, release: { id: 'v2' } });
});

test('killed between the branch and the target: the branch says what was meant', async () => {
  const directory = await temporaryDirectory(cleanup);
  const first = await hubProcess(directory);
  const checkout = await Checkout.create(cleanup, `${first.url}/git/hover.git`);
  await checkout.commit(V1);
  await checkout.push();
  const second = await checkout.commit({ main: 'two\n' });
  await checkout.push('main:side');
  await first.kill();

  // As the hub leaves it when it dies after its word to git and before git's word to it.
  const store = openSqliteStore(join(directory, 'hub.sqlite'));
  const v1 = store.latestRelease('hover');
  if (!v1) throw new Error('no release');
  store.putPending({ ...v1, id: 'v2', commit: second });
  store.putPending({ ...v1, id: 'v3', commit: 'f'.repeat(40) });
  store.close();
  const repository = join(directory, 'git', 'hover.git');
  expect(await run('git', ['update-ref', 'refs/heads/main', second], repository)).toMatchObject({
    status: 0,
  });

  const again = await hubProcess(directory);
  expect((await statusOf(again)).target).toMatchObject({
    generation: 2,
    release: { id: 'v2', commit: second },
  });
});

test('two hubs on one directory: the second says why it does not start', async () => {
  const directory = await temporaryDirectory(cleanup);
  await hubProcess(directory);
  const store = () => openSqliteStore(join(directory, 'hub.sqlite'));
  expect(store).toThrow(expect.objectContaining({ code: 'HUB_RUNNING' }));
});
