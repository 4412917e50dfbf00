/**
 * Hub, simulated drone and agent on this machine, over two engines: what the demo, the end-to-end tests and the
 * handover benchmark share.
 *
 * Invariant: everything is registered with the scope as it starts; a part that ends by itself ends the wait that
 * runs, with its log. Every wait has an end and says what it waited for.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BaseImage, ensureBaseImage } from '#cli/base-image.ts';
import { writeMark } from '#cli/chaos/marks.ts';
import { type Child, startChild, tail } from '#cli/demo/child.ts';
import { Repository } from '#cli/demo/repository.ts';
import type { Scope } from '#cli/demo/scope.ts';
import { type Engine, openEngine } from '#cli/engine.ts';
import { HubClient, type HubStatus } from '#cli/hub-client.ts';
import { LIMITS } from '#cli/limits.ts';
import type { ProcessId } from '#cli/processes.ts';
import { SimClient } from '#cli/sim-client.ts';

export type Current = NonNullable<HubStatus['devices'][number]['current']>;

export class WorldError extends Error {
  readonly code: 'TIMEOUT' | 'PART_ENDED' | 'UPDATE_FAILED';
  constructor(code: WorldError['code'], text: string) {
    super(text);
    this.code = code;
  }
}

export interface WorldOptions {
  scope: Scope;
  /** Logs, sockets, stores; short, since unix sockets' paths are. */
  directory: string;
  signal: AbortSignal;
  /** Unique on a shared engine: containers are found by it. */
  device: string;
  fleet?: string;
  /** Strict mode: a gate has the flight controller's tty. */
  gate?: boolean;
  /** The control panel's, if it is free; any free one otherwise. */
  panelPort?: number;
  /** Where its logs go if not beside the rest; each then begins with the device's name. */
  logs?: string;
}

export class World {
  readonly directory: string;
  readonly device: string;
  readonly fleet: string;
  /** Of the rotor link, hex: this world's own. */
  readonly signingKey = randomBytes(32).toString('hex');
  readonly #panelPort: number;
  readonly #isStrict: boolean;
  readonly #logs: string | undefined;
  readonly #scope: Scope;
  readonly #signal: AbortSignal;
  readonly #ended = new AbortController();
  #hubEngine: Engine | undefined;
  #droneEngine: Engine | undefined;
  #hub: HubClient | undefined;
  #mqttUrl = '';
  #wayToHub: { readonly hub: string; readonly mqtt: string } | undefined;
  #sim: SimClient | undefined;
  #devices: { rotors: string; camera: string | null } = { rotors: '', camera: null };
  #panelUrl = '';
  #gate: Child | undefined;
  #agent: Child | undefined;

  constructor(options: WorldOptions) {
    this.directory = options.directory;
    this.device = options.device;
    this.fleet = options.fleet ?? 'demo';
    this.#panelPort = options.panelPort ?? 0;
    this.#isStrict = options.gate ?? false;
    this.#logs = options.logs;
    this.#scope = options.scope;
    this.#signal = options.signal;
    mkdirSync(this.directory, { recursive: true });
    mkdirSync(this.#logs ?? this.path('logs'), { recursive: true });
    writeFileSync(this.#keyFile, this.signingKey, { mode: 0o600 });
  }

  get #keyFile(): string {
    return this.path('signing.key');
  }

  path(...parts: string[]): string {
    return join(this.directory, ...parts);
  }

  /** Aborts when the user does, and when a part ends by itself. */
  get signal(): AbortSignal {
    return AbortSignal.any([this.#signal, this.#ended.signal]);
  }

  get hub(): HubClient {
    return started(this.#hub, 'hub');
  }

  get sim(): SimClient {
    return started(this.#sim, 'sim');
  }

  get droneEngine(): Engine {
    return started(this.#droneEngine, 'engine');
  }

  /** `mqtt://host:port`, the hub's own. */
  get mqttUrl(): string {
    return this.#mqttUrl;
  }

  /** How the agent reaches its hub from its next start on; else directly. */
  set wayToHub(way: { readonly hub: string; readonly mqtt: string }) {
    this.#wayToHub = way;
  }

  get hubEngine(): Engine {
    return started(this.#hubEngine, 'engine');
  }

  /** The flight controller's tty. */
  get rotors(): string {
    return this.#devices.rotors;
  }

  /** `http://host:port` */
  get panelUrl(): string {
    return this.#panelUrl;
  }

  /** The two engines, side by side; one and the same where the machine has one. */
  async openEngines(onProgress: (text: string) => void = () => {}): Promise<void> {
    const open = async () => {
      const names = ['hub', 'drone'] as const;
      const opened = await Promise.allSettled(names.map((name) => openEngine({ name, onProgress })));
      const engines = opened.filter((one) => one.status === 'fulfilled').map((one) => one.value);
      const failed = opened.find((one) => one.status === 'rejected');
      if (failed !== undefined) {
        await Promise.all(engines.map((engine) => engine.close()));
        throw failed.reason;
      }
      return engines;
    };
    const engines = await this.#scope.use('engines', open, async (opened) => {
      const ends = await Promise.allSettled(opened.map((engine) => engine.close()));
      const failed = ends.find((end) => end.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
    });
    this.useEngines(engines[0] as Engine, engines[1] as Engine);
  }

  /** Engines that somebody else opened and closes. */
  useEngines(hub: Engine, drone: Engine): void {
    this.#hubEngine = hub;
    this.#droneEngine = drone;
  }

  async loadBase(): Promise<BaseImage> {
    const base = await ensureBaseImage(this.hubEngine.docker);
    const other = await ensureBaseImage(this.droneEngine.docker);
    return { ...base, wasLoaded: base.wasLoaded || other.wasLoaded };
  }

  async startHub(): Promise<void> {
    const { ready, id } = await this.start('hub', [
      ...['--dir', this.path('hub'), '--http', '127.0.0.1:0', '--mqtt', '127.0.0.1:0'],
      ...['--engine', this.hubEngine.url, '--fleet', this.fleet],
    ]);
    this.#hub = new HubClient(String(ready.url));
    this.#mqttUrl = String(ready.mqtt);
    writeMark({ role: 'hub', device: null, directory: this.path('hub'), ...id });
  }

  /** Another one's hub and engines: a second drone of its fleet. */
  join(other: World): void {
    this.useEngines(other.hubEngine, other.droneEngine);
    this.#hub = other.hub;
    this.#mqttUrl = other.mqttUrl;
  }

  async startSim(args: string[] = []): Promise<void> {
    const { ready, id } = await this.start('sim', [
      ...['--dir', this.path('sim'), '--signing-key', this.#keyFile],
      ...args,
    ]);
    const camera = typeof ready.camera === 'string' ? ready.camera : null;
    this.#devices = { rotors: String(ready.rotors), camera };
    this.#sim = new SimClient(String(ready.url));
    writeMark({ role: 'sim', device: this.device, directory: this.path('sim'), ...id });
  }

  /** Also again: it takes over from the one that runs, which ends. */
  async startGate(): Promise<Child> {
    const before = this.#gate;
    if (before !== undefined) this.#expected.add(before);
    this.#gate = await this.start('gate', [
      ...['--socket', this.path('agent', 'gate', 'control.sock'), '--tty', this.#devices.rotors],
    ]);
    return this.#gate;
  }

  /** Also again, after `killAgent`. */
  async startAgent(args: readonly string[] = []): Promise<Child> {
    if (this.#panelUrl === '') this.#panelUrl = `http://127.0.0.1:${await freePort(this.#panelPort)}`;
    if (this.#isStrict && this.#gate === undefined) await this.startGate();
    const { hub, mqtt } = this.#wayToHub ?? { hub: this.hub.url, mqtt: this.#mqttUrl };
    const { rotors, camera } = this.#devices;
    this.#agent = await this.start('agent', [
      ...(this.#isStrict ? ['--gate'] : []),
      ...['--dir', this.path('agent'), '--device', this.device, '--fleet', this.fleet],
      ...['--hub', hub, '--mqtt', mqtt, '--engine', this.droneEngine.url, '--test-device'],
      ...['--rotors', rotors, ...(camera === null ? [] : ['--camera', camera])],
      ...['--signing-key', this.#keyFile],
      ...['--panel', this.#panelUrl.slice('http://'.length), ...args],
    ]);
    return this.#agent;
  }

  /** One more process of this command line; `name` is its log's. */
  async start(name: string, args: string[], command: string[] = [name]): Promise<Child> {
    const logFile =
      this.#logs === undefined
        ? this.path('logs', `${name}.log`)
        : join(this.#logs, `${this.device}-${name}.log`);
    let isEnding = false;
    const child = await this.#scope.use(
      name,
      () => startChild({ name, args: [...command, ...args], logFile, signal: this.signal }),
      async (running) => {
        isEnding = true;
        await running.stop();
        // The agent leaves its apps flying: that is right on a drone, and here they are ended.
        if (name === 'agent') {
          await this.removeContainers();
          await this.#removeImages();
        }
      },
    );
    void child.ended.then((how) => {
      if (isEnding || this.#expected.has(child)) return;
      const text = `${name} ended by itself (${how}); its log ${logFile} ends:\n${tail(logFile)}`;
      this.#ended.abort(new WorldError('PART_ENDED', text));
    });
    return child;
  }

  readonly #expected = new Set<Child>();

  /** From here on the agent that runs now may end by itself. */
  expectAgentEnd(): void {
    this.expectEnd(started(this.#agent, 'agent'));
  }

  expectEnd(child: Child): void {
    this.#expected.add(child);
  }

  /** The agent that was started last. */
  get agentId(): ProcessId {
    return started(this.#agent, 'agent').id;
  }

  /** As a power cut would: no goodbye. */
  async killAgent(): Promise<void> {
    const agent = started(this.#agent, 'agent');
    this.expectAgentEnd();
    try {
      process.kill(agent.id.pid, 'SIGKILL');
    } catch (error) {
      // It has ended by itself, as was expected.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
    await agent.ended;
  }

  /** All of this device's containers. */
  async removeContainers(): Promise<void> {
    const { docker } = this.droneEngine;
    const filters = { label: [`io.midair.device=${this.device}`] };
    for (const { Id } of await docker.listContainers({ all: true, filters })) {
      await docker.getContainer(Id).remove({ force: true, v: true });
    }
  }

  /** What this hub built and the drone's engine got. A private engine is swept whole when it closes. */
  async #removeImages(): Promise<void> {
    if (this.droneEngine.isPrivate) return;
    const { releases } = await this.hub.status();
    const ids = releases.flatMap(({ services }) => Object.values(services).map(({ image }) => image.id));
    for (const id of ids) {
      try {
        await this.droneEngine.docker.getImage(id).remove({ force: true });
      } catch (error) {
        // Not there (it failed to install), or somebody else uses it.
        if (![404, 409].includes((error as { statusCode?: number }).statusCode ?? 0)) throw error;
      }
    }
  }

  repository(name: string, directory = 'app'): Promise<Repository> {
    return Repository.create(this.path(directory), this.hub.url, name, this.signal);
  }

  /** What the hub last heard of the device. */
  async current(): Promise<Current | null> {
    return (await this.#told()).current;
  }

  /** What the device reports, and whether it is about the target that the hub has now. */
  async #told(): Promise<{ current: Current | null; isNow: boolean }> {
    const { devices, target } = await this.hub.status();
    const current = devices.find(({ name }) => name === this.device)?.current ?? null;
    return { current, isNow: current?.generation === target.generation };
  }

  /**
   * Waits until the device says that this release flies.
   *
   * @throws WorldError `UPDATE_FAILED` with the device's own words, `TIMEOUT`
   */
  async updated(
    release: string,
    onStage: (current: Current) => void = () => {},
    msMax: number = LIMITS.updateMsMax,
  ): Promise<Current> {
    const flies = async () => {
      const { current, isNow } = await this.#told();
      if (current === null) return undefined;
      onStage(current);
      const { update, owner } = current;
      if (isNow && update.status === 'failed' && update.release === release) {
        throw new WorldError(
          'UPDATE_FAILED',
          `${release} failed: ${update.failure.code}: ${update.failure.text}`,
        );
      }
      return update.status === 'done' && update.release === release && owner?.release === release
        ? current
        : undefined;
    };
    return this.until(`${release} to fly`, flies, msMax);
  }

  /** Waits until the drone hovers: high, slow and level for a while. */
  async hovering(onText: (text: string) => void = () => {}): Promise<void> {
    let sinceMs: number | undefined;
    await this.until('the drone to hover', async () => {
      const { altitudeM, speedMS, tiltDeg } = hoverOf(await this.sim.state());
      onText(`${altitudeM.toFixed(2)} m up, ${speedMS.toFixed(2)} m/s, tilt ${tiltDeg.toFixed(1)}°`);
      const isSteady =
        altitudeM > LIMITS.hoverAltitudeMMin &&
        speedMS < LIMITS.hoverSpeedMSMax &&
        tiltDeg < LIMITS.hoverTiltDegMax;
      if (!isSteady) sinceMs = undefined;
      else sinceMs ??= performance.now();
      return sinceMs !== undefined && performance.now() - sinceMs > LIMITS.hoverSteadyMs ? true : undefined;
    });
  }

  /** Polls until there is an answer. @throws WorldError `TIMEOUT`; what `probe` throws; the signal's reason */
  async until<T>(
    what: string,
    probe: () => Promise<T | undefined>,
    msMax: number = LIMITS.updateMsMax,
  ): Promise<T> {
    const endMs = performance.now() + msMax;
    const { signal } = this;
    for (;;) {
      signal.throwIfAborted();
      const answer = await probe();
      if (answer !== undefined) return answer;
      if (performance.now() > endMs) {
        throw new WorldError(
          'TIMEOUT',
          `waited ${msMax / 1000} s for ${what}, in vain; logs: ${this.#logs ?? this.path('logs')}`,
        );
      }
      await this.pause(LIMITS.pollMs);
    }
  }

  /** @throws the signal's reason */
  async pause(ms: number): Promise<void> {
    const { signal } = this;
    try {
      await sleep(ms, undefined, { signal });
    } catch {
      signal.throwIfAborted();
    }
  }
}

function started<T>(part: T | undefined, name: string): T {
  if (part === undefined) throw new Error(`the ${name} is not started yet`);
  return part;
}

/** From the simulator's true state: NED, so down is positive. */
export function hoverOf(state: Record<string, unknown>): {
  altitudeM: number;
  speedMS: number;
  tiltDeg: number;
} {
  const three = (value: unknown) => (Array.isArray(value) ? value.map(Number) : [0, 0, 0]);
  const [, , down = 0] = three(state.position);
  const [roll = 0, pitch = 0] = three(state.attitudeDeg);
  return {
    altitudeM: -down,
    speedMS: Math.hypot(...three(state.velocity)),
    tiltDeg: Math.hypot(roll, pitch),
  };
}

/** The wished port of loopback, or any free one. */
export async function freePort(wished: number): Promise<number> {
  for (const port of [wished, 0]) {
    const server = createServer();
    try {
      const found = await new Promise<number>((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host: '127.0.0.1', port, exclusive: true }, () => {
          resolve((server.address() as { port: number }).port);
        });
      });
      await new Promise((resolve) => server.close(resolve));
      return found;
    } catch {
      // Taken.
    }
  }
  throw new Error('no free port on 127.0.0.1');
}
