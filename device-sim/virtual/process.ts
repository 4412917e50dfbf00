/**
 * A process with one thread: one turn at a time, as an event loop takes them.
 *
 * Invariants
 * - What it waits for inside a turn (a disk, above all) takes its own time: later turns begin after that.
 * - What arrived meanwhile is read before a timer that fell due meanwhile, as in Node.
 * - Paused, nothing of it runs and everything waits; killed, nothing of it ever runs again.
 */
import type { Scheduler } from '#device-sim/virtual/scheduler.ts';

/** Thrown out of a turn whose process ended in the midst of it. */
export class Killed extends Error {
  override readonly name = 'Killed';
}

export class Process {
  readonly #scheduler: Scheduler;
  readonly #onDeath: (() => void) | undefined;
  readonly #arrived: (() => void)[] = [];
  readonly #due: (() => void)[] = [];
  #busyUntilUs = 0;
  #pausedUntilUs = 0;
  #wakesAtUs = -1;
  #inTurn = false;
  #alive = true;

  /** @param onDeath called once, in the moment of its end */
  constructor(scheduler: Scheduler, onDeath?: () => void) {
    this.#scheduler = scheduler;
    this.#onDeath = onDeath;
  }

  get alive(): boolean {
    return this.#alive;
  }
  get paused(): boolean {
    return this.#pausedUntilUs > this.#scheduler.nowUs;
  }
  /** Its own time: inside a turn that waited, later than the world's. */
  get nowUs(): number {
    return this.#inTurn ? Math.max(this.#busyUntilUs, this.#scheduler.nowUs) : this.#scheduler.nowUs;
  }

  /** Something arrives for it. */
  post(act: () => void): void {
    if (!this.#alive) return;
    this.#arrived.push(act);
    this.#wake();
  }

  /** A timer of its own. */
  after(delayUs: number, act: () => void): void {
    this.#scheduler.at(this.nowUs + Math.max(0, Math.round(delayUs)), () => {
      if (!this.#alive) return;
      this.#due.push(act);
      this.#wake();
    });
  }

  /** Inside a turn: the time that something blocking takes. */
  spend(us: number): void {
    this.#busyUntilUs = this.nowUs + Math.round(us);
  }

  /** It gets no core until then; `Infinity`: frozen. */
  pause(untilUs: number): void {
    this.#pausedUntilUs = Math.max(this.#pausedUntilUs, untilUs);
    if (Number.isFinite(untilUs)) this.#wake();
  }
  resume(): void {
    this.#pausedUntilUs = 0;
    this.#wake();
  }

  kill(): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.#arrived.length = 0;
    this.#due.length = 0;
    this.#onDeath?.();
  }

  #wake(): void {
    const { nowUs } = this.#scheduler;
    const readyUs = Math.max(this.#busyUntilUs, this.#pausedUntilUs);
    if (readyUs <= nowUs) {
      this.#run();
      return;
    }
    if (!Number.isFinite(readyUs) || this.#wakesAtUs >= readyUs) return;
    this.#wakesAtUs = readyUs;
    this.#scheduler.at(readyUs, () => {
      if (this.#wakesAtUs === readyUs) this.#wakesAtUs = -1;
      this.#wake();
    });
  }

  #run(): void {
    if (this.#inTurn) return;
    while (this.#alive && Math.max(this.#busyUntilUs, this.#pausedUntilUs) <= this.#scheduler.nowUs) {
      const turn = this.#arrived.shift() ?? this.#due.shift();
      if (turn === undefined) return;
      this.#inTurn = true;
      try {
        turn();
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
        this.kill();
      } finally {
        this.#inTurn = false;
      }
    }
    if (this.#alive && this.#arrived.length + this.#due.length > 0) this.#wake();
  }
}
