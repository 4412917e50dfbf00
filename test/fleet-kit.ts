/** What the fleet's tests share: hubs of their own, git as a pusher has it, and a device at the end of MQTT. */
import { execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type Docker from 'dockerode';
import { connectAsync, type MqttClient } from 'mqtt';
import { pino } from 'pino';
import { type Hub, startHub } from '#fleet/hub.ts';
import { engineAt } from '#fleet/main.ts';
import { type Current, type Target, topic } from '#fleet/protocol.ts';

export const FLEET = 'test-fleet';
export const LOOPBACK = { host: '127.0.0.1', port: 0 };

/** The engine for tests that build. */
export function testEngine(): Docker {
  const address = process.env.MIDAIR_TEST_ENGINE ?? process.env.DOCKER_HOST;
  if (!address)
    throw new Error('no engine: set MIDAIR_TEST_ENGINE=unix:///… or run npm test, which starts one');
  return engineAt(address);
}

/** An address at which no engine answers. */
export const noEngine = (): Docker => engineAt('unix:///nonexistent/engine.sock');

/** Things to undo at the end of a test, last first. */
export class Cleanup {
  readonly #steps: (() => unknown)[] = [];
  add(step: () => unknown): void {
    this.#steps.push(step);
  }
  async run(): Promise<void> {
    for (const step of this.#steps.splice(0).reverse()) await step();
  }
}

export async function temporaryDirectory(cleanup: Cleanup): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'midair-fleet-'));
  cleanup.add(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

export interface LogLine {
  msg: string;
  level: number;
  device?: string;
  [key: string]: unknown;
}

export interface TestHub extends Hub {
  directory: string;
  logged: LogLine[];
}

export async function testHub(
  cleanup: Cleanup,
  engine: Docker,
  directory?: string,
  fleet = FLEET,
): Promise<TestHub> {
  const logged: LogLine[] = [];
  const log = pino(
    { level: 'debug' },
    { write: (line: string) => void logged.push(JSON.parse(line) as LogLine) },
  );
  const place = directory ?? (await temporaryDirectory(cleanup));
  const hub = await startHub({ directory: place, http: LOOPBACK, mqtt: LOOPBACK, engine, fleet, log });
  cleanup.add(() => hub.close());
  return { ...hub, directory: place, logged };
}

export interface Ran {
  status: number;
  /** Both outputs, as the terminal would show them. */
  text: string;
}

const GIT_ENVIRONMENT = {
  PATH: process.env.PATH,
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'Pusher',
  GIT_AUTHOR_EMAIL: 'pusher@example.org',
  GIT_COMMITTER_NAME: 'Pusher',
  GIT_COMMITTER_EMAIL: 'pusher@example.org',
  // The time of every file in the build: with one for all commits, a copied file's layer is the same each time.
  GIT_COMMITTER_DATE: '2026-01-01T00:00:00Z',
};

export function run(program: string, args: string[], directory: string): Promise<Ran> {
  return new Promise((resolve) => {
    const options = { cwd: directory, env: GIT_ENVIRONMENT, maxBuffer: 64 * 1024 ** 2 };
    execFile(program, args, options, (error, stdout, stderr) => {
      resolve({ status: error ? Number(error.code ?? 1) : 0, text: stdout + stderr });
    });
  });
}

/** A pusher's checkout. */
export class Checkout {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(cleanup: Cleanup, url: string): Promise<Checkout> {
    const checkout = new Checkout(await temporaryDirectory(cleanup));
    await checkout.git('init', '--quiet', '--initial-branch=main');
    await checkout.git('remote', 'add', 'hub', url);
    return checkout;
  }

  async git(...args: string[]): Promise<Ran> {
    return run('git', args, this.directory);
  }

  /** Writes the files (null removes one) and commits everything. */
  async commit(files: Record<string, string | Buffer | null>, subject = 'a change'): Promise<string> {
    for (const [name, content] of Object.entries(files)) {
      const path = join(this.directory, name);
      await mkdir(dirname(path), { recursive: true });
      if (content === null) await rm(path);
      else await writeFile(path, content);
    }
    await this.git('add', '--all');
    const committed = await this.git('commit', '--quiet', '--allow-empty', '-m', subject);
    if (committed.status !== 0) throw new Error(committed.text);
    return (await this.git('rev-parse', 'HEAD')).text.trim();
  }

  push(...args: string[]): Promise<Ran> {
    return this.git('push', 'hub', ...(args.length > 0 ? args : ['main']));
  }

  /** A push whose output can be watched while it goes on. */
  startPush(...args: string[]): { text: () => string; done: Promise<Ran>; stop: () => void } {
    const child = spawn('git', ['push', '--progress', 'hub', ...args], {
      cwd: this.directory,
      env: GIT_ENVIRONMENT,
      // A group of its own, as a terminal makes for what a person starts.
      detached: true,
    });
    let text = '';
    for (const output of [child.stdout, child.stderr]) {
      output.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
    }
    const done = new Promise<Ran>((resolve) => {
      child.on('close', (status) => resolve({ status: status ?? -1, text }));
    });
    return { text: () => text, done, stop: () => process.kill(-(child.pid ?? 0), 'SIGINT') };
  }
}

/** Waits until `probe` gives something, and fails with what it waited for. */
export async function eventually<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  deadlineMs = 20_000,
): Promise<T> {
  const endMs = Date.now() + deadlineMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found as T;
    if (Date.now() > endMs) throw new Error(`waited ${deadlineMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The agent's end of the fleet link, as far as the hub can see it. */
export class Device {
  readonly name: string;
  readonly client: MqttClient;
  readonly targets: Target[] = [];

  private constructor(name: string, client: MqttClient) {
    this.name = name;
    this.client = client;
  }

  /** Connects with a will, subscribes to its target, and is born. */
  static async connect(cleanup: Cleanup, hub: Hub, name: string, session = 's1'): Promise<Device> {
    const presence = (online: boolean) => JSON.stringify({ device: name, session, online });
    const client = await connectAsync(hub.mqttUrl, {
      clientId: name,
      reconnectPeriod: 50,
      will: {
        topic: topic(FLEET, name, 'presence'),
        payload: Buffer.from(presence(false)),
        qos: 1,
        retain: true,
      },
    });
    const device = new Device(name, client);
    cleanup.add(() => client.end(true));
    client.on('error', () => {});
    client.on('message', (_topic, payload) => {
      device.targets.push(JSON.parse(payload.toString()) as Target);
    });
    await client.subscribeAsync(topic(FLEET, name, 'target'), { qos: 1 });
    await device.say('presence', presence(true));
    return device;
  }

  async say(
    channel: 'presence' | 'current' | 'event' | 'telemetry',
    payload: string | Buffer,
  ): Promise<void> {
    await this.client.publishAsync(topic(FLEET, this.name, channel), payload, {
      qos: 1,
      retain: channel === 'presence' || channel === 'current',
    });
  }

  async report(state: Partial<Current>): Promise<void> {
    await this.say('current', JSON.stringify(currentState({ device: this.name, ...state })));
  }

  /** The newest target whose generation is at least this. */
  target(generation: number): Promise<Target> {
    return eventually(`${this.name} to get generation ${generation}`, () =>
      this.targets.find((target) => target.generation >= generation),
    );
  }
}

export const currentState = (state: Partial<Current>): Current => ({
  device: 'd1',
  generation: 0,
  bootId: 'boot-1',
  sequence: 1,
  atMs: 1_000,
  owner: null,
  images: [],
  update: { status: 'idle' },
  ...state,
});

export async function getJson<T = Record<string, unknown>>(url: string): Promise<T> {
  const response = await fetch(url);
  if (response.status !== 200) throw new Error(`${url} answered ${response.status}`);
  return (await response.json()) as T;
}

export const fakeDigest = (digit: string): string => `sha256:${digit.repeat(64)}`;
