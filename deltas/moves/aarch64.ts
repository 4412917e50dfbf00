/**
 * References in AArch64 code: each instruction is a word, so each word is looked at.
 * Source: Arm Architecture Reference Manual, C4 "A64 Instruction Set Encoding".
 */
import { type Finds, KIND, LEAD_BYTES, type Stretch } from '#deltas/moves/references.ts';

const PAGE = 4096;
/** What an ADRP put into a register is taken to be there for so many instructions. */
const REACH_BYTES = 256;

/** An LDR's or STR's 12 bits count in the size of what it moves. @returns the log of that size; -1: not one of them */
export function low12Shift(word: number): number {
  if ((word & 0xffc00000) === (0x91000000 | 0)) return 0;
  if ((word & 0x3b000000) !== 0x39000000) return -1;
  const vector = (word & 0x04000000) !== 0;
  // 128 bits: size 00 and the high bit of opc.
  return vector && (word & 0x00800000) !== 0 ? 4 : word >>> 30;
}

/** Whether an instruction puts something else into the register in its low 5 bits: arithmetic, and what loads one. */
function writes(word: number): boolean {
  const group = (word >>> 25) & 15;
  if (group === 8 || group === 9 || group === 5 || group === 13) return true;
  const loads = (group & 5) === 4 && (word & 0x04000000) === 0;
  return loads && (word & 0x00c00000) !== 0;
}

export function sweepAarch64(finds: Finds, stretch: Stretch, holds: (address: number) => boolean): void {
  const { view, from, start, end, base, part } = stretch;
  const pages = new Float64Array(32);
  /** File offset of the ADRP that set the register; 0: none. */
  const setters = new Float64Array(32);
  const seen = new Uint8Array(32);
  const flush = (register: number): void => {
    const setter = setters[register] as number;
    if (setter !== 0 && setter >= start && seen[register] === 0)
      finds.add(setter, KIND.page21, pages[register] as number, 0);
    setters[register] = 0;
  };
  const first = Math.max(part.offset, start - LEAD_BYTES, from);
  for (
    let at = first + ((4 - ((first - part.offset) % 4)) % 4);
    at < end && at + 4 <= part.offset + part.bytes;
    at += 4
  ) {
    const word = view.getInt32(at - from, true);
    const pc = base + at;
    if ((word & 0x7c000000) === 0x14000000) {
      // What is called may change the first nineteen.
      if (word < 0) for (let register = 0; register <= 18; register += 1) flush(register);
      if (at < start) continue;
      const target = pc + ((word << 6) >> 4);
      if (holds(target)) finds.add(at, KIND.branch26, target, 0);
    } else if ((word & 0xff000010) === 0x54000000 || (word & 0x7e000000) === 0x34000000) {
      if (at >= start) finds.add(at, KIND.branch19, pc + (((word << 8) >> 13) << 2), 0);
    } else if ((word & 0x7e000000) === 0x36000000) {
      if (at >= start) finds.add(at, KIND.branch14, pc + (((word << 13) >> 18) << 2), 0);
    } else if ((word & 0x3b000000) === 0x18000000) {
      if (at >= start) finds.add(at, KIND.branch19, pc + (((word << 8) >> 13) << 2), 0);
    } else if ((word & 0x1f000000) === 0x10000000) {
      const high = (word << 8) >> 13;
      const value = high * 4 + ((word >>> 29) & 3);
      if (word >= 0) {
        const target = pc + value;
        if (at >= start && holds(target)) finds.add(at, KIND.near21, target, 0);
        continue;
      }
      const register = word & 31;
      flush(register);
      const page = Math.floor(pc / PAGE) * PAGE + value * PAGE;
      if (!holds(page) && !holds(page + PAGE - 1)) continue;
      setters[register] = at;
      pages[register] = page;
      seen[register] = 0;
    } else {
      const shift = low12Shift(word);
      const register = (word >>> 5) & 31;
      const setter = setters[register] as number;
      if (shift >= 0 && setter !== 0 && at - setter <= REACH_BYTES) {
        const target = (pages[register] as number) + (((word >>> 10) & 0xfff) << shift);
        if (at >= start) finds.add(at, KIND.low12, target, shift);
        // The first use says where within the page it points: the page's own move is known better so.
        if (seen[register] === 0 && setter >= start) finds.add(setter, KIND.page21, target, 0);
        seen[register] = 1;
      }
      if (writes(word)) flush(word & 31);
    }
  }
  for (let register = 0; register < 32; register += 1) if (setters[register] !== 0) flush(register);
}
