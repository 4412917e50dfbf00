/**
 * The last two minutes, in memory that two threads see: the board writes, the HTTP API reads.
 *
 * Invariant: one writer. An entry is complete before it is counted, and a reader stays away from the oldest entries,
 * which the writer may be overwriting; so no lock is needed, and a slow reader never holds up the board.
 */
import { LIMITS } from '#device-sim/limits.ts';
import { REFUSALS } from '#handover/mavlink/index.ts';

/** Fixed number of columns of float64, the first one a time that never decreases. */
export class Ring {
  readonly columns: readonly Float64Array[];
  readonly capacity: number;
  readonly #count: Int32Array;

  static allocate(capacity: number, columns: number): SharedArrayBuffer {
    return new SharedArrayBuffer(8 + capacity * columns * 8);
  }

  constructor(memory: SharedArrayBuffer, capacity: number) {
    this.capacity = capacity;
    this.#count = new Int32Array(memory, 0, 1);
    const columns = (memory.byteLength - 8) / (capacity * 8);
    this.columns = Array.from(
      { length: columns },
      (_, index) => new Float64Array(memory, 8 + index * capacity * 8, capacity),
    );
  }

  /** Values in the order of the columns. */
  push(...values: readonly number[]): void {
    const count = Atomics.load(this.#count, 0);
    const slot = count % this.capacity;
    for (let i = 0; i < this.columns.length; i += 1) {
      (this.columns[i] as Float64Array)[slot] = values[i] as number;
    }
    Atomics.store(this.#count, 0, count + 1);
  }

  /** Indices of the entries with `fromUs` <= time <= `toUs`: first, and one behind the last. */
  between(fromUs: number, toUs: number): [first: number, end: number] {
    const count = Atomics.load(this.#count, 0);
    const oldest = Math.max(0, count - this.capacity + LIMITS.overtakenMax);
    const search = (isAfter: (tUs: number) => boolean): number => {
      let low = oldest;
      let high = count;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if (isAfter(this.get(middle, 0))) high = middle;
        else low = middle + 1;
      }
      return low;
    };
    return [search((tUs) => tUs >= fromUs), search((tUs) => tUs > toUs)];
  }

  get(index: number, column: number): number {
    return (this.columns[column] as Float64Array)[index % this.capacity] as number;
  }
}

export const COMMAND = { tUs: 0, epoch: 1, imuUs: 2, gapMs: 3, kind: 4, boardLateMs: 5, length: 6 } as const;
export const SAMPLE = {
  tUs: 0,
  gyroX: 1,
  gyroY: 2,
  gyroZ: 3,
  tiltDeg: 4,
  z: 5,
  lateUs: 6,
  skippedTicks: 7,
  length: 8,
} as const;

/** What the board measured and what was true, once a tick: for whoever records the flight. SI, NED and FRD. */
export const FLIGHT = {
  tUs: 0,
  /** Of the IMU sample: what the command that answers it carries back. */
  imuUs: 1,
  gyro: 2,
  accelerometer: 5,
  position: 8,
  velocity: 11,
  /** w, x, y, z: body to world. */
  attitude: 14,
  throttles: 18,
  batteryPercent: 22,
  length: 23,
} as const;

/** What a command was, or that there was none; or why a frame did not pass the signing. */
export const KINDS = [
  ...(['fresh', 'doubled', 'stale', 'ignored', 'invalid', 'silence'] as const),
  ...REFUSALS,
] as const;
export type Kind = (typeof KINDS)[number];

export interface HistoryMemory {
  readonly commands: SharedArrayBuffer;
  readonly samples: SharedArrayBuffer;
  readonly failsafes: SharedArrayBuffer;
  readonly flight: SharedArrayBuffer;
  readonly open: SharedArrayBuffer;
}

export interface History {
  readonly memory: HistoryMemory;
  readonly commands: Ring;
  readonly samples: Ring;
  /** One column: when. */
  readonly failsafes: Ring;
  readonly flight: Ring;
  /** [0]: arrival of the last fresh command (us) while more are expected, else NaN. */
  readonly open: Float64Array;
}

export const createHistory = (memory?: HistoryMemory): History => {
  const shared = memory ?? {
    commands: Ring.allocate(LIMITS.commandsMax, COMMAND.length),
    samples: Ring.allocate(LIMITS.samplesMax, SAMPLE.length),
    failsafes: Ring.allocate(LIMITS.failsafesMax, 1),
    flight: Ring.allocate(LIMITS.samplesMax, FLIGHT.length),
    open: new SharedArrayBuffer(8),
  };
  const open = new Float64Array(shared.open);
  if (memory === undefined) open[0] = Number.NaN;
  return {
    memory: shared,
    commands: new Ring(shared.commands, LIMITS.commandsMax),
    samples: new Ring(shared.samples, LIMITS.samplesMax),
    failsafes: new Ring(shared.failsafes, LIMITS.failsafesMax),
    flight: new Ring(shared.flight, LIMITS.samplesMax),
    open,
  };
};
