/**
 * References in 32-bit Arm code: A32, whose instructions are words, and Thumb, whose are one or two half words.
 * Source: Arm Architecture Reference Manual, F3 "T32" and F4 "A32".
 */
import { type Finds, KIND, LEAD_BYTES, type Stretch } from '#deltas/moves/references.ts';

/** Nothing in a stripped file says which of the two a stretch is; but most of A32's instructions are done always, and begin with 1110. */
export function isThumb({ bytes, from, start, end }: Stretch): boolean {
  let words = 0;
  let always = 0;
  for (let at = Math.ceil(start / 4) * 4; at + 4 <= end; at += 4) {
    words += 1;
    if (((bytes[at - from + 3] as number) & 0xf0) === 0xe0) always += 1;
  }
  return 2 * always < words;
}

/** B and BL, and the constants behind the code that say how far away something is. */
export function sweepArm(finds: Finds, stretch: Stretch, holds: (address: number) => boolean): void {
  const { view, from, start, end, base, part } = stretch;
  for (let at = Math.ceil(start / 4) * 4; at < end && at + 4 <= part.offset + part.bytes; at += 4) {
    const word = view.getInt32(at - from, true);
    if ((word & 0x0e000000) !== 0x0a000000) continue;
    const target = base + at + 8 + ((word << 8) >> 6);
    if (holds(target)) finds.add(at, KIND.branch24, target, 0);
  }
}

/**
 * BL, BLX and the wide B; and the words that code loads from behind itself. Such a word counts from an instruction near it, which is not
 * looked for: counted from the word itself it points a little beside its target, which has mostly moved as far.
 */
export function sweepThumb(finds: Finds, stretch: Stretch, holds: (address: number) => boolean): void {
  const { bytes, view, from, start, end, base, part } = stretch;
  const stop = part.offset + part.bytes;
  const literals = new Set<number>();
  const literal = (at: number): void => {
    if (at < start || at >= end || at + 4 > stop || literals.has(at)) return;
    literals.add(at);
    const target = base + at + view.getInt32(at - from, true);
    if (holds(target)) finds.add(at, KIND.self32, target, 0);
  };
  const first = Math.max(part.offset, start - LEAD_BYTES, from);
  for (let at = first + (first % 2); at < end && at + 4 <= stop && at - from + 4 <= bytes.length; ) {
    const half = view.getUint16(at - from, true);
    if (half >>> 11 < 0x1d) {
      // LDR Rt, [PC, #imm8 words]
      if (half >>> 11 === 0x09) literal(Math.floor((at + 4) / 4) * 4 + 4 * (half & 0xff));
      at += 2;
      continue;
    }
    const next = view.getUint16(at - from + 2, true);
    if (half >>> 11 === 0x1e && ((next & 0x9000) === 0x9000 || (next & 0xd001) === 0xc000)) {
      // BLX changes to A32, whose instructions are aligned.
      const changes = (next & 0x1000) === 0;
      const pc = changes ? Math.floor((base + at + 4) / 4) * 4 : base + at + 4;
      const target = pc + 2 * thumbBranch(half, next);
      if (at >= start && holds(target))
        finds.add(at, changes ? KIND.thumb24Aligned : KIND.thumb24, target, 0);
    } else if (half === 0xf8df) {
      literal(Math.floor((at + 4) / 4) * 4 + (next & 0xfff));
    }
    at += 4;
  }
}

/** The signed 24 bits of a BL or B.W: S, I1, I2, 10 bits, 11 bits, where I is the inverse of J xor S. */
export function thumbBranch(first: number, second: number): number {
  const sign = (first >>> 10) & 1;
  const high = ~((second >>> 13) ^ sign) & 1;
  const low = ~((second >>> 11) ^ sign) & 1;
  const bits = (sign << 23) | (high << 22) | (low << 21) | ((first & 0x3ff) << 11) | (second & 0x7ff);
  return (bits << 8) >> 8;
}

/** The same field with another value; the other bits stay. */
export function withThumbBranch(
  first: number,
  second: number,
  value: number,
): [first: number, second: number] {
  const sign = (value >>> 23) & 1;
  const high = ~((value >>> 22) ^ sign) & 1;
  const low = ~((value >>> 21) ^ sign) & 1;
  return [
    (first & ~0x7ff) | (sign << 10) | ((value >>> 11) & 0x3ff),
    (second & ~0x2fff) | (high << 13) | (low << 11) | (value & 0x7ff),
  ];
}
