/**
 * Which token zlib would write next, by its search for matches (deflate_fast, deflate_slow, deflate_rle): the model that both sides
 * keep alike.
 *
 * Invariant: a prediction depends only on the parameters, the content up to 258 bytes ahead, and the tokens accepted so far. Part of the
 * format. Memory is fixed. Work is counted (`steps`: candidates looked at), since level 9 may look at 4,096 for one byte.
 */
import { DeltaError } from '#deltas/errors.ts';
import {
  LITERAL,
  MATCH_MAX,
  MATCH_MIN,
  tokenDistance,
  tokenLength,
  tokenOf,
} from '#deltas/streams/symbols.ts';

export interface Model {
  /** 0 predicts literals alone; 1 to 9 as zlib's. */
  level: number;
  /** Bits of the hash of three bytes, as zlib and gzip have it; 0 for the one of four bytes that Chromium's zlib has. */
  hashBits: number;
  windowBits: number;
  strategy: (typeof STRATEGIES)[number];
  /** Tokens of a block that is full. */
  blockTokens: number;
}

export const STRATEGIES = ['default', 'filtered', 'rle'] as const;

/** zlib's table: from what length on a quarter of the candidates will do, no further place is tried, the search ends; candidates. */
const LEVELS: readonly { good: number; lazy: number; nice: number; chain: number }[] = [
  { good: 0, lazy: 0, nice: 0, chain: 0 },
  { good: 4, lazy: 4, nice: 8, chain: 4 },
  { good: 4, lazy: 5, nice: 16, chain: 8 },
  { good: 4, lazy: 6, nice: 32, chain: 32 },
  { good: 4, lazy: 4, nice: 16, chain: 16 },
  { good: 8, lazy: 16, nice: 32, chain: 32 },
  { good: 8, lazy: 16, nice: 128, chain: 128 },
  { good: 8, lazy: 32, nice: 128, chain: 256 },
  { good: 32, lazy: 128, nice: 258, chain: 1024 },
  { good: 32, lazy: 258, nice: 258, chain: 4096 },
];
const FAST_LEVELS = 3;
/** A match of three bytes from farther away is worth less than three literals. */
const TOO_FAR = 4096;
/** zlib's filter: shorter matches are thought to be chance. */
const FILTERED_MIN = 6;
/** zlib keeps that much less than its window, so that what it compares is there. */
const WINDOW_SPARE = MATCH_MAX + MATCH_MIN + 1;
/** Content that is needed ahead of the position, but at the end. */
export const LOOKAHEAD = 2 * WINDOW_SPARE;
const HISTORY = 32_768;
const HISTORY_MASK = HISTORY - 1;
const BUFFER_BYTES = 8 * HISTORY;
const CHROMIUM_HASH_BITS = 15;

export class Predictor {
  readonly #model: Model;
  readonly #level: (typeof LEVELS)[number];
  readonly #fast: boolean;
  readonly #hashBits: number;
  readonly #distanceMax: number;
  readonly #bytes = new Uint8Array(BUFFER_BYTES);
  /** Last position with that hash; the one before with the same. 0 is none, which zlib cannot refer to either. */
  readonly #heads: Int32Array;
  readonly #links = new Int32Array(HISTORY);
  /** Position of the first byte that is held; behind the last. */
  #start = 0;
  #end = 0;
  #position = 0;
  /** Positions below are in the hash table, or were left out. */
  #inserted = 0;
  /** What the search that looked one ahead has found there. */
  #ahead = { position: -1, token: LITERAL };
  #predicted = LITERAL;
  ended = false;
  steps = 0;
  stepsMax = Number.POSITIVE_INFINITY;

  constructor(model: Model) {
    this.#model = model;
    this.#level = LEVELS[model.level] as (typeof LEVELS)[number];
    this.#fast = model.level <= FAST_LEVELS;
    this.#hashBits = model.hashBits === 0 ? CHROMIUM_HASH_BITS : model.hashBits;
    this.#heads = new Int32Array(1 << this.#hashBits);
    this.#distanceMax = (1 << model.windowBits) - WINDOW_SPARE;
  }

  /** For another stream. */
  reset(): void {
    this.#heads.fill(0);
    this.#start = 0;
    this.#end = 0;
    this.#position = 0;
    this.#inserted = 0;
    this.#ahead.position = -1;
    this.ended = false;
    this.steps = 0;
  }

  /** Bytes that can be taken in at once. */
  get room(): number {
    return BUFFER_BYTES - HISTORY - (this.#end - this.#position);
  }

  /** True when more content is needed before the next prediction. */
  get hungry(): boolean {
    return !this.ended && this.#end - this.#position < LOOKAHEAD;
  }

  /** Content taken in that no token accepted so far stands for. */
  get left(): number {
    return this.#end - this.#position;
  }

  get position(): number {
    return this.#position;
  }

  /** @param bytes at most `room` */
  feed(bytes: Uint8Array): void {
    if (this.#end - this.#start + bytes.length > BUFFER_BYTES) {
      const keep = Math.max(this.#position - HISTORY, this.#start);
      this.#bytes.copyWithin(0, keep - this.#start, this.#end - this.#start);
      this.#start = keep;
    }
    this.#bytes.set(bytes, this.#end - this.#start);
    this.#end += bytes.length;
  }

  /** The byte `ahead` of the position. */
  byte(ahead: number): number {
    return this.#bytes[this.#position + ahead - this.#start] as number;
  }

  /** What lies from the position on. */
  next(length: number): Uint8Array {
    const at = this.#position - this.#start;
    return this.#bytes.subarray(at, at + length);
  }

  #hash(position: number): number {
    const at = position - this.#start;
    const bytes = this.#bytes;
    const a = bytes[at] as number;
    const b = bytes[at + 1] as number;
    const c = bytes[at + 2] as number;
    const bits = this.#hashBits;
    if (this.#model.hashBits === 0) {
      const d = position + 3 < this.#end ? (bytes[at + 3] as number) : 0;
      const value = Math.imul(a | (b << 8) | (c << 16) | (d << 24), 66_521) + 66_521;
      return (value >>> 16) & ((1 << bits) - 1);
    }
    const shift = Math.trunc((bits + MATCH_MIN - 1) / MATCH_MIN);
    return ((a << (2 * shift)) ^ (b << shift) ^ c) & ((1 << bits) - 1);
  }

  /** Puts in what is below `until`. */
  #insert(until: number): void {
    const heads = this.#heads;
    const links = this.#links;
    const stop = Math.min(until, this.#end - MATCH_MIN + 1);
    for (let position = this.#inserted; position < stop; position += 1) {
      const hash = this.#hash(position);
      links[position & HISTORY_MASK] = heads[hash] as number;
      heads[hash] = position;
    }
    this.#inserted = Math.max(this.#inserted, until);
  }

  /** The first longest match for `position` that is longer than `than`, from `first` on backwards. */
  #search(position: number, first: number, than: number): number {
    const { good, nice, chain } = this.#level;
    const left = this.#end - position;
    const most = Math.min(MATCH_MAX, left);
    if (first === 0 || position - first > this.#distanceMax || than >= most) return LITERAL;
    const bytes = this.#bytes;
    const links = this.#links;
    const start = this.#start;
    const scan = position - start;
    const limit = Math.max(0, position - this.#distanceMax);
    const enough = Math.min(nice, most);
    const triesMax = than >= good ? chain >> 2 : chain;
    let tries = triesMax;
    let best = than;
    let from = 0;
    let candidate = first;
    const firstByte = bytes[scan];
    let lastByte = bytes[scan + best];
    do {
      tries -= 1;
      const at = candidate - start;
      // A longer match agrees where the best one ends, which is where most candidates do not.
      if (bytes[at + best] === lastByte && bytes[at] === firstByte) {
        let length = 1;
        while (length < most && bytes[at + length] === bytes[scan + length]) length += 1;
        if (length > best) {
          best = length;
          from = candidate;
          if (length >= enough) break;
          lastByte = bytes[scan + best];
        }
      }
      candidate = links[candidate & HISTORY_MASK] as number;
    } while (candidate > limit && tries > 0);
    this.steps += triesMax - tries;
    return from === 0 ? LITERAL : tokenOf(best, position - from);
  }

  /** Without the matches that zlib finds and does not take. */
  #worth(token: number): number {
    const length = tokenLength(token);
    if (token === LITERAL || length < MATCH_MIN) return LITERAL;
    if (this.#fast) return token;
    if (this.#model.strategy === 'filtered' && length < FILTERED_MIN) return LITERAL;
    return length === MATCH_MIN && tokenDistance(token) > TOO_FAR ? LITERAL : token;
  }

  /**
   * The token that is expected next. There must be content left.
   * @throws DeltaError `TOO_LARGE` when that took more than `stepsMax`
   */
  predict(): number {
    if (this.steps > this.stepsMax)
      throw new DeltaError('TOO_LARGE', 'streams: content that takes too long to write anew');
    this.#predicted = this.#model.strategy === 'rle' ? this.#run() : this.#match();
    return this.#predicted;
  }

  #run(): number {
    const most = Math.min(MATCH_MAX, this.left);
    if (this.#position === 0 || most < MATCH_MIN) return LITERAL;
    let length = 0;
    while (length < most && this.byte(length) === this.byte(-1)) length += 1;
    return length < MATCH_MIN ? LITERAL : tokenOf(length, 1);
  }

  #match(): number {
    const position = this.#position;
    if (this.#model.level === 0 || this.left < MATCH_MIN) return LITERAL;
    this.#insert(position + 1);
    const here =
      this.#ahead.position === position
        ? this.#ahead.token
        : this.#worth(this.#search(position, this.#links[position & HISTORY_MASK] as number, MATCH_MIN - 1));
    const length = tokenLength(here);
    if (here === LITERAL || this.#fast || length >= this.#level.lazy || this.left <= MATCH_MIN) return here;
    const first = this.#heads[this.#hash(position + 1)] as number;
    const ahead = this.#worth(this.#search(position + 1, first, length));
    if (ahead === LITERAL) return here;
    this.#ahead = { position: position + 1, token: ahead };
    return LITERAL;
  }

  /** The token that it was, which must not be longer than what is left. */
  accept(token: number): void {
    const end = this.#position + tokenLength(token);
    if (this.#model.level > 0 && this.#model.strategy !== 'rle') {
      if (token !== this.#predicted) this.#ahead.position = -1;
      this.#insert(this.#position + 1);
      // The fast levels leave out what long matches cover.
      if (this.#fast && token !== LITERAL && tokenLength(token) > this.#level.lazy) this.#inserted = end;
      else this.#insert(end);
    }
    this.#position = end;
  }

  /** Content that was stored: zlib had looked for matches in it all the same. */
  skip(length: number): void {
    for (let left = length; left > 0; left -= 1) {
      this.#predicted = LITERAL;
      this.accept(LITERAL);
    }
  }
}
