/**
 * One drone: its disk, engine, flight controller and agent, and what goes wrong with them.
 *
 * Invariants, held at each change: at most one app can write to a resource; nobody writes under an epoch below one that was
 * used; no epoch and no generation is ever lost. Hits are counted, since one must not cost the drone its pilot.
 */
import { type JournalFiles, openJournal } from '#agent/journal.ts';
import { LIMITS as AGENT_LIMITS } from '#agent/limits.ts';
import { emptyMemory, type Memory } from '#agent/memory.ts';
import { newestSlot } from '#agent/slots.ts';
import type { Random } from '#device-sim/random.ts';
import { Disk } from '#device-sim/virtual/disk.ts';
import { Killed, type Process } from '#device-sim/virtual/process.ts';
import { type AppMessage, RESOURCES, type Resource } from '#handover/messages.ts';
import { initial, type State } from '#handover/state.ts';
import { Agent } from './agent.ts';
import { App, type Told } from './app.ts';
import type { Fault, FaultKind } from './story.ts';
import { ms, releaseOf, seconds, type World } from './world.ts';

/** What the flight controller's failsafe waits for. */
const COMMAND_US_MAX = ms(200);
const HANDOVER_JOURNAL = 'handover.journal';
const MEMORY_JOURNAL = 'memory.journal';
/** A release and its target are a few hundred bytes here. */
const MEMORY_BYTES_MAX = 8_192;

/** By kind, while it lasts: until when, and how bad. */
interface Condition {
  readonly untilUs: number;
  readonly draw: number;
}

export class Drone {
  readonly world: World;
  readonly name: string;
  readonly index: number;
  readonly random: Random;
  readonly disk: Disk;
  readonly apps = new Map<string, App>();
  readonly images = new Set<string>();
  /** Releases that were ever started on it. */
  readonly started = new Set<string>();
  agent: Agent | null = null;
  /** Wall clock less true time. */
  clockOffsetMs = 0;
  #lives = 0;
  #containers = 0;
  #isPowered = true;
  #points = -1;
  readonly #pending: Fault[];
  readonly #conditions = new Map<FaultKind, Condition>();
  /** Highest epoch under which each resource was used, and under which anything was granted. */
  readonly #used = new Map<Resource, number>();
  #granted = { epoch: 0, life: 0 };
  #toldGeneration = 0;
  /** What went wrong since an owner last flew alone and well. */
  #hits: string[] = [];
  #isExcused = false;
  /** The flight controller: since when nobody commands it. */
  #silentSinceUs: number | null = 0;
  gapMs = 0;

  constructor(world: World, index: number) {
    this.world = world;
    this.index = index;
    this.name = `d${index}`;
    this.random = world.random(10 + index);
    this.#pending = [...(world.story.faults[index] ?? [])];
    this.disk = new Disk({
      random: this.random,
      onOperation: (what, path) => this.#diskOperation(what, path),
      skipsSync: world.mutant === 'skip-fsync',
    });
    for (const fault of this.#pending)
      if ('us' in fault.at) world.scheduler.at(fault.at.us, () => this.#strike(fault));
  }

  note(what: string): void {
    this.world.note(this.name, what, this.agent?.process.nowUs);
  }

  // -------------------------------------------------------------- its life

  /** As a drone that flies v1 already, or with nothing on it. */
  begin(isFlying: boolean): void {
    if (isFlying) {
      const v1 = releaseOf('v1');
      const app = this.container('v1', 'good', 4);
      for (const resource of RESOURCES) {
        app.holds.set(resource, 4);
        this.#used.set(resource, 4);
      }
      this.#granted.epoch = 4;
      this.pilotChanged();
      const target = { fleet: 'f', generation: 1, release: v1 };
      this.#toldGeneration = 1;
      this.images.add(app.imageId);
      const { handover, memory } = this.journals();
      handover.write({ phase: 'idle', epoch: 4, owner: app.id, speaks: { reads: [1], writes: 1 } });
      memory.write({ ...emptyMemory, target, good: v1 });
    }
    this.#startAgent();
  }

  #startAgent(): void {
    if (!this.#isPowered || this.agent !== null) return;
    const agent = new Agent(this, ++this.#lives, () => {
      if (this.agent !== agent) return;
      this.agent = null;
      this.note('agent is dead');
      for (const app of this.apps.values()) app.lost(agent.life);
      // The machine's own supervisor starts it again.
      this.world.scheduler.at(this.world.scheduler.nowUs + ms(300 + this.random.uniform() * 2_000), () =>
        this.#startAgent(),
      );
    });
    this.agent = agent;
    agent.begin();
  }

  /** The product's journals, over this disk. */
  journals() {
    const files: JournalFiles = {
      open: (path, bytes) => ({ ...this.disk.open(path, bytes), close: () => undefined }),
      // Of a first write that a power cut tore, nothing was promised.
      keep: (path) => {
        if (this.disk.syncs(path) > 1) this.world.broken(`${this.name}: neither slot of ${path} is whole`);
      },
    };
    const parse = <T>(value: unknown): T => value as T;
    const handover = openJournal<State>(
      { path: HANDOVER_JOURNAL, bytesMax: AGENT_LIMITS.handoverJournalBytesMax, parse, empty: initial },
      files,
    );
    const memory = openJournal<Memory>(
      { path: MEMORY_JOURNAL, bytesMax: MEMORY_BYTES_MAX, parse, empty: emptyMemory },
      files,
    );
    return { handover, memory };
  }

  container(release: string, behaviour = this.world.behaviourOf(release, this.index), epoch = 0): App {
    const id = `${this.name}c${++this.#containers}`;
    this.started.add(release);
    const { image } = releaseOf(release).services.main as { image: { id: string } };
    const app = new App(this, id, release, image.id, behaviour, epoch);
    this.apps.set(id, app);
    return app;
  }

  // -------------------------------------------------------------- the local socket

  /** From an app to the agent of that life; in order, and lost with the agent. */
  toAgent(app: App, life: number, message: AppMessage): void {
    const { scheduler } = this.world;
    scheduler.at(scheduler.nowUs + 60, () => {
      if (this.agent?.life === life) this.agent.lineOf(app, message);
    });
  }
  toApp(app: App, life: number, message: Told, sentUs: number): void {
    this.world.scheduler.at(sentUs + 60, () => app.heard(message, life));
  }

  appDied(app: App, flew: boolean): void {
    const { agent } = this;
    this.pilotChanged();
    if (agent === null) return;
    // Nobody was warm yet, or any more: the controller's failsafe is all there is.
    if (flew && ['idle', 'warming', 'committed', 'failsafe'].includes(agent.state.phase))
      this.#isExcused = true;
    agent.lostApp(app);
  }

  /** Flies, or is to fly, a release that crashes after its commit. */
  get isCrashing(): boolean {
    return [...this.apps.values()].some(({ behaviour }) => behaviour === 'crashes-later');
  }

  // -------------------------------------------------------------- promises

  held(app: App, resource: Resource, isGrant: boolean): void {
    if (isGrant) {
      const epoch = app.holds.get(resource) ?? 0;
      const used = this.#used.get(resource) ?? 0;
      if (epoch < used)
        this.world.broken(`${app.id} takes the ${resource} under epoch ${epoch}, ${used} was used`);
      this.#used.set(resource, epoch);
    }
    this.check();
    if (resource === 'rotors') this.pilotChanged();
  }

  check(): void {
    for (const resource of RESOURCES) {
      const holders = [...this.apps.values()].filter((app) => app.canWrite && app.holds.has(resource));
      if (holders.length > 1)
        this.world.broken(`two owners of the ${resource}: ${holders.map(({ id }) => id).join(' and ')}`);
      const [holder] = holders;
      const epoch = holder?.holds.get(resource) ?? 0;
      const used = this.#used.get(resource) ?? 0;
      if (holder && epoch < used)
        this.world.broken(`${holder.id} may use the ${resource} under epoch ${epoch}, ${used} was used`);
    }
  }

  /** Several lines of one grant have one epoch; no later life of the agent uses it again. */
  granted(epoch: number, life: number): void {
    const isNew =
      epoch > this.#granted.epoch || (epoch === this.#granted.epoch && life === this.#granted.life);
    if (!isNew) this.world.broken(`${this.name} grants under epoch ${epoch} after ${this.#granted.epoch}`);
    this.#granted = { epoch, life };
  }

  /** What an agent finds in its journals is what was promised from them. */
  awoke(state: State, memory: Memory): void {
    // What a dead giver left is granted before that is written: one epoch may be missing, not two.
    if (state.epoch + 1 < this.#granted.epoch)
      this.world.broken(`${this.name} wakes at epoch ${state.epoch}, ${this.#granted.epoch} was granted`);
    const generation = memory.target?.generation ?? 0;
    if (generation < this.#toldGeneration)
      this.world.broken(`${this.name} wakes at generation ${generation}, it told ${this.#toldGeneration}`);
  }

  /** It tells the hub what flies: that must be true, and stay true over a power cut. */
  told(generation: number, owner: App | null): void {
    if (generation < this.#toldGeneration)
      this.world.broken(`${this.name} tells generation ${generation} after ${this.#toldGeneration}`);
    this.#toldGeneration = generation;
    const file = this.disk.durable(HANDOVER_JOURNAL);
    const slot = file && newestSlot(file);
    const durable = slot ? (JSON.parse(slot.text) as State) : initial;
    const known = durable.phase === 'idle' ? durable.owner : 'prior' in durable ? durable.prior : null;
    if (owner !== null && known !== owner.id)
      this.world.broken(`${this.name} tells that ${owner.id} flies, its disk says ${known ?? 'nobody'}`);
  }

  /** Nobody is left: with one fault that must not happen. */
  failsafe(why: string): void {
    this.note(`FAILSAFE: ${why}`);
    if (this.#hits.length <= 1 && !this.#isExcused)
      this.world.broken(`one fault (${this.#hits.join() || 'none'}), and nobody flies ${this.name}: ${why}`);
  }

  /** Somebody flies, and no handover is on its way. */
  isWell(): void {
    const lasting = [...this.#conditions.keys()].filter((kind) => this.has(kind) && isHit(kind));
    this.#hits = lasting;
    this.#isExcused = false;
  }

  struck(what: string): void {
    if (!what.startsWith('release') || !this.#hits.includes(what)) this.#hits.push(what);
  }
  get hits(): readonly string[] {
    return this.#hits;
  }

  // -------------------------------------------------------------- the flight controller

  /** Who commands it: measured as the controller would. */
  pilotChanged(): void {
    const { nowUs } = this.world.scheduler;
    const commands = [...this.apps.values()].some(
      (app) => app.canWrite && !app.process.paused && app.holds.has('rotors'),
    );
    if (commands && this.#silentSinceUs !== null) {
      const gapUs = nowUs - this.#silentSinceUs;
      // Where nobody flew before, nothing was handed over.
      const state = this.agent?.state;
      if (state && 'prior' in state && state.prior !== null) this.gapMs = Math.max(this.gapMs, gapUs / 1000);
      if (gapUs > COMMAND_US_MAX)
        this.note(`the controller had no command for ${Math.round(gapUs / 1000)} ms`);
      if (this.#hits.length === 0 && !this.#isExcused && gapUs > ms(20) && this.#wasCommanded)
        this.world.broken(`no fault, and ${this.name} was without a command for ${gapUs / 1000} ms`);
      this.#silentSinceUs = null;
      this.#wasCommanded = true;
    } else if (!commands && this.#silentSinceUs === null) this.#silentSinceUs = nowUs;
  }
  #wasCommanded = false;

  get isCommanded(): boolean {
    return this.#silentSinceUs === null;
  }

  // -------------------------------------------------------------- what goes wrong

  has(kind: FaultKind): boolean {
    const condition = this.#conditions.get(kind);
    return condition !== undefined && condition.untilUs > this.world.scheduler.nowUs;
  }
  drawOf(kind: FaultKind): number {
    return this.#conditions.get(kind)?.draw ?? 0;
  }

  /** Whatever is to strike here strikes. @throws Killed if it strikes the one whose turn this is */
  point(of: Process): void {
    this.#points += 1;
    for (const fault of this.#pending)
      if ('point' in fault.at && fault.at.point === this.#points) this.#strike(fault);
    if (!of.alive) throw new Killed();
  }

  #strike(fault: Fault): void {
    const { scheduler } = this.world;
    if (this.world.isCalm || !this.#isPowered) return;
    const { kind, lastsUs, draw } = fault;
    this.note(`fault: ${kind}`);
    if (isHit(kind)) this.struck(kind);
    const endUs = scheduler.nowUs + (isMoment(kind) ? 0 : lastsUs);
    // An app that hangs does not know that it is calm.
    const untilUs =
      kind === 'app-hang'
        ? endUs
        : kind === 'echo'
          ? this.world.story.calmUs
          : Math.min(endUs, this.world.story.calmUs);
    const before = this.#conditions.get(kind)?.untilUs ?? 0;
    this.#conditions.set(kind, { untilUs: Math.max(untilUs, before), draw });
    const running = [...this.apps.values()].filter((app) => app.canWrite);
    const app = running[Math.floor(draw * running.length)];
    switch (kind) {
      case 'app-kill':
        app?.process.kill();
        return;
      case 'app-stuck':
        app?.stick(lastsUs);
        return;
      case 'app-hang':
        app?.hang(lastsUs);
        return;
      case 'agent-hang':
        this.agent?.process.pause(scheduler.nowUs + Math.min(lastsUs, seconds(5)));
        return;
      case 'agent-kill':
        this.agent?.process.kill();
        return;
      case 'power-cut':
        this.#powerCut();
        return;
      case 'partition':
        this.world.network.cut(this.name, true);
        scheduler.at(this.#conditions.get(kind)?.untilUs ?? 0, () =>
          this.world.network.cut(this.name, false),
        );
        return;
      case 'clock-jump':
        this.clockOffsetMs += Math.round((draw - 0.5) * 2 * 86_400_000);
        return;
      case 'slow-disk':
      case 'disk-error':
      case 'disk-full':
      case 'fence-stuck':
      case 'echo':
        return;
    }
  }

  #powerCut(): void {
    const { scheduler } = this.world;
    this.struck('power-cut');
    this.#isPowered = false;
    const { agent } = this;
    this.agent = null;
    agent?.process.kill();
    for (const app of this.apps.values()) app.process.kill();
    this.disk.powerCut();
    scheduler.at(scheduler.nowUs + seconds(2 + this.random.uniform() * 10), () => {
      this.#isPowered = true;
      this.note('power is back');
      this.#startAgent();
    });
  }

  #diskOperation(what: 'write' | 'sync', path: string): void {
    // Before the first agent runs, the disk is only filled.
    if (this.agent === null) return;
    const { process } = this.agent;
    if (what === 'sync') {
      const us = this.has('slow-disk')
        ? ms(5 + this.drawOf('slow-disk') * 400)
        : 500 + this.random.uniform() * 1_500;
      process.spend(us);
    }
    this.point(process);
    if (what === 'sync' && this.has('disk-error') && this.random.uniform() < 0.5) {
      this.note(`EIO at ${path}`);
      throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
    }
  }
}

/** Of those that may cost a drone something; the others must be harmless. */
const isHit = (kind: FaultKind): boolean => !['partition', 'disk-full', 'clock-jump', 'echo'].includes(kind);
const isMoment = (kind: FaultKind): boolean =>
  ['app-kill', 'agent-kill', 'power-cut', 'clock-jump'].includes(kind);
