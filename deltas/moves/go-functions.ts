/**
 * References in Go's table of functions: names and files by their place in tables beside it, code by its distance from `.text`. A
 * small change moves nearly all of them by a little. Places in the table of pc values are left as they are: most of them move
 * alike, and what differs costs less than what a prediction misses (measured: 233 kB instead of 253 kB).
 * Source: the Go project's internal/abi/symtab.go and runtime/symtab.go, of Go 1.20 and later.
 *
 * Layout: a header; tables of names, of compilation units, of files and of pc values; then, for each function, the distance of its code
 * and of its record; then the records.
 */
import type { Part, Program, ReadAt } from '#deltas/moves/program.ts';
import { type Finds, KIND, type Stretch } from '#deltas/moves/references.ts';

/** Go 1.20 and later. */
const MAGIC = 0xfffffff1;
/** Before the table of records there are at most so many functions. */
const FUNCTIONS_MAX = 8_000_000;
const RECORD_BYTES = 44;
/** A file that none of a unit's functions has lines of. */
const NO_FILE = 0xffffffff;
/** More values than any function has; a record that claims more is none. */
const VALUES_MAX = 64;

export class GoFunctions {
  readonly #read: ReadAt;
  readonly #part: Part;
  readonly #count: number;
  /** Addresses of the tables. */
  readonly #text: number;
  readonly #names: number;
  readonly #units: number;
  readonly #files: number;
  readonly #functions: number;

  private constructor(read: ReadAt, part: Part, text: number, count: number, places: number[]) {
    this.#read = read;
    this.#part = part;
    this.#text = text;
    this.#count = count;
    [this.#names, this.#units, this.#files, this.#functions] = places as [number, number, number, number];
  }

  /** @returns undefined for a table of another version of Go */
  static async of(part: Part, read: ReadAt, program: Program): Promise<GoFunctions | undefined> {
    const head = await read(part.offset, 72);
    if (head.length < 72 || part.bytes < 72) return undefined;
    const view = new DataView(head.buffer, head.byteOffset, head.length);
    if (view.getUint32(0, true) !== MAGIC || view.getUint8(7) !== 8) return undefined;
    const word = (at: number): number => Number(view.getBigUint64(at, true));
    const count = word(8);
    const text =
      word(24) !== 0 ? word(24) : (program.anchors.find(({ name }) => name === '.text')?.address ?? 0);
    const places = [word(32), word(40), word(48), word(64)];
    if (count > FUNCTIONS_MAX || places.some((place) => place >= part.bytes)) return undefined;
    return new GoFunctions(read, part, text, count, places);
  }

  async sweep(finds: Finds, stretch: Stretch): Promise<void> {
    const { bytes, view, from, start, end } = stretch;
    const { offset, bytes: length, address } = this.#part;
    const stop = offset + length;
    const functions = offset + this.#functions;
    const records = functions + 8 * this.#count + 4;
    const add = (at: number, target: number, anchor: number): void => {
      if (at >= start && at < end && at + 4 <= stop) finds.add(at, KIND.go32, target, anchor);
    };
    const value = (at: number): number => view.getUint32(at - from, true);
    const [units, files] = [offset + this.#units, offset + this.#files];
    for (
      let at = units + Math.max(0, Math.floor((start - units) / 4)) * 4;
      at < Math.min(end, files);
      at += 4
    ) {
      if (at < from || at + 4 > from + bytes.length || value(at) === NO_FILE) continue;
      add(at, address + this.#files + value(at), address + this.#files);
    }
    for (
      let at = functions + Math.max(0, Math.floor((start - functions) / 4)) * 4;
      at < Math.min(end, records);
      at += 4
    ) {
      if (at < from || at + 4 > from + bytes.length) continue;
      const table = (at - functions) % 8 === 0 ? this.#text : address + this.#functions;
      add(at, table + value(at), table);
    }
    if (end <= records) return;
    for (let at = await this.#recordBefore(start, functions); at < end && at + RECORD_BYTES <= stop; ) {
      // What began before the stretch was seen only in part.
      const record =
        at >= from && at + RECORD_BYTES + 4 * VALUES_MAX <= from + bytes.length
          ? bytes.subarray(at - from)
          : await this.#bytes(at);
      if (record.length < RECORD_BYTES) return;
      const word = (place: number): number => record.readUInt32LE(place);
      const [values, others] = [word(28), record[43] ?? 0];
      if (values > VALUES_MAX || others > VALUES_MAX) return;
      add(at, this.#text + word(0), this.#text);
      add(at + 4, address + this.#names + word(4), address + this.#names);
      at += RECORD_BYTES + 4 * (values + others);
    }
  }

  async #bytes(at: number): Promise<Buffer> {
    const some = await this.#read(at, RECORD_BYTES + 4 * VALUES_MAX);
    return Buffer.from(some.buffer, some.byteOffset, some.length);
  }

  /** The last record that begins at or before `start`, by the table of functions, which is in the same order. */
  async #recordBefore(start: number, functions: number): Promise<number> {
    let low = 0;
    let high = this.#count;
    let found = functions + 8 * this.#count + 4;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const entry = await this.#read(functions + 8 * middle + 4, 4);
      if (entry.length < 4) return found;
      const at = functions + new DataView(entry.buffer, entry.byteOffset, 4).getUint32(0, true);
      if (at <= start) {
        found = at;
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return found;
  }
}
