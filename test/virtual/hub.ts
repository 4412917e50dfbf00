/**
 * The hub: the product's rollout and its store of what devices say, behind a broker.
 *
 * Invariants, as the rollout's effects say them: what was decided is durable before a device hears of it; after a crash the
 * devices' current states, which the store has, are answers again.
 * The store is the product's, in memory: that SQLite keeps its word over a power cut is taken as given. What is decided
 * (the rollout and its generation) is in a journal on a disk that does not.
 */
import { type Journal, type JournalFiles, openJournal } from '#agent/journal.ts';
import { Disk } from '#device-sim/virtual/disk.ts';
import { Killed, Process } from '#device-sim/virtual/process.ts';
import type { Current, Target } from '#fleet/protocol.ts';
import {
  answerOf,
  begin,
  deadlineMs,
  type Plan,
  type Rollout,
  type RolloutEvent,
  type RolloutStep,
  step,
  targetOf,
} from '#fleet/rollout.ts';
import { openSqliteStore } from '#fleet/sqlite.ts';
import type { ToDevice, ToHub } from './link.ts';
import type { HubFault } from './story.ts';
import { Broken, ms, releaseOf, seconds, type World } from './world.ts';

interface Decided {
  readonly generation: number;
  /** What is wanted where no rollout says otherwise. */
  readonly release: string | null;
  readonly rollout: Rollout | null;
  /** The rollout's clock: how long hubs have run. */
  readonly clockMs: number;
}

const SWEEP_US = seconds(2);
const SESSION_US = seconds(45);
const PATH = 'hub.journal';

interface Session {
  readonly name: string;
  readonly answer: (packet: ToDevice) => void;
  heardUs: number;
  /** A target that is not acknowledged yet. */
  unacked: { readonly id: number; readonly target: Target } | null;
}

export class Hub {
  readonly #world: World;
  readonly #disk: Disk;
  readonly #store = openSqliteStore(':memory:');
  readonly #first: Decided;
  readonly #bytesMax: number;
  readonly #faults: readonly HubFault[];
  #process: Process | null = null;
  #journal!: Journal<Decided>;
  #rollout: Rollout | null = null;
  #startedUs = 0;
  #sessions = new Map<string, Session>();
  #ids = 0;
  #points = 0;
  #slowUntilUs = 0;
  #errorUntilUs = 0;
  #draw = 0;
  #armedMs = Number.POSITIVE_INFINITY;

  constructor(world: World) {
    this.#world = world;
    const { story } = world;
    this.#bytesMax = 8_192 + 250 * story.drones;
    this.#first = story.isFirstStart
      ? { generation: 0, release: null, rollout: null, clockMs: 0 }
      : { generation: 1, release: 'v1', rollout: null, clockMs: 0 };
    const random = world.random(3);
    this.#disk = new Disk({
      random,
      onOperation: (what) => {
        if (this.#process === null) return;
        if (what === 'sync')
          this.#process.spend(
            this.#isSlow() ? ms(5 + this.#draw * 400) : 500 + Math.floor(random.uniform() * 1_500),
          );
        this.#point();
        if (what === 'sync' && this.#errorUntilUs > world.scheduler.nowUs && random.uniform() < 0.5)
          throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
      },
    });
    this.#faults = story.hubFaults;
    for (const fault of this.#faults)
      if ('us' in fault.at) world.scheduler.at(fault.at.us, () => this.#strike(fault));
    this.#open();
  }

  get isUp(): boolean {
    return this.#process !== null;
  }
  /** For the operator, who asks its API. */
  get rollout(): Rollout | null {
    return this.#rollout;
  }
  close(): void {
    this.#store.close();
  }

  // -------------------------------------------------------------- its life

  #open(): void {
    const { scheduler } = this.#world;
    const process = new Process(scheduler, () => {
      if (this.#process !== process) return;
      this.#process = null;
      this.#world.note('hub', 'is dead');
      this.#store.allOffline();
      scheduler.at(scheduler.nowUs + seconds(1 + this.#draw * 8), () => this.#open());
    });
    this.#process = process;
    this.#sessions = new Map();
    this.#armedMs = Number.POSITIVE_INFINITY;
    process.post(() => {
      const files: JournalFiles = {
        open: (path, bytes) => ({ ...this.#disk.open(path, bytes), close: () => undefined }),
        keep: (path) => {
          if (this.#disk.syncs(path) > 1) this.#world.broken("neither slot of the hub's journal is whole");
        },
      };
      const parse = (value: unknown): Decided => value as Decided;
      try {
        this.#journal = openJournal(
          { path: PATH, bytesMax: this.#bytesMax, parse, empty: this.#first },
          files,
        );
      } catch (error) {
        throw error instanceof Broken ? error : new Killed();
      }
      const { generation, rollout } = this.#journal.value;
      this.#world.note('hub', `starts at generation ${generation}`);
      this.#world.remembered(generation);
      this.#rollout = rollout;
      this.#startedUs = process.nowUs;
      for (const { current } of this.#store.devices()) if (current) this.#answered(current);
      this.#arm();
      this.#sweep(process);
    });
  }

  #clockMs(): number {
    const { clockMs } = this.#journal.value;
    return clockMs + ((this.#process?.nowUs ?? 0) - this.#startedUs) / 1000;
  }

  #isSlow(): boolean {
    return this.#slowUntilUs > this.#world.scheduler.nowUs;
  }

  #point(): void {
    const process = this.#process;
    this.#points += 1;
    for (const fault of this.#faults)
      if ('point' in fault.at && fault.at.point === this.#points) this.#strike(fault);
    if (process?.alive === false) throw new Killed();
  }

  #strike({ kind, lastsUs, draw }: HubFault): void {
    if (this.#world.isCalm || this.#process === null) return;
    this.#world.note('hub', `fault: ${kind}`);
    this.#draw = draw;
    const { nowUs } = this.#world.scheduler;
    const untilUs = Math.min(nowUs + lastsUs, this.#world.story.calmUs);
    if (kind === 'slow-disk') this.#slowUntilUs = untilUs;
    else if (kind === 'disk-error') this.#errorUntilUs = untilUs;
    else {
      this.#process.kill();
      if (kind === 'power-cut') this.#disk.powerCut();
    }
  }

  // -------------------------------------------------------------- the broker

  heard(device: string, session: string, packet: ToHub, answer: (packet: ToDevice) => void): void {
    this.#process?.post(() => this.#heard(device, session, packet, answer));
  }

  #heard(device: string, name: string, packet: ToHub, answer: (packet: ToDevice) => void): void {
    const nowUs = this.#process?.nowUs ?? 0;
    if (packet.type === 'connect') {
      this.#sessions.set(device, { name, answer, heardUs: nowUs, unacked: null });
      this.#store.seen(device, nowUs);
      this.#store.presence({ device, session: name, online: true }, nowUs);
      answer({ type: 'connack' });
      if (this.#rollout && this.#rollout.devices[device] === undefined)
        this.#step({ type: 'joined', device });
      this.#publish(device);
      return;
    }
    const session = this.#sessions.get(device);
    if (session?.name !== name) {
      answer({ type: 'reset' });
      return;
    }
    session.heardUs = nowUs;
    switch (packet.type) {
      case 'ping':
        answer({ type: 'pong' });
        return;
      case 'puback':
        if (session.unacked?.id === packet.id) session.unacked = null;
        return;
      case 'publish':
        if (packet.channel === 'current') {
          if (this.#store.current(packet.payload, nowUs) === 'new') this.#answered(packet.payload);
        } else {
          this.#store.event(packet.payload, nowUs);
          this.#flew(device, packet.payload.data);
        }
        answer({ type: 'puback', id: packet.id });
        return;
    }
  }

  #publish(device: string): void {
    const session = this.#sessions.get(device);
    if (!session) return;
    session.unacked = { id: ++this.#ids, target: this.#targetOf(device) };
    this.#send(session);
  }
  #send(session: Session): void {
    const { unacked, answer } = session;
    if (unacked) answer({ type: 'target', ...unacked });
  }

  #targetOf(device: string): Target {
    const { generation, release } = this.#journal.value;
    const target = this.#rollout ? targetOf(this.#rollout, device) : { generation, release };
    return {
      fleet: 'f',
      generation: target.generation,
      release: target.release === null ? null : releaseOf(target.release),
    };
  }

  /** Tells again what was not acknowledged, and forgets who is silent. */
  #sweep(process: Process): void {
    process.after(SWEEP_US, () => {
      for (const [device, session] of this.#sessions) {
        if (process.nowUs - session.heardUs > SESSION_US) this.#sessions.delete(device);
        else this.#send(session);
      }
      this.#sweep(process);
    });
  }

  // -------------------------------------------------------------- the rollout

  #answered(current: Current): void {
    const answer = this.#rollout && answerOf(current, this.#rollout.release);
    if (answer) this.#step({ type: 'answer', device: current.device, answer });
  }
  #flew(device: string, data: Record<string, unknown>): void {
    const { generation, handedBack, gapMs } = data as {
      generation: number;
      handedBack: boolean;
      gapMs: number;
    };
    this.#step({ type: 'flight', device, generation, handedBack, gapMs });
  }

  #step(event: RolloutEvent extends infer E ? (E extends unknown ? Omit<E, 'atMs'> : never) : never): void {
    if (this.#rollout === null) return;
    this.#carryOut(step(this.#rollout, { ...event, atMs: this.#clockMs() } as RolloutEvent));
  }

  #carryOut([rollout, effects]: RolloutStep): void {
    this.#rollout = rollout;
    const isWrong = this.#world.mutant === 'publish-before-commit';
    const ordered = isWrong
      ? [...effects].sort((a, b) => Number(a.do === 'persist') - Number(b.do === 'persist'))
      : effects;
    for (const effect of ordered) {
      switch (effect.do) {
        case 'persist':
          this.#persist();
          break;
        case 'publish':
          for (const device of effect.devices) this.#publish(device);
          break;
        case 'report':
          this.#world.note('hub', `${effect.type}: ${effect.text}`, this.#process?.nowUs);
          break;
      }
      this.#point();
    }
    this.#arm();
  }

  #persist(): void {
    const { rollout } = this;
    const decided = this.#journal.value;
    try {
      const nowUs = this.#process?.nowUs ?? 0;
      this.#journal.write({
        ...decided,
        generation: Math.max(decided.generation, rollout?.generation ?? 0),
        rollout,
        clockMs: this.#clockMs(),
      });
      this.#startedUs = nowUs;
    } catch {
      throw new Killed();
    }
  }

  #arm(): void {
    const process = this.#process;
    const atMs = this.#rollout ? deadlineMs(this.#rollout) : Number.POSITIVE_INFINITY;
    if (process === null || atMs >= this.#armedMs || !Number.isFinite(atMs)) return;
    this.#armedMs = atMs;
    process.after(ms(atMs - this.#clockMs()) + 1, () => {
      this.#armedMs = Number.POSITIVE_INFINITY;
      this.#step({ type: 'tick' });
      this.#arm();
    });
  }

  // -------------------------------------------------------------- its API

  /** What the operator asks; while the hub is down nobody hears it. */
  ask(what: 'resume' | 'abort' | 'retry' | { readonly release: string; readonly plan: Plan }): void {
    this.#process?.post(() => {
      if (typeof what === 'string') {
        this.#step({ type: what });
        return;
      }
      if (this.#rollout?.release === what.release) return;
      const { generation } = this.#journal.value;
      const before = this.#rollout;
      const prior =
        before === null
          ? this.#journal.value.release
          : before.phase === 'aborted'
            ? before.prior
            : before.release;
      const devices = this.#store.devices().map(({ name }) => name);
      const { plan, release } = what;
      this.#carryOut(begin({ plan, release, prior, generation, devices, atMs: this.#clockMs() }));
    });
  }
}
