/**
 * A file as its ranges are compared: what moves with every change, the references, replaced by something that does not.
 *
 * In code a reference becomes zero, so that a function that was only moved agrees in full. In tables there would be nothing
 * left, so that there it becomes a hash of what it points to, with the references in that replaced, too.
 */
import { writeField } from '#deltas/moves/fields.ts';
import { type Program, type Segment, UNLOADED } from '#deltas/moves/program.ts';
import { BLOCK_BYTES, KIND, type References } from '#deltas/moves/references.ts';

/** As many bytes of what is pointed to say which it is. */
const LABEL_BYTES = 32;
/** Short jumps stay within their function and mostly move with it. */
const STAYS: ReadonlySet<number> = new Set([
  KIND.relative8,
  KIND.branch19,
  KIND.branch14,
  KIND.near21,
  KIND.length32,
  KIND.length64,
]);
const LABELLED: ReadonlySet<number> = new Set([
  KIND.absolute64,
  KIND.offset32,
  KIND.self32,
  KIND.index32,
  KIND.table32,
]);

interface Label {
  at: number;
  target: number;
}

/** @param bytes the whole file; unchanged */
export async function masked(bytes: Uint8Array, references: References): Promise<Uint8Array> {
  const made = Uint8Array.from(bytes);
  const view = new DataView(made.buffer);
  const { parts, segments, module } = references.program;
  const labels: Label[] = [];
  const blocks = new Set<number>();
  for (const { offset, bytes: length } of parts) {
    for (let block = Math.floor(offset / BLOCK_BYTES); block * BLOCK_BYTES < offset + length; block += 1)
      blocks.add(block);
  }
  for (const block of blocks) {
    const found = await references.block(block);
    for (let at = 0; at < found.count; at += 1) {
      const kind = found.kinds[at] as number;
      if (STAYS.has(kind) || (module !== undefined && kind < KIND.leb1)) continue;
      const offset = found.offsets[at] as number;
      writeField(view, offset, kind, 0);
      if (LABELLED.has(kind)) labels.push({ at: offset, target: found.targets[at] as number });
    }
  }
  if (!references.program.inPlace) labels.push(...relocated(bytes, references.program));
  const hashes = labels.map(({ target }) => {
    const start = offsetOf(segments, target);
    if (start === undefined) return 0;
    // What is not loaded and pointed to is a string.
    const end = target >= UNLOADED ? made.indexOf(0, start) + 1 : start + LABEL_BYTES;
    let hash = 0x811c9dc5;
    for (let at = start; at < Math.min(end, made.length); at += 1)
      hash = Math.imul(hash ^ (made[at] as number), 0x01000193);
    return hash >>> 0;
  });
  for (const [index, { at }] of labels.entries()) view.setUint32(at, hashes[index] as number, true);
  return made;
}

function offsetOf(segments: readonly Segment[], target: number): number | undefined {
  if (target >= UNLOADED) return target - UNLOADED;
  const segment = segments.find((one) => target >= one.address && target < one.address + one.fileBytes);
  return segment === undefined ? undefined : segment.offset + target - segment.address;
}

/** Where the program's loader will put addresses, there is only zero in the file: nothing that tells one place from another. */
function relocated(bytes: Uint8Array, { parts, segments }: Program): Label[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const labels: Label[] = [];
  for (const { form, offset, bytes: length, anchor } of parts) {
    if (form !== 'relocations') continue;
    for (let at = offset; at + 24 <= offset + length; at += 24) {
      const place = offsetOf(segments, Number(view.getBigUint64(at, true)));
      if (place === undefined || place + 8 > bytes.length) continue;
      const symbol = view.getUint32(at + 12, true);
      const target = symbol === 0 ? Number(view.getBigUint64(at + 16, true)) : anchor + 24 * symbol;
      labels.push({ at: place, target });
    }
  }
  return labels;
}
