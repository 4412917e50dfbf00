/**
 * One drone of a scenario: its world, the pilot at its control panel, its way to the hub, its record.
 *
 * Invariant: everything it starts is registered with the scope; what is done to it leaves a mark on its record.
 */
import { LIMITS as AGENT_LIMITS } from '#agent/limits.ts';
import type { Scope } from '#cli/demo/scope.ts';
import { type Current, hoverOf, World } from '#cli/demo/world.ts';
import { FLY } from '#cli/fly/limits.ts';
import type { MachineUse } from '#cli/fly/machine.ts';
import { Panel } from '#cli/fly/panel.ts';
import { FlightRecorder } from '#cli/fly/recorder.ts';
import type { Deed, Scenario } from '#cli/fly/scenario.ts';
import { Tape } from '#cli/fly/tape.ts';
import type { Figures } from '#cli/fly/verdict.ts';
import { Way } from '#cli/fly/way.ts';
import { LIMITS } from '#cli/limits.ts';
import { nowUs } from '#handover/native.ts';

export interface Mark {
  tUs: number;
  text: string;
}

export interface DroneOptions {
  scope: Scope;
  signal: AbortSignal;
  /** Where its record goes; its own things are in a folder of its name in it. */
  directory: string;
  name: string;
  /** Unique on the engine. */
  device: string;
  fleet: string;
  scenario: Scenario;
  /** Of the drones of this run, from 0, and how many there are. */
  index: number;
  drones: number;
}

/** Under which a loop of 250 Hz would be stopped for the rest of the second. */
const APP_REALTIME_US_MIN = 200_000;

/**
 * All drones of a run share one engine, and its real time: V1 and V2 of two can have some each. With more of them those that come
 * first have it, and the others fly without.
 */
const appRealtimeUs = (drones: number): number => {
  const share = Math.floor(LIMITS.realTimeRuntimeUs / (2 * drones));
  return share < APP_REALTIME_US_MIN
    ? AGENT_LIMITS.appRealtimeUs
    : Math.min(share, AGENT_LIMITS.appRealtimeUs);
};

export class Drone {
  readonly name: string;
  readonly world: World;
  readonly marks: Mark[] = [];
  /** Steps of the handover, as the agent told them. */
  readonly steps: Mark[] = [];
  /** What could not be done to it. */
  readonly troubles: string[] = [];
  /** By release: what its update has come to. */
  readonly events = new Map<string, Set<string>>();
  current: Current | null = null;
  /** The release whose update was ordered last. */
  ordered: string | undefined;
  waypoint: readonly [north: number, east: number, up: number] | undefined;
  /** The flight is over: what still waits for something gives it up. */
  readonly over = new AbortController();
  readonly #options: DroneOptions;
  #panel: Panel | undefined;
  #recorder: FlightRecorder | undefined;
  #tape: Tape | undefined;
  #ways: readonly Way[] = [];

  constructor(options: DroneOptions) {
    const { scope, signal, directory, name, device, fleet } = options;
    this.name = name;
    this.#options = options;
    this.world = new World({
      ...{ scope, signal, device, fleet, directory: `${directory}/${name}` },
      logs: `${directory}/logs`,
    });
  }

  get panel(): Panel {
    return started(this.#panel);
  }
  get tape(): Tape {
    return started(this.#tape);
  }
  get recorder(): FlightRecorder {
    return started(this.#recorder);
  }

  /** Simulator, then agent. */
  async start(hub: World): Promise<void> {
    const { world } = this;
    world.join(hub);
    await world.startSim(this.#simArguments());
    await this.#openWays();
    await this.startAgent();
  }

  /** Until the first release is on it, and it stands, ready. */
  async ready(release: string): Promise<void> {
    const { world } = this;
    await world.updated(release, () => {}, FLY.firstInstallMsMax);
    const panel = await this.#options.scope.use(
      `${this.name}'s panel`,
      async () => new Panel(world.panelUrl, world.signal),
      (opened) => opened.close(),
    );
    this.#panel = panel;
    await panel.open();
    await world.until(`${this.name} to stand ready`, async () =>
      panel.phase === 'stand' ? true : undefined,
    );
  }

  /** From now on it is on the record. */
  async record(): Promise<void> {
    const { scope, directory } = this.#options;
    const atUs = nowUs();
    const offsetUs = Date.now() * 1000 - atUs;
    this.#recorder = await scope.use(
      `${this.name}'s recorder`,
      () => FlightRecorder.open(`${directory}/${this.name}.mcap`, this.name, offsetUs),
      (recorder) => recorder.close(),
    );
    const releaseOf = (epoch: number) => this.panel.releaseOf(epoch);
    this.#tape = new Tape(this.world.sim, this.#recorder, releaseOf, atUs);
  }

  /** A drone's own seed, so that no two of them are the same. */
  #simArguments(): string[] {
    const { scenario, index } = this.#options;
    const given = scenario.sim.find(({ name }) => name === 'seed')?.value;
    const seed = Number(given ?? 1) + index;
    const others = scenario.sim.filter(({ name }) => name !== 'seed');
    return [...argumentsOf(others), '--seed', String(seed)];
  }

  async startAgent(): Promise<void> {
    const [http, mqtt] = this.#ways;
    await this.world.startAgent([
      ...['--app-realtime', String(appRealtimeUs(this.#options.drones))],
      ...argumentsOf(this.#options.scenario.agent),
      ...['--hub', started(http).url('http'), '--mqtt', started(mqtt).url('mqtt')],
    ]);
  }

  async #openWays(): Promise<void> {
    const { scope } = this.#options;
    const { hub, mqttUrl } = this.world;
    const open = (url: string) =>
      scope.use(
        `${this.name}'s way to the hub`,
        () => Way.open(url),
        (way) => way.close(),
      );
    this.#ways = [await open(hub.url), await open(mqttUrl)];
  }

  cut(): void {
    for (const way of this.#ways) way.cut();
  }
  mend(): void {
    for (const way of this.#ways) way.mend();
  }

  mark(text: string, tUs: number = nowUs()): void {
    this.marks.push({ tUs, text });
    void this.#recorder?.log('mark', tUs, this.name, text);
  }

  trouble(text: string): void {
    this.troubles.push(text);
    this.mark(text);
  }

  /** What a pilot does. @throws Error why it is not followed */
  async pilot(deed: Deed): Promise<void> {
    switch (deed.type) {
      case 'waypoint':
        this.waypoint = [deed.northM, deed.eastM, deed.upM];
        await this.panel.ask({ ...deed, type: 'goto' });
        return;
      case 'circle':
        this.waypoint = undefined;
        await this.panel.ask(deed);
        return;
      case 'takeoff':
        this.waypoint = [0, 0, deed.upM];
        await this.panel.ask(deed);
        return;
      case 'hover':
      case 'land':
        await this.panel.ask(deed);
        return;
      default:
        throw new Error(`${deed.type} is not a pilot's`);
    }
  }

  /** The present, for whoever watches. */
  async look(): Promise<ReturnType<typeof hoverOf> & { state: Record<string, unknown> }> {
    const state = await this.world.sim.state();
    return { ...hoverOf(state), state };
  }

  async figures(): Promise<Figures> {
    const { state, altitudeM } = await this.look();
    const { changes, totals } = this.tape;
    const { current, panel, waypoint } = this;
    const update = current?.update;
    const most = (values: (number | null)[]) => {
      const known = values.filter((value) => value !== null);
      return known.length === 0 ? null : Math.max(...known);
    };
    const sum = (values: number[]) => values.reduce((all, value) => all + value, 0);
    const isOrdered = this.ordered !== undefined && update !== undefined && 'release' in update;
    const { position } = state as { position: number[] };
    return {
      owner: current?.owner?.release ?? 'nobody',
      update: isOrdered && update.release === this.ordered ? update.status : 'none',
      failure: update?.status === 'failed' ? update.failure.code : null,
      landed: state.landed === true ? 'yes' : 'no',
      crashed: state.crashed === true ? 'yes' : 'no',
      handovers: changes.length,
      gap: most(changes.map(({ judged }) => judged.gapMsMax)),
      missed: changes.length === 0 ? null : sum(changes.map(({ judged }) => judged.missedCycles)),
      missedCyclesBoardLate: sum(changes.map(({ judged }) => judged.missedCyclesBoardLate)),
      stale: totals.stale,
      doubled: totals.doubled,
      failsafes: totals.failsafes,
      tilt: totals.tiltDegMax,
      'height-error': most(changes.map(({ heightErrorM }) => heightErrorM)),
      height: altitudeM,
      off: waypoint === undefined ? null : distance(waypoint, position),
      battery: Number(state.battery),
      'frames-lost': panel.framesLost,
      'frames-repeated': panel.framesRepeated,
      'sockets-closed': panel.closes,
    };
  }
}

export interface MachineReport extends MachineUse {
  /** Of all drones' boards. */
  boardLateTicksShare: number;
}

const distance = ([north, east, up]: readonly [number, number, number], position: number[]): number =>
  Math.hypot((position[0] ?? 0) - north, (position[1] ?? 0) - east, -(position[2] ?? 0) - up);

const argumentsOf = (options: readonly { name: string; value: string }[]): string[] =>
  options.flatMap(({ name, value }) => {
    if (value === 'true') return [`--${name}`];
    return value === 'no' ? [`--no-${name}`] : [`--${name}`, value];
  });

function started<T>(part: T | undefined): T {
  if (part === undefined) throw new Error('not started yet');
  return part;
}
