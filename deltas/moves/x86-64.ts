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
/** 0f, VEX, EVEX: the operation is told by the bytes that follow. */
const ESCAPE = 12;
/** With a ModRM byte that says whether there is an immediate. */
const TEST8 = 13;
const TESTZ = 14;

const table = (fill: number, ...ranges: [from: number, to: number, what: number][]): Uint8Array => {
  const made = new Uint8Array(256).fill(fill);
  for (const [from, to, what] of ranges) made.fill(what, from, to + 1);
  return made;
};

/** By an instruction's first byte: what follows. */
export const ONE = table(NONE);
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
  ONE.set([MODRM | TEST8, MODRM | TESTZ], 0xf6);
  put(0xfe, 0xff, MODRM);
  for (const at of [0x0f, 0x62, 0xc4, 0xc5]) ONE[at] = ESCAPE;
}

/** After 0f. */
export const TWO = table(
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

/** Kinds of references. */
export const RELATIVE32 = 1;
export const RELATIVE8 = 2;
export const ABSOLUTE32 = 3;

const SIB = 0x08;
/** By the ModRM byte: bytes of the displacement, whether a SIB byte comes before it, and above 4 bits its kind if it is a reference. */
const OPERAND = table(0, [0x00, 0x3f, 0], [0x40, 0x7f, 1], [0x80, 0xbf, (ABSOLUTE32 << 4) | 4]);
for (let modrm = 0; modrm < 0xc0; modrm += 1) {
  if ((modrm & 7) === 4) OPERAND[modrm] = (OPERAND[modrm] as number) | SIB;
  if ((modrm & 0xc7) === 5) OPERAND[modrm] = (RELATIVE32 << 4) | 4;
}
/** Of a SIB byte without a base. */
const NO_BASE = (ABSOLUTE32 << 4) | 4;

/** What is known of an instruction, in one number since some millions are looked at: its length, where in it a reference is and that one's kind; or 0. */
const pack = (length: number, at: number, kind: number): number => length | (at << 5) | (kind << 10);
export const lengthOf = (packed: number): number => packed & 0x1f;
export const fieldOf = (packed: number): number => (packed >> 5) & 0x1f;
export const kindOf = (packed: number): number => packed >> 10;

/** Of the instruction at `start`. @param start at least 32 bytes before the end of `code` */
function decodeWhole(code: Uint8Array, start: number): number {
  let at = start;
  let operand16 = false;
  let wide = false;
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
  if (what === ESCAPE) {
    if (op === 0x0f) {
      op = code[at++] as number;
      what = TWO[op] as number;
      if (op === 0x38 || op === 0x3a) at += 1;
    } else {
      const map = op === 0xc5 ? 1 : (code[at] as number) & (op === 0xc4 ? 0x1f : 0x07);
      at += op === 0xc5 ? 1 : op === 0xc4 ? 2 : 3;
      what = vexed(map, code[at++] as number);
    }
  }
  if (what === BAD) return 1;
  let immediate = what & 0x0f;
  let reference = 0;
  if ((what & MODRM) !== 0) {
    const modrm = code[at++] as number;
    let operand = OPERAND[modrm] as number;
    if ((operand & SIB) !== 0) {
      const sib = code[at++] as number;
      if (modrm < 0x40 && (sib & 7) === 5) operand = NO_BASE;
    }
    if (operand > 0x0f) reference = pack(0, at - start, operand >> 4);
    at += operand & 0x07;
    // test is the only one of its group with an immediate.
    if (immediate >= TEST8) immediate = (modrm & 0x30) !== 0 ? NONE : immediate === TEST8 ? IMM8 : IMMZ;
  }
  switch (immediate) {
    case NONE:
      break;
    case IMM8:
      at += 1;
      break;
    case IMM16:
      at += 2;
      break;
    case ENTER:
      at += 3;
      break;
    case OFFSET64:
      at += 8;
      break;
    case REL32:
      return pack(at + 4 - start, at - start, RELATIVE32);
    case REL8:
      return pack(at + 1 - start, at - start, RELATIVE8);
    default:
      if (immediate === IMM64 && wide) {
        at += 8;
      } else if (operand16) {
        at += 2;
      } else {
        if (reference === 0) reference = pack(0, at - start, ABSOLUTE32);
        at += 4;
      }
  }
  return reference | (at - start);
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

/** What `decodeWhole` said of instructions that two bytes tell, by these, and behind 0f by these: 0 is not known yet. */
const KNOWN = new Uint16Array(2 * 2 ** 16);
const TWO_KEY = 2 ** 16;
/** A REX prefix before what is known. */
const ONE_MORE = pack(1, 1, 0);

/**
 * Of the instruction at `start`. Most are looked up, which saves branches that no processor can foresee.
 * @param start at least 32 bytes before the end of `code`
 */
export function decode(code: Uint8Array, start: number): number {
  const rex = ((code[start] as number) & 0xf0) === 0x40 ? 1 : 0;
  const at = start + rex;
  const op = code[at] as number;
  const next = code[at + 1] as number;
  const key = op === 0x0f ? TWO_KEY | (next << 8) | (code[at + 2] as number) : (op << 8) | next;
  const known = KNOWN[key] as number;
  if (known !== 0) return known + rex * ONE_MORE;
  if (!isTold(key)) return decodeWhole(code, start);
  const told = decodeWhole(code, at);
  KNOWN[key] = told;
  return told + rex * ONE_MORE;
}

/** Whether no other byte, nor a prefix, has a say. */
function isTold(key: number): boolean {
  const op = (key >> 8) & 0xff;
  const what = (key < TWO_KEY ? ONE : TWO)[op] as number;
  if (what === PREFIX || what === REX || what === ESCAPE || what === BAD || what === IMM64) return false;
  if (key >= TWO_KEY && (op === 0x38 || op === 0x3a)) return false;
  return (what & MODRM) === 0 || (OPERAND[key & 0xff] as number) !== SIB;
}
