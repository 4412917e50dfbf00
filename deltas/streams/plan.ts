/**
 * What a maker says about the deflate streams of one file: which of the old file's to open, where those of the new one go, and in what
 * they differ from what zlib would have written. One chunk, in columns (docs/delta-format.md §4.7).
 *
 * Invariant: what is read lies within its files and within limits.ts, or a DeltaError; `finish` holds that all of it was used.
 */
import { ByteReader, ByteWriter } from '#deltas/bytes.ts';
import { DeltaError } from '#deltas/errors.ts';
import { LIMITS } from '#deltas/limits.ts';
import { BitReader, BitWriter } from '#deltas/streams/bits.ts';
import { readTrees, writeTrees } from '#deltas/streams/blocks.ts';
import type { Trees } from '#deltas/streams/huffman.ts';
import { type Model, STRATEGIES } from '#deltas/streams/predictor.ts';
import {
  DISTANCE_MAX,
  LITERAL,
  MATCH_MAX,
  MATCH_MIN,
  tokenDistance,
  tokenLength,
  tokenOf,
} from '#deltas/streams/symbols.ts';

/** Part of the format. */
const COLUMNS = [
  'models',
  'olds',
  'news',
  'blocks',
  'counts',
  'trees',
  'skips',
  'lengths',
  'distances',
] as const;
type Column = (typeof COLUMNS)[number];

/**
 * A stream in a file. With a `frame` it is a PNG's: 2 bytes, the stream and 4 bytes, cut into IDAT chunks of that many bytes each, the
 * last of fewer; the place is that of the first chunk, and the 6 bytes stay with the content.
 */
export interface OldStream {
  offset: number;
  packedBytes: number;
  rawBytes: number;
  frame: number;
}
export interface NewStream {
  /** Bytes before it that stay as they are. */
  gap: number;
  rawBytes: number;
  frame: number;
  /** Which of the models. */
  model: number;
}

/** What a frame leaves beside the stream: zlib's header and checksum. */
export const FRAME_EDGE = { before: 2, after: 4 } as const;
const FRAME_EDGES = FRAME_EDGE.before + FRAME_EDGE.after;
/** Length, type and CRC of a PNG's chunk. */
export const CHUNK_BYTES = 12;

export const edges = (frame: number): number => (frame === 0 ? 0 : FRAME_EDGES);
/** Bytes in the file of a stream of so many. */
export function placeBytes(packedBytes: number, frame: number): number {
  if (frame === 0) return packedBytes;
  return packedBytes + FRAME_EDGES + CHUNK_BYTES * Math.ceil((packedBytes + FRAME_EDGES) / frame);
}

/** How a block is written, where that is not as expected. */
const BLOCK_FLAGS = { kind: 0x03, trees: 0x04, count: 0x08, last: 0x10 } as const;
const KINDS = ['chosen', 'stored', 'fixed', 'dynamic'] as const;

export interface BlockPlan {
  /** `chosen`: as zlib does. */
  kind: (typeof KINDS)[number];
  /** Only of a dynamic one; undefined: as zlib makes them. */
  trees: Trees | undefined;
  /** Tokens, or bytes of a stored one; undefined: as many as a full one has. */
  count: number | undefined;
  /** True when it is the last though content is left, or is not though none is. */
  lastDiffers: boolean;
}

export class PlanWriter {
  readonly #columns = Object.fromEntries(COLUMNS.map((name) => [name, new ByteWriter()])) as Record<
    Column,
    ByteWriter
  >;
  readonly #trees = new BitWriter();
  #right = 0;
  #oldEnd = 0;
  #counts = { models: 0, olds: 0, news: 0 };

  get length(): number {
    let sum = 0;
    for (const name of COLUMNS) sum += this.#columns[name].length;
    return sum + this.#trees.length;
  }

  model({ level, hashBits, windowBits, strategy, blockTokens }: Model): void {
    const { models } = this.#columns;
    for (const value of [level, hashBits, windowBits, STRATEGIES.indexOf(strategy)]) models.byte(value);
    models.integer(blockTokens);
    this.#counts.models += 1;
  }

  old({ offset, packedBytes, rawBytes, frame }: OldStream): void {
    for (const value of [offset - this.#oldEnd, packedBytes, rawBytes, frame])
      this.#columns.olds.integer(value);
    this.#oldEnd = offset + placeBytes(packedBytes, frame);
    this.#counts.olds += 1;
  }

  young({ gap, rawBytes, frame, model }: NewStream): void {
    for (const value of [gap, rawBytes, frame, model]) this.#columns.news.integer(value);
    this.#counts.news += 1;
  }

  block({ kind, trees, count, lastDiffers }: BlockPlan): void {
    const { blocks, counts } = this.#columns;
    const flags =
      (trees === undefined ? 0 : BLOCK_FLAGS.trees) |
      (count === undefined ? 0 : BLOCK_FLAGS.count) |
      (lastDiffers ? BLOCK_FLAGS.last : 0);
    blocks.byte(KINDS.indexOf(kind) | flags);
    if (count !== undefined) counts.integer(count);
    if (trees === undefined) return;
    writeTrees(this.#trees, trees);
    this.#trees.align();
  }

  /** So many tokens were as predicted. */
  right(count: number): void {
    this.#right += count;
  }

  wrong(token: number): void {
    const { skips, lengths, distances } = this.#columns;
    skips.integer(this.#right);
    this.#right = 0;
    lengths.integer(token === LITERAL ? 0 : tokenLength(token) - MATCH_MIN + 1);
    if (token !== LITERAL) distances.integer(tokenDistance(token));
  }

  finish(): Buffer {
    const out = new ByteWriter();
    this.#columns.trees.bytes(this.#trees.take());
    for (const count of Object.values(this.#counts)) out.integer(count);
    for (const name of COLUMNS) out.integer(this.#columns[name].length);
    for (const name of COLUMNS) out.bytes(this.#columns[name].finish());
    return out.finish();
  }
}

const corrupt = (why: string): DeltaError => new DeltaError('CORRUPT', `streams: ${why}`);

export class PlanReader {
  readonly models: Model[] = [];
  readonly olds: OldStream[] = [];
  readonly news: NewStream[] = [];
  readonly #columns: Record<Column, ByteReader>;
  readonly #trees: BitReader;
  readonly #treesBytes: number;
  #right = Number.POSITIVE_INFINITY;

  /**
   * @param oldBytes of the old file; @param openedBytes of the new one with its streams opened
   * @throws DeltaError `CORRUPT`, `TOO_LARGE`
   */
  constructor(chunk: Buffer, oldBytes: number, openedBytes: number) {
    const reader = new ByteReader(chunk, 'streams');
    const counts = {
      models: reader.integer(LIMITS.streamModelsMax),
      olds: reader.integer(LIMITS.streamsMax),
      news: reader.integer(LIMITS.streamsMax),
    };
    const lengths = COLUMNS.map(() => reader.integer(chunk.length));
    const bytes = COLUMNS.map((_, at) => reader.bytes(lengths[at] as number));
    if (reader.left > 0) throw corrupt('bytes behind the last column');
    this.#columns = Object.fromEntries(
      COLUMNS.map((name, at) => [name, new ByteReader(bytes[at] as Buffer, `streams column ${name}`)]),
    ) as Record<Column, ByteReader>;
    const trees = bytes[COLUMNS.indexOf('trees')] as Buffer;
    this.#treesBytes = trees.length;
    this.#trees = new BitReader(trees, 0, 'streams column trees');
    for (let at = 0; at < counts.models; at += 1) this.models.push(this.#model());
    for (let at = 0, end = 0; at < counts.olds; at += 1) end = this.#old(end, oldBytes);
    for (let at = 0, place = 0; at < counts.news; at += 1) place = this.#young(place, openedBytes);
    this.#nextWrong();
  }

  #model(): Model {
    const { models } = this.#columns;
    const [level, hashBits, windowBits, at] = [models.byte(), models.byte(), models.byte(), models.byte()];
    const blockTokens = models.integer(LIMITS.blockTokensMax);
    const strategy = STRATEGIES[at];
    const known = level <= 9 && (hashBits === 0 || (hashBits >= 8 && hashBits <= 16));
    if (!known || windowBits < 9 || windowBits > 15 || strategy === undefined || blockTokens === 0)
      throw corrupt('a model that there is not');
    return { level, hashBits, windowBits, strategy, blockTokens };
  }

  #old(end: number, oldBytes: number): number {
    const { olds } = this.#columns;
    const offset = end + olds.integer(oldBytes - end);
    const [packedBytes, rawBytes, frame] = [
      olds.integer(oldBytes),
      olds.integer(LIMITS.openedBytesMax),
      olds.integer(),
    ];
    const next = offset + placeBytes(packedBytes, frame);
    if (next > oldBytes) throw corrupt('a stream outside its file');
    this.olds.push({ offset, packedBytes, rawBytes, frame });
    return next;
  }

  #young(place: number, openedBytes: number): number {
    const { news } = this.#columns;
    const gap = news.integer(openedBytes - place);
    const [rawBytes, frame, model] = [news.integer(openedBytes), news.integer(), news.integer()];
    const next = place + gap + rawBytes + edges(frame);
    if (next > openedBytes || frame > LIMITS.pngChunkBytesMax || model >= this.models.length)
      throw corrupt('a stream outside its file');
    this.news.push({ gap, rawBytes, frame, model });
    return next;
  }

  block(): BlockPlan {
    const { blocks, counts } = this.#columns;
    const flags = blocks.byte();
    if (flags > 0x1f) throw corrupt('an unknown kind of block');
    const kind = KINDS[flags & BLOCK_FLAGS.kind] as BlockPlan['kind'];
    const count = (flags & BLOCK_FLAGS.count) === 0 ? undefined : counts.integer(LIMITS.blockTokensMax);
    let trees: Trees | undefined;
    if ((flags & BLOCK_FLAGS.trees) !== 0) {
      if (kind !== 'dynamic') throw corrupt('trees of a block that has none');
      trees = readTrees(this.#trees);
      this.#trees.rest();
    }
    return { kind, trees, count, lastDiffers: (flags & BLOCK_FLAGS.last) !== 0 };
  }

  #nextWrong(): void {
    const { skips } = this.#columns;
    this.#right = skips.left > 0 ? skips.integer() : Number.POSITIVE_INFINITY;
  }

  /** What the token is that was predicted. */
  token(predicted: number): number {
    if (this.#right > 0) {
      this.#right -= 1;
      return predicted;
    }
    const { lengths, distances } = this.#columns;
    const code = lengths.integer(MATCH_MAX - MATCH_MIN + 1);
    this.#nextWrong();
    if (code === 0) return LITERAL;
    const distance = distances.integer(DISTANCE_MAX);
    if (distance === 0) throw corrupt('a distance of nothing');
    return tokenOf(code + MATCH_MIN - 1, distance);
  }

  /** @throws DeltaError `CORRUPT` when it says more than was used */
  finish(): void {
    for (const name of COLUMNS)
      if (name !== 'trees' && this.#columns[name].left > 0) throw corrupt(`column ${name}: bytes left over`);
    if (this.#trees.at !== this.#treesBytes || this.#right !== Number.POSITIVE_INFINITY)
      throw corrupt('corrections beyond the end');
  }
}
