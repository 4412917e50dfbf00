/**
 * The present, in memory that the threads share: the board writes, the camera and the HTTP API read.
 *
 * Invariant: one writer; a reader gets all values of one tick or tries again (a sequence lock: odd while writing).
 */
export const TRUTH = {
  /** CLOCK_MONOTONIC, us. */
  tUs: 0,
  /** Laid out as `AT` in physics.ts. */
  state: 1,
  throttles: 18,
  armed: 22,
  onGround: 23,
  failsafe: 24,
  crashed: 25,
  batteryPercent: 26,
  epoch: 27,
  lastCommandUs: 28,
  ticks: 29,
  skippedTicks: 30,
  lateTicks: 31,
  lateUsMax: 32,
  jumpedUs: 33,
  framesSent: 34,
  framesDropped: 35,
  bytesDiscarded: 36,
  commandsLost: 37,
  garbageBytes: 38,
  badChecksums: 39,
  /** 1: SCHED_FIFO, 0: not. */
  fifo: 40,
  /** 1: the link is signed; and how many streams were ever heard on it, of 16. */
  signed: 41,
  streams: 42,
  batteryV: 43,
  batteryA: 44,
  /** NED, m/s. */
  wind: 45,
  /** Of a paced wire, else 0; and what did not fit into its buffers, each way. */
  baud: 48,
  wireInDroppedBytes: 49,
  wireOutDroppedBytes: 50,
  length: 51,
} as const;

export class Truth {
  readonly memory: SharedArrayBuffer;
  readonly values: Float64Array;
  readonly #sequence: Int32Array;

  constructor(memory = new SharedArrayBuffer(8 + TRUTH.length * 8)) {
    this.memory = memory;
    this.#sequence = new Int32Array(memory, 0, 1);
    this.values = new Float64Array(memory, 8, TRUTH.length);
  }

  begin(): void {
    Atomics.add(this.#sequence, 0, 1);
  }

  end(): void {
    Atomics.add(this.#sequence, 0, 1);
  }

  /** A consistent copy. Tries are bounded: a writer is done within microseconds. */
  read(): Float64Array {
    let copy = this.values.slice();
    for (let tries = 0; tries < 1_000; tries += 1) {
      const before = Atomics.load(this.#sequence, 0);
      copy = this.values.slice();
      if (before % 2 === 0 && Atomics.load(this.#sequence, 0) === before) break;
    }
    return copy;
  }
}
