/**
 * A drone on the bench for tests of the example app: the real simulator, the real coordinator of the agent, and the
 * app's versions as plain processes instead of containers.
 *
 * Invariant: every process is stopped by `close`, by the pid that was started here.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { WebSocket } from 'ws';
import { Coordinator, type Report } from '#agent/coordinator.ts';
import { createDevices, type Devices } from '#agent/devices.ts';
import { type Journal, openJournal } from '#agent/journal.ts';
import { createLock } from '#agent/lock.ts';
import { createLog } from '#agent/log.ts';
import { policyOf } from '#agent/policy.ts';
import { SimClient } from '#cli/sim-client.ts';
import { RESOURCES } from '#handover/messages.ts';
import { native, nowUs } from '#handover/native.ts';
import { initial, type Outcome, type State } from '#handover/state.ts';

const ROOT = join(import.meta.dirname, '..');

/** Polls until `done`; a deadline that passes is an error that says what was waited for. */
export const until = async (what: string, done: () => boolean, withinMs = 20_000): Promise<void> => {
  const endMs = performance.now() + withinMs;
  while (!done()) {
    if (performance.now() > endMs) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};

const ended = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve();
    else child.once('exit', () => resolve());
  });

export interface Version {
  readonly release: string;
  readonly child: ChildProcess;
  /** What it printed, both streams. */
  output: string;
}

export class Bench {
  readonly directory = mkdtempSync(join(tmpdir(), 'midair-app-'));
  readonly reports: Report[] = [];
  readonly outcomes: Outcome[] = [];
  readonly versions = new Map<string, Version>();
  panelUrl = '';
  /** Called on the coordinator's own turn, before it does anything else. */
  onReport: (report: Report) => void = () => {};
  #sim: ChildProcess | undefined;
  #simClient: SimClient | undefined;
  #devices: Devices | undefined;
  #journal: Journal<State> | undefined;
  #coordinator: Coordinator | undefined;

  get sim(): SimClient {
    if (this.#simClient === undefined) throw new Error('open() first');
    return this.#simClient;
  }
  get coordinator(): Coordinator {
    if (this.#coordinator === undefined) throw new Error('open() first');
    return this.#coordinator;
  }

  async open(): Promise<this> {
    const simDirectory = join(this.directory, 'drone');
    const sim = spawn(
      process.execPath,
      [join(ROOT, 'device-sim/main.ts'), '--dir', simDirectory, '--log-level', 'warn'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    this.#sim = sim;
    const [line] = await Promise.race([
      createInterface(sim.stdout)
        [Symbol.asyncIterator]()
        .next()
        .then(({ value }) => [value as string]),
      ended(sim).then(() => {
        throw new Error('the simulator ended before it was ready');
      }),
    ]);
    const ready = JSON.parse(line as string) as { rotors: string; camera: string; url: string };
    this.#simClient = new SimClient(ready.url);

    const panel = { host: '127.0.0.1', port: 0 };
    const devices = createDevices({ rotors: ready.rotors, camera: ready.camera, baud: 921_600, panel });
    this.#devices = devices;
    const [listening] = devices.descriptors('listener', { to: '', epoch: 0, from: 'start' });
    this.panelUrl = `http://127.0.0.1:${native.tcpPort(listening?.fd ?? -1)}/`;
    const path = join(this.directory, 'journal');
    const journal = openJournal<State>({
      path,
      bytesMax: 8_192,
      parse: (value) => value as State,
      empty: initial,
    });
    this.#journal = journal;
    const end = async (id: string, signal: NodeJS.Signals): Promise<void> => {
      const child = this.versions.get(id)?.child;
      if (child === undefined) return;
      child.kill(signal);
      await ended(child);
    };
    this.#coordinator = new Coordinator({
      socketPath: join(this.directory, 'handover.sock'),
      journal,
      devices,
      processes: {
        containerOfPid: (pid) => [...this.versions].find(([, { child }]) => child.pid === pid)?.[0],
        fence: async (id) => {
          await end(id, 'SIGKILL');
          return { dead: Promise.resolve(true) };
        },
        stop: (id) => end(id, 'SIGTERM'),
      },
      resources: RESOURCES,
      lock: createLock(join(this.directory, 'locks')),
      log: createLog('bench', 'silent'),
      onReport: (report) => {
        this.reports.push(report);
        this.onReport(report);
      },
      onSettle: (outcome) => this.outcomes.push(outcome),
    });
    await this.#coordinator.start(new Set());
    return this;
  }

  /** What is pushed to the hub and copied into an image: the app, an overlay upon it, and the modules beside it. */
  tree(overlay?: string): string {
    const tree = join(this.directory, `tree-${overlay?.replaceAll('/', '-') ?? 'drone'}`);
    cpSync(join(ROOT, 'apps/drone'), tree, { recursive: true });
    if (overlay !== undefined) cpSync(join(ROOT, 'apps', overlay), tree, { recursive: true });
    writeFileSync(join(tree, 'package.json'), '{"type":"module","private":true,"name":"hover"}\n');
    mkdirSync(join(tree, 'node_modules'), { recursive: true });
    for (const name of ['ws', 'serialport', 'valibot', 'uplot']) {
      rmSync(join(tree, 'node_modules', name), { force: true });
      symlinkSync(join(ROOT, 'node_modules', name), join(tree, 'node_modules', name));
    }
    rmSync(join(tree, 'node_modules/midair'), { force: true });
    symlinkSync(ROOT, join(tree, 'node_modules/midair'));
    return tree;
  }

  /** Starts a version as the candidate. */
  start(release: string, overlay?: string): Version {
    this.coordinator.update(release, policyOf({}));
    const child = spawn(process.execPath, [join(this.tree(overlay), 'main.ts')], {
      env: {
        PATH: process.env.PATH,
        MIDAIR_SOCKET: join(this.directory, 'handover.sock'),
        MIDAIR_RELEASE: release,
        MIDAIR_APP: 'hover',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const version: Version = { release, child, output: '' };
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (bytes: Buffer) => {
        version.output += bytes.toString();
      });
    }
    this.versions.set(release, version);
    child.once('exit', () => this.#coordinator?.died(release));
    return version;
  }

  /** Starts it and waits until the agent says how it went. */
  async update(release: string, overlay?: string): Promise<Outcome> {
    const before = this.outcomes.length;
    this.start(release, overlay);
    await until(`${release} settled`, () => this.outcomes.length > before);
    return this.outcomes.at(-1) as Outcome;
  }

  /**
   * Waits, not for ever, for a second of flight in which this machine lets the loop run: what a handover does to a flight
   * cannot be told while something else stops both.
   */
  async calm(withinMs = 30_000): Promise<void> {
    for (const endMs = performance.now() + withinMs; performance.now() < endMs; ) {
      const fromUs = nowUs();
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      const { gapMsMax } = await this.sim.judge(fromUs, nowUs());
      if (gapMsMax !== null && gapMsMax < 30) return;
    }
  }

  async close(): Promise<void> {
    this.#coordinator?.close();
    this.#devices?.close();
    this.#journal?.close();
    for (const child of [...[...this.versions.values()].map((version) => version.child), this.#sim]) {
      if (child === undefined) continue;
      child.kill(child === this.#sim ? 'SIGTERM' : 'SIGKILL');
      await ended(child);
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

interface Told {
  release: string;
  phase: string;
  epoch: number;
  tUs: number;
  trace: [number, number, number, number][];
}

/** A browser without a screen: keeps all that the panel said, and counts what is missing. */
export class Viewer {
  readonly hellos: { release: string; views: { kind: number; id: string; module: string }[] }[] = [];
  readonly telemetry: Told[] = [];
  /** Frame numbers by kind, as they came. */
  readonly frames: [number[], number[]] = [[], []];
  closed: number | null = null;
  readonly socket: WebSocket;

  constructor(panelUrl: string) {
    this.socket = new WebSocket(`${panelUrl.replace('http', 'ws')}ws`);
    this.socket.on('close', (code) => {
      this.closed = code;
    });
    this.socket.on('error', () => {});
    this.socket.on('message', (data: Buffer, isBinary) => {
      if (isBinary) {
        this.frames[data[0] as 0 | 1].push(data.readUInt32LE(4));
        return;
      }
      const message = JSON.parse(data.toString()) as { type: string };
      if (message.type === 'hello') this.hellos.push(message as never);
      else this.telemetry.push(message as never);
    });
  }
  get last(): Told | undefined {
    return this.telemetry.at(-1);
  }
  /** Numbers missing between the first and the last, and those that came twice or late. */
  gaps(kind: 0 | 1): { lost: number; wrong: number } {
    const numbers = this.frames[kind];
    let lost = 0;
    let wrong = 0;
    numbers.forEach((number, i) => {
      const step = number - (numbers[i - 1] ?? number - 1);
      if (step < 1) wrong += 1;
      else lost += step - 1;
    });
    return { lost, wrong };
  }
}
