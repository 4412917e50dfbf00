/**
 * References in `.eh_frame`: of each description, where its code is, how long that is, which common part it shares and where
 * its table of handlers is.
 * Source: the Linux Standard Base, "Exception Frames".
 *
 * Invariant: the index is made by one pass over the section, so that any block can be looked at alone.
 */
import { LIMITS } from '#deltas/limits.ts';
import type { Part, ReadAt } from '#deltas/moves/program.ts';
import { BLOCK_BYTES, type Finds, KIND, LEAD_BYTES, type Stretch } from '#deltas/moves/references.ts';

/** A pointer of 4 signed bytes, from the field itself: what compilers write on all machines here. */
const SELF_32 = 0x1b;

export class FrameIndex {
  /** First record that begins in each block of the file, by the block's number. */
  readonly first = new Map<number, number>();
  /** Last record that begins in each. */
  readonly last = new Map<number, number>();
  /** Common parts, by their place in the file, whose descriptions have a table of handlers. */
  readonly handled = new Set<number>();

  static async of(part: Part, read: ReadAt): Promise<FrameIndex> {
    const index = new FrameIndex();
    const end = part.offset + part.bytes;
    let window: Buffer = Buffer.alloc(0);
    let from = part.offset;
    for (let at = part.offset; at + 8 <= end; ) {
      if (at - from + 64 > window.length && from + window.length < end) {
        const some = await read(at, Math.min(BLOCK_BYTES, end - at));
        window = Buffer.from(some.buffer, some.byteOffset, some.length);
        from = at;
        if (window.length < 8) break;
      }
      const place = at - from;
      const length = window.readUInt32LE(place);
      const block = Math.floor(at / BLOCK_BYTES);
      if (!index.first.has(block)) index.first.set(block, at);
      index.last.set(block, at);
      // 64-bit descriptions are not written by any linker; zero ends the section.
      if (length === 0 || length === 0xffffffff || length > end - at - 4) break;
      if (window.readUInt32LE(place + 4) === 0 && hasHandlers(window.subarray(place, place + 4 + length)))
        if (index.handled.size < LIMITS.elfFramesMax) index.handled.add(at);
      at += 4 + length;
    }
    return index;
  }
}

/** Whether a common part says `L` with a pointer of that form. */
function hasHandlers(record: Buffer): boolean {
  const end = record.indexOf(0, 9);
  if (record[9] !== 0x7a || end < 0) return false;
  const letters = record.toString('latin1', 10, end);
  let at = end + 1;
  // Code alignment, data alignment, return register, length: LEB128.
  for (let count = 0; count < 4; count += 1) {
    while (((record[at] ?? 0) & 0x80) !== 0) at += 1;
    at += 1;
  }
  for (const letter of letters) {
    if (letter === 'L') return record[at] === SELF_32;
    if (letter === 'R') at += 1;
    else if (letter === 'P') at += (record[at] ?? 0) === 0 ? 9 : 5;
    else if (letter !== 'S' && letter !== 'B') return false;
  }
  return false;
}

export function sweepFrames(finds: Finds, stretch: Stretch, index: FrameIndex): void {
  const { bytes, view, from, start, end, base, part } = stretch;
  const first = index.first.get(Math.floor(start / BLOCK_BYTES));
  if (first === undefined) return;
  const stop = part.offset + part.bytes;
  const add = (offset: number, width: number, kind: number, target: number, extra: number): void => {
    if (offset >= start && offset < end && offset + width <= stop) finds.add(offset, kind, target, extra);
  };
  // One that began in the block before may reach into this.
  const before = index.last.get(Math.floor(start / BLOCK_BYTES) - 1);
  for (
    let at = before !== undefined && start - before < LEAD_BYTES ? before : first;
    at < end && at + 20 <= stop;
  ) {
    const place = at - from;
    if (place + 24 > bytes.length) return;
    const length = view.getUint32(place, true);
    if (length === 0 || length === 0xffffffff) return;
    const id = view.getUint32(place + 4, true);
    if (id !== 0 && length >= 13) {
      const common = at + 4 - id;
      add(at + 4, 4, KIND.backward32, base + common, 0);
      const code = base + at + 8 + view.getInt32(place + 8, true);
      add(at + 8, 4, KIND.self32, code, 0);
      const codeBytes = view.getUint32(place + 12, true);
      if (codeBytes > 0) add(at + 12, 4, KIND.length32, code + codeBytes - 1, code);
      if (index.handled.has(common) && bytes[place + 16] === 4) {
        const handlers = view.getInt32(place + 17, true);
        if (handlers !== 0) add(at + 17, 4, KIND.self32, base + at + 17 + handlers, 0);
      }
    }
    at += 4 + length;
  }
}
