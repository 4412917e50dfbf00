/**
 * Lengths of x86-64 instructions, and where in them a reference is.
 * Source: Intel's manual, volume 2: chapter 2 and the opcode maps of appendix A.
 *
 * Invariant: every position gives a length of at least 1 and at most 15, whatever the bytes are, so that a sweep ends; what is no
 * instruction counts as one byte. A sweep that began in the middle of an instruction is right again after a few.
 */

const MODRM = 0x80;
const NONE = 0;
const IMM8 = 1;
const IMM16 = 2;
/** 4 bytes, 2 with an operand-size prefix. */
const IMMZ = 3;
/** 4 bytes, 8 with REX.W. */
const IMM64 = 4;
const OFFSET64 = 5;
const ENTER = 6;
const REL32 = 7;
const REL8 = 8;
const PREFIX = 9;
const REX = 10;
const BAD = 11;

const table = (fill: number, ...ranges: [from: number, to: number, what: number][]): Uint8Array => {
  const made = new Uint8Array(256).fill(fill);
  for (const [from, to, what] of ranges) made.fill(what, from, to + 1);
  return made;
};

const ONE = table(NONE);
{
  for (let row = 0; row < 0x40; row += 8) {
    ONE.fill(MODRM, row, row + 4);
    ONE.set([IMM8, IMMZ, BAD, BAD], row + 4);
  }
  const put = (from: number, to: number, what: number) => ONE.fill(what, from, to + 1);
  for (const at of [0x26, 0x2e, 0x36, 0x3e, 0xf0, 0xf2, 0xf3]) ONE[at] = PREFIX;
  put(0x40, 0x4f, REX);
  put(0x60, 0x62, BAD);
  ONE[0x63] = MODRM;
  put(0x64, 0x67, PREFIX);
  ONE.set([IMMZ, MODRM | IMMZ, IMM8, MODRM | IMM8], 0x68);
  put(0x70, 0x7f, REL8);
  ONE.set([MODRM | IMM8, MODRM | IMMZ, BAD, MODRM | IMM8], 0x80);
  put(0x84, 0x8f, MODRM);
  ONE[0x9a] = BAD;
  put(0xa0, 0xa3, OFFSET64);
  ONE.set([IMM8, IMMZ], 0xa8);
  put(0xb0, 0xb7, IMM8);
  put(0xb8, 0xbf, IMM64);
  ONE.set(
    [MODRM | IMM8, MODRM | IMM8, IMM16, NONE, BAD, BAD, MODRM | IMM8, MODRM | IMMZ, ENTER, NONE, IMM16],
    0xc0,
  );
  ONE.set([IMM8, BAD], 0xcd);
  put(0xd0, 0xd3, MODRM);
  put(0xd4, 0xd6, BAD);
  put(0xd8, 0xdf, MODRM);
  put(0xe0, 0xe3, REL8);
  put(0xe4, 0xe7, IMM8);
  ONE.set([REL32, REL32, BAD, REL8], 0xe8);
  put(0xf6, 0xf7, MODRM);
  put(0xfe, 0xff, MODRM);
}

/** After 0f. */
const TWO = table(
  MODRM,
  [0x04, 0x04, BAD],
  [0x05, 0x09, NONE],
  [0x0a, 0x0a, BAD],
  [0x0b, 0x0b, NONE],
  [0x0c, 0x0c, BAD],
  [0x0e, 0x0e, NONE],
  [0x0f, 0x0f, MODRM | IMM8],
  [0x30, 0x37, NONE],
  [0x3a, 0x3a, MODRM | IMM8],
  [0x70, 0x73, MODRM | IMM8],
  [0x77, 0x77, NONE],
  [0x80, 0x8f, REL32],
  [0xa0, 0xa2, NONE],
  [0xa4, 0xa4, MODRM | IMM8],
  [0xa8, 0xaa, NONE],
  [0xac, 0xac, MODRM | IMM8],
  [0xba, 0xba, MODRM | IMM8],
  [0xc2, 0xc2, MODRM | IMM8],
  [0xc4, 0xc6, MODRM | IMM8],
  [0xc8, 0xcf, NONE],
);

/** What `decode` found besides the length; one object, since it is asked some millions of times. */
export const found = { at: 0, kind: 0 };
export const RELATIVE32 = 1;
export const RELATIVE8 = 2;
export const ABSOLUTE32 = 3;

/**
 * @param end at least 16 bytes before the end of `code` where the true bytes matter; beyond it counts as zero
 * @returns length of the instruction at `start`; `found` tells its reference
 */
export function decode(code: Uint8Array, start: number): number {
  found.at = 0;
  let at = start;
  let operand16 = false;
  let wide = false;
  let first = false;
  let op = code[at++] as number;
  let what = ONE[op] as number;
  for (let prefixes = 0; what === PREFIX; prefixes += 1) {
    if (prefixes === 10) return 1;
    if (op === 0x66) operand16 = true;
    op = code[at++] as number;
    what = ONE[op] as number;
  }
  if (what === REX) {
    wide = (op & 8) !== 0;
    op = code[at++] as number;
    what = ONE[op] as number;
    if (what === PREFIX || what === REX) return 1;
  }
  if (op === 0x0f) {
    op = code[at++] as number;
    what = TWO[op] as number;
    if (op === 0x38 || op === 0x3a) at += 1;
  } else if (op === 0xc5) {
    at += 1;
    op = code[at++] as number;
    what = vexed(1, op);
  } else if (op === 0xc4) {
    const map = (code[at] as number) & 0x1f;
    at += 2;
    op = code[at++] as number;
    what = vexed(map, op);
  } else if (op === 0x62) {
    const map = (code[at] as number) & 7;
    at += 3;
    op = code[at++] as number;
    what = vexed(map, op);
  } else {
    first = true;
  }
  if (what === BAD) return 1;
  if (what === REL32) {
    found.at = at - start;
    found.kind = RELATIVE32;
    return at + 4 - start;
  }
  if (what === REL8) {
    found.at = at - start;
    found.kind = RELATIVE8;
    return at + 1 - start;
  }
  let immediate = what & 0x0f;
  if ((what & MODRM) !== 0) {
    const modrm = code[at++] as number;
    const mod = modrm >> 6;
    const rm = modrm & 7;
    if (mod !== 3) {
      if (rm === 4) {
        const sib = code[at++] as number;
        if (mod === 0 && (sib & 7) === 5) {
          found.at = at - start;
          found.kind = ABSOLUTE32;
          at += 4;
        }
      } else if (mod === 0 && rm === 5) {
        found.at = at - start;
        found.kind = RELATIVE32;
        at += 4;
      }
      if (mod === 1) at += 1;
      else if (mod === 2) {
        found.at = at - start;
        found.kind = ABSOLUTE32;
        at += 4;
      }
    }
    // test is the only one of its group with an immediate.
    if (first && (op === 0xf6 || op === 0xf7) && (modrm & 0x30) === 0) immediate = op === 0xf6 ? IMM8 : IMMZ;
  }
  switch (immediate) {
    case IMM8:
      return at + 1 - start;
    case IMM16:
      return at + 2 - start;
    case IMMZ:
      if (operand16) return at + 2 - start;
      if (found.at === 0) {
        found.at = at - start;
        found.kind = ABSOLUTE32;
      }
      return at + 4 - start;
    case IMM64:
      if (wide) return at + 8 - start;
      if (operand16) return at + 2 - start;
      found.at = at - start;
      found.kind = ABSOLUTE32;
      return at + 4 - start;
    case OFFSET64:
      return at + 8 - start;
    case ENTER:
      return at + 3 - start;
    default:
      return at - start;
  }
}

/** VEX and EVEX use the same maps, all with a ModRM byte but vzeroupper. */
function vexed(map: number, op: number): number {
  if (map === 1) {
    if (op === 0x77) return NONE;
    return (op >= 0x70 && op <= 0x73) || op === 0xc2 || (op >= 0xc4 && op <= 0xc6) ? MODRM | IMM8 : MODRM;
  }
  if (map === 3) return MODRM | IMM8;
  return map === 2 || map === 5 || map === 6 ? MODRM : BAD;
}
