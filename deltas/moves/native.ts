/**
 * The hot loops in C, where that is built: a thin, typed door to deltas/native/moves.c.
 *
 * Invariant: what comes out is what this folder's own code gives, bit for bit; that stays the definition, and runs where there is
 * no addon or one that does not load. So nothing asks which of them is there but for those that take `native`, NATIVE by default.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { ByteReader } from '#deltas/bytes.ts';
import type { Prediction } from '#deltas/moves/prediction.ts';
import type { Finds, Found, Stretch } from '#deltas/moves/references.ts';
import { ONE, TWO } from '#deltas/moves/x86-64.ts';

/** What a chunk tells of references that were predicted wrongly. */
export interface Missed {
  /** References until the next. */
  right: number;
  readonly skips: ByteReader;
  readonly fixes: ByteReader;
}

/** A piece that was copied, as `predict` has it. */
export interface Piece {
  /** That it is in, at `place`. */
  out: Uint8Array;
  place: number;
  bytes: number;
  from: number;
  to: number;
  range: number;
}

/** `sweepX86`, `sweepAarch64`, and what `References` has for data of 64 bits; numbers are moves.c's. */
const SEARCHES = {
  'x86-64': 0,
  aarch64: 1,
  pointers: 2,
  symbols: 3,
  offsets: 4,
  jumpTables: 5,
  loose: 6,
} as const;

export interface Native {
  /**
   * Adds what that search finds.
   * @param low  with `high`, where what is found points to
   * @param more what the search takes beside the stretch: whole numbers, 0 for those it lacks
   */
  sweep(
    search: keyof typeof SEARCHES,
    finds: Finds,
    stretch: Stretch,
    low: number,
    high: number,
    more?: readonly [number?, number?],
  ): void;
  prediction(prediction: Prediction): NativePrediction;
}

export interface NativePrediction {
  /**
   * Puts right references from the one at `index` on, and takes what was missed of them.
   * @returns the first that is left to `predict`: of a kind that is not known here, or with a fix that is none; `found.count`: none is
   */
  predict(piece: Piece, found: Found, index: number, missed: Missed): number;
}

type Tables = ReturnType<Prediction['tables']> & { job: Float64Array };

interface Addon {
  /** Before the first `sweep`: x86-64.ts's tables. */
  begin(one: Uint8Array, two: Uint8Array): void;
  /** @param job moves.c: struct sweep. @returns how many there are now, or would be with room for them */
  sweep(bytes: Uint8Array, memory: Float64Array, job: Float64Array, search: number): number;
  /** The arrays are from now on used in place: the object must stay as it is. */
  bind(tables: Tables): void;
  /** `tables.job` is moves.c's struct job. */
  predict(
    tables: Tables,
    memory: Float64Array,
    out: Uint8Array,
    skips: Uint8Array,
    fixes: Uint8Array,
  ): number;
}

class BoundPrediction implements NativePrediction {
  readonly #addon: Addon;
  readonly #tables: Tables;
  readonly #job = new Float64Array(10);

  constructor(addon: Addon, prediction: Prediction) {
    this.#addon = addon;
    this.#tables = { ...prediction.tables(), job: this.#job };
    addon.bind(this.#tables);
    Object.freeze(this.#tables);
  }

  predict(piece: Piece, found: Found, index: number, missed: Missed): number {
    const job = this.#job;
    const { skips, fixes } = missed;
    job[0] = piece.place;
    job[1] = piece.bytes;
    job[2] = piece.from;
    job[3] = piece.to;
    job[4] = piece.range;
    job[5] = index;
    job[6] = found.count;
    job[7] = missed.right;
    job[8] = skips.at;
    job[9] = fixes.at;
    const left = this.#addon.predict(this.#tables, found.memory, piece.out, skips.whole, fixes.whole);
    missed.right = job[7];
    skips.skipTo(job[8]);
    fixes.skipTo(job[9]);
    return left;
  }
}

function nativeOf(addon: Addon): Native {
  addon.begin(ONE, TWO);
  const job = new Float64Array(11);
  return {
    sweep(search, finds, { bytes, from, start, end, base, part }, low, high, [one = 0, two = 0] = []) {
      job.set([from, start, end, base, part.offset, part.bytes, low, high, one, two]);
      finds.addBy((memory, count) => {
        job[10] = count;
        return addon.sweep(bytes, memory, job, SEARCHES[search]);
      });
    },
    prediction: (prediction) => new BoundPrediction(addon, prediction),
  };
}

/** Beside this source, or beside the built JavaScript (dist/deltas/moves), unless MIDAIR_MOVES names another, or is `off`. */
function load(): Native | null {
  const named = process.env.MIDAIR_MOVES;
  const path =
    named ??
    ['../native/build/Release/moves.node', '../../../deltas/native/build/Release/moves.node']
      .map((place) => fileURLToPath(new URL(place, import.meta.url)))
      .find((place) => existsSync(place));
  if (path === undefined || path === 'off') return null;
  try {
    return nativeOf(createRequire(import.meta.url)(path) as Addon);
  } catch (error) {
    // Another machine's, or another libc's: slower without it, but never wrong.
    if (named === undefined) return null;
    throw error;
  }
}

/** null: there is none. */
export const NATIVE: Native | null = load();
