/**
 * The references in a stretch of a file: where each is, how it is written and what it points to.
 *
 * Invariant: what is found in a block depends on the file's bytes alone, never on what was asked before; so maker and reader
 * find the same. A false find costs bytes in the delta, never correctness. Memory is a few blocks.
 */
import { sweepAarch64 } from '#deltas/moves/aarch64.ts';
import { isThumb, sweepArm, sweepThumb } from '#deltas/moves/arm.ts';
import { FrameIndex, sweepFrames } from '#deltas/moves/frames.ts';
import { GoFunctions } from '#deltas/moves/go-functions.ts';
import { NATIVE, type Native } from '#deltas/moves/native.ts';
import { type Part, type Program, type ReadAt, UNLOADED } from '#deltas/moves/program.ts';
import type { Module } from '#deltas/moves/wasm.ts';
import { sweepCode, sweepData } from '#deltas/moves/wasm-sweep.ts';
import { sweepX86 } from '#deltas/moves/x86-sweep.ts';

/** How a reference is written; numbers index the tables of `fields.ts`. */
export const KIND = {
  /** i32, from the end of an x86 instruction: 4 to 8 bytes behind the field's start. */
  relative32: 0,
  relative8: 1,
  /** u32 address. */
  absolute32: 2,
  /** u64 address. */
  absolute64: 3,
  /** 32 bits from an anchor: a table's start. */
  offset32: 4,
  /** AArch64: 26 bits of words. */
  branch26: 5,
  branch19: 6,
  branch14: 7,
  /** ADRP: 21 bits of pages. */
  page21: 8,
  /** ADR. */
  near21: 9,
  /** ADD's and LDR's 12 bits of what an ADRP began. */
  low12: 10,
  /** Arm: 24 bits of words, from two instructions on. */
  branch24: 11,
  /** i32 from the field itself. */
  self32: 12,
  /** u32 from what it points to up to the field. */
  backward32: 13,
  /** How long something is; it points to its last byte. */
  length32: 14,
  length64: 15,
  /** Number of a symbol of 24 bytes, from the first. */
  index32: 16,
  /** i32 from a place in a table of constants. */
  table32: 17,
  /** u32 in Go's table of functions. */
  go32: 18,
  /** Thumb: 24 bits of half words over two half words, from four bytes on. */
  thumb24: 19,
  /** The same from the word that holds that place: BLX. */
  thumb24Aligned: 20,
  /** LEB128 of one byte; of two to five: the four numbers that follow. */
  leb1: 21,
} as const;
export const WIDTH: readonly number[] = [
  4, 1, 4, 8, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 8, 4, 4, 4, 4, 4, 1, 2, 3, 4, 5,
];
export const LEB_BYTES_MAX = 5;

/** References that begin in one block, by rising offset; the last may reach into the next. Lists may be longer than `count`. */
export interface Found {
  count: number;
  /** Of the field, in the file. */
  offsets: Float64Array;
  kinds: Uint8Array;
  /** Address that it points to. */
  targets: Float64Array;
  /** By kind: bytes from the field to where it counts from; the anchor's address; the log of its unit; where what is long begins. */
  extras: Float64Array;
  /** All of them, one behind the other: offsets, targets, extras, kinds. What native code is given. */
  memory: Float64Array;
}

/** Room of a new `Found`, in references: what a block of code holds, so that it can be used again for most others. */
const ROOM = 2048;

/** @param least at least so many; room is made for a multiple of 8 */
function makeFound(least: number): Found {
  const room = 8 * Math.ceil(least / 8);
  const memory = new Float64Array((room / 8) * 25);
  return {
    count: 0,
    offsets: memory.subarray(0, room),
    kinds: new Uint8Array(memory.buffer, 3 * 8 * room, room),
    targets: memory.subarray(room, 2 * room),
    extras: memory.subarray(2 * room, 3 * room),
    memory,
  };
}

/** Collects references of one block, in any order; used for one block after the other. */
export class Finds {
  #all = makeFound(ROOM);
  /** Behind the last field; whether each began behind the one before it. */
  #free = 0;
  #inOrder = true;

  add(offset: number, kind: number, target: number, extra: number): void {
    if (this.#all.count === this.#all.kinds.length) this.#grow();
    const all = this.#all;
    const at = all.count++;
    if (offset < this.#free) this.#inOrder = false;
    this.#free = offset + (WIDTH[kind] as number);
    all.offsets[at] = offset;
    all.kinds[at] = kind;
    all.targets[at] = target;
    all.extras[at] = extra;
  }

  #grow(): void {
    const all = this.#all;
    const more = makeFound(2 * all.kinds.length);
    for (const name of ['offsets', 'kinds', 'targets', 'extras'] as const) more[name].set(all[name]);
    more.count = all.count;
    this.#all = more;
  }

  /**
   * Several at once, by rising offset and without overlaps.
   * @param put them into the memory behind the first `count`; returns how many there then are, or were if there was room
   */
  addBy(put: (memory: Float64Array, count: number) => number): void {
    const first = this.#all.count;
    let count = put(this.#all.memory, first);
    while (count > this.#all.kinds.length) {
      this.#grow();
      count = put(this.#all.memory, first);
    }
    const all = this.#all;
    if (count === first) return;
    if ((all.offsets[first] as number) < this.#free) this.#inOrder = false;
    this.#free = (all.offsets[count - 1] as number) + (WIDTH[all.kinds[count - 1] as number] as number);
    all.count = count;
  }

  clear(): void {
    this.#all.count = 0;
    this.#free = 0;
    this.#inOrder = true;
  }

  /**
   * By offset; of two that overlap, the first.
   * @param used that nobody needs any more: its memory is taken if there is enough
   * @returns to be cleared before more is added
   */
  take(used: Found | undefined): Found {
    const { count, offsets, kinds, targets, extras } = this.#all;
    if (this.#inOrder) {
      const found = this.#all;
      this.#all = used ?? makeFound(ROOM);
      return found;
    }
    const found = used !== undefined && used.kinds.length >= count ? used : makeFound(Math.max(ROOM, count));
    const order = new Uint32Array(count).map((_, at) => at);
    order.sort((a, b) => (offsets[a] as number) - (offsets[b] as number) || a - b);
    found.count = 0;
    let free = 0;
    for (const at of order) {
      const offset = offsets[at] as number;
      const kind = kinds[at] as number;
      if (offset < free) continue;
      free = offset + (WIDTH[kind] as number);
      const to = found.count++;
      found.offsets[to] = offset;
      found.kinds[to] = kind;
      found.targets[to] = targets[at] as number;
      found.extras[to] = extras[at] as number;
    }
    return found;
  }
}

export const BLOCK_BYTES = 16 * 1024;
/** A sweep of x86 begins so far before its block, to be in step when it gets there; and sees so far beyond its end. */
export const LEAD_BYTES = 64;
export const TAIL_BYTES = 32;
const BLOCKS_MAX = 256;
/** Fewer in a row that seem to point into code are chance. */
const JUMPS_MIN = 3;
const JUMP_SPAN_BYTES = 256 * 1024;

/** Where a stretch of a part's bytes is. */
export interface Stretch {
  /** The bytes from `from` on, some before and behind `start` to `end`. */
  bytes: Buffer;
  /** Of the same: reads several times as fast as a Buffer's own. */
  view: DataView;
  from: number;
  start: number;
  end: number;
  /** Address of file offset 0, as this part is loaded. */
  base: number;
  part: Part;
}

export class References {
  readonly program: Program;
  readonly #read: ReadAt;
  readonly #size: number;
  readonly #finds = new Finds();
  /** The bytes that are looked at. */
  readonly #bytes = Buffer.alloc(LEAD_BYTES + BLOCK_BYTES + TAIL_BYTES);
  readonly #blocks = new Map<number, Found>();
  readonly #low: number;
  readonly #high: number;
  readonly #data: number;
  readonly #code: { low: number; high: number };
  #frames: FrameIndex | undefined;
  /** null: of a version that is not understood. */
  #functions: GoFunctions | null | undefined;
  readonly #native: Native | null;

  constructor(program: Program, read: ReadAt, size: number, native: Native | null = NATIVE) {
    this.#native = native;
    this.program = program;
    this.#read = read;
    this.#size = size;
    const code = program.parts.filter(({ form }) => form === 'code');
    this.#code = {
      low: Math.min(...code.map(({ address }) => address)),
      high: Math.max(...code.map(({ address, bytes }) => address + bytes)),
    };
    this.#low = Math.max(1, Math.min(...program.segments.map(({ address }) => address)));
    this.#high = Math.max(...program.segments.map(({ address, memoryBytes }) => address + memoryBytes));
    const pointed = program.parts.filter(
      ({ form }) => form === 'code' || form === 'constants' || form === 'pointers',
    );
    this.#data = Math.max(this.#low, Math.min(...pointed.map(({ address }) => address)));
  }

  /** Whether something of the program is there. */
  readonly holds = (address: number): boolean => address >= this.#low && address < this.#high;

  /** Whether a word that may be an address is one: what comes before code and constants is small numbers' land. */
  points(target: number): boolean {
    return target >= this.#data && target < this.#high;
  }

  /** Those of the block that has the byte at `offset`, if it is at hand; the one that was not asked for the longest is forgotten first. */
  heldAt(offset: number): Found | undefined {
    return this.#held(Math.floor(offset / BLOCK_BYTES));
  }

  at(offset: number): Promise<Found> {
    return this.block(Math.floor(offset / BLOCK_BYTES));
  }

  #held(number: number): Found | undefined {
    const known = this.#blocks.get(number);
    if (known === undefined) return undefined;
    this.#blocks.delete(number);
    this.#blocks.set(number, known);
    return known;
  }

  /** Of the block with that number, of BLOCK_BYTES; valid until another one is asked for. One call at a time. */
  async block(number: number): Promise<Found> {
    const known = this.#held(number);
    if (known !== undefined) return known;
    const start = number * BLOCK_BYTES;
    const end = Math.min(start + BLOCK_BYTES, this.#size);
    const finds = this.#finds;
    finds.clear();
    const parts = this.program.parts.filter(({ offset, bytes }) => offset < end && offset + bytes > start);
    if (parts.length > 0) {
      const from = Math.max(0, start - LEAD_BYTES);
      const bytes = this.#bytes.subarray(0, end + TAIL_BYTES - from);
      const read = await this.#read(from, Math.min(end + TAIL_BYTES, this.#size) - from, bytes);
      if (read.buffer !== bytes.buffer) bytes.set(read);
      bytes.fill(0, read.length);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      for (const part of parts) {
        await this.#sweep(finds, {
          bytes,
          view,
          from,
          start: Math.max(start, part.offset),
          end: Math.min(end, part.offset + part.bytes),
          base: part.address - part.offset,
          part,
        });
      }
    }
    let used: Found | undefined;
    if (this.#blocks.size >= BLOCKS_MAX) {
      const oldest = this.#blocks.keys().next().value as number;
      used = this.#blocks.get(oldest);
      this.#blocks.delete(oldest);
    }
    const found = finds.take(used);
    this.#blocks.set(number, found);
    return found;
  }

  async #sweep(finds: Finds, stretch: Stretch): Promise<void> {
    const { machine, fixed, inPlace } = this.program;
    const { part } = stretch;
    const { anchor } = part;
    switch (part.form) {
      case 'code':
        if ((machine === 'x86-64' || machine === 'aarch64') && this.#native !== null)
          this.#native.sweep(machine, finds, stretch, this.#low, this.#high, [fixed ? 1 : 0]);
        else if (machine === 'x86-64') sweepX86(finds, stretch, this.holds, fixed);
        else if (machine === 'aarch64') sweepAarch64(finds, stretch, this.holds);
        else if (isThumb(stretch)) sweepThumb(finds, stretch, this.holds);
        else sweepArm(finds, stretch, this.holds);
        return;
      case 'pointers':
        this.#pointers(finds, stretch, machine === 'arm' ? 4 : 8);
        return;
      case 'constants':
        if (inPlace) this.#pointers(finds, stretch, machine === 'arm' ? 4 : 8);
        if (machine !== 'arm' && !fixed) this.#jumpTables(finds, stretch);
        return;
      case 'relocations':
        if (machine === 'arm') {
          this.#pointers(finds, stretch, 8);
        } else {
          this.#pointers(finds, stretch, 24);
          this.#pointers(finds, stretch, 24, 16);
        }
        if (machine !== 'arm' && anchor !== 0) this.#indexes(finds, stretch, anchor);
        return;
      case 'symbols':
        this.#symbols(finds, stretch, anchor);
        return;
      case 'frames':
        this.#frames ??= await FrameIndex.of(part, this.#read);
        sweepFrames(finds, stretch, this.#frames);
        return;
      case 'frame-table':
        this.#offsets(finds, stretch, anchor, 12);
        return;
      case 'go-types':
        this.#offsets(finds, stretch, anchor, 0);
        return;
      case 'loose-pointers':
        this.#loose(finds, stretch);
        return;
      case 'go-functions':
        this.#functions ??= (await GoFunctions.of(part, this.#read, this.program)) ?? null;
        await this.#functions?.sweep(finds, stretch);
        return;
      case 'module-code':
        await sweepCode(finds, stretch, this.program.module as Module, this.#read);
        return;
      case 'module-data':
        await sweepData(finds, stretch, this.program.module as Module, this.#read);
        return;
    }
  }

  /** An address at `place` of each record of `every` bytes; records are aligned to the part's start. */
  #pointers(finds: Finds, stretch: Stretch, every: number, place = 0): void {
    const { view, from, start, end, part } = stretch;
    const wide = this.program.machine !== 'arm';
    if (wide && this.#native !== null) {
      this.#native.sweep('pointers', finds, stretch, this.#data, this.#high, [every, place]);
      return;
    }
    const kind = wide ? KIND.absolute64 : KIND.absolute32;
    const first = part.offset + Math.ceil((start - part.offset - place) / every) * every + place;
    const stop = Math.min(end, part.offset + part.bytes - (wide ? 7 : 3));
    for (let offset = first; offset < stop; offset += every) {
      const target = wide ? address64(view, offset - from) : view.getUint32(offset - from, true);
      if (this.points(target)) finds.add(offset, kind, target, 0);
    }
  }

  /** Elf64_Sym: name, kind, section, value, size; Elf32_Sym: name, value, size, the rest. */
  #symbols(finds: Finds, stretch: Stretch, strings: number): void {
    const { view, from, start, end, part } = stretch;
    const wide = this.program.machine !== 'arm';
    if (wide && this.#native !== null) {
      this.#native.sweep('symbols', finds, stretch, this.#low, this.#high, [strings]);
      return;
    }
    const every = wide ? 24 : 16;
    const first = part.offset + Math.max(0, Math.floor((start - part.offset) / every)) * every;
    const stop = part.offset + part.bytes;
    const add = (offset: number, kind: number, target: number, extra: number): void => {
      if (offset >= start && offset < end) finds.add(offset, kind, target, extra);
    };
    for (let offset = first; offset < end && offset + every <= stop; offset += every) {
      const at = offset - from;
      const name = view.getUint32(at, true);
      if (name !== 0 && strings !== 0) add(offset, KIND.offset32, strings + name, strings);
      const value = wide ? address64(view, at + 8) : view.getUint32(at + 4, true);
      if (!this.holds(value)) continue;
      add(offset + (wide ? 8 : 4), wide ? KIND.absolute64 : KIND.absolute32, value, 0);
      const last = value + (wide ? address64(view, at + 16) : view.getUint32(at + 8, true)) - 1;
      if (last < value || !this.holds(last)) continue;
      add(offset + (wide ? 16 : 8), wide ? KIND.length64 : KIND.length32, last, value);
    }
  }

  /** 32 bits from `anchor`, aligned, from the part's byte `skip` on. */
  #offsets(finds: Finds, stretch: Stretch, anchor: number, skip: number): void {
    if (this.#native !== null) {
      this.#native.sweep('offsets', finds, stretch, this.#low, this.#high, [anchor, skip]);
      return;
    }
    const { view, from, start, end, part } = stretch;
    const first = part.offset + Math.max(skip, Math.ceil((start - part.offset) / 4) * 4);
    for (let offset = first; offset + 4 <= end; offset += 4) {
      const target = anchor + view.getInt32(offset - from, true);
      if (this.holds(target)) finds.add(offset, KIND.offset32, target, anchor);
    }
  }

  /** Elf64_Rela: the upper half of what follows the address is the symbol's number. */
  #indexes(finds: Finds, stretch: Stretch, symbols: number): void {
    const { view, from, start, end, part } = stretch;
    const first = part.offset + Math.floor((start - part.offset) / 24) * 24;
    for (let offset = first + 12; offset + 4 <= end; offset += 24) {
      if (offset < start) continue;
      const symbol = view.getUint32(offset - from, true);
      if (symbol !== 0) finds.add(offset, KIND.index32, symbols + 24 * symbol, symbols);
    }
  }

  /**
   * Tables of i32 from their own start to code. Where one ends and the next begins does not show; counted from the first's start
   * a later one points a little beside its target, which has mostly moved as far.
   */
  #jumpTables(finds: Finds, stretch: Stretch): void {
    const { view, from, start, end, base } = stretch;
    const { low, high } = this.#code;
    if (this.#native !== null) {
      this.#native.sweep('jumpTables', finds, stretch, low, high);
      return;
    }
    // All into one function, or a few beside each other.
    const aims = (anchor: number, first: number, offset: number): boolean => {
      const value = view.getInt32(offset - from, true);
      const target = anchor + value;
      return target >= low && target < high && Math.abs(value - first) < JUMP_SPAN_BYTES;
    };
    for (let offset = Math.ceil(start / 4) * 4; offset + 4 * JUMPS_MIN <= end; ) {
      const anchor = base + offset;
      const first = view.getInt32(offset - from, true);
      let count = 0;
      while (offset + 4 * count + 4 <= end && aims(anchor, first, offset + 4 * count)) count += 1;
      if (count >= JUMPS_MIN) {
        for (let at = offset; at < offset + 4 * count; at += 4)
          finds.add(at, KIND.table32, anchor + view.getInt32(at - from, true), anchor);
      }
      offset += 4 * Math.max(1, count);
    }
  }

  #loose(finds: Finds, stretch: Stretch): void {
    if (this.#native !== null) {
      this.#native.sweep('loose', finds, stretch, this.#low, this.#high);
      return;
    }
    const { bytes, view, from, start, end, part } = stretch;
    const stop = part.offset + part.bytes;
    for (let offset = start; offset < end && offset + 8 <= stop; offset += 1) {
      const at = offset - from;
      // Most are ruled out by the bytes that are zero in all addresses of programs.
      if (bytes[at + 7] !== 0 || bytes[at + 6] !== 0 || bytes[at + 2] === 0) continue;
      const target = address64(view, at);
      if (target < 0x10000 || !this.holds(target)) continue;
      finds.add(offset, KIND.absolute64, target, 0);
      offset += 7;
    }
  }
}

/** Beyond every program's, what does not fit a number. */
function address64(view: DataView, at: number): number {
  const high = view.getUint32(at + 4, true);
  return high > 0x7fff ? UNLOADED : high * 2 ** 32 + view.getUint32(at, true);
}
