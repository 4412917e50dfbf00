/**
 * As much of a WebAssembly module as the prediction of references needs: where its code, its data and its tables of functions are.
 *
 * Invariant: nothing in the file is believed: what is not a module in every field that is used is none here, and is then patched without
 * prediction. Both sides look at the same bytes of the basis and come to the same result.
 * Source: the WebAssembly Core Specification, "Binary Format"; of Go's modules the Go project's cmd/link/internal/wasm.
 */
import { LIMITS } from '#deltas/limits.ts';
import type { Form, Part, Program, ReadAt } from '#deltas/moves/program.ts';
import { BLOCK_BYTES } from '#deltas/moves/references.ts';

const MAGIC = 0x0061736d;
const VERSION = 1;
const SECTION = {
  custom: 0,
  import: 2,
  function: 3,
  memory: 5,
  code: 10,
  data: 11,
} as const;
const PAGE_BYTES = 64 * 1024;
/** What 32 bits reach. */
const PAGES_MAX = 65_536;
const GO_SECTION = /^go[:.]buildid$/;
/** Where linkers put data when they do not say. */
const DATA_LOW = 1024;

/** What is read of a section, a body or a segment to know how long it is. */
export const HEAD_BYTES = 32;
const WINDOW_BYTES = 64 * 1024;

const I32_CONST = 0x41;
const I64_CONST = 0x42;
const GLOBAL_GET = 0x23;
const END = 0x0b;

/** Reads bytes and LEB128; behind the end there is nothing but zeros. */
export class Cursor {
  readonly bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  byte(): number {
    return this.bytes[this.at++] ?? 0;
  }

  skip(): void {
    while ((this.byte() & 0x80) !== 0);
  }

  /** As if it had no sign. Above 2^53 not exact, or NaN: greater than nothing and less than nothing. */
  integer(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const next = this.byte();
      value += (next & 0x7f) * scale;
      if (next < 0x80) return value;
    }
  }
}

/** A body of code, or a segment of data. */
export interface Item {
  /** What comes before its content. */
  headBytes: number;
  contentBytes: number;
  /** Of a segment whose place in memory is told: that place, and where in the head it stands. */
  address?: { value: number; at: number; bytes: number };
}

export function bodyOf(head: Uint8Array): Item {
  const cursor = new Cursor(head);
  const contentBytes = cursor.integer();
  return { headBytes: cursor.at, contentBytes };
}

/** @returns undefined for one that is not understood */
export function segmentOf(head: Uint8Array): Item | undefined {
  const cursor = new Cursor(head);
  const flags = cursor.integer();
  let address: Item['address'];
  if (flags === 0 || flags === 2) {
    if (flags === 2) cursor.skip();
    const operation = cursor.byte();
    const at = cursor.at;
    const value = cursor.integer();
    if (operation === I32_CONST || operation === I64_CONST) address = { value, at, bytes: cursor.at - at };
    else if (operation !== GLOBAL_GET) return undefined;
    if (cursor.byte() !== END) return undefined;
  } else if (flags !== 1) {
    return undefined;
  }
  const contentBytes = cursor.integer();
  return { headBytes: cursor.at, contentBytes, ...(address !== undefined && { address }) };
}

/** Items one behind the other: which is the first that a block has something of. */
export class Items {
  readonly #first = new Map<number, number>();

  /**
   * @param visit is told of each
   * @returns undefined when they do not end where they should
   */
  static async of(
    read: ReadAt,
    from: number,
    to: number,
    itemOf: (head: Uint8Array) => Item | undefined,
    visit: (item: Item) => void = () => {},
  ): Promise<Items | undefined> {
    const items = new Items();
    let window: Uint8Array = new Uint8Array(0);
    let start = from;
    for (let at = from; at < to; ) {
      if (at - start + HEAD_BYTES > window.length && start + window.length < to) {
        window = await read(at, Math.min(WINDOW_BYTES, to - at));
        start = at;
      }
      const item = itemOf(window.subarray(at - start, at - start + HEAD_BYTES));
      const end = item === undefined ? Number.NaN : at + item.headBytes + item.contentBytes;
      if (item === undefined || !(end <= to)) return undefined;
      visit(item);
      for (let block = Math.floor(at / BLOCK_BYTES); block * BLOCK_BYTES < end; block += 1)
        if (!items.#first.has(block)) items.#first.set(block, at);
      at = end;
    }
    return items;
  }

  /** Where that begins, perhaps before the block. */
  firstOf(block: number): number | undefined {
    return this.#first.get(block);
  }
}

/** What only modules have. */
export interface Module {
  bodies: Items;
  segments: Items;
  /** Made by Go: numbers are of 64 bits, and code has addresses, too. */
  isGo: boolean;
  /** Functions that are imported have the first numbers. */
  importedFunctions: number;
  /** With these. */
  functions: number;
  /** Of what is in memory. */
  low: number;
  high: number;
}

/** @returns undefined when it is none, or one that is not understood */
export async function readWasm(read: ReadAt, size: number): Promise<Program | undefined> {
  const bytesAt = async (offset: number, length: number): Promise<Buffer> => {
    const bytes = await read(offset, Math.max(0, Math.min(length, size - offset)));
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  };
  const head = await bytesAt(0, 8);
  if (head.length < 8 || head.readUInt32BE(0) !== MAGIC || head.readUInt32LE(4) !== VERSION) return undefined;
  const parts: Part[] = [];
  const put = (form: Form, offset: number, end: number): void => {
    if (end > offset) parts.push({ form, offset, bytes: end - offset, address: offset, anchor: 0 });
  };
  let imported = { functions: 0, pages: 0 };
  let bodies: Items | undefined;
  let segments: Items | undefined;
  let [isGo, own, pages, low, high] = [false, 0, 0, Number.POSITIVE_INFINITY, 0];
  let sections = 0;
  for (let at = 8; at < size; sections += 1) {
    if (sections === LIMITS.wasmSectionsMax) return undefined;
    const cursor = new Cursor(await bytesAt(at, HEAD_BYTES));
    const id = cursor.byte();
    const length = cursor.integer();
    const offset = at + cursor.at;
    const end = offset + length;
    if (!(end <= size)) return undefined;
    // Of a custom section the length of its name, of others how many things there are.
    const count = cursor.integer();
    const first = at + cursor.at;
    switch (id) {
      case SECTION.custom:
        isGo ||= GO_SECTION.test((await bytesAt(first, Math.min(count, HEAD_BYTES))).toString('latin1'));
        break;
      case SECTION.import:
        imported = importsOf(await bytesAt(offset, Math.min(length, LIMITS.wasmImportsBytesMax)));
        break;
      case SECTION.function:
        own = count;
        break;
      case SECTION.memory:
        // Flags come first.
        cursor.skip();
        pages = cursor.integer();
        break;
      case SECTION.code:
        bodies = await Items.of(read, first, end, bodyOf);
        put('module-code', first, end);
        break;
      case SECTION.data:
        segments = await Items.of(read, first, end, segmentOf, ({ address, contentBytes }) => {
          if (address === undefined) return;
          low = Math.min(low, address.value);
          high = Math.max(high, address.value + contentBytes);
        });
        put('module-data', first, end);
        break;
    }
    at = end;
  }
  if (bodies === undefined || segments === undefined) return undefined;
  // Compilers other than Go's point to what is not in the file, too: zeros, and segments whose place the code tells.
  if (!isGo) high = Math.max(high, PAGE_BYTES * Math.min(Math.max(pages, imported.pages), PAGES_MAX));
  low = Math.min(low, Math.max(DATA_LOW, high));
  const functions = imported.functions + own;
  return {
    machine: 'wasm',
    fixed: false,
    inPlace: true,
    segments: [{ offset: 0, address: 0, fileBytes: size, memoryBytes: size }],
    parts,
    anchors: [],
    module: { bodies, segments, isGo, importedFunctions: imported.functions, functions, low, high },
  };
}

/** Of a section of imports; as far as it is there. */
function importsOf(section: Uint8Array): { functions: number; pages: number } {
  const cursor = new Cursor(section);
  let [functions, pages] = [0, 0];
  /** @returns the least */
  const limits = (): number => {
    const flags = cursor.byte();
    const least = cursor.integer();
    if ((flags & 1) !== 0) cursor.skip();
    return least;
  };
  for (let left = cursor.integer(); left > 0 && cursor.at < section.length; left -= 1) {
    for (let name = 0; name < 2; name += 1) {
      const bytes = cursor.integer();
      cursor.at += bytes;
    }
    switch (cursor.byte()) {
      case 0:
        functions += 1;
        cursor.skip();
        break;
      case 1:
        cursor.skip();
        limits();
        break;
      case 2:
        pages = limits();
        break;
      default:
        cursor.byte();
        cursor.skip();
    }
  }
  return { functions, pages };
}
