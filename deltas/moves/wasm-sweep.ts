/**
 * References in a WebAssembly module: numbers of functions and types, and addresses of data, as LEB128 in code and in the heads of
 * segments, as words in data.
 * Source: the WebAssembly Core Specification, "Instructions"; of Go's modules the Go project's cmd/internal/obj/wasm.
 *
 * Invariant: every instruction has at least one byte, whatever the bytes are, so that a sweep ends.
 */
import type { ReadAt } from '#deltas/moves/program.ts';
import {
  BLOCK_BYTES,
  type Finds,
  KIND,
  LEAD_BYTES,
  LEB_BYTES_MAX,
  type Stretch,
} from '#deltas/moves/references.ts';
import { bodyOf, Cursor, HEAD_BYTES, type Items, type Module, segmentOf } from '#deltas/moves/wasm.ts';

/** Functions and types are pointed to by their number, counted from here: no memory reaches so far. */
export const FUNCTIONS = 2 ** 40;
export const TYPES = 2 ** 41;
/** What Go calls an address of code: from here on the number of a function that is not imported, and a place in it. */
export const GO_CODE = 0x1000_0000;
export const GO_CODE_END = 0x8000_0000;
export const GO_PLACE_BITS = 16;

/** Whether Go calls it one. Of other modules none is. */
export const isGoCode = (address: number): boolean => address >= GO_CODE && address < GO_CODE_END;
const isAddress = ({ isGo, low, high }: Module, value: number): boolean =>
  (value >= low && value < high) || (isGo && isGoCode(value));

/** What an instruction has behind its first byte. */
const NONE = 0;
const INTEGER = 1;
const FUNCTION = 2;
const TYPE = 3;
/** A type and a table. */
const TYPE_TABLE = 4;
/** How a place in memory is aligned, and what is added to it. */
const MEMORY = 5;
const I32 = 6;
const I64 = 7;
const BYTES4 = 8;
const BYTES8 = 9;
/** How many integers, and these. */
const INTEGERS = 10;
/** One more of them: where else to go. */
const TABLE = 11;
const CATCHES = 12;
/** The operation is told by the integer that follows. */
const BULK = 13;
const VECTOR = 14;
const ATOMIC = 15;

const BEHIND = new Uint8Array(256);
{
  const put = (what: number, from: number, to = from) => BEHIND.fill(what, from, to + 1);
  put(INTEGER, 0x02, 0x04);
  put(INTEGER, 0x06, 0x09);
  put(INTEGER, 0x0c, 0x0d);
  put(TABLE, 0x0e);
  put(FUNCTION, 0x10);
  put(TYPE_TABLE, 0x11);
  put(FUNCTION, 0x12);
  put(TYPE_TABLE, 0x13);
  put(TYPE, 0x14, 0x15);
  put(INTEGER, 0x18);
  put(INTEGERS, 0x1c);
  put(CATCHES, 0x1f);
  put(INTEGER, 0x20, 0x26);
  put(MEMORY, 0x28, 0x3e);
  put(INTEGER, 0x3f, 0x40);
  put(I32, 0x41);
  put(I64, 0x42);
  put(BYTES4, 0x43);
  put(BYTES8, 0x44);
  put(INTEGER, 0xd0);
  put(FUNCTION, 0xd2);
  put(BULK, 0xfc);
  put(VECTOR, 0xfd);
  put(ATOMIC, 0xfe);
}
/** How many integers, by the operation. */
const BULK_INTEGERS: readonly number[] = [0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1];

/** Gets a number, where it stands and ends, and what it counts from. */
type Tell = (value: number, at: number, end: number, space: number) => void;

/** Reads instructions and tells what they refer to. */
class Instructions {
  readonly #cursor: Cursor;
  readonly #module: Module;
  readonly #tell: Tell;

  constructor(cursor: Cursor, module: Module, tell: Tell) {
    this.#cursor = cursor;
    this.#module = module;
    this.#tell = tell;
  }

  #refer(space: number): void {
    const at = this.#cursor.at;
    const value = this.#cursor.integer();
    if (space === 0 ? isAddress(this.#module, value) : space === TYPES || value < this.#module.functions)
      this.#tell(value, at, this.#cursor.at, space);
  }

  /** An address, unless it is negative: its last byte has the sign. */
  #constant(): void {
    const { bytes, at } = this.#cursor;
    this.#cursor.skip();
    const last = bytes[this.#cursor.at - 1] ?? 0;
    if ((last & 0x40) !== 0) return;
    this.#cursor.at = at;
    this.#refer(0);
  }

  #skip(count: number): void {
    for (let one = 0; one < count && this.#cursor.at < this.#cursor.bytes.length; one += 1)
      this.#cursor.skip();
  }

  #memory(): void {
    this.#cursor.skip();
    this.#refer(0);
  }

  next(): void {
    const cursor = this.#cursor;
    const operation = cursor.byte();
    switch (BEHIND[operation]) {
      case NONE:
        return;
      case INTEGER:
        cursor.skip();
        return;
      case FUNCTION:
        this.#refer(FUNCTIONS);
        return;
      case TYPE:
        this.#refer(TYPES);
        return;
      case TYPE_TABLE:
        this.#refer(TYPES);
        cursor.skip();
        return;
      case MEMORY:
        this.#memory();
        return;
      case I32:
        this.#constant();
        return;
      case I64:
        // Where addresses have 32 bits it is none.
        if (this.#module.isGo) this.#constant();
        else cursor.skip();
        return;
      case BYTES4:
        cursor.at += 4;
        return;
      case BYTES8:
        cursor.at += 8;
        return;
      case INTEGERS:
        this.#skip(cursor.integer());
        return;
      case TABLE:
        this.#skip(cursor.integer() + 1);
        return;
      case CATCHES:
        cursor.skip();
        for (let left = cursor.integer(); left > 0 && cursor.at < cursor.bytes.length; left -= 1)
          this.#skip(cursor.byte() < 2 ? 2 : 1);
        return;
      case BULK:
        this.#skip(BULK_INTEGERS[cursor.integer()] ?? 0);
        return;
      case VECTOR:
        this.#vector(cursor.integer());
        return;
      case ATOMIC:
        // A fence has one byte.
        if (cursor.integer() === 3) cursor.at += 1;
        else this.#memory();
        return;
    }
  }

  #vector(operation: number): void {
    const cursor = this.#cursor;
    if (operation <= 11 || (operation >= 84 && operation <= 93)) this.#memory();
    // A constant, and which lanes go where.
    if (operation === 12 || operation === 13) cursor.at += 16;
    // Which lane.
    if ((operation >= 21 && operation <= 34) || (operation >= 84 && operation <= 91)) cursor.at += 1;
  }
}

/** The first item that the block has something of, and its head. */
async function entered(
  items: Items,
  { bytes, from, start }: Stretch,
  read: ReadAt,
): Promise<{ at: number; head: Uint8Array } | undefined> {
  const at = items.firstOf(Math.floor(start / BLOCK_BYTES));
  if (at === undefined) return undefined;
  return { at, head: at >= from ? bytes.subarray(at - from) : await read(at, HEAD_BYTES) };
}

/** What is written as LEB128, if it is short enough, and begins in the stretch. */
const adder =
  (finds: Finds, { from, start, end, bytes }: Stretch): Tell =>
  (value, at, behind, space) => {
    const offset = from + at;
    if (behind - at > LEB_BYTES_MAX || offset < start || offset >= end || behind > bytes.length) return;
    finds.add(offset, KIND.leb1 + behind - at - 1, space + value, space);
  };

export async function sweepCode(finds: Finds, stretch: Stretch, module: Module, read: ReadAt): Promise<void> {
  const { bytes, from, start, end } = stretch;
  const first = await entered(module.bodies, stretch, read);
  if (first === undefined) return;
  const cursor = new Cursor(bytes);
  const instructions = new Instructions(cursor, module, adder(finds, stretch));
  let body = first.at;
  let at = body;
  if (body < start) {
    const { headBytes, contentBytes } = bodyOf(first.head);
    body += headBytes + contentBytes;
    // In the midst of a body we are in step after a few instructions.
    at = Math.max(first.at, start - LEAD_BYTES, from);
  }
  cursor.at = at - from;
  while (cursor.at < end - from) {
    if (from + cursor.at < body) {
      instructions.next();
      continue;
    }
    cursor.at = body - from;
    const contentBytes = cursor.integer();
    body = from + cursor.at + contentBytes;
    // How many locals of a type, and that type.
    for (let left = cursor.integer(); left > 0 && cursor.at < end - from; left -= 1) {
      cursor.skip();
      cursor.skip();
    }
  }
}

export async function sweepData(finds: Finds, stretch: Stretch, module: Module, read: ReadAt): Promise<void> {
  const { bytes, view, from, start, end } = stretch;
  const first = await entered(module.segments, stretch, read);
  if (first === undefined) return;
  const add = adder(finds, stretch);
  const width = module.isGo ? 8 : 4;
  const kind = module.isGo ? KIND.absolute64 : KIND.absolute32;
  for (let { at, head } = first; ; head = bytes.subarray(at - from)) {
    const item = segmentOf(head);
    if (item === undefined) return;
    const { headBytes, contentBytes, address } = item;
    if (address !== undefined) {
      const field = at + address.at - from;
      add(address.value, field, field + address.bytes, 0);
    }
    const content = at + headBytes;
    at = content + contentBytes;
    // Words are aligned in memory; what has no place there yet will begin at a whole one.
    const shift = ((address?.value ?? 0) - content) % width;
    let word = Math.max(content, start);
    word += (2 * width - ((word + shift) % width)) % width;
    for (; word < Math.min(end, at - width + 1); word += width) {
      const place = word - from;
      const value = view.getUint32(place, true);
      if (isAddress(module, value) && (width === 4 || view.getUint32(place + 4, true) === 0))
        finds.add(word, kind, value, 0);
    }
    if (at >= end) return;
  }
}
