/**
 * Takes a deflate stream apart into blocks and tokens. For the maker alone, who does so with whole streams in memory.
 */
import { DeltaError } from '#deltas/errors.ts';
import { BitReader } from '#deltas/streams/bits.ts';
import { BLOCK_TYPE, type Decoder, decode, decoderOf, readTrees } from '#deltas/streams/blocks.ts';
import type { Trees } from '#deltas/streams/huffman.ts';
import {
  DISTANCE_BASE,
  DISTANCE_EXTRA,
  END_OF_BLOCK,
  FIXED_DISTANCES,
  FIXED_LITERALS,
  LENGTH_BASE,
  LENGTH_EXTRA,
  LENGTHS_FROM,
  LITERAL,
  tokenLength,
  tokenOf,
} from '#deltas/streams/symbols.ts';

export interface Block {
  type: (typeof BLOCK_TYPE)[keyof typeof BLOCK_TYPE];
  last: boolean;
  /** Tokens; bytes of one that is stored. */
  count: number;
  /** Only of a dynamic one. */
  trees: Trees | undefined;
}

export interface Tokens {
  blocks: Block[];
  /** Of all blocks but the stored ones, in order. */
  tokens: Uint32Array;
}

const FIXED = { literals: decoderOf(FIXED_LITERALS), distances: decoderOf(FIXED_DISTANCES) };

class TokenList {
  #all = new Uint32Array(4096);
  count = 0;

  push(token: number): void {
    if (this.count === this.#all.length) {
      const more = new Uint32Array(2 * this.#all.length);
      more.set(this.#all);
      this.#all = more;
    }
    this.#all[this.count++] = token;
  }

  finish(): Uint32Array {
    return this.#all.slice(0, this.count);
  }
}

/** @throws DeltaError `CORRUPT` when it is no stream, or one that the parts do not give back */
export function readTokens(packed: Uint8Array, rawBytes: number): Tokens {
  const from = new BitReader(packed, 0, 'a stream');
  const blocks: Block[] = [];
  const tokens = new TokenList();
  let made = 0;
  for (let last = false; !last; ) {
    last = from.bits(1) === 1;
    const type = from.bits(2);
    if (type === BLOCK_TYPE.stored) {
      if (from.rest() !== 0) throw new DeltaError('CORRUPT', 'a stream with bits that mean nothing');
      const [a, b, c, d] = from.take(4) as unknown as [number, number, number, number];
      const count = a | (b << 8);
      if ((count ^ (c | (d << 8))) !== 0xffff) throw new DeltaError('CORRUPT', 'no stream');
      from.take(count);
      made += count;
      blocks.push({ type, last, count, trees: undefined });
    } else if (type === BLOCK_TYPE.fixed || type === BLOCK_TYPE.dynamic) {
      const trees = type === BLOCK_TYPE.dynamic ? readTrees(from) : undefined;
      const before = tokens.count;
      const decoders =
        trees === undefined
          ? FIXED
          : { literals: decoderOf(trees.literals), distances: decoderOf(trees.distances) };
      made += readBlock(from, decoders.literals, decoders.distances, tokens, rawBytes - made);
      blocks.push({ type, last, count: tokens.count - before, trees });
    } else {
      throw new DeltaError('CORRUPT', 'no stream');
    }
  }
  if (from.rest() !== 0 || from.at !== packed.length || made !== rawBytes)
    throw new DeltaError('CORRUPT', 'a stream with more than its content');
  return { blocks, tokens: tokens.finish() };
}

/** @returns bytes that the tokens stand for */
function readBlock(
  from: BitReader,
  literals: Decoder,
  distances: Decoder,
  tokens: TokenList,
  rawBytesMax: number,
): number {
  let made = 0;
  for (;;) {
    const symbol = decode(from, literals);
    if (symbol === END_OF_BLOCK) return made;
    let token: number = LITERAL;
    if (symbol > END_OF_BLOCK) {
      const base = LENGTH_BASE[symbol - LENGTHS_FROM];
      if (base === undefined) throw new DeltaError('CORRUPT', 'no stream');
      const length = base + from.bits(LENGTH_EXTRA[symbol - LENGTHS_FROM] as number);
      // 258 has a symbol of its own; the one before could say it too, which no writer does.
      if (length === 258 && base !== 258) throw new DeltaError('CORRUPT', 'a stream with a long 258');
      const far = decode(from, distances);
      token = tokenOf(length, (DISTANCE_BASE[far] as number) + from.bits(DISTANCE_EXTRA[far] as number));
    }
    made += tokenLength(token);
    if (made > rawBytesMax) throw new DeltaError('CORRUPT', 'no stream');
    tokens.push(token);
  }
}
