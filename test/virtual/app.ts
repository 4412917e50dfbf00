/**
 * A container with its app: V1 or V2, as dumb as the protocol allows.
 *
 * Invariant: it writes to a resource only between the end of its GRANT and the end of its RELEASE, and it obeys a step
 * only under a higher epoch than any before. It may crash, hang, or behave as its release does.
 */
import { Process } from '#device-sim/virtual/process.ts';
import type { AppMessage, Resource } from '#handover/messages.ts';
import type { Effect } from '#handover/state.ts';
import type { Drone } from './drone.ts';
import type { Behaviour } from './story.ts';
import { ms, seconds } from './world.ts';

export type Told = Extract<Effect, { do: 'send' }>['message'];
type Unsent<M> = M extends unknown ? Omit<M, 'fds'> : never;
type Said = Unsent<AppMessage>;

/** Of a heartbeat: the slowest that the protocol allows. */
const BEAT_US = ms(20);
const RECONNECT_US = ms(200);
const VERSIONS = { reads: [1], writes: 1 };

/** How long it takes to let go of, or to take, a resource: up to so many microseconds. */
const STEP_US: Record<Resource, number> = {
  camera: ms(33),
  listener: ms(2),
  connections: ms(120),
  rotors: ms(4),
};

export class App {
  readonly id: string;
  readonly release: string;
  readonly imageId: string;
  readonly behaviour: Behaviour;
  readonly process: Process;
  readonly holds = new Map<Resource, number>();
  readonly #drone: Drone;
  #epoch: number;
  #frozen = false;
  /** The agent's life that it is connected to. */
  #life: number | null = null;
  #beating = false;
  #isCandidate = false;
  #steps: { readonly message: Told & { type: 'RELEASE' | 'GRANT' }; readonly life: number }[] = [];
  #answers: { readonly said: Said }[] = [];
  #stuckUntilUs = 0;
  #bornUs: number;

  constructor(drone: Drone, id: string, release: string, imageId: string, behaviour: Behaviour, epoch = 0) {
    this.#drone = drone;
    this.id = id;
    this.release = release;
    this.imageId = imageId;
    this.behaviour = behaviour;
    this.#epoch = epoch;
    this.#bornUs = drone.world.scheduler.nowUs;
    this.process = new Process(drone.world.scheduler, () => {
      const flew = !this.#frozen && this.holds.has('rotors');
      this.holds.clear();
      drone.note(`${id} is dead`);
      drone.appDied(this, flew);
    });
    // A small program is there at once, a large one loads for a while.
    const loadsUs = ms(0.5 + drone.random.uniform() ** 2 * 500);
    this.process.after(loadsUs, () => this.#seek());
  }

  get running(): boolean {
    return this.process.alive;
  }
  /** What it holds it may write to at any moment, unless it is frozen for good. */
  get canWrite(): boolean {
    return this.process.alive && !this.#frozen;
  }
  get frozen(): boolean {
    return this.#frozen;
  }

  hang(us: number): void {
    this.#drone.note(`${this.id} hangs for ${Math.round(us / 1000)} ms`);
    this.process.pause(this.#drone.world.scheduler.nowUs + us);
    this.#drone.pilotChanged();
    this.#drone.world.scheduler.at(this.#drone.world.scheduler.nowUs + us, () => this.#drone.pilotChanged());
  }
  /** The steps that it begins from now on take longer. */
  stick(us: number): void {
    this.#drone.note(`${this.id} is stuck for ${Math.round(us / 1000)} ms`);
    this.#stuckUntilUs = this.#drone.world.scheduler.nowUs + us;
  }
  freeze(): void {
    this.#frozen = true;
    this.process.pause(Number.POSITIVE_INFINITY);
    this.#drone.pilotChanged();
  }
  /** Only a planted bug does. */
  thaw(): void {
    this.#drone.note(`${this.id} is thawed`);
    this.#frozen = false;
    this.process.resume();
    this.#drone.check();
  }

  // -------------------------------------------------------------- its connection

  /** An app looks for the agent five times a second. */
  #seek(): void {
    if (this.#life !== null) return;
    const { agent } = this.#drone;
    if (agent === null || !agent.listening) {
      this.process.after(RECONNECT_US, () => this.#seek());
      return;
    }
    this.#life = agent.life;
    const holds = [...this.holds.keys()];
    this.#say({
      type: 'HELLO',
      v: 1,
      epoch: this.#epoch,
      app: 'hover',
      release: this.release,
      ...VERSIONS,
      holds,
    });
    if (this.#isEchoing()) for (const { said } of this.#answers) this.#say(said);
    if (this.behaviour === 'crashes-warming' && holds.length === 0)
      this.process.after(ms(400), () => this.#misbehave());
  }

  /** The agent's end closed. Lines that had arrived are still read. */
  lost(life: number): void {
    this.process.post(() => {
      if (this.#life !== life) return;
      this.#life = null;
      this.process.after(RECONNECT_US, () => this.#seek());
    });
  }

  #say(said: Said): void {
    if (this.#life !== null) this.#drone.toAgent(this, this.#life, { ...said, fds: [] } as AppMessage);
  }
  #answer(said: Said, life: number): void {
    if (said.type === 'RELEASED' || said.type === 'GRANTED')
      this.#answers = [...this.#answers.slice(-7), { said }];
    if (this.#life === life) this.#say(said);
  }
  /** A wire, or an SDK of another language, that says again what it has said. */
  #isEchoing(): boolean {
    return this.#drone.has('echo');
  }

  // -------------------------------------------------------------- what it is told

  heard(message: Told, life: number): void {
    this.process.post(() => this.#heard(message, life));
  }

  #heard(message: Told, life: number): void {
    this.#drone.point(this.process);
    const isStep = message.type === 'RELEASE' || message.type === 'GRANT';
    const isStale = message.epoch < this.#epoch || (isStep && message.epoch === this.#epoch);
    if (isStale && this.#drone.world.mutant !== 'stale-epoch') {
      this.#say({ type: 'FAULT', epoch: this.#epoch, code: 'STALE_EPOCH', text: message.type });
      return;
    }
    this.#epoch = message.epoch;
    switch (message.type) {
      case 'OFFER':
        if (message.role === 'candidate') this.#warmUp(message.epoch, message.shadow?.cyclesMin ?? 0, life);
        return;
      case 'PREPARE':
        this.#answer({ type: 'READY', epoch: message.epoch, cycles: 1_000, divergence: 0 }, life);
        return;
      case 'RELEASE':
      case 'GRANT':
        if (this.#isEchoing())
          for (const { said } of this.#answers)
            if ('resource' in said && said.resource === message.resource) this.#answer(said, life);
        // As handover/steps.ts: one after the other, and the rotors wait for no other resource.
        if (message.type === 'GRANT' && message.resource === 'rotors' && this.#steps.length > 0) {
          if (!this.#steps.some((step) => step.message.resource === 'rotors')) {
            this.#step(message, life, () => undefined);
            return;
          }
        }
        this.#steps.push({ message, life });
        if (this.#steps.length === 1) this.#work();
        return;
      case 'COMMIT':
        if (message.role === 'retired')
          this.process.after(ms(20 + this.#drone.random.uniform() * 300), () =>
            this.#answer({ type: 'RETIRE', epoch: this.#epoch }, life),
          );
        else if (this.behaviour === 'crashes-later') this.process.after(seconds(4), () => this.#misbehave());
        return;
      case 'REVOKE':
        // Whoever flies, flies on.
        if (this.holds.size === 0) this.process.after(ms(1), () => this.process.kill());
        return;
      case 'SHADOW':
      case 'DROP':
        return;
    }
  }

  #warmUp(epoch: number, cyclesMin: number, life: number): void {
    if (this.#isCandidate || this.behaviour === 'never-ready') return;
    this.#isCandidate = true;
    const divergence = this.behaviour === 'diverges' ? 1 : 0.01;
    this.process.after(ms(1_000 + this.#drone.random.uniform() * 1_000), () =>
      this.#answer({ type: 'READY', epoch, cycles: cyclesMin + 10, divergence }, life),
    );
  }

  /** One step after the other. */
  #work(): void {
    const [next] = this.#steps;
    if (!next) return;
    this.#step(next.message, next.life, () => {
      this.#steps.shift();
      this.#work();
    });
  }

  #step(
    { type, resource, epoch }: Told & { type: 'RELEASE' | 'GRANT' },
    life: number,
    then: () => void,
  ): void {
    const isRenewed = type === 'GRANT' && this.holds.has(resource);
    const stuckUs = Math.max(0, this.#stuckUntilUs - this.process.nowUs);
    const us = isRenewed ? 50 : 50 + this.#drone.random.uniform() * STEP_US[resource];
    this.process.after(stuckUs + us, () => {
      if (type === 'RELEASE') this.holds.delete(resource);
      else this.holds.set(resource, epoch);
      const done = type === 'RELEASE' ? 'lets go of' : 'has';
      this.#drone.note(`${this.id} ${done} the ${resource}, epoch ${epoch}`);
      this.#drone.held(this, resource, type === 'GRANT');
      const said: Said =
        type === 'RELEASE'
          ? { type: 'RELEASED', epoch, resource, payload: {}, more: false }
          : { type: 'GRANTED', epoch, resource };
      this.#answer(said, life);
      if (resource === 'rotors' && type === 'GRANT') this.#flies();
      then();
    });
  }

  // -------------------------------------------------------------- in flight

  #flies(): void {
    this.beat();
    if (this.behaviour === 'crashes-in-probation') this.process.after(ms(700), () => this.#misbehave());
    if (this.behaviour === 'hangs-in-probation')
      this.process.after(ms(700), () => {
        this.#drone.struck(`release ${this.id}`);
        this.hang(seconds(30));
      });
  }

  #misbehave(): void {
    this.#drone.struck(`release ${this.id}`);
    this.#drone.note(`${this.id} crashes by itself`);
    this.process.kill();
  }

  /** Heartbeats, as long as the machine could be watching: while it is idle they change nothing. */
  beat(): void {
    if (this.#beating || !this.holds.has('rotors')) return;
    this.#beating = true;
    const next = (): void => {
      const { agent } = this.#drone;
      if (!this.holds.has('rotors') || (agent !== null && !agent.isWatching)) {
        this.#beating = false;
        return;
      }
      const isJudged = this.#drone.world.scheduler.nowUs - this.#bornUs > 0;
      const loopHz = this.behaviour === 'slow-loop' ? 20 : 250;
      const cycles = Math.floor(((this.process.nowUs - this.#bornUs) / 1e6) * loopHz);
      const error = this.behaviour === 'off-setpoint' && isJudged ? 2 : 0.1;
      this.#say({ type: 'SNAP', epoch: this.#epoch, payload: {}, cycles, error });
      this.process.after(BEAT_US, next);
    };
    next();
  }
}
