/**
 * The link of failure injection as a process, between a real MQTT client and a real broker, and before an HTTP server: what
 * passes, what does not, and that it passes again; also when nobody is left to say so. It measures time: @flight.
 */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer, text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { Aedes } from 'aedes';
import mqtt, { type MqttClient } from 'mqtt';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { MARK_FILE } from '#agent/test-device.ts';
import { clearFault, linkState, setFault } from '#cli/chaos/wire/client.ts';
import type { Fault } from '#cli/chaos/wire/link.ts';
import { type Child, startChild } from '#cli/demo/child.ts';

const directory = mkdtempSync(join(tmpdir(), 'midair-wire-'));
const signal = new AbortController().signal;
let aedes: Aedes;
let link: Child;
let control: string;
/** Themselves, without a link. */
const hubs = { http: '', mqtt: '' };
const servers: { close(): unknown }[] = [];
let client: MqttClient;
/** Payloads that the broker got, with when. */
let got: { text: string; atMs: number }[] = [];
/** What an HTTP client gets. */
const BODY = Buffer.alloc(3_000_000, 'midair');

beforeAll(async () => {
  aedes = await Aedes.createBroker();
  aedes.on('publish', ({ payload, topic }, from) => {
    if (from !== null && topic === 'up') got.push({ text: payload.toString(), atMs: performance.now() });
  });
  const broker = createServer((socket) => void aedes.handle(socket));
  const http = createHttp(async (request, response) => {
    const body = await buffer(request);
    response.end(request.method === 'POST' ? String(body.length) : BODY);
  });
  for (const server of [broker, http]) {
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  }
  const port = (server: { address(): unknown }) => (server.address() as AddressInfo).port;
  hubs.http = `http://127.0.0.1:${port(http)}`;
  hubs.mqtt = `mqtt://127.0.0.1:${port(broker)}`;
  link = await startChild({
    name: 'link',
    args: [
      ...['chaos', 'link', '--dir', directory, '--device', 'd1'],
      ...['--hub', hubs.http, '--mqtt', hubs.mqtt],
    ],
    logFile: join(directory, 'link.log'),
    signal,
  });
  control = String(link.ready.control);
  client = await mqtt.connectAsync(String(link.ready.mqtt), { reconnectPeriod: 200, keepalive: 60 });
});

afterEach(async () => {
  for (const { id } of (await linkState(control)).faults) await clearFault(control, id);
  got = [];
});

afterAll(async () => {
  await client?.endAsync(true);
  await link?.stop();
  for (const server of servers) server.close();
  await new Promise<void>((resolve) => aedes.close(() => resolve()));
  rmSync(directory, { recursive: true, force: true });
});

const fault = (failure: Fault['failure'], more: Partial<Fault> = {}): Fault => ({
  ...{
    id: failure,
    failure,
    way: 'both',
    latencyMs: 300,
    jitterMs: 0,
    lossPercent: 30,
    seed: 1,
    forMs: 20_000,
  },
  ...more,
});

/** Round trip of a publish that is acknowledged. */
async function publish(word: string): Promise<number> {
  const beganMs = performance.now();
  await client.publishAsync('up', word, { qos: 1 });
  return performance.now() - beganMs;
}

test('clear, it carries both; and its directory is marked', async () => {
  expect(JSON.parse(readFileSync(join(directory, MARK_FILE), 'utf8'))).toMatchObject({
    role: 'link',
    device: 'd1',
  });
  await publish('hello');
  expect(got.map((one) => one.text)).toEqual(['hello']);
  const answer = await fetch(String(link.ready.hub));
  expect(Buffer.compare(Buffer.from(await answer.arrayBuffer()), BODY)).toBe(0);
  expect((await linkState(control)).passed.fromHub).toBeGreaterThan(BODY.length);
});

test('latency: there and back take twice as long, and no longer once it is cleared', async () => {
  const before = await publish('before');
  await setFault(control, fault('latency'));
  expect(await publish('slow')).toBeGreaterThanOrEqual(600);
  expect(await clearFault(control, 'latency')).toBe(true);
  expect(await publish('after')).toBeLessThan(Math.max(300, 10 * before));
  expect(got.map((one) => one.text)).toEqual(['before', 'slow', 'after']);
});

test('latency one way: the bytes are late, their answer is not', async () => {
  await setFault(control, fault('latency', { way: 'to-hub' }));
  const beganMs = performance.now();
  await publish('slow');
  expect((got[0]?.atMs ?? 0) - beganMs).toBeGreaterThanOrEqual(300);
});

describe('partition', () => {
  test('nothing passes, the connection stands; then what was said arrives, once, in order', async () => {
    await setFault(control, fault('partition'));
    const said = ['one', 'two', 'three'].map((word) => publish(word));
    await sleep(700);
    expect(got).toEqual([]);
    expect(client.connected).toBe(true);
    await clearFault(control, 'partition');
    await Promise.all(said);
    expect(got.map((one) => one.text)).toEqual(['one', 'two', 'three']);
  });

  test('a new connection is not heard of at the hub before it is over', async () => {
    await setFault(control, fault('partition'));
    const asking = fetch(String(link.ready.hub), { method: 'POST', body: 'x'.repeat(1_000) });
    const first = await Promise.race([asking.then(() => 'answered'), sleep(500).then(() => 'silent')]);
    expect(first).toBe('silent');
    await clearFault(control, 'partition');
    expect(await (await asking).text()).toBe('1000');
  });

  test('who gives up before it is over was never there', async () => {
    await setFault(control, fault('partition'));
    const { connections } = await linkState(control);
    const url = new URL(String(link.ready.hub));
    const socket: Socket = connect(Number(url.port), url.hostname);
    await once(socket, 'connect');
    socket.write('GET / HTTP/1.1\r\n');
    for (let i = 0; i < 200 && (await linkState(control)).connections === connections; i += 1)
      await sleep(10);
    socket.destroy();
    for (let i = 0; i < 200 && (await linkState(control)).connections > connections; i += 1) await sleep(10);
    expect((await linkState(control)).connections).toBe(connections);
  });

  test('it is over by itself, when nobody is left to say so', async () => {
    const beganMs = performance.now();
    await setFault(control, fault('partition', { forMs: 500 }));
    await publish('late');
    expect(performance.now() - beganMs).toBeGreaterThanOrEqual(500);
    expect((await linkState(control)).faults).toEqual([]);
    expect(await clearFault(control, 'partition')).toBe(false);
  });

  test('a sender that says more than a full pipe holds has to wait, and nothing is lost of it', async () => {
    await setFault(control, fault('partition'));
    const body = Buffer.alloc(8_000_000, 'x');
    const url = new URL(String(link.ready.hub));
    const socket = connect(Number(url.port), url.hostname);
    socket.write(`POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n`);
    socket.write(body);
    await sleep(500);
    // Ours and the kernel's two buffers: the rest still waits at the sender.
    expect(socket.writableLength).toBeGreaterThan(0);
    await clearFault(control, 'partition');
    expect(await text(socket)).toMatch(/8000000$/m);
  });
});

test('loss: stalls as retransmissions do, and all of it arrives', async () => {
  await setFault(control, fault('loss', { lossPercent: 20 }));
  const took: number[] = [];
  for (let i = 0; i < 20; i += 1) took.push(await publish(String(i)));
  await clearFault(control, 'loss');
  expect(new Set(got.map((one) => one.text)).size).toBe(20);
  expect(took.filter((ms) => ms >= 200).length).toBeGreaterThan(0);
});

describe('through namespaces', () => {
  let other: Child;
  let direct: MqttClient;
  const door = () => String(other.ready.control);
  const say = async (word: string) => {
    const beganMs = performance.now();
    await direct.publishAsync('up', word, { qos: 1 });
    return performance.now() - beganMs;
  };

  beforeAll(async () => {
    other = await startChild({
      name: 'link',
      args: [
        ...['chaos', 'link', '--dir', join(directory, 'ns'), '--device', 'd3', '--namespaces'],
        ...['--hub', hubs.http, '--mqtt', hubs.mqtt],
      ],
      logFile: join(directory, 'link.log'),
      signal,
    });
    direct = await mqtt.connectAsync(String(other.ready.mqtt), { reconnectPeriod: 200, keepalive: 60 });
    process.stderr.write(`    netem in this kernel: ${String(other.ready.netem)}\n`);
  });
  afterAll(async () => {
    await direct?.endAsync(true);
    await other?.stop();
  });
  afterEach(async () => {
    for (const { id } of (await linkState(door())).faults) await clearFault(door(), id);
  });

  test('clear, it carries both', async () => {
    await say('hello');
    expect(got.map((one) => one.text)).toEqual(['hello']);
    const answer = await fetch(String(other.ready.hub));
    expect(Buffer.compare(Buffer.from(await answer.arrayBuffer()), BODY)).toBe(0);
  });

  test('partition: no packet passes; then the kernel sends again what was said', async () => {
    await setFault(door(), fault('partition'));
    const said = say('one');
    await sleep(700);
    expect(got).toEqual([]);
    await clearFault(door(), 'partition');
    await said;
    expect(got.map((one) => one.text)).toEqual(['one']);
  });

  test('latency: by netem, or by the link where the kernel has none', async () => {
    await setFault(door(), fault('latency'));
    expect(await say('slow')).toBeGreaterThanOrEqual(590);
  });

  test('loss: the kernel’s own retransmissions', async () => {
    await setFault(door(), fault('loss', { lossPercent: 30 }));
    const took: number[] = [];
    for (let i = 0; i < 15; i += 1) took.push(await say(String(i)));
    await clearFault(door(), 'loss');
    expect(new Set(got.map((one) => one.text)).size).toBe(15);
    expect(Math.max(...took)).toBeGreaterThanOrEqual(190);
  });
});

test('a hub that is not there is told to the device as such', async () => {
  const dead = createServer();
  await new Promise<void>((resolve) => dead.listen(0, '127.0.0.1', () => resolve()));
  const { port } = dead.address() as AddressInfo;
  await new Promise((resolve) => dead.close(resolve));
  const lonely = await startChild({
    name: 'link',
    args: [
      ...['chaos', 'link', '--dir', join(directory, 'lonely'), '--device', 'd2'],
      ...['--hub', `http://127.0.0.1:${port}`, '--mqtt', `mqtt://127.0.0.1:${port}`],
    ],
    logFile: join(directory, 'link.log'),
    signal,
  });
  await expect(fetch(String(lonely.ready.hub))).rejects.toThrow('fetch failed');
  await lonely.stop();
});
