/**
 * Makes a file from an old one as a maker's ranges, fixes and differences say (docs/delta-format.md §4.5).
 *
 * Invariant: nothing of what is read is believed: every range lies within the old file, and all together give exactly the new
 * file's length, or a DeltaError. Memory: the ranges (24 bytes each, `rangesMax`), one chunk, and a few blocks of the old file.
 */
import type { BasisFile } from '#deltas/basis.ts';
import { ByteReader } from '#deltas/bytes.ts';
import { DeltaError } from '#deltas/errors.ts';
import { LIMITS } from '#deltas/limits.ts';
import { BlockFile } from '#deltas/moves/block-file.ts';
import {
  type Ahead,
  type Fix,
  PIECE_BYTES_MAX,
  pieceBytes,
  predict,
  predictionOf,
} from '#deltas/moves/copier.ts';
import type { Ranges } from '#deltas/moves/covers.ts';
import {
  DATA_COLUMNS,
  INLINE,
  INLINE_COLUMNS,
  PLAN_COLUMNS,
  WORD_COLUMNS,
  WORD_WIDTHS,
} from '#deltas/moves/format.ts';
import type { ModulePrediction } from '#deltas/moves/module-prediction.ts';
import { type Missed, NATIVE, type Native, type NativePrediction } from '#deltas/moves/native.ts';
import { Prediction } from '#deltas/moves/prediction.ts';
import type { ReadAt, Segment } from '#deltas/moves/program.ts';
import { readProgram } from '#deltas/moves/read-program.ts';
import { type Found, References } from '#deltas/moves/references.ts';

/** Where the chunks and the literal bytes come from, both read front to back. */
export interface MoveSources {
  chunk(length: number): Promise<Buffer>;
  /** Without waiting, if they are at hand. */
  literalNow(length: number): Uint8Array | undefined;
  literal(length: number): AsyncIterable<Uint8Array>;
}

const OUT_BYTES = LIMITS.chunkBytes;

/**
 * @param native which code does the hot loops; null: this folder's own
 * @yields the new file, `bytes` in all; a piece is valid until the next is asked for
 */
export async function* decodeMoves(
  file: BasisFile,
  bytes: number,
  sources: MoveSources,
  native: Native | null = NATIVE,
): AsyncGenerator<Uint8Array> {
  const { segments, moves, ranges } = readPlan(await readChunk(sources), file.size, bytes);
  const basis = new BlockFile(file);
  let references: References | undefined;
  let prediction: Prediction | ModulePrediction | undefined;
  let bound: NativePrediction | undefined;
  if (segments.length > 0) {
    const read: ReadAt = (offset, length, into) => basis.read(offset, length, into);
    const program = await readProgram(read, file.size);
    if (program === undefined)
      throw new DeltaError('BASIS_MISMATCH', 'a file is to be patched as a program and is none');
    references = new References(program, read, file.size, native);
    prediction = predictionOf(program, segments, ranges, moves);
    // It knows Arm's references no more than Go's.
    if (prediction instanceof Prediction && program.machine !== 'arm') bound = native?.prediction(prediction);
  }

  // Most pieces and literals are short: handed on one by one they would cost more than they are.
  const out = Buffer.alloc(OUT_BYTES + PIECE_BYTES_MAX);
  let held = 0;
  async function* literal(length: number): AsyncGenerator<Uint8Array> {
    const now = length <= OUT_BYTES - held ? sources.literalNow(length) : undefined;
    if (now !== undefined) {
      out.set(now, held);
      held += length;
      return;
    }
    if (held > 0) yield out.subarray(0, held);
    held = 0;
    yield* sources.literal(length);
  }
  let chunk: Chunk | undefined;
  const fix: Fix = (_view, _at, _kind, predicted) => (chunk as Chunk).fix(predicted);
  let place = 0;
  for (let index = 0; index < ranges.count; index += 1) {
    const ahead = (found: Found, bytes: number, done: number): Ahead | undefined => {
      const missed = (chunk as Chunk).missed;
      if (bound === undefined || missed === undefined) return undefined;
      const piece = { out, place: held, bytes, from: from + done, to: to + done, range: index };
      return (at) => bound.predict(piece, found, at, missed);
    };
    const to = ranges.news[index] as number;
    const from = ranges.olds[index] as number;
    const length = ranges.lengths[index] as number;
    if (to > place) yield* literal(to - place);
    for (let done = 0; done < length; ) {
      if (chunk === undefined || chunk.left === 0) chunk = dataChunk(await readChunk(sources));
      const found = references?.heldAt(from + done) ?? (await references?.at(from + done));
      const some = pieceBytes(from + done, length - done, found);
      if (some > chunk.left) throw new DeltaError('CORRUPT', 'moves: a chunk ends within a piece');
      const piece = out.subarray(held, held + some);
      piece.set(basis.cached(from + done, some) ?? (await basis.read(from + done, some)));
      if (found !== undefined && prediction !== undefined)
        predict(piece, from + done, to + done, index, found, prediction, fix, ahead(found, some, done));
      chunk.differ(piece);
      done += some;
      held += some;
      if (held >= OUT_BYTES) {
        yield out.subarray(0, held);
        held = 0;
      }
      if (chunk.left === 0) chunk.finish();
    }
    place = to + length;
  }
  if (held > 0) yield out.subarray(0, held);
  if (bytes > place) yield* sources.literal(bytes - place);
}

async function readChunk(sources: MoveSources): Promise<Buffer> {
  const length = (await sources.chunk(4)).readUInt32LE(0);
  if (length > LIMITS.movesChunkBytesMax)
    throw new DeltaError(
      'TOO_LARGE',
      `moves: a chunk of ${length} bytes, ${LIMITS.movesChunkBytesMax} are allowed`,
    );
  return await sources.chunk(length);
}

function columnsOf<Name extends string>(
  names: readonly Name[],
  reader: ByteReader,
): Record<Name, ByteReader> {
  const lengths = names.map(() => reader.integer(LIMITS.movesChunkBytesMax));
  const columns = Object.fromEntries(
    names.map((name, at) => [
      name,
      new ByteReader(reader.bytes(lengths[at] as number), `moves column ${name}`),
    ]),
  ) as Record<Name, ByteReader>;
  end(reader);
  return columns;
}

function end(...readers: ByteReader[]): void {
  for (const { left } of readers) if (left > 0) throw new DeltaError('CORRUPT', 'moves: bytes left over');
}

function readPlan(
  chunk: Buffer,
  oldBytes: number,
  newBytes: number,
): { segments: Segment[]; moves: number[]; ranges: Ranges } {
  const reader = new ByteReader(chunk, 'moves');
  const count = reader.integer(LIMITS.rangesMax);
  const { segments: shape, anchors, gaps, lengths, seeks } = columnsOf(PLAN_COLUMNS, reader);
  const segments: Segment[] = [];
  while (shape.left > 0) {
    const [offset, address, fileBytes, more] = [
      shape.integer(),
      shape.integer(),
      shape.integer(),
      shape.integer(),
    ];
    if (address + fileBytes + more > 2 ** 47 || segments.length === LIMITS.elfSegmentsMax)
      throw new DeltaError('CORRUPT', 'moves: a segment of no program');
    segments.push({ offset, address, fileBytes, memoryBytes: fileBytes + more });
  }
  const moves: number[] = [];
  while (anchors.left > 0 && moves.length < LIMITS.elfAnchorsMax) moves.push(anchors.signed());
  const ranges: Ranges = {
    count,
    news: new Float64Array(count),
    olds: new Float64Array(count),
    lengths: new Float64Array(count),
  };
  let [place, oldEnd] = [0, 0];
  for (let at = 0; at < count; at += 1) {
    const [gap, length, seek] = [gaps.integer(newBytes - place), lengths.integer(newBytes), seeks.signed()];
    const [to, from] = [place + gap, oldEnd + seek];
    if (length === 0 || length > newBytes - to || from < 0 || length > oldBytes - from)
      throw new DeltaError('CORRUPT', 'moves: a range outside its file');
    ranges.news[at] = to;
    ranges.olds[at] = from;
    ranges.lengths[at] = length;
    place = to + length;
    oldEnd = from + length;
  }
  end(anchors, gaps, lengths, seeks);
  return { segments, moves, ranges };
}

type Chunk = DataChunk | WordChunk;

/** What the prediction missed in the next so many copied bytes. */
function dataChunk(bytes: Buffer): Chunk {
  const reader = new ByteReader(bytes, 'moves');
  const copied = reader.integer();
  if (copied !== 0) return new DataChunk(copied, columnsOf(DATA_COLUMNS, reader));
  const width = reader.integer(4);
  if (width !== INLINE) return new WordChunk(width, reader);
  const length = reader.integer();
  if (length === 0) throw new DeltaError('CORRUPT', 'moves: a chunk for no bytes');
  const { skips, fixes, differences } = columnsOf(INLINE_COLUMNS, reader);
  return new DataChunk(length, { skips, fixes, same: differences, runs: differences, bytes: differences });
}

type DataColumns = Record<(typeof DATA_COLUMNS)[number], ByteReader>;

class DataChunk {
  /** The last three may be one. */
  readonly #columns: DataColumns;
  /** Copied bytes that it still speaks of. */
  left: number;
  readonly missed: Missed;
  /** Bytes until the next that differ. */
  #same = Number.POSITIVE_INFINITY;
  #run = 0;

  constructor(copied: number, columns: DataColumns) {
    this.left = copied;
    this.#columns = columns;
    const { skips, fixes } = this.#columns;
    this.missed = { right: Number.POSITIVE_INFINITY, skips, fixes };
    this.#nextFix();
    this.#nextRun();
  }

  #nextFix(): void {
    const { missed } = this;
    missed.right = missed.skips.left > 0 ? missed.skips.integer() : Number.POSITIVE_INFINITY;
  }

  #nextRun(): void {
    const { same, runs } = this.#columns;
    this.#same = same.left > 0 ? same.integer() : Number.POSITIVE_INFINITY;
    if (this.#same === Number.POSITIVE_INFINITY) return;
    this.#run = runs.integer();
    if (this.#run === 0) throw new DeltaError('CORRUPT', 'moves: a difference of no bytes');
  }

  fix(predicted: number): number {
    const { missed } = this;
    if (missed.right > 0) {
      missed.right -= 1;
      return predicted;
    }
    const value = predicted + missed.fixes.signed();
    this.#nextFix();
    return value;
  }

  /** Adds what differs to `piece`, which must be within what is left. */
  differ(piece: Buffer): void {
    this.left -= piece.length;
    for (let at = 0; at < piece.length; ) {
      if (this.#same >= piece.length - at) {
        this.#same -= piece.length - at;
        return;
      }
      at += this.#same;
      this.#same = 0;
      const stop = at + Math.min(this.#run, piece.length - at);
      this.#run -= stop - at;
      for (; at < stop; at += 1) piece[at] = ((piece[at] as number) + this.#columns.bytes.byte()) & 0xff;
      if (this.#run === 0) this.#nextRun();
    }
  }

  /** @throws DeltaError `CORRUPT` when it says more than was used */
  finish(): void {
    end(...Object.values(this.#columns));
    if (this.missed.right !== Number.POSITIVE_INFINITY || this.#same !== Number.POSITIVE_INFINITY)
      throw new DeltaError('CORRUPT', 'moves: differences beyond the end');
  }
}

/** See words.ts. */
class WordChunk {
  left: number;
  readonly missed = undefined;
  readonly #width: number;
  readonly #sames: ByteReader;
  readonly #planes: readonly ByteReader[];
  /** Bytes of the first word, until it has begun; 0: it is like the others. */
  #lead: number;
  /** Words until the next that differs. */
  #same = 0;
  /** Of what is under way, a word that differs or some that do not: its bytes, and those that are done. */
  #size = 0;
  #done = 0;
  /** What is to be added, and what the byte before carried over. */
  #more = 0;
  #carry = 0;

  constructor(width: number, reader: ByteReader) {
    this.#width = width;
    if (!WORD_WIDTHS.includes(this.#width)) throw new DeltaError('CORRUPT', 'moves: words of no width');
    this.#lead = reader.integer(this.#width - 1);
    this.left = reader.integer();
    if (this.left === 0) throw new DeltaError('CORRUPT', 'moves: a chunk for no bytes');
    const { same, ...planes } = columnsOf(WORD_COLUMNS, reader);
    this.#sames = same;
    this.#planes = Object.values(planes);
    this.#next();
  }

  #next(): void {
    this.#same = this.#sames.left > 0 ? this.#sames.integer() : Number.POSITIVE_INFINITY;
  }

  #begin(): void {
    this.#size = Math.min(this.#lead > 0 ? this.#lead : this.#width, this.left);
    this.#lead = 0;
    [this.#done, this.#more, this.#carry] = [0, 0, 0];
    if (this.#same > 0) {
      const whole = this.#size === this.#width ? Math.floor(this.left / this.#width) : 1;
      const words = Math.min(this.#same, whole);
      this.#size *= words;
      this.#same -= words;
      return;
    }
    let zigzag = 0;
    for (let at = 0; at < this.#size; at += 1) zigzag |= (this.#planes[at] as ByteReader).byte() << (8 * at);
    if (zigzag === 0) throw new DeltaError('CORRUPT', 'moves: a word that differs by nothing');
    this.#more = (zigzag >>> 1) ^ -(zigzag & 1);
    this.#next();
  }

  fix(predicted: number): number {
    return predicted;
  }

  /** Adds what differs to `piece`, which must be within what is left. */
  differ(piece: Buffer): void {
    for (let at = 0; at < piece.length; ) {
      if (this.#done === this.#size) this.#begin();
      const some = Math.min(this.#size - this.#done, piece.length - at);
      if (this.#more !== 0) {
        for (let place = at; place < at + some; place += 1) {
          const more = (this.#more >>> (8 * (this.#done + place - at))) & 0xff;
          const sum = (piece[place] as number) + more + this.#carry;
          piece[place] = sum & 0xff;
          this.#carry = sum >> 8;
        }
      }
      at += some;
      this.#done += some;
      this.left -= some;
    }
  }

  /** @throws DeltaError `CORRUPT` when it says more than was used */
  finish(): void {
    end(this.#sames, ...this.#planes);
    if (this.#same !== Number.POSITIVE_INFINITY)
      throw new DeltaError('CORRUPT', 'moves: differences beyond the end');
  }
}
