/** References in x86-64 code, by one sweep over its instructions. */
import { type Finds, KIND, LEAD_BYTES, type Stretch, TAIL_BYTES } from '#deltas/moves/references.ts';
import { ABSOLUTE32, decode, fieldOf, kindOf, lengthOf, RELATIVE32 } from '#deltas/moves/x86-64.ts';

/** @param fixed the code may hold addresses of 4 bytes */
export function sweepX86(
  finds: Finds,
  stretch: Stretch,
  holds: (address: number) => boolean,
  fixed: boolean,
): void {
  const { bytes, view, from, start, end, base, part } = stretch;
  const stop = part.offset + part.bytes;
  let at = Math.max(part.offset, start - LEAD_BYTES, from);
  const last = Math.min(end, from + bytes.length - TAIL_BYTES);
  while (at < last) {
    const decoded = decode(bytes, at - from);
    const length = lengthOf(decoded);
    const field = fieldOf(decoded);
    const kind = kindOf(decoded);
    if (kind !== 0) {
      const offset = at + field;
      if (kind === RELATIVE32) {
        if (offset >= start && offset < end && offset + 4 <= stop) {
          const target = base + at + length + view.getInt32(offset - from, true);
          if (holds(target)) finds.add(offset, KIND.relative32, target, length - field);
        }
      } else if (kind === ABSOLUTE32) {
        if (fixed && offset >= start && offset < end && offset + 4 <= stop) {
          const target = view.getUint32(offset - from, true);
          if (holds(target)) finds.add(offset, KIND.absolute32, target, 0);
        }
      } else if (offset >= start && offset < end) {
        finds.add(offset, KIND.relative8, base + at + length + view.getInt8(offset - from), 1);
      }
    }
    at += length;
  }
}
