/**
 * Which ranges of a new file come from which ranges of an old one, nearly: a range may hold bytes that differ, as long as most
 * agree (bsdiff's idea). Places that both have alike are found by a rolling hash over a short seed, not by a suffix array:
 * for files of 100 MB that is seconds and 4 bytes for every second byte instead of minutes and 8.
 *
 * Invariant: ranges are by rising place in the new file and do not overlap there; each lies within both files.
 */

/** By `place`: start in the new file, start in the old file, length. */
export interface Ranges {
  count: number;
  news: Float64Array;
  olds: Float64Array;
  lengths: Float64Array;
}

interface Grain {
  /** Bytes that must agree for a place to be considered. */
  seedBytes: number;
  /** Every so many bytes of the old file a seed is remembered. */
  step: number;
}

const MULTIPLIER = 0x9e3779b1 | 0;
/** Of the places with one seed only those nearest to where we are are weighed: what was in order mostly stays so. */
const CANDIDATES_MAX = 24;
/**
 * So many more bytes must agree at a place elsewhere than by going on where we are: what a range costs more than the differences that
 * it spares, and that depends on how alike those are. In a program a range too many also spoils the prediction of references. In a file
 * that has the same pieces in many places, as large JSON does, sparse ranges are right: what differs is told where it is.
 */
const SWITCH_GAIN = { program: 8, data: 6, fine: 2, coarse: 16, sparse: 128 };
export type Grading = keyof typeof SWITCH_GAIN;
/** In a run that agrees for so long nothing better is looked for. */
const RUN_BYTES = 32;
const RANGE_BYTES_MIN = 8;
/** After so long without a run the same way is a new range: what lies between need not be a part of either. */
const GAP_BYTES = 1024;
/** A range is not looked for across more bytes than this that do not agree. */
const LOOK_BYTES = 4096;

function grainOf(bytes: number): Grain {
  if (bytes <= 16 * 1024 ** 2) return { seedBytes: 8, step: 1 };
  return bytes <= 64 * 1024 ** 2 ? { seedBytes: 12, step: 2 } : { seedBytes: 16, step: 4 };
}

/** Places in the old file by their seed, each seed's by rising place. */
class Seeds {
  readonly grain: Grain;
  readonly #starts: Int32Array;
  readonly #places: Int32Array;
  readonly #shift: number;
  readonly #drop: number;

  constructor(old: Uint8Array) {
    this.grain = grainOf(old.length);
    const { seedBytes, step } = this.grain;
    const bits = Math.max(12, Math.min(26, Math.ceil(Math.log2(old.length / step + 1))));
    this.#shift = 32 - bits;
    let drop = 1;
    for (let at = 1; at < seedBytes; at += 1) drop = Math.imul(drop, MULTIPLIER);
    this.#drop = drop;
    const starts = new Int32Array(2 ** bits + 1);
    this.#each(old, (slot) => {
      starts[slot + 1] = (starts[slot + 1] as number) + 1;
    });
    for (let slot = 1; slot < starts.length; slot += 1)
      starts[slot] = (starts[slot] as number) + (starts[slot - 1] as number);
    this.#places = new Int32Array(starts.at(-1) as number);
    this.#each(old, (slot, at) => {
      this.#places[starts[slot] as number] = at / step;
      starts[slot] = (starts[slot] as number) + 1;
    });
    // Each start has become the next one's.
    starts.copyWithin(1, 0);
    starts[0] = 0;
    this.#starts = starts;
  }

  #each(old: Uint8Array, visit: (slot: number, at: number) => void): void {
    const { seedBytes, step } = this.grain;
    const last = old.length - seedBytes;
    if (last < 0) return;
    let hash = this.hash(old, 0);
    for (let at = 0; ; at += 1) {
      // A seed of one byte alone says nothing of the place.
      if (at % step === 0 && !flat(old, at, seedBytes)) visit(this.#slot(hash), at);
      if (at === last) return;
      hash = this.next(hash, old[at] as number, old[at + seedBytes] as number);
    }
  }

  #slot(hash: number): number {
    return Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> this.#shift;
  }

  hash(bytes: Uint8Array, at: number): number {
    let hash = 0;
    for (let place = 0; place < this.grain.seedBytes; place += 1)
      hash = (Math.imul(hash, MULTIPLIER) + (bytes[at + place] as number)) | 0;
    return hash;
  }

  next(hash: number, out: number, into: number): number {
    return (Math.imul((hash - Math.imul(out, this.#drop)) | 0, MULTIPLIER) + into) | 0;
  }

  /** Finds the places with that seed that are nearest to `near`. @returns how many; `found` then has them */
  look(hash: number, near: number): number {
    const slot = this.#slot(hash);
    const from = this.#starts[slot] as number;
    const to = this.#starts[slot + 1] as number;
    const { step } = this.grain;
    let low = from;
    if (to - from > CANDIDATES_MAX) {
      let high = to;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if ((this.#places[middle] as number) * step < near) low = middle + 1;
        else high = middle;
      }
      low = Math.max(from, Math.min(low - CANDIDATES_MAX / 2, to - CANDIDATES_MAX));
    }
    const count = Math.min(to - from, CANDIDATES_MAX);
    for (let index = 0; index < count; index += 1)
      this.found[index] = (this.#places[low + index] as number) * step;
    return count;
  }

  readonly found = new Float64Array(CANDIDATES_MAX);
}

function flat(bytes: Uint8Array, at: number, length: number): boolean {
  const one = bytes[at];
  if (bytes[at + 1] !== one || bytes[at + length - 1] !== one) return false;
  for (let place = 2; place < length; place += 1) if (bytes[at + place] !== one) return false;
  return true;
}

/** Both files as they are compared: see masks.ts. */
export function findRanges(old: Uint8Array, young: Uint8Array, grading: Grading): Ranges {
  const gain = SWITCH_GAIN[grading];
  const news: number[] = [];
  const olds: number[] = [];
  const lengths: number[] = [];
  const put = (at: number, from: number, length: number): void => {
    const before = news.length - 1;
    const joins =
      before >= 0 &&
      (news[before] as number) + (lengths[before] as number) === at &&
      (olds[before] as number) + (lengths[before] as number) === from;
    if (joins) {
      lengths[before] = (lengths[before] as number) + length;
    } else if (length >= RANGE_BYTES_MIN) {
      news.push(at);
      olds.push(from);
      lengths.push(length);
    }
  };
  if (old.length === 0 || young.length === 0) return rangesOf(news, olds, lengths);

  const seeds = new Seeds(old);
  const { seedBytes } = seeds.grain;
  /** The range that is being made starts here in both. */
  let startNew = 0;
  let startOld = 0;
  const last = young.length - seedBytes;
  let hash = last >= 0 ? seeds.hash(young, 0) : 0;
  let hashed = 0;
  let at = 0;
  /** The end of the last run on our way. */
  let agreed = 0;

  /** Ends the current range; the next begins with what agrees from (`newAt`, `oldAt`) on. */
  const change = (newAt: number, oldAt: number): void => {
    // As far forward as more than half agrees.
    let forward = 0;
    let best = 0;
    let score = 0;
    const room = Math.min(newAt - startNew, old.length - startOld);
    for (let step = 0; step < room; ) {
      if (young[startNew + step] === old[startOld + step]) score += 1;
      step += 1;
      if (2 * score - step > best) {
        best = 2 * score - step;
        forward = step;
      } else if (step - forward > LOOK_BYTES && 2 * score - step < best - 512) {
        break;
      }
    }
    let backward = 0;
    if (newAt < young.length) {
      best = 0;
      score = 0;
      const back = Math.min(newAt - startNew, oldAt);
      for (let step = 1; step <= back; step += 1) {
        if (young[newAt - step] === old[oldAt - step]) score += 1;
        if (2 * score - step > best) {
          best = 2 * score - step;
          backward = step;
        } else if (step - backward > LOOK_BYTES) {
          break;
        }
      }
    }
    const overlap = startNew + forward - (newAt - backward);
    if (overlap > 0) {
      // Where one ends and the other begins: at the point that leaves the most bytes agreeing.
      let keep = 0;
      let most = 0;
      let balance = 0;
      const from = startNew + forward - overlap;
      const delta = startOld - startNew;
      for (let step = 0; step < overlap; step += 1) {
        if (young[from + step] === old[from + step + delta]) balance += 1;
        if (young[from + step] === old[from + step + oldAt - newAt]) balance -= 1;
        if (balance > most) {
          most = balance;
          keep = step + 1;
        }
      }
      forward += keep - overlap;
      backward -= keep;
    }
    if (forward > 0) put(startNew, startOld, forward);
    startNew = newAt - backward;
    startOld = oldAt - backward;
  };

  while (at <= last) {
    const delta = startOld - startNew;
    let run = 0;
    const runMax = Math.min(young.length - at, old.length - at - delta);
    while (run < runMax && young[at + run] === old[at + run + delta]) run += 1;
    if (run >= RUN_BYTES) {
      if (at - agreed > GAP_BYTES) change(at, at + delta);
      at += run;
      agreed = at;
      continue;
    }
    if (at - hashed > seedBytes) {
      hash = seeds.hash(young, at);
    } else {
      for (; hashed < at; hashed += 1)
        hash = seeds.next(hash, young[hashed] as number, young[hashed + seedBytes] as number);
    }
    hashed = at;
    let length = 0;
    let place = -1;
    let back = 0;
    let away = 0;
    const count = seeds.look(hash, at + delta);
    for (let index = 0; index < count; index += 1) {
      const from = seeds.found[index] as number;
      const most = Math.min(young.length - at, old.length - from);
      let same = 0;
      while (same < most && old[from + same] === young[at + same]) same += 1;
      if (same < seedBytes) continue;
      let behind = 0;
      const behindMax = Math.min(at - startNew, from, 256);
      while (behind < behindMax && old[from - behind - 1] === young[at - behind - 1]) behind += 1;
      const far = Math.abs(from - at - delta);
      if (same + behind > length || (same + behind === length && far < away)) {
        length = same + behind;
        back = behind;
        place = from;
        away = far;
      }
    }
    if (place < 0 || place - at === delta) {
      at += Math.max(1, run);
      continue;
    }
    // What going on as before would give of the same bytes.
    let kept = 0;
    const stop = at - back + length;
    for (let one = at - back; one < stop; one += 1) if (young[one] === old[one + delta]) kept += 1;
    if (length < kept + gain) {
      at += 1;
      continue;
    }
    change(at - back, place - back);
    at = stop;
    agreed = at;
  }
  change(young.length, old.length);
  return rangesOf(news, olds, lengths);
}

/** In a file of numbers that all changed a little at least this share of the bytes stayed. Chance gives one in 256. */
const IN_PLACE_SHARE = 0.2;
const IN_PLACE_BYTES_MIN = 4096;

/**
 * The one range of a file that was written anew in place: no few bytes in a row agree, so none would be found, and yet each number is
 * close to the one that was there.
 * @returns undefined when it does not look like that
 */
export function inPlace(old: Uint8Array, young: Uint8Array): Ranges | undefined {
  if (old.length !== young.length || young.length < IN_PLACE_BYTES_MIN) return undefined;
  let same = 0;
  for (let at = 0; at < young.length; at += 1) if (young[at] === old[at]) same += 1;
  return same < IN_PLACE_SHARE * young.length ? undefined : rangesOf([0], [0], [young.length]);
}

function rangesOf(news: number[], olds: number[], lengths: number[]): Ranges {
  return {
    count: news.length,
    news: Float64Array.from(news),
    olds: Float64Array.from(olds),
    lengths: Float64Array.from(lengths),
  };
}
