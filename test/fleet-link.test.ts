/** The fleet link and the HTTP API of a running hub, with real MQTT; nothing here builds, so no engine is asked. */
import { mkdir, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { join } from 'node:path';
import { connectAsync } from 'mqtt';
import { pino } from 'pino';
import { afterEach, expect, test } from 'vitest';
import { Blobs } from '#fleet/blobs.ts';
import { startHub } from '#fleet/hub.ts';
import { topic } from '#fleet/protocol.ts';
import { openSqliteStore } from '#fleet/sqlite.ts';
import type { DeviceRecord, EventRecord } from '#fleet/store.ts';
import {
  Cleanup,
  currentState,
  Device,
  eventually,
  FLEET,
  fakeDigest,
  getJson,
  LOOPBACK,
  noEngine,
  type TestHub,
  temporaryDirectory,
  testHub,
} from '#test/fleet-kit.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

const devicesOf = async (hub: TestHub) =>
  (await getJson<{ devices: DeviceRecord[] }>(`${hub.url}/v1/devices`)).devices;

/** Puts accepted releases into a hub's directory before the hub starts. */
function seed(directory: string, ids: string[], app = 'hover'): void {
  const store = openSqliteStore(join(directory, 'hub.sqlite'));
  for (const id of ids) {
    const image = {
      id: fakeDigest(id.slice(1)),
      config: { digest: fakeDigest('0'), bytes: 1 },
      layers: [],
      deltas: [],
    };
    store.putPending({
      id,
      app,
      commit: 'c'.repeat(40),
      createdAtMs: 1,
      services: { main: { image, labels: {} } },
    });
    store.acceptPending(app, id, 1);
  }
  store.close();
}

test('a device is known from its birth, gets the target at once, and its will takes it offline', async () => {
  const hub = await testHub(cleanup, noEngine());
  const device = await Device.connect(cleanup, hub, 'drone-1');
  expect(await device.target(0)).toEqual({ fleet: FLEET, generation: 0, release: null });
  expect(await devicesOf(hub)).toMatchObject([
    { name: 'drone-1', online: true, session: 's1', current: null },
  ]);

  await device.report({ sequence: 3, images: [fakeDigest('a')] });
  expect(await devicesOf(hub)).toMatchObject([{ current: { sequence: 3, images: [fakeDigest('a')] } }]);

  // As if its power was cut: the connection ends without a word, the broker publishes the will.
  device.client.stream.destroy();
  device.client.end(true);
  await eventually('the device to be offline', async () => (await devicesOf(hub))[0]?.online === false);
});

test('a chosen release reaches all devices, retained, with a rising generation', async () => {
  const directory = await temporaryDirectory(cleanup);
  seed(directory, ['v1', 'v2']);
  const hub = await testHub(cleanup, noEngine(), directory);
  const one = await Device.connect(cleanup, hub, 'drone-1');
  const two = await Device.connect(cleanup, hub, 'drone-2');
  expect((await two.target(2)).release?.id).toBe('v2');

  const choose = (body: unknown, type = 'application/json') =>
    fetch(`${hub.url}/v1/target`, {
      method: 'POST',
      headers: { 'content-type': type },
      body: JSON.stringify(body),
    });
  const answer = await choose({ release: 'v1' });
  expect(answer.status).toBe(200);
  expect(await answer.json()).toMatchObject({ target: { generation: 3, release: { id: 'v1' } } });
  for (const device of [one, two])
    expect(await device.target(3)).toMatchObject({ fleet: FLEET, release: { id: 'v1' } });

  // Retained: who subscribes later has it without asking.
  const late = await connectAsync(hub.mqttUrl);
  cleanup.add(() => late.endAsync(true));
  const got = new Promise<string>((resolve) =>
    late.once('message', (_topic, payload) => resolve(payload.toString())),
  );
  await late.subscribeAsync(topic(FLEET, 'drone-1', 'target'));
  expect(JSON.parse(await got)).toMatchObject({ generation: 3, release: { id: 'v1', app: 'hover' } });

  for (const [body, status, code] of [
    [{ release: 'v7' }, 404, 'NOT_FOUND'],
    [{ releese: 'v1' }, 400, 'BAD_REQUEST'],
    [{ release: 'v1', app: 'other' }, 404, 'NOT_FOUND'],
  ] as const) {
    const refused = await choose(body);
    expect(refused.status).toBe(status);
    expect(await refused.json()).toEqual({
      error: { code, text: expect.any(String) as unknown, next: expect.any(String) as unknown },
    });
  }
  expect((await choose({ release: 'v2' }, 'text/plain')).status).toBe(400);
  expect((await choose({ release: 'v'.repeat(100_000) })).status).toBe(413);
  expect((await getJson<{ target: { generation: number } }>(`${hub.url}/v1/status`)).target.generation).toBe(
    3,
  );
});

test('a release that several apps have must be named with its app', async () => {
  const directory = await temporaryDirectory(cleanup);
  seed(directory, ['v1']);
  seed(directory, ['v1'], 'other');
  const hub = await testHub(cleanup, noEngine(), directory);
  const choose = async (body: unknown) => {
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${hub.url}/v1/target`, {
      method: 'POST',
      headers,
      body: JSON.stringify(body),
    });
    return { status: response.status, body: (await response.json()) as { error?: { code: string } } };
  };
  expect(await choose({ release: 'v1' })).toMatchObject({
    status: 409,
    body: { error: { code: 'AMBIGUOUS' } },
  });
  expect(await choose({ release: 'v1', app: 'hover' })).toMatchObject({
    status: 200,
    body: { target: { generation: 3, release: { app: 'hover' } } },
  });
});

test('events count once and are listed in order', async () => {
  const hub = await testHub(cleanup, noEngine());
  const device = await Device.connect(cleanup, hub, 'drone-1');
  const event = (key: string) =>
    JSON.stringify({
      device: 'drone-1',
      key,
      atMs: 7,
      type: 'update.failed',
      text: `<b>${key}`,
      data: { code: 'X' },
    });
  for (const key of ['e1', 'e1', 'e2']) await device.say('event', event(key));
  const { events, after } = await getJson<{ events: EventRecord[]; after: number }>(`${hub.url}/v1/events`);
  expect(events.map((one) => one.key)).toEqual(['e1', 'e2']);
  await device.say('event', event('e3'));
  const next = await getJson<{ events: EventRecord[] }>(`${hub.url}/v1/events?device=drone-1&after=${after}`);
  expect(next.events).toMatchObject([{ key: 'e3', device: 'drone-1', data: { code: 'X' } }]);
  expect((await fetch(`${hub.url}/v1/events?after=x`)).status).toBe(400);

  const page = await (await fetch(hub.url)).text();
  expect(page).toContain('drone-1');
  expect(page).toContain('&lt;b&gt;e3');
  expect(page).not.toContain('<b>e3');
});

test('invalid messages are dropped and logged with the device, and disturb nothing', async () => {
  const hub = await testHub(cleanup, noEngine());
  const device = await Device.connect(cleanup, hub, 'drone-1');
  await device.report({ sequence: 1 });
  const heard: string[] = [];
  const listener = await connectAsync(hub.mqttUrl);
  cleanup.add(() => listener.endAsync(true));
  listener.on('message', (name, payload) => heard.push(`${name} ${payload.toString()}`));
  await listener.subscribeAsync(['midair/v1/+/+/current', 'midair/v1/+/+/event', 'midair/#']);
  await eventually('the retained state', () => heard.some((line) => line.includes('"sequence":1')));
  heard.length = 0;

  const bad: [Parameters<Device['say']>[0], string | Buffer][] = [
    ['current', '{"device":"drone-1"'],
    ['current', Buffer.from([0xff, 0xfe, 0x00, 0x80])],
    ['current', JSON.stringify({ ...currentState({ device: 'drone-1' }), images: ['latest'] })],
    ['current', JSON.stringify(currentState({ device: 'drone-2', sequence: 9 }))],
    ['current', JSON.stringify({ ...currentState({ device: 'drone-1' }), pad: 'x'.repeat(300_000) })],
    ['event', '[]'],
    ['presence', '"online"'],
  ];
  for (const [channel, payload] of bad) await device.say(channel, payload);
  await device.report({ sequence: 2 });

  expect(hub.logged.filter((line) => line.msg === 'dropped an invalid message')).toMatchObject(
    bad.map(([channel]) => ({ device: 'drone-1', channel })),
  );
  expect(await devicesOf(hub)).toMatchObject([{ name: 'drone-1', online: true, current: { sequence: 2 } }]);
  await eventually('the valid state', () => heard.some((line) => line.includes('"sequence":2')));
  expect(
    heard.filter((line) => !line.includes('"sequence":2') && !line.startsWith('midair/refused')),
  ).toEqual([]);
  expect(device.client.connected).toBe(true);
});

test('a client that publishes where it may not, or too much, is cut off; the hub serves on', async () => {
  const hub = await testHub(cleanup, noEngine());
  const device = await Device.connect(cleanup, hub, 'drone-1');
  const target = JSON.stringify({ fleet: FLEET, generation: 99, release: null });
  for (const [name, payload] of [
    [topic(FLEET, 'drone-1', 'target'), target],
    [topic('other-fleet', 'drone-1', 'current'), '{}'],
    ['midair/v1/anything', '{}'],
    [topic(FLEET, 'drone-1', 'telemetry'), 'x'.repeat(2 * 1024 ** 2)],
  ] as const) {
    const client = await connectAsync(hub.mqttUrl, { reconnectPeriod: 0 });
    const closed = new Promise<void>((resolve) => client.once('close', () => resolve()));
    client.on('error', () => {});
    client.publish(name, payload, { qos: 1, retain: true });
    await closed;
    await client.endAsync(true);
  }
  // Not MQTT at all.
  const { port } = new URL(hub.mqttUrl);
  const socket = net.connect(Number(port), '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\n\r\n'));
  socket.on('error', () => {});
  await new Promise((resolve) => socket.once('close', resolve));

  await device.report({ sequence: 1 });
  expect(await devicesOf(hub)).toMatchObject([{ name: 'drone-1', current: { sequence: 1 } }]);
  expect(device.targets.every((one) => one.generation === 0)).toBe(true);
});

test('blobs come whole and in ranges, to be resumed and cached', async () => {
  const directory = await temporaryDirectory(cleanup);
  const blobs = await Blobs.open(join(directory, 'blobs'));
  const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 7) % 251));
  const { digest } = await blobs.put([bytes.subarray(0, 10), bytes.subarray(10)]);
  await mkdir(join(directory, 'blobs', 'scratch'), { recursive: true });
  await writeFile(join(directory, 'blobs', 'scratch', 'half'), 'left by a crash');
  const hub = await testHub(cleanup, noEngine(), directory);
  const url = `${hub.url}/v1/blobs/${digest}`;
  const get = async (headers: Record<string, string> = {}, method = 'GET') => {
    const response = await fetch(url, { method, headers });
    const body = Buffer.from(await response.arrayBuffer());
    return { status: response.status, headers: Object.fromEntries(response.headers), body };
  };

  const all = await get();
  expect(all).toMatchObject({ status: 200, headers: { etag: `"${digest}"`, 'content-length': '100000' } });
  expect(all.body.equals(bytes)).toBe(true);
  const rest = await get({ range: 'bytes=99990-' });
  expect(rest).toMatchObject({ status: 206, headers: { 'content-range': 'bytes 99990-99999/100000' } });
  expect(rest.body.equals(bytes.subarray(99_990))).toBe(true);
  expect((await get({ range: 'bytes=5-5' })).body).toEqual(bytes.subarray(5, 6));
  expect((await get({ range: 'bytes=-3', 'if-range': `"${digest}"` })).body).toEqual(bytes.subarray(-3));
  expect(await get({ range: 'bytes=-3', 'if-range': '"another"' })).toMatchObject({ status: 200 });
  expect(await get({ range: 'bytes=100000-' })).toMatchObject({
    status: 416,
    headers: { 'content-range': 'bytes */100000' },
  });
  expect(await get({ 'if-none-match': `"${digest}"` })).toMatchObject({ status: 304 });
  const head = await get({}, 'HEAD');
  expect(head).toMatchObject({ status: 200, headers: { 'content-length': '100000' } });
  expect(head.body).toHaveLength(0);

  for (const [name, status] of [
    [fakeDigest('e'), 404],
    ['sha256:..%2f..%2fhub.sqlite', 400],
    ['%zz', 400],
  ] as const) {
    const response = await fetch(`${hub.url}/v1/blobs/${name}`);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ error: { next: expect.any(String) as unknown } });
  }
  expect((await fetch(url, { method: 'DELETE' })).status).toBe(400);
  await expect(blobs.list()).resolves.toEqual([digest]);
});

test('what is asked wrongly is answered in JSON; health is plain', async () => {
  const hub = await testHub(cleanup, noEngine());
  expect(await getJson(`${hub.url}/healthz`)).toEqual({ ok: true });
  const port = Number(new URL(hub.url).port);
  await expect(
    startHub({
      directory: await temporaryDirectory(cleanup),
      http: { host: '127.0.0.1', port },
      mqtt: LOOPBACK,
      engine: noEngine(),
      fleet: FLEET,
      log: pino({ level: 'silent' }),
    }),
  ).rejects.toMatchObject({ code: 'ADDRESS_IN_USE', next: expect.stringContaining('--http') as unknown });
  const missing = await fetch(`${hub.url}/v1/nothing`);
  expect(missing.status).toBe(404);
  expect(await missing.json()).toMatchObject({ error: { code: 'NOT_FOUND' } });
  // The hook's door is for who has a push's token.
  const hook = await fetch(`${hub.url}/hook/pre-receive`, {
    method: 'POST',
    headers: { authorization: 'Bearer 00' },
    body: '{"refs":[],"environment":{}}',
  });
  expect(hook.status).toBe(404);
});
