/**
 * Flies a scenario: the drones, their hub, what happens to them and when.
 *
 * Invariant: what the script says is done at its time or on its event, whatever else is under way; what could not be done is
 * on the drone's record as trouble. The flight ends when everything has come to its end, or at its own time.
 */
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Repository } from '#cli/demo/repository.ts';
import type { Scope } from '#cli/demo/scope.ts';
import { World } from '#cli/demo/world.ts';
import { Drone } from '#cli/fly/drone.ts';
import { doFault } from '#cli/fly/faults.ts';
import { HubWatch } from '#cli/fly/hub-watch.ts';
import { FLY } from '#cli/fly/limits.ts';
import { Machine } from '#cli/fly/machine.ts';
import type { Act, Deed, EventName, ReleaseSource, Scenario } from '#cli/fly/scenario.ts';
import type { Row, Show } from '#cli/fly/show.ts';
import type { EventRecord } from '#cli/hub-client.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import { bytesText } from '#cli/text.ts';
import { nowUs } from '#handover/native.ts';

export interface FlightOptions {
  scenario: Scenario;
  drones: number;
  scope: Scope;
  directory: string;
  signal: AbortSignal;
  show: Show;
}

const APP = 'hover';
const FLEET = 'fly';
/** Of the whole fleet: done once, not on each drone. */
const isFleets = ({ type }: Deed) => type === 'push' || type === 'update' || type === 'end';
const isPilots = ({ type }: Deed) => ['takeoff', 'waypoint', 'circle', 'hover', 'land'].includes(type);

export class Flight {
  readonly drones: readonly Drone[];
  readonly machine = new Machine();
  readonly #options: FlightOptions;
  readonly #hub: World;
  readonly #signal: AbortSignal;
  #repository: Repository | undefined;
  #watch: HubWatch | undefined;
  #startMs = 0;
  startUs = 0;
  endUs = 0;
  #isOver = false;
  readonly #done = new Set<Act>();
  /** Acts that are under way. */
  readonly #running = new Set<Promise<void>>();
  /** Faults whose moment has not come. */
  readonly #waiting = new Set<{ drone: Drone; text: string }>();
  readonly #lastManoeuvre = new Map<Drone, Deed>();

  constructor(options: FlightOptions) {
    const { scope, directory, signal, scenario, drones } = options;
    this.#options = options;
    this.#hub = new World({ scope, directory, signal, device: `hub-${process.pid}`, fleet: FLEET });
    this.drones = Array.from({ length: drones }, (_, index) => {
      const name = `drone-${index + 1}`;
      const device = `${name}-${process.pid}`;
      return new Drone({ scope, signal, directory, name, device, fleet: FLEET, scenario, index, drones });
    });
    this.#signal = AbortSignal.any([this.#hub.signal, ...this.drones.map(({ world }) => world.signal)]);
  }

  /** Engines, hub, releases, drones: afterwards all drones stand, ready, with the first release. */
  async prepare(): Promise<void> {
    const { show, scenario } = this.#options;
    const hub = this.#hub;
    await show.step('Docker engines for hub and drones', async ({ line }) => {
      await hub.openEngines(line);
      const { version, isPrivate, url } = hub.droneEngine;
      return isPrivate ? `two private ones, ${version}` : `${version} at ${url}`;
    });
    await show.step('Base image from this machine’s Node', async () => {
      const base = await hub.loadBase();
      return `${bytesText(base.bytes)}, ${base.wasLoaded ? 'loaded' : 'there already'}`;
    });
    await show.step('Hub', async () => {
      await hub.startHub();
      return hub.hub.url;
    });
    const inFlight = scenario.acts.flatMap(({ deed }) => (deed.type === 'push' ? [deed.release] : []));
    const before = scenario.releases.filter(({ name }) => !inFlight.includes(name));
    for (const release of before) {
      await show.step(`git push ${release.name}`, async ({ line }) => {
        await this.#push(release, line);
        return release.folders.map((folder) => `apps/${folder}`).join(' + ');
      });
    }
    await hub.hub.choose('v1');
    const count = this.drones.length;
    await show.step(count === 1 ? 'Drone' : `${count} drones`, async () => {
      // Processes start one after the other; then they wait together.
      for (const drone of this.drones) await drone.start(hub);
      await Promise.all(this.drones.map((drone) => drone.ready('v1')));
      return 'v1 on it, standing';
    });
    this.#watch = await HubWatch.open(hub.hub);
  }

  async #push({ name, folders, labels }: ReleaseSource, onLine: (text: string) => void): Promise<void> {
    this.#repository ??= await this.#hub.repository(APP);
    const repository = this.#repository;
    repository.clear();
    for (const folder of folders) repository.overlay(folder);
    const isHooked = this.#options.scenario.acts.some(
      ({ deed }) => deed.type === 'fault' && deed.fault.type === 'process' && deed.fault.moment !== undefined,
    );
    const lines = ['ENV HOVER_TAKEOFF=asked', ...labels.map((label) => `LABEL ${label.name}=${label.value}`)];
    let dockerfile = readFileSync(join(repository.directory, 'Dockerfile'), 'utf8');
    if (isHooked) {
      copyFileSync(
        join(PACKAGE_ROOT, 'cli', 'fly', 'fault-hook.mjs'),
        join(repository.directory, 'fault-hook.mjs'),
      );
      lines.push('ENV FAULT_MODULES=/node_modules/midair/handover FAULT_PLAN=/run/midair/fault.json');
      dockerfile = dockerfile.replace('["node", ', '["node", "--import=/app/fault-hook.mjs", ');
    }
    repository.write('Dockerfile', dockerfile.replace('\n', `\n${lines.join('\n')}\n`));
    await repository.commit(`${name}: ${folders.join(' + ')}`);
    await repository.push(onLine);
    const { target } = await this.#hub.hub.status();
    // The parser saw to the order; another count would fly another release.
    if (target.release?.id !== name) throw new Error(`the hub calls ${name} ${target.release?.id}`);
  }

  /** The whole of it. Resolves when it is over, with everything on the record. */
  async fly(): Promise<void> {
    const { scenario } = this.#options;
    for (const drone of this.drones) await drone.record();
    this.#startMs = performance.now();
    this.startUs = nowUs();
    for (const drone of this.drones) drone.mark('start', this.startUs);
    const timeline = scenario.acts.filter(({ when }) => when.type === 'at');
    for (const act of timeline) {
      const { ms } = act.when as { ms: number };
      this.#run(ms, () => this.#act(act, this.drones));
    }
    const loops = [this.#loop(FLY.lookMs, () => this.#look()), this.#loop(FLY.tapeMs, () => this.#take())];
    try {
      await this.#over();
    } finally {
      this.#isOver = true;
      for (const { drone, text } of this.#waiting) drone.trouble(`${text}: its moment did not come`);
      for (const drone of this.drones) drone.over.abort();
    }
    await Promise.all(loops);
    this.endUs = nowUs();
    await this.#look();
    await this.#pause(FLY.tapeLagMs);
    await Promise.all(this.drones.map((drone) => drone.tape.end(this.endUs)));
  }

  /** Where in the flight this is, s. */
  secondsOf(tUs: number): number {
    return (tUs - this.startUs) / 1e6;
  }

  async #over(): Promise<void> {
    const { acts } = this.#options.scenario;
    const ends = acts.find(({ deed }) => deed.type === 'end');
    const lastAtMs = Math.max(0, ...acts.map(({ when }) => (when.type === 'at' ? when.ms : 0)));
    let quietMs: number | undefined;
    for (;;) {
      const atMs = performance.now() - this.#startMs;
      if (ends !== undefined) {
        if (this.#done.has(ends)) return;
      } else {
        const isQuiet = atMs > lastAtMs && this.#running.size === 0 && (await this.#isSettled());
        quietMs = isQuiet ? (quietMs ?? atMs) : undefined;
        if (quietMs !== undefined && atMs - quietMs > FLY.lingerMs) return;
        if (atMs > lastAtMs + FLY.settleMsMax) {
          for (const drone of this.drones) drone.trouble('the flight did not come to its end in time');
          return;
        }
      }
      await this.#pause(FLY.lookMs);
    }
  }

  async #isSettled(): Promise<boolean> {
    for (const drone of this.drones) {
      const update = drone.current?.update;
      const isUpdating =
        drone.ordered !== undefined &&
        !(update && 'release' in update && update.release === drone.ordered && update.status !== 'updating');
      if (isUpdating || !(await this.#isAtRest(drone))) return false;
    }
    return true;
  }

  async #isAtRest(drone: Drone): Promise<boolean> {
    const deed = this.#lastManoeuvre.get(drone);
    if (deed === undefined || deed.type === 'circle') return true;
    const { speedMS, state } = await drone.look();
    if (state.crashed === true || state.failsafe === true) return true;
    if (state.landed === true && state.armed !== true) return true;
    return deed.type !== 'land' && drone.panel.phase === 'hover' && speedMS < 0.25;
  }

  // ------------------------------------------------------------ what happens

  /** In the background; its trouble is each drone's. */
  #run(afterMs: number, act: () => Promise<void>): void {
    const running = (async () => {
      await this.#pause(Math.max(0, this.#startMs + afterMs - performance.now()));
      if (!this.#isOver) await act();
    })().catch((error: Error) => {
      if (!this.#signal.aborted) for (const drone of this.drones) drone.trouble(error.message);
    });
    this.#running.add(running);
    void running.finally(() => this.#running.delete(running));
  }

  async #act(act: Act, drones: readonly Drone[]): Promise<void> {
    const { deed, text } = act;
    if (isFleets(deed)) {
      if (this.#done.has(act)) return;
      this.#done.add(act);
      for (const drone of this.drones) drone.mark(short(text));
      this.#tell(undefined, short(text));
      if (deed.type !== 'end') await this.#order(deed);
      return;
    }
    this.#done.add(act);
    await Promise.all(drones.map((drone) => this.#actOn(drone, deed, short(text))));
  }

  async #order(deed: Deed): Promise<void> {
    const { scenario } = this.#options;
    if (deed.type !== 'push' && deed.type !== 'update') return;
    const release = scenario.releases.find(({ name }) => name === deed.release) as ReleaseSource;
    for (const drone of this.drones) drone.ordered = release.name;
    if (deed.type === 'update') await this.#hub.hub.choose(release.name);
    else await this.#push(release, (line) => this.#options.show.detail(line));
  }

  async #actOn(drone: Drone, deed: Deed, text: string): Promise<void> {
    drone.mark(text);
    this.#tell(drone, text);
    try {
      if (isPilots(deed)) {
        this.#lastManoeuvre.set(drone, deed);
        await drone.pilot(deed);
      } else if (deed.type === 'fault') {
        // One whose moment never comes must not keep the flight from its end.
        const fault = doFault(drone, deed.fault);
        if (deed.fault.type === 'process' && deed.fault.moment !== undefined)
          this.#watchFault(drone, fault, text);
        else await fault;
      }
    } catch (error) {
      if (this.#signal.aborted) return;
      drone.trouble(`${text}: ${(error as Error).message}`);
      this.#tell(drone, `${text}: ${(error as Error).message}`);
    }
  }

  #watchFault(drone: Drone, fault: Promise<void>, text: string): void {
    const waiting = { drone, text };
    this.#waiting.add(waiting);
    fault
      .catch((error: Error) => {
        if (!this.#isOver && !this.#signal.aborted) drone.trouble(`${text}: ${error.message}`);
      })
      .finally(() => this.#waiting.delete(waiting));
  }

  // ------------------------------------------------------------ what is seen

  async #loop(everyMs: number, act: () => Promise<void>): Promise<void> {
    while (!this.#isOver) {
      await act();
      await this.#pause(everyMs);
    }
  }

  async #take(): Promise<void> {
    const toUs = nowUs() - FLY.tapeLagMs * 1000;
    await Promise.all(this.drones.map((drone) => drone.tape.take(toUs)));
  }

  async #look(): Promise<void> {
    const watch = this.#watch as HubWatch;
    for (const event of await watch.look()) this.#heard(event);
    const rows: Row[] = [];
    for (const drone of this.drones) {
      drone.current = watch.device(drone.world.device)?.current ?? drone.current;
      // Not waited for: what is looked at goes on.
      void drone.panel.open().catch(() => undefined);
      rows.push(await this.#row(drone));
    }
    this.#options.show.table((performance.now() - this.#startMs) / 1000, rows);
  }

  async #row(drone: Drone): Promise<Row> {
    const { altitudeM, speedMS, tiltDeg } = await drone.look();
    const { changes, totals } = drone.tape;
    const { current, panel } = drone;
    const gaps = changes.map(({ judged }) => judged.gapMsMax ?? 0);
    return {
      drone: drone.name,
      phase: panel.phase,
      altitudeM,
      speedMS,
      tiltDeg,
      owner: current?.owner?.release ?? 'nobody',
      update: current?.update.status === 'updating' ? current.update.stage : (current?.update.status ?? ''),
      handovers: changes.length,
      gapMs: gaps.length === 0 ? null : Math.max(...gaps),
      missed: changes.reduce((sum, { judged }) => sum + judged.missedCycles, 0),
      stale: totals.stale + totals.doubled,
      failsafes: totals.failsafes,
    };
  }

  #heard({ device, type, text, data, atMs }: EventRecord): void {
    const drone = this.drones.find(({ world }) => world.device === device);
    if (drone === undefined) return;
    const agoUs = Math.max(0, Date.now() - atMs) * 1000;
    const tUs = typeof data.atUs === 'number' ? data.atUs : nowUs() - agoUs;
    const isBad = /failed|fault|takeover|aborting|failsafe|stale/.test(type);
    void drone.recorder.log('event', tUs, type, text, isBad ? 'warning' : 'info');
    const name = eventOf(type, data);
    const step = stepOf(type, data);
    if (step !== undefined) drone.steps.push({ tUs, text: step });
    if (isBad) this.#tell(drone, text);
    if (name === undefined || drone.ordered === undefined) return;
    const release = drone.ordered;
    const known = drone.events.get(release) ?? new Set<string>();
    drone.events.set(release, known);
    if (known.has(name)) return;
    known.add(name);
    drone.marks.push({ tUs, text: `${release} ${name}` });
    this.#tell(drone, `${release} ${name}`);
    for (const act of this.#options.scenario.acts) {
      const { when } = act;
      if (when.type !== 'on' || when.release !== release || when.event !== name) continue;
      const atMs = performance.now() - this.#startMs + when.afterMs;
      this.#run(atMs, () => this.#act(act, [drone]));
    }
  }

  #tell(drone: Drone | undefined, text: string): void {
    const atS = (performance.now() - this.#startMs) / 1000;
    this.#options.show.mark(atS, this.drones.length === 1 ? undefined : drone?.name, text);
  }

  async #pause(ms: number): Promise<void> {
    this.#signal.throwIfAborted();
    await this.#hub.pause(ms);
    this.#signal.throwIfAborted();
  }
}

/** Without its time or event: those are on the record already. */
const short = (text: string): string => text.replace(/^at\s+\S+\s+|^on\s+\S+\s+\S+\s+(\+\S+\s+)?/, '');

const EVENT_NAMES: Readonly<Record<string, EventName>> = {
  'handover.warming': 'warming',
  'handover.ready': 'warm',
  'handover.release': 'releasing',
  'handover.granted': 'owner',
  'handover.committed': 'committed',
  'update.done': 'updated',
  'update.failed': 'failed',
};
const eventOf = (type: string, data: Record<string, unknown>): EventName | undefined =>
  type === 'handover.granted' && data.resource !== 'rotors' ? undefined : EVENT_NAMES[type];

/** Of the many steps those that tell the story of the rotors. */
const stepOf = (type: string, { resource }: Record<string, unknown>): string | undefined => {
  if (type === 'handover.takeover') return 'the prior is dead';
  if (type === 'handover.fault') return 'fault';
  if (type === 'handover.release' && resource === 'camera') return 'RELEASE camera';
  if (resource !== 'rotors') return undefined;
  if (type === 'handover.release') return 'RELEASE rotors';
  if (type === 'handover.grant') return 'GRANT rotors';
  return type === 'handover.granted' ? 'GRANTED rotors' : undefined;
};
