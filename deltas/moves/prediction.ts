/**
 * Where what an old file's reference points to is in the new file: by the ranges that were copied, and by what references
 * that came before turned out to be.
 *
 * Invariant: the answer depends only on the old file, the ranges, the new file's segments and the `learn`s before, in their order.
 */

import type { Ranges } from '#deltas/moves/covers.ts';
import { Owners } from '#deltas/moves/owners.ts';
import { type Anchor, type Program, type Segment, UNLOADED } from '#deltas/moves/program.ts';

/** Targets that are remembered exactly; a later one takes the place of an earlier one with the same slot. */
const EXACT_BITS = 18;
const SEEN_BITS = 19;
/** As often as a remembered target was right, it may be wrong before it is forgotten. */
const SURE_MAX = 3;
/** Ranges before and behind a reference's own. */
const BESIDE = 6;
/** Neighbourhoods whose last move is remembered, of so many bytes. */
const NEAR_BITS = 14;
const NEAR_SHIFT = 8;
/** A function that grew by more is taken for another. */
const LONGER_MAX = 4096;

/** Which of a Prediction's parts was found last, in `last`: the next is mostly the same one. -1: none. */
const [OLD, NEW, SECTION] = [0, 1, 2];

export class Prediction {
  readonly #olds: readonly Segment[];
  readonly #news: readonly Segment[];
  readonly #ranges: Ranges;
  readonly #owners: Owners;
  readonly #exactKeys = new Float64Array(2 ** EXACT_BITS).fill(-1);
  readonly #exactMoves = new Float64Array(2 ** EXACT_BITS);
  readonly #exactSure = new Uint8Array(2 ** EXACT_BITS);
  /** A bit for each key that ever had a slot: most others are told by it, from the processor's cache, in which the tables have no room. */
  readonly #exactSeen = new Int32Array(2 ** (SEEN_BITS - 5));
  readonly #nearKeys = new Float64Array(2 ** NEAR_BITS).fill(-1);
  readonly #nearMoves = new Float64Array(2 ** NEAR_BITS);
  readonly #sections: readonly Anchor[];
  readonly #last = new Int32Array(3).fill(-1);
  #range = -1;
  #rangeLow = 0;
  #rangeHigh = 0;

  /** By an anchor's old address. */
  readonly #anchors = new Map<number, number>();
  /** How far what the last entry of a table pointed to had moved, by the table's anchor. */
  readonly tableMoves = new Map<number, number>();
  /** AArch64: the page that each register was last set to in the new file. */
  readonly pages = new Float64Array(32);

  /** @param moves of the old program's anchors, in their order, each less the one before it */
  constructor(old: Program, news: readonly Segment[], ranges: Ranges, moves: readonly number[]) {
    this.#olds = old.segments;
    this.#news = news;
    this.#ranges = ranges;
    this.#owners = new Owners(ranges);
    this.#sections = old.anchors;
    let move = 0;
    for (const [at, { address }] of old.anchors.entries()) {
      move += moves[at] ?? 0;
      this.#anchors.set(address, address + move);
    }
  }

  anchor(old: number): number {
    return this.#anchors.get(old) ?? old;
  }

  /** What native code works on instead of this, in place; see native/moves.c. */
  tables() {
    const segments = (all: readonly Segment[]) =>
      Float64Array.from(
        all.flatMap(({ offset, address, fileBytes, memoryBytes }) => [
          offset,
          address,
          fileBytes,
          memoryBytes,
        ]),
      );
    const { news, olds, lengths } = this.#ranges;
    const { starts, owners, marks } = this.#owners;
    return {
      exactKeys: this.#exactKeys,
      exactMoves: this.#exactMoves,
      exactSure: this.#exactSure,
      exactSeen: this.#exactSeen,
      nearKeys: this.#nearKeys,
      nearMoves: this.#nearMoves,
      ...{ news, olds, lengths, starts, owners, marks },
      oldSegments: segments(this.#olds),
      newSegments: segments(this.#news),
      sections: Float64Array.from(
        this.#sections.flatMap(({ address, bytes }) => [address, bytes, this.anchor(address)]),
      ),
      last: this.#last,
      pages: this.pages,
    };
  }

  /** What no range has has moved with its section. */
  #sectionMove(old: number): number {
    let section = this.#sections[this.#last[SECTION] as number];
    if (section === undefined || old < section.address || old >= section.address + section.bytes) {
      const at = this.#sections.findIndex(({ address, bytes }) => old >= address && old < address + bytes);
      section = this.#sections[at];
      if (section === undefined) return 0;
      this.#last[SECTION] = at;
    }
    return this.anchor(section.address) - section.address;
  }

  /** Address of a byte of the new file. */
  address(offset: number): number {
    const last = this.#news[this.#last[NEW] as number];
    if (last !== undefined && offset >= last.offset && offset < last.offset + last.fileBytes)
      return last.address + offset - last.offset;
    for (let at = 0; at < this.#news.length; at += 1) {
      const one = this.#news[at] as Segment;
      if (offset < one.offset || offset >= one.offset + one.fileBytes) continue;
      this.#last[NEW] = at;
      return one.address + offset - one.offset;
    }
    return UNLOADED + offset;
  }

  /**
   * The new address of what was at the old one.
   * @param range that the reference itself is in: what is near it in the old file mostly is in the new one, too
   */
  target(old: number, range: number): number {
    const hash = hashOf(old);
    const slot = hash & EXACT_MASK;
    const known = this.#isSeen(hash) && this.#exactKeys[slot] === old;
    if (known && (this.#exactSure[slot] as number) > 0) return old + (this.#exactMoves[slot] as number);
    const offset = this.#offset(old);
    if (offset !== undefined) {
      if (range !== this.#range) this.#enter(range);
      const near = offset >= this.#rangeLow && offset < this.#rangeHigh;
      const local = near ? this.#beside(offset, range) : undefined;
      if (local !== undefined) return old >= UNLOADED ? UNLOADED + local : this.address(local);
      const ranged = this.#ranged(offset);
      if (ranged !== undefined) return old >= UNLOADED ? UNLOADED + ranged : this.address(ranged);
    }
    if (known) return old + (this.#exactMoves[slot] as number);
    const near = Math.floor(old / 2 ** NEAR_SHIFT);
    const nearSlot = hashOf(near) & NEAR_MASK;
    if (this.#nearKeys[nearSlot] === near) return old + (this.#nearMoves[nearSlot] as number);
    return old + this.#sectionMove(old);
  }

  /** A reference to `old` turned out to point to `young`; the prediction was `right` or not. */
  learn(old: number, young: number, right: boolean): void {
    const move = young - old;
    const hash = hashOf(old);
    const slot = hash & EXACT_MASK;
    if (this.#isSeen(hash) && this.#exactKeys[slot] === old) {
      const sure = this.#exactSure[slot] as number;
      if (this.#exactMoves[slot] === move) this.#exactSure[slot] = Math.min(sure + 1, SURE_MAX);
      else if (sure > 0) this.#exactSure[slot] = sure - 1;
      else this.#exactMoves[slot] = move;
    } else if (!right) {
      this.#exactKeys[slot] = old;
      this.#exactMoves[slot] = move;
      this.#exactSure[slot] = 0;
      const word = (hash & SEEN_MASK) >> 5;
      this.#exactSeen[word] = (this.#exactSeen[word] as number) | (1 << (hash & 31));
    }
    const near = Math.floor(old / 2 ** NEAR_SHIFT);
    const nearSlot = hashOf(near) & NEAR_MASK;
    this.#nearKeys[nearSlot] = near;
    this.#nearMoves[nearSlot] = move;
  }

  #isSeen(hash: number): boolean {
    return (((this.#exactSeen[(hash & SEEN_MASK) >> 5] as number) >>> (hash & 31)) & 1) !== 0;
  }

  /** In the file; beyond its part of the file for what is not in it. */
  #offset(old: number): number | undefined {
    if (old >= UNLOADED) return old - UNLOADED;
    let segment = this.#olds[this.#last[OLD] as number];
    if (segment === undefined || old < segment.address || old >= segment.address + segment.memoryBytes) {
      const at = segmentAt(this.#olds, old);
      this.#last[OLD] = at;
      segment = this.#olds[at];
    }
    if (segment === undefined) return undefined;
    const into = old - segment.address;
    return into < segment.fileBytes ? segment.offset + into : undefined;
  }

  /** Notes the stretch of the old file outside of which no range beside this one has anything. */
  #enter(range: number): void {
    const { count, olds, lengths } = this.#ranges;
    let [low, high] = [Number.POSITIVE_INFINITY, 0];
    for (let at = Math.max(0, range - BESIDE); at <= range + BESIDE && at < count; at += 1) {
      low = Math.min(low, olds[at] as number);
      high = Math.max(high, (olds[at] as number) + (lengths[at] as number));
    }
    this.#range = range;
    this.#rangeLow = low;
    this.#rangeHigh = high;
  }

  #beside(offset: number, range: number): number | undefined {
    const { count, news, olds, lengths } = this.#ranges;
    for (let step = 0; step <= 2 * BESIDE; step += 1) {
      const at = range + ((step & 1) === 0 ? step >> 1 : -((step + 1) >> 1));
      if (at < 0 || at >= count) continue;
      const into = offset - (olds[at] as number);
      if (into >= 0 && into < (lengths[at] as number)) return (news[at] as number) + into;
    }
    return undefined;
  }

  #ranged(offset: number): number | undefined {
    const { news, olds } = this.#ranges;
    const owner = this.#owners.of(offset);
    if (owner < 0) return undefined;
    return (news[owner] as number) + offset - (olds[owner] as number);
  }

  /** New length of what was at `first` to `last` of the old program. */
  length(first: number, last: number): number {
    const old = last + 1 - first;
    const [from, to] = [this.#offset(first), this.#offset(last)];
    if (from === undefined || to === undefined) return old;
    const owner = this.#owners.of(from);
    const end = owner < 0 ? undefined : this.#beside(to, owner);
    if (end === undefined) return old;
    const length =
      end + 1 - ((this.#ranges.news[owner] as number) + from - (this.#ranges.olds[owner] as number));
    return length > 0 && length < 2 * old + LONGER_MAX ? length : old;
  }
}

/** A loop, since code's references change from one to the other all the time. @returns -1: none has it */
function segmentAt(segments: readonly Segment[], address: number): number {
  for (let at = 0; at < segments.length; at += 1) {
    const one = segments[at] as Segment;
    if (address >= one.address && address < one.address + one.memoryBytes) return at;
  }
  return -1;
}

const EXACT_MASK = 2 ** EXACT_BITS - 1;
const SEEN_MASK = 2 ** SEEN_BITS - 1;
const NEAR_MASK = 2 ** NEAR_BITS - 1;

function hashOf(key: number): number {
  const mixed = Math.imul((key | 0) ^ Math.floor(key / 2 ** 32), 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}
