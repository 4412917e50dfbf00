/**
 * Deflate's alphabet (RFC 1951 §3.2.5): which symbol and how many extra bits stand for a length or a distance; and tokens.
 *
 * A token is a number: 0 is a literal, whose byte the content has; else `distance * 512 + length`.
 */

export const LITERAL = 0;
export const tokenOf = (length: number, distance: number): number => distance * 512 + length;
export const tokenLength = (token: number): number => (token === LITERAL ? 1 : token & 511);
export const tokenDistance = (token: number): number => token >>> 9;

export const MATCH_MIN = 3;
export const MATCH_MAX = 258;
export const DISTANCE_MAX = 32_768;
export const END_OF_BLOCK = 256;
export const LENGTHS_FROM = 257;
export const LITERALS = 286;
export const DISTANCES = 30;

function bases(extra: readonly number[], first: number): number[] {
  let base = first;
  return extra.map((bits) => {
    const here = base;
    base += 1 << bits;
    return here;
  });
}

/** By symbol, less 257. The last is 258 alone, without extra bits. */
export const LENGTH_EXTRA = [
  0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
] as const;
export const LENGTH_BASE = [...bases(LENGTH_EXTRA.slice(0, -1), MATCH_MIN), MATCH_MAX];
export const DISTANCE_EXTRA = [
  0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
] as const;
export const DISTANCE_BASE = bases(DISTANCE_EXTRA, 1);

function lookup(base: readonly number[], size: number): Uint8Array {
  const table = new Uint8Array(size);
  for (const [symbol, from] of base.entries()) table.fill(symbol, from);
  return table;
}

/** Symbol, less 257, by length; by distance. */
export const LENGTH_SYMBOL = lookup(LENGTH_BASE, MATCH_MAX + 1);
export const DISTANCE_SYMBOL = lookup(DISTANCE_BASE, DISTANCE_MAX + 1);

/** Lengths of the fixed code (RFC 1951 §3.2.6). */
export const FIXED_LITERALS = new Uint8Array(288).fill(8).fill(9, 144, 256).fill(7, 256, 280);
export const FIXED_DISTANCES = new Uint8Array(30).fill(5);
