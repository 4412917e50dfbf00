/**
 * One life of a drone's agent: the product's `step`, `plan`, memory and journals, run as coordinator and supervisor run them.
 *
 * Invariant: what is decided is decided by the product's own functions. Here are only the hands: sockets, timers, engine,
 * and the order in which agent/coordinator.ts and agent/supervisor.ts use them.
 */
import type { Journal } from '#agent/journal.ts';
import { LIMITS as AGENT_LIMITS } from '#agent/limits.ts';
import { blamed, flown, type Memory, reconciled, releaseNamed, targeted, unwatched } from '#agent/memory.ts';
import { type Observed, type Plan, plan, serviceOf } from '#agent/planner.ts';
import { policyOf } from '#agent/policy.ts';
import { Killed, Process } from '#device-sim/virtual/process.ts';
import type { Current, Release, Target } from '#fleet/protocol.ts';
import { LIMITS } from '#handover/limits.ts';
import { deadlineMs, delayed, goneFrom, step } from '#handover/machine.ts';
import { type AppMessage, RESOURCES } from '#handover/messages.ts';
import type { AppId, Config, Effect, Event, Failure, Outcome, State } from '#handover/state.ts';
import { giverOf } from '#handover/transfer.ts';
import type { App } from './app.ts';
import type { Drone } from './drone.ts';
import { Link } from './link.ts';
import { Broken, ms, seconds } from './world.ts';

const CONFIG: Config = { limits: LIMITS, resources: RESOURCES };
const IDLE: Current['update'] = { status: 'idle' };
/** A fetch that gets nothing for this long has failed. */
const STALL_US = seconds(30);

export class Agent {
  readonly life: number;
  readonly process: Process;
  readonly #drone: Drone;
  readonly #link: Link;
  readonly #connected = new Set<AppId>();
  readonly #outbox = new Map<AppId, Extract<Effect, { do: 'send' }>[]>();
  readonly #watched = new Set<AppId>();
  readonly #events: Event[] = [];
  /** Said HELLO while a container was being started. */
  readonly #early = new Map<AppId, AppMessage>();
  #starting: Release | null = null;
  #handover!: Journal<State>;
  #memory!: Journal<Memory>;
  #state: State = { phase: 'idle', epoch: 0, owner: null, speaks: null };
  #listening = false;
  #booted = false;
  #stepping = false;
  #armedUs = Number.POSITIVE_INFINITY;

  // The supervisor's.
  #bootId: string;
  #sequence = 0;
  #update: Current['update'] = IDLE;
  #candidate: { id: AppId; release: Release } | null = null;
  #unwatched: AppId | null = null;
  #failures = 0;
  #toldGeneration: number | null = null;
  #working = false;
  #news = false;
  #resting = 0;
  #interrupted = false;

  constructor(drone: Drone, life: number, onDeath: () => void) {
    this.#drone = drone;
    this.life = life;
    this.#bootId = `${drone.name}-${life}`;
    this.process = new Process(drone.world.scheduler, onDeath);
    this.#link = new Link(drone, this);
  }

  get listening(): boolean {
    return this.#listening;
  }
  get state(): State {
    return this.#state;
  }
  get memory(): Memory {
    return this.#memory.value;
  }
  /** Heartbeats mean nothing to a machine in these phases. */
  get isWatching(): boolean {
    return !this.#booted || (this.#state.phase !== 'idle' && this.#state.phase !== 'failsafe');
  }
  get isBooted(): boolean {
    return this.#booted;
  }
  /** Has nothing to do, and waits for nothing but news. */
  get isCalm(): boolean {
    return this.#booted && !this.#working && plan(this.#observe()).do === 'nothing';
  }

  get observed(): Observed {
    return this.#observe();
  }

  begin(): void {
    this.process.post(() => this.#open());
  }

  #open(): void {
    this.#drone.note(`agent ${this.life} starts`);
    try {
      const { handover, memory } = this.#drone.journals();
      this.#handover = handover;
      this.#memory = memory;
    } catch (error) {
      this.#end(error);
    }
    this.#state = this.#handover.value;
    this.#drone.awoke(this.#state, this.memory);
    this.#listening = true;
    this.#link.open();
    for (const app of this.#drone.apps.values()) if (app.running) this.#watch(app);
    this.#candidate = this.#inFlight();
    const able = [...this.#drone.apps.values()].filter((app) => app.running && !app.frozen);
    this.#await(new Set(able.map(({ id }) => id)), this.process.nowUs + ms(LIMITS.reconnectMsMax));
  }

  /** What could not be carried out leaves the state untrue: the agent ends, the owner flies on. */
  #end(error: unknown): never {
    if (error instanceof Broken) throw error;
    if (this.process.alive) this.#drone.note(`agent ends: ${(error as Error).message}`);
    throw new Killed();
  }

  #await(able: ReadonlySet<AppId>, untilUs: number): void {
    const isMissing = [...able].some((id) => !this.#connected.has(id));
    if (isMissing && this.process.nowUs < untilUs) {
      this.process.after(ms(AGENT_LIMITS.reconnectPollMs), () => this.#await(able, untilUs));
      return;
    }
    const state = this.#state;
    this.#booted = true;
    const frozen = (id: AppId): boolean => this.#drone.apps.get(id)?.frozen === true;
    const running = (id: AppId): boolean => this.#drone.apps.get(id)?.running === true;
    const gone = goneFrom(state, running, frozen);
    this.#events.unshift({ type: 'boot', gone, atMs: this.#nowMs() });
    this.#run();
    for (const who of gone) this.#happen({ type: 'dead', who, atMs: this.#nowMs() });
    for (const who of gone) if (frozen(who)) this.#fence(who, () => this.#died(who, false));
    this.#tell();
    this.#plan();
  }

  #inFlight(): { id: AppId; release: Release } | null {
    const state = this.#state;
    if (!('candidate' in state)) return null;
    const app = this.#drone.apps.get(state.candidate);
    if (app?.running !== true) this.#unwatched = state.candidate;
    const release = app ? releaseNamed(this.memory, app.release) : null;
    return release && { id: state.candidate, release };
  }

  #reconcile(): boolean {
    const state = this.#state;
    const owner =
      state.phase === 'idle' && state.owner !== null ? this.#drone.apps.get(state.owner)?.release : null;
    const next = reconciled(this.memory, owner ?? null);
    if (next === null) return false;
    this.#remember(next);
    this.#update = IDLE;
    this.#tell();
    return true;
  }

  #nowMs(): number {
    return this.process.nowUs / 1000;
  }

  // -------------------------------------------------------------- the coordinator

  lineOf(app: App, message: AppMessage): void {
    this.process.post(() => {
      if (message.type === 'HELLO') this.#connected.add(app.id);
      else if (!this.#connected.has(app.id)) return;
      if (
        message.type === 'HELLO' &&
        message.holds.length === 0 &&
        this.#starting !== null &&
        !this.#isKnown(app.id)
      ) {
        this.#early.set(app.id, message);
        return;
      }
      this.#happen({ type: 'message', from: app.id, message, atMs: this.#nowMs() });
      if (message.type !== 'HELLO') return;
      const waiting = this.#outbox.get(app.id) ?? [];
      this.#outbox.delete(app.id);
      for (const effect of waiting) if (this.#isCurrent(effect)) this.#act(effect);
    });
  }

  #isKnown(id: AppId): boolean {
    const state = this.#state;
    if (state.phase === 'idle') return state.owner === id;
    return 'candidate' in state && (state.prior === id || state.candidate === id);
  }

  #isCurrent({ message: { type, epoch } }: Extract<Effect, { do: 'send' }>): boolean {
    if (this.#drone.world.mutant === 'stale-epoch') return true;
    return epoch === this.#state.epoch || (type !== 'GRANT' && type !== 'RELEASE');
  }

  /** Its process ended: the connection closes, and the engine says so a little later. */
  lostApp(app: App): void {
    const { scheduler } = this.#drone.world;
    scheduler.at(scheduler.nowUs + 100, () =>
      this.process.post(() => {
        if (!this.#connected.delete(app.id)) return;
        this.#happen({ type: 'gone', who: app.id, atMs: this.#nowMs() });
      }),
    );
    if (!this.#watched.has(app.id)) return;
    const us = ms(1 + this.#drone.random.uniform() * 9);
    scheduler.at(scheduler.nowUs + us, () => this.process.post(() => this.#died(app.id, true)));
  }

  #watch(app: App): void {
    this.#watched.add(app.id);
  }

  #died(id: AppId, isNews: boolean): void {
    this.#happen({ type: 'dead', who: id, atMs: this.#nowMs() });
    if (isNews) this.#poke();
  }

  #happen(event: Event): void {
    this.#events.push(event);
    this.#run();
  }

  #run(): void {
    if (!this.#booted || this.#stepping) return;
    this.#stepping = true;
    for (let next = this.#events.shift(); next; next = this.#events.shift()) {
      const before = this.#state;
      const [state, effects] = step(this.#planted(before, next), this.#mistaken(next), CONFIG);
      this.#state = state;
      if (next.type === 'tick' && state === before && deadlineMs(state, CONFIG) <= next.atMs)
        this.#drone.world.broken(
          `${this.#drone.name}: a tick in ${state.phase} changes nothing, and is due again`,
        );
      if (state.phase !== before.phase)
        this.#drone.note(`${before.phase} -> ${state.phase}, epoch ${state.epoch}, by ${textOf(next)}`);
      if (before.phase === 'idle' && state.phase !== 'idle')
        for (const app of this.#drone.apps.values()) app.beat();
      for (const effect of effects) {
        this.#drone.point(this.process);
        this.#act(effect);
      }
      this.#drone.point(this.process);
    }
    this.#stepping = false;
    this.#arm();
  }

  #act(effect: Effect): void {
    const drone = this.#drone;
    switch (effect.do) {
      case 'persist':
        try {
          const beganMs = this.#nowMs();
          this.#handover.write(this.#state);
          this.#state = delayed(this.#state, this.#nowMs() - beganMs);
        } catch (error) {
          this.#end(error);
        }
        return;
      case 'send':
        this.#send(effect);
        return;
      case 'lock': {
        const taken = drone.random.uniform() < 0.95;
        this.#happen({ type: 'lock', taken, atMs: this.#nowMs() });
        return;
      }
      case 'fence':
        this.#fence(effect.who, () => this.#died(effect.who, false));
        return;
      case 'stop':
        this.#stop(effect.who);
        return;
      case 'failsafe':
        drone.failsafe(effect.failure.text);
        return;
      case 'report':
        if (effect.type !== 'handover.granted') drone.note(`${effect.type}: ${effect.text}`);
        return;
      case 'settle':
        drone.note(
          `settled: ${effect.outcome.type}${'failure' in effect.outcome ? `, ${effect.outcome.failure.code}` : ''}`,
        );
        this.#settled(effect.outcome);
        return;
      case 'mirror':
        return;
    }
  }

  #send(effect: Extract<Effect, { do: 'send' }>): void {
    const { to, message } = effect;
    const app = this.#drone.apps.get(to);
    if (!app || !this.#connected.has(to)) {
      this.#outbox.set(to, [...(this.#outbox.get(to) ?? []), effect]);
      return;
    }
    if (message.type === 'GRANT') {
      this.#drone.granted(message.epoch, this.life);
      if (this.#drone.world.mutant === 'thaw-fenced' && app.frozen) app.thaw();
    }
    this.#drone.toApp(app, this.life, message, this.process.nowUs);
  }

  /** Frozen in a moment, dead a little later; unless the engine is stuck. */
  #fence(who: AppId, then: () => void): void {
    const app = this.#drone.apps.get(who);
    const isStuck = this.#drone.has('fence-stuck');
    const us = isStuck
      ? seconds(0.5 + 20 * this.#drone.drawOf('fence-stuck'))
      : ms(0.3 + this.#drone.random.uniform());
    this.process.after(us, () => {
      if (app?.running) {
        this.#drone.note(`${who} is fenced`);
        app.freeze();
        const isKept = this.#drone.world.mutant === 'thaw-fenced';
        if (!isKept) this.process.after(ms(100), () => app.process.kill());
      }
      then();
    });
  }

  #stop(who: AppId): void {
    const app = this.#drone.apps.get(who);
    const graceUs = ms(AGENT_LIMITS.stopSec * 1000);
    if (app?.running && !app.process.paused) {
      this.process.after(ms(10 + this.#drone.random.uniform() * 200), () => {
        app.process.kill();
        this.#died(who, false);
      });
    } else
      this.process.after(app?.running ? graceUs : 0, () => this.#fence(who, () => this.#died(who, false)));
  }

  #arm(): void {
    const atMs = deadlineMs(this.#state, CONFIG);
    if (!Number.isFinite(atMs)) return;
    // Never before it: a microsecond later is the same to everybody.
    const atUs = Math.floor(atMs * 1000) + 1;
    if (atUs >= this.#armedUs) return;
    this.#armedUs = atUs;
    this.process.after(atUs - this.process.nowUs, () => {
      // A later deadline has taken this one's place.
      if (this.#armedUs === atUs) this.#armedUs = Number.POSITIVE_INFINITY;
      if (deadlineMs(this.#state, CONFIG) <= this.#nowMs())
        this.#happen({ type: 'tick', atMs: this.#nowMs() });
      else this.#arm();
    });
  }

  // -------------------------------------------------------------- planted bugs

  #mistaken(event: Event): Event {
    const state = this.#state;
    const { mutant } = this.#drone.world;
    if (mutant === 'stale-epoch' && event.type === 'message')
      return { ...event, message: { ...event.message, epoch: state.epoch } };
    const isLate = event.type === 'tick' && state.phase === 'releasing' && event.atMs >= state.deadlineMs;
    if (mutant !== 'timeout-is-success' || !isLate) return event;
    const { epoch, resource } = state;
    const from = state[giverOf(state.direction)] as AppId;
    const message = { type: 'RELEASED' as const, epoch, resource, payload: {}, more: false, fds: [] };
    return { type: 'message', from, message, atMs: event.atMs };
  }

  /** Takes a frozen prior for one that can still be handed back to. */
  #planted(state: State, event: Event): State {
    if (this.#drone.world.mutant !== 'thaw-fenced' || !('fenced' in state) || state.prior === null)
      return state;
    const isCandidateLost = event.type === 'dead' && event.who === state.candidate;
    return isCandidateLost && this.#drone.apps.get(state.prior)?.frozen
      ? { ...state, fenced: { ...state.fenced, prior: false } }
      : state;
  }

  // -------------------------------------------------------------- the supervisor

  /** A new target state came; older ones are no news. */
  target(target: Target): void {
    const next = targeted(this.memory, target, this.#candidate?.release ?? this.#starting);
    if (next === null) return;
    try {
      this.#remember(next);
    } catch (error) {
      this.#troubled(error);
      this.process.after(ms(AGENT_LIMITS.targetRetryMs), () => this.target(target));
      return;
    }
    this.#drone.note(`target ${target.generation}: ${target.release?.id ?? 'nothing'}`);
    this.#drone.world.accepted(this.#drone.name, target.generation, target.release?.id ?? null);
    this.#failures = 0;
    this.#interrupted = true;
    this.#poke();
  }

  #remember(memory: Memory): void {
    try {
      this.#memory.write(memory);
    } catch (error) {
      if (!this.process.alive) throw new Killed();
      throw error;
    }
  }

  #observe(): Observed {
    const { target, good, failed } = this.memory;
    const containers = [...this.#drone.apps.values()].map(({ id, release, imageId, running }) => ({
      id,
      release,
      imageId,
      running,
    }));
    return { target, good, failed, containers, images: [...this.#drone.images], handover: this.#state };
  }

  #poke(): void {
    this.#news = true;
    if (this.#booted && !this.#working) this.process.after(0, () => this.#plan());
  }

  #plan(): void {
    if (this.#working) return;
    this.#news = false;
    this.#resting += 1;
    this.#working = true;
    try {
      if (this.#reconcile()) {
        this.#rest(true);
        return;
      }
      const { target } = this.memory;
      if (target && target.generation !== this.#toldGeneration) this.#tell();
      this.#carryOut(plan(this.#observe()), (isDone, pauseUs) => this.#rest(isDone, pauseUs));
    } catch (error) {
      this.#rest(false, this.#troubled(error));
    }
  }

  #rest(isDone: boolean, pauseUs?: number): void {
    this.#working = false;
    if (isDone || this.#news) {
      this.process.after(0, () => this.#plan());
      return;
    }
    if (pauseUs === undefined) return;
    const resting = this.#resting;
    this.process.after(pauseUs, () => resting === this.#resting && this.#plan());
  }

  #carryOut(next: Plan, then: (isDone: boolean, pauseUs?: number) => void): void {
    const drone = this.#drone;
    switch (next.do) {
      case 'wait':
      case 'nothing':
        then(false);
        return;
      case 'abort':
        this.#happen({ type: 'abort', failure: next.failure, atMs: this.#nowMs() });
        then(false);
        return;
      case 'remove': {
        const { id, running } = next.container;
        const remove = (): void =>
          this.process.after(ms(5 + drone.random.uniform() * 40), () => {
            const app = drone.apps.get(id);
            app?.process.kill();
            drone.apps.delete(id);
            drone.note(`${id} is removed`);
            then(true);
          });
        if (running) this.#fence(id, remove);
        else remove();
        return;
      }
      case 'install':
        this.#install(next.release, then);
        return;
      case 'start':
        this.#start(next.release, then);
        return;
    }
  }

  #install(release: Release, then: (isDone: boolean, pauseUs?: number) => void): void {
    const drone = this.#drone;
    this.#interrupted = false;
    this.#update = { status: 'updating', release: release.id, stage: 'fetch', doneBytes: 0, allBytes: 0 };
    this.#tell();
    let leftUs = ms(500 + drone.random.uniform() * 8_000);
    let stalledUs = 0;
    const tick = ms(500);
    const fetch = (): void => {
      if (this.#interrupted) {
        then(true);
        return;
      }
      if (drone.has('disk-full')) {
        then(false, this.#troubled(Object.assign(new Error('no space left'), { code: 'DISK_FULL' })));
        return;
      }
      if (drone.world.network.isCut(drone.name) || !drone.world.isHubUp()) stalledUs += tick;
      else {
        stalledUs = 0;
        leftUs -= tick;
      }
      if (stalledUs > STALL_US) {
        then(
          false,
          this.#troubled(Object.assign(new Error('the hub cannot be reached'), { code: 'HUB_AWAY' })),
        );
        return;
      }
      if (leftUs > 0) {
        this.process.after(tick, fetch);
        return;
      }
      drone.images.add(serviceOf(release).image.id);
      then(true);
    };
    this.process.after(tick, fetch);
  }

  #start(release: Release, then: (isDone: boolean) => void): void {
    const drone = this.#drone;
    const policy = policyOf(serviceOf(release).labels);
    this.#update = { status: 'updating', release: release.id, stage: 'start', doneBytes: 0, allBytes: 0 };
    this.#tell();
    // The engine's own work goes on without the agent.
    const { scheduler } = drone.world;
    const us = ms(200 + drone.random.uniform() * 1_000);
    this.#starting = release;
    scheduler.at(this.process.nowUs + us, () => {
      if (!this.process.alive) return;
      const app = drone.container(release.id);
      drone.note(`${app.id} is started: ${release.id}, ${app.behaviour}`);
      this.#watch(app);
      scheduler.at(scheduler.nowUs + ms(2), () =>
        this.process.post(() => {
          this.#candidate = { id: app.id, release };
          if (app.behaviour !== 'good') drone.struck(`release ${app.id}`);
          drone.gapMs = 0;
          this.#happen({ type: 'update', candidate: app.id, policy, atMs: this.#nowMs() });
          this.#starting = null;
          for (const [from, message] of this.#early)
            this.#happen({ type: 'message', from, message, atMs: this.#nowMs() });
          this.#early.clear();
          // The watch begins here: an end before it is told at once.
          if (!app.running) this.#died(app.id, true);
          then(false);
        }),
      );
    });
  }

  #settled(outcome: Outcome): void {
    const candidate = this.#candidate;
    this.#candidate = null;
    const release = candidate?.release ?? null;
    try {
      if (outcome.type === 'updated' && release) {
        const before = this.memory;
        this.#remember(flown(before, release));
        this.#failures = 0;
        this.#update = {
          status: 'done',
          release: release.id,
          stagesMs: {},
          fetched: { as: 'nothing', bytes: 0 },
        };
        const kept = [release, this.memory.previous].map((one) => one && serviceOf(one).image.id);
        const { previous } = before;
        const drop = before.good?.id === release.id || !previous ? null : serviceOf(previous).image.id;
        if (drop && !kept.includes(drop)) this.#drone.images.delete(drop);
        this.#flight(false);
      } else if (outcome.type === 'failed') {
        const isUnwatched = candidate !== null && candidate.id === this.#unwatched;
        this.#fail(release, isUnwatched ? unwatched(outcome.failure) : outcome.failure);
        this.#flight(outcome.owner !== null && this.#drone.gapMs > 0);
      }
      this.#tell();
      this.#poke();
    } catch (error) {
      this.#troubled(error);
      this.#poke();
    }
  }

  #fail(release: Release | null, failure: Failure): void {
    this.#failures++;
    if (!release) return;
    const next = blamed(this.memory, release, failure);
    if (next) this.#remember(next);
    this.#update = { status: 'failed', release: release.id, failure };
  }

  /** Its own trouble: tried again after a pause that grows. */
  #troubled(error: unknown): number {
    if (error instanceof Killed || error instanceof Broken) throw error;
    const { code = 'UNEXPECTED', message } = error as { code?: string; message: string };
    const pauseMs = Math.min(
      AGENT_LIMITS.retryMsMax,
      AGENT_LIMITS.retryMsMin * 2 ** Math.min(this.#failures, 16),
    );
    this.#failures++;
    this.#drone.note(`trouble: ${message}`);
    const release = this.memory.target?.release;
    if (release) this.#update = { status: 'failed', release: release.id, failure: { code, text: message } };
    this.#tell();
    return ms(pauseMs);
  }

  // -------------------------------------------------------------- what is told

  #flight(handedBack: boolean): void {
    const { gapMs } = this.#drone;
    this.#link.event('handover.flight', {
      generation: this.memory.target?.generation ?? 0,
      handedBack,
      gapMs,
    });
    this.#drone.gapMs = 0;
  }

  #tell(): void {
    const state = this.#state;
    const ownerId = state.phase === 'idle' ? state.owner : 'prior' in state ? state.prior : null;
    const owner = ownerId === null ? undefined : this.#drone.apps.get(ownerId);
    const generation = this.memory.target?.generation ?? 0;
    const flying = owner?.running ? owner : null;
    this.#toldGeneration = generation;
    this.#drone.told(generation, flying);
    if (state.phase === 'idle' && flying !== null) this.#drone.isWell();
    this.#link.current({
      device: this.#drone.name,
      generation,
      bootId: this.#bootId,
      sequence: this.#sequence++,
      atMs: Math.max(0, Math.round(1_700_000_000_000 + this.#nowMs() + this.#drone.clockOffsetMs)),
      owner: flying && { release: flying.release, imageId: flying.imageId, container: flying.id },
      images: [...this.#drone.images],
      update: this.#update,
    });
  }
}

const textOf = (event: Event): string => {
  switch (event.type) {
    case 'message':
      return `${event.message.type} of ${event.from}`;
    case 'gone':
    case 'dead':
    case 'trouble':
      return `${event.type} ${event.who}`;
    default:
      return event.type;
  }
};
