/**
 * One block of a deflate stream, written from its tokens and content.
 *
 * Invariant: without `Trees` that were given, the block is as zlib writes it: the fixed code where that is no longer, else a dynamic one.
 */

import { DeltaError } from '#deltas/errors.ts';
import type { BitReader, BitWriter } from '#deltas/streams/bits.ts';
import {
  blockBits,
  codesOf,
  LENGTH_ORDER,
  REPEAT_EXTRA,
  type Trees,
  treesBits,
  treesFor,
} from '#deltas/streams/huffman.ts';
import {
  DISTANCE_BASE,
  DISTANCE_EXTRA,
  DISTANCE_SYMBOL,
  DISTANCES,
  END_OF_BLOCK,
  FIXED_DISTANCES,
  FIXED_LITERALS,
  LENGTH_BASE,
  LENGTH_EXTRA,
  LENGTH_SYMBOL,
  LENGTHS_FROM,
  LITERAL,
  LITERALS,
  tokenDistance,
  tokenLength,
} from '#deltas/streams/symbols.ts';

export const BLOCK_TYPE = { stored: 0, fixed: 1, dynamic: 2 } as const;

/** Tokens and literals of the block that is being made. */
export class TokenBlock {
  #tokens = new Uint32Array(1024);
  #literals = Buffer.alloc(1024);
  #count = 0;
  readonly literalCounts = new Uint32Array(LITERALS);
  readonly distanceCounts = new Uint32Array(DISTANCES);

  clear(): void {
    this.#count = 0;
    this.literalCounts.fill(0);
    this.distanceCounts.fill(0);
    this.literalCounts[END_OF_BLOCK] = 1;
  }

  /** @param literal the byte, if the token is one */
  push(token: number, literal: number): void {
    if (this.#count === this.#tokens.length) this.#grow();
    this.#tokens[this.#count] = token;
    this.#literals[this.#count] = literal;
    this.#count += 1;
    const { literalCounts, distanceCounts } = this;
    const symbol = token === LITERAL ? literal : LENGTHS_FROM + (LENGTH_SYMBOL[tokenLength(token)] as number);
    literalCounts[symbol] = (literalCounts[symbol] as number) + 1;
    if (token === LITERAL) return;
    const distance = DISTANCE_SYMBOL[tokenDistance(token)] as number;
    distanceCounts[distance] = (distanceCounts[distance] as number) + 1;
  }

  #grow(): void {
    const tokens = new Uint32Array(2 * this.#tokens.length);
    tokens.set(this.#tokens);
    this.#tokens = tokens;
    this.#literals = Buffer.concat([this.#literals, Buffer.alloc(this.#literals.length)]);
  }

  /** @throws DeltaError `CORRUPT` when a symbol that is used has no code */
  write(out: BitWriter, literals: Uint8Array, distances: Uint8Array): void {
    const literalCodes = codesOf(literals);
    const distanceCodes = codesOf(distances);
    needed(this.literalCounts, literals);
    needed(this.distanceCounts, distances);
    for (let at = 0; at < this.#count; at += 1) {
      const token = this.#tokens[at] as number;
      if (token === LITERAL) {
        const literal = this.#literals[at] as number;
        out.bits(literalCodes[literal] as number, literals[literal] as number);
        continue;
      }
      const length = tokenLength(token);
      const symbol = LENGTH_SYMBOL[length] as number;
      out.bits(literalCodes[LENGTHS_FROM + symbol] as number, literals[LENGTHS_FROM + symbol] as number);
      const lengthExtra = LENGTH_EXTRA[symbol] as number;
      if (lengthExtra > 0) out.bits(length - (LENGTH_BASE[symbol] as number), lengthExtra);
      const distance = tokenDistance(token);
      const far = DISTANCE_SYMBOL[distance] as number;
      out.bits(distanceCodes[far] as number, distances[far] as number);
      const distanceExtra = DISTANCE_EXTRA[far] as number;
      if (distanceExtra > 0) out.bits(distance - (DISTANCE_BASE[far] as number), distanceExtra);
    }
    out.bits(literalCodes[END_OF_BLOCK] as number, literals[END_OF_BLOCK] as number);
  }
}

function needed(counts: Uint32Array, lengths: Uint8Array): void {
  for (const [symbol, count] of counts.entries())
    if (count > 0 && (lengths[symbol] ?? 0) === 0)
      throw new DeltaError('CORRUPT', 'streams: a symbol without a code');
}

/** What zlib would choose for this block: the trees of a dynamic one, or undefined for the fixed code. */
export function choose(block: TokenBlock): Trees | undefined {
  const { literalCounts, distanceCounts } = block;
  const trees = treesFor(literalCounts, distanceCounts);
  const bytes = (bits: number): number => (bits + 3 + 7) >> 3;
  const own = treesBits(trees) + blockBits(literalCounts, distanceCounts, trees.literals, trees.distances);
  const fixed = blockBits(literalCounts, distanceCounts, FIXED_LITERALS, FIXED_DISTANCES);
  return bytes(fixed) <= bytes(own) ? undefined : trees;
}

/** A block's codes as they stand before it (RFC 1951 §3.2.7). */
export function writeTrees(out: BitWriter, { literals, distances, lengths, written, symbols }: Trees): void {
  out.bits(literals.length - LENGTHS_FROM, 5);
  out.bits(distances.length - 1, 5);
  out.bits(written - 4, 4);
  for (const symbol of LENGTH_ORDER.slice(0, written)) out.bits(lengths[symbol] as number, 3);
  const codes = codesOf(lengths);
  for (const one of symbols) {
    const symbol = one & 31;
    out.bits(codes[symbol] as number, lengths[symbol] as number);
    if (symbol >= 16) out.bits(one >> 5, REPEAT_EXTRA[symbol - 16] as number);
  }
}

/** A table by as many bits as the longest code has: symbol above the low 4 bits, its length there; 0 for no code. */
export interface Decoder {
  bits: number;
  table: Uint16Array;
}

export function decoderOf(lengths: Uint8Array): Decoder {
  let bits = 1;
  for (const length of lengths) bits = Math.max(bits, length);
  const table = new Uint16Array(1 << bits);
  const codes = codesOf(lengths);
  for (const [symbol, length] of lengths.entries()) {
    if (length === 0) continue;
    const entry = (symbol << 4) | length;
    for (let at = (codes[symbol] as number) & ((1 << length) - 1); at < table.length; at += 1 << length)
      table[at] = entry;
  }
  return { bits, table };
}

/** @throws DeltaError `CORRUPT` */
export function decode(from: BitReader, { bits, table }: Decoder): number {
  const entry = table[from.peek(bits)] as number;
  if (entry === 0) throw new DeltaError('CORRUPT', 'streams: bits that are no code');
  from.skip(entry & 15);
  return entry >> 4;
}

/** @throws DeltaError `CORRUPT` */
export function readTrees(from: BitReader): Trees {
  const literalCount = from.bits(5) + LENGTHS_FROM;
  const distanceCount = from.bits(5) + 1;
  const written = from.bits(4) + 4;
  const lengths = new Uint8Array(LENGTH_ORDER.length);
  for (const symbol of LENGTH_ORDER.slice(0, written)) lengths[symbol] = from.bits(3);
  const decoder = decoderOf(lengths);
  const all = new Uint8Array(literalCount + distanceCount);
  const symbols: number[] = [];
  for (let at = 0; at < all.length; ) {
    const symbol = decode(from, decoder);
    const extra = symbol < 16 ? 0 : from.bits(REPEAT_EXTRA[symbol - 16] as number);
    symbols.push(symbol | (extra << 5));
    const [value, times] =
      symbol < 16
        ? [symbol, 1]
        : symbol === 16
          ? [all[at - 1], extra + 3]
          : [0, extra + (symbol === 17 ? 3 : 11)];
    if (value === undefined || times > all.length - at)
      throw new DeltaError('CORRUPT', 'streams: lengths of codes beyond their end');
    all.fill(value, at, at + times);
    at += times;
  }
  const literals = all.subarray(0, literalCount);
  const distances = all.subarray(literalCount);
  if (literalCount > LITERALS || distanceCount > DISTANCES)
    throw new DeltaError('CORRUPT', 'streams: codes for symbols that there are not');
  return { literals, distances, lengths, written, symbols };
}
