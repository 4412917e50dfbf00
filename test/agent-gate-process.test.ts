/** The gate as a process of its own: outlives its agent, is replaced in flight, comes back after a kill, and hears nobody else. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { GateClient, gateStats } from '#agent/gate/client.ts';
import { createLog } from '#agent/log.ts';
import { native } from '#handover/native.ts';
import { Controller, frameOf, readAll, write } from './agent-gate-kit.ts';
import { cleanUp, directory, seeded, until } from './handover-kit.ts';

const PERIOD_MS = 4;
const pidOf = (socket: string): number => {
  const fd = native.unixConnect(socket);
  try {
    return native.peer(fd).pid;
  } finally {
    native.close(fd);
  }
};

const setUp = async () => {
  const socket = join(directory(), 'gate', 'control.sock');
  const controller = new Controller();
  const open = async (): Promise<GateClient> => {
    const log = createLog('test', 'silent');
    const client = await GateClient.open({ socket, tty: controller.path, baud: 921_600, log });
    cleanUp(() => client.close());
    return client;
  };
  const client = await open();
  cleanUp(() => process.kill(pidOf(socket), 'SIGKILL'));
  return { socket, controller, client, open };
};

/** 250 commands and 250 samples a second, numbered. */
class Traffic {
  readonly #controller: Controller;
  readonly #timer: NodeJS.Timeout;
  app = -1;
  epoch = 1;
  sent = 0;
  said = 0;
  #text = '';

  constructor(controller: Controller) {
    this.#controller = controller;
    this.#timer = setInterval(() => this.#turn(), PERIOD_MS);
    cleanUp(() => this.stop());
  }
  #turn(): void {
    this.sent += 1;
    write(this.app, frameOf(this.epoch, this.sent));
    this.said += 1;
    this.#controller.say(`${this.said}\n`);
    this.#text += readAll(this.app).toString();
    this.#controller.hear();
  }
  stop(): void {
    clearInterval(this.#timer);
  }
  more(count: number): Promise<void> {
    const enough = this.sent + count;
    return until(`${count} more`, () => this.sent >= enough);
  }
  /** Until the last of both has come. */
  async end(): Promise<this> {
    this.stop();
    await until('the last ones come', () => {
      this.#text += readAll(this.app).toString();
      return this.#controller.hear().heard.length >= this.sent && this.samples.length >= this.said;
    });
    return this;
  }
  get commands(): number[] {
    return this.#controller.heard.map(([, n]) => n);
  }
  get samples(): number[] {
    return this.#text.split('\n').slice(0, -1).map(Number);
  }
}
/** All that was sent and said came, once, in order. */
const whole = ({ sent, said }: Traffic) => ({ commands: upTo(sent), samples: upTo(said) });
const upTo = (count: number): number[] => Array.from({ length: count }, (_, at) => at + 1);

it('passes on when its agent is gone, and hears the next', async () => {
  const { controller, client, open, socket } = await setUp();
  const traffic = new Traffic(controller);
  traffic.app = native.duplicate(client.channel(1, 'unknown'));
  await traffic.more(20);
  const gate = pidOf(socket);
  client.close();
  await traffic.more(20);
  expect(await traffic.end()).toMatchObject(whole(traffic));
  const next = await open();
  expect(pidOf(socket)).toBe(gate);
  const app = next.channel(2, 'released');
  write(app, frameOf(2, 1));
  await until('it is heard', () => controller.hear().heard.some(([epoch]) => epoch === 2));
});

it('is replaced in flight: nothing lost, nothing twice, and the first one ends', async () => {
  const { controller, client, socket } = await setUp();
  const traffic = new Traffic(controller);
  traffic.app = client.channel(1, 'unknown');
  await traffic.more(50);
  const first = pidOf(socket);
  const main = new URL('../agent/gate/main.ts', import.meta.url).pathname;
  const child = spawn(process.execPath, [main, '--socket', socket, '--tty', '/not/opened/again'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  cleanUp(() => child.kill('SIGKILL'));
  const [line] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  expect(JSON.parse(line.toString())).toMatchObject({ ready: true, epoch: 1 });
  expect(pidOf(socket)).toBe(child.pid);
  await traffic.more(50);
  expect(await traffic.end()).toMatchObject(whole(traffic));
  expect(() => process.kill(first, 0)).toThrow('ESRCH');
  // The agent found it, and is heard by it.
  await until('the agent is back', () => client.reached);
  write(client.channel(2, 'released'), frameOf(2, 1));
  await until('it is heard', () => controller.hear().heard.some(([epoch]) => epoch === 2));
});

it('goes on when the one that was to replace it dies half way', async () => {
  const { controller, client, socket } = await setUp();
  const traffic = new Traffic(controller);
  traffic.app = client.channel(1, 'unknown');
  await traffic.more(20);
  const first = pidOf(socket);
  // It asks for everything, and never says that it runs.
  const heir = spawn('python3', [
    '-c',
    [
      'import socket, sys',
      's = socket.socket(socket.AF_UNIX)',
      `s.connect(${JSON.stringify(socket)})`,
      's.sendall(b\'{"type":"handover"}\\n\')',
      'print(len(s.recvmsg(4096, 4096)[1]), flush=True)',
    ].join('\n'),
  ]);
  const [line] = (await once(heir.stdout, 'data')) as [Buffer];
  expect(Number(line.toString())).toBeGreaterThan(0);
  await once(heir, 'exit');
  await traffic.more(20);
  expect(await traffic.end()).toMatchObject(whole(traffic));
  expect(pidOf(socket)).toBe(first);
});

it('is started again after a kill, and the same channel goes on', async () => {
  const { controller, client, socket } = await setUp();
  const app = client.channel(1, 'unknown');
  write(app, frameOf(1, 1));
  await until('it is heard', () => controller.hear().heard.length === 1);
  const first = pidOf(socket);
  process.kill(first, 'SIGKILL');
  write(app, frameOf(1, 2));
  await until('it is heard', () => controller.hear().heard.length === 2);
  expect(pidOf(socket)).not.toBe(first);
  controller.say('imu');
  await until('it is read', () => readAll(app).toString() === 'imu');
});

it('a writer that never stops is cut off by the next epoch, to the frame', async () => {
  const { controller, client, socket } = await setUp();
  const app = client.channel(1, 'unknown');
  const stubborn: ChildProcess = spawn(
    'python3',
    [
      '-c',
      'import os\nos.set_blocking(3, True)\nframe = os.read(0, 4096)\nprint("up", flush=True)\nwhile True: os.write(3, frame)',
    ],
    { stdio: ['pipe', 'pipe', 'ignore', app] },
  );
  cleanUp(() => stubborn.kill('SIGKILL'));
  stubborn.stdin?.write(frameOf(1, 7));
  await once(stubborn.stdout as NodeJS.ReadableStream, 'data');
  await until('it is heard', () => controller.hear().heard.length > 100);
  const next = client.channel(2, 'unknown');
  for (let n = 1; n <= 15; n += 1) write(next, frameOf(2, n));
  await until('all of the next one are heard', () => controller.hear().heard.at(-1)?.[1] === 15);
  const epochs = controller.heard.map(([epoch]) => epoch);
  expect(epochs.slice(epochs.indexOf(2)).every((epoch) => epoch === 2)).toBe(true);
  expect(controller.heard.filter(([epoch]) => epoch === 2).map(([, n]) => n)).toEqual(upTo(15));
  expect(controller.garbageBytes).toBe(0);
  let stale = 0;
  for (const untilMs = performance.now() + 5_000; stale === 0 && performance.now() < untilMs; )
    stale = (await gateStats(socket)).staleBytes ?? 0;
  expect(stale).toBeGreaterThan(0);
});

it('garbage and strangers at its control socket are turned away, and nothing that flies notices', async () => {
  const { controller, client, socket } = await setUp();
  const traffic = new Traffic(controller);
  traffic.app = client.channel(1, 'unknown');
  const random = seeded(3);
  for (const bytes of [
    Buffer.from('not json\n'),
    Buffer.from('{"type":"open","epoch":1,"previous":"released"}\n'),
    Buffer.from('{"type":"open","epoch":-1}\n'),
    Buffer.from('{"type":"command","epoch":0,"bytes":"AAAA"}\n'),
    Buffer.from('{"type":"running"}\n'),
    Buffer.from(Array.from({ length: 300_000 }, () => random() * 256)),
  ]) {
    const fd = native.unixConnect(socket);
    native.send(fd, bytes, 0, bytes.length, []);
    await traffic.more(3);
    native.close(fd);
  }
  chmodSync(dirname(dirname(socket)), 0o755);
  chmodSync(dirname(socket), 0o755);
  chmodSync(socket, 0o666);
  const stranger = spawn(
    'python3',
    [
      '-c',
      `import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect(${JSON.stringify(socket)})\nprint(s.recv(10))`,
    ],
    { uid: 65_534, gid: 65_534 },
  );
  const [line] = (await once(stranger.stdout, 'data')) as [Buffer];
  expect(line.toString().trim()).toBe("b''");
  await traffic.more(5);
  expect(await traffic.end()).toMatchObject(whole(traffic));
});
