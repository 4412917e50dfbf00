/**
 * Says how a new file is made from an old one: ranges to copy, what the prediction of their references missed, what else
 * differs, and the bytes that no range has.
 *
 * Memory: both files, a masked copy of each, and the seeds (covers.ts): about five times their length.
 */
import { ByteWriter } from '#deltas/bytes.ts';
import type { Codec } from '#deltas/codecs.ts';
import { compress, compressBrotli } from '#deltas/compression.ts';
import { LIMITS } from '#deltas/limits.ts';
import { joinColumns, writers } from '#deltas/moves/columns.ts';
import { type Fix, pieceBytes, predict, predictionOf } from '#deltas/moves/copier.ts';
import { findRanges, type Grading, type Ranges } from '#deltas/moves/covers.ts';
import { readField } from '#deltas/moves/fields.ts';
import { DATA_COLUMNS, INLINE, INLINE_COLUMNS, PLAN_COLUMNS } from '#deltas/moves/format.ts';
import { masked } from '#deltas/moves/masks.ts';
import type { ModulePrediction } from '#deltas/moves/module-prediction.ts';
import type { Prediction } from '#deltas/moves/prediction.ts';
import { type Program, type ReadAt, type Segment, UNLOADED } from '#deltas/moves/program.ts';
import { readProgram } from '#deltas/moves/read-program.ts';
import { References } from '#deltas/moves/references.ts';
import { byWords, type Copied } from '#deltas/moves/words.ts';

export interface EncodedMoves {
  /** What a reader takes from the section, in order, each with its length before it. */
  chunks: Buffer[];
  /** Bytes of the new file that no range has, in order. */
  literals: Uint8Array[];
  copiedBytes: number;
  ranges: number;
  /** References in what was copied, and how many of them were predicted wrongly. */
  references: { count: number; wrong: number };
  /** Codecs that a reader needs beside `moves-1`. */
  needs: ReadonlySet<Codec>;
}

/** A correction larger than this says that there is no reference: the bytes are told as they differ. */
const FIX_MAX = 2 ** 40;
/** A chunk of fewer is not tried by words, nor inline: with those of other files beside it all do best alike. */
const WORDS_BYTES_MIN = 1024;
const INLINE_BYTES_MIN = 4096;
/** What another form is to save, since chunks of one form are compressed together. */
const OTHER_PART = 0.97;
/** By what a chunk's forms are compared: as the section will be, if that does not take too long. */
const BROTLI_BYTES_MAX = 256 * 1024;
const LEVEL = 9;
/** A few bytes that agree between two that differ cost less as zeros than as a new run. */
const SAME_BYTES_MIN = 3;

const readerOf =
  (bytes: Uint8Array): ReadAt =>
  async (offset, length) =>
    bytes.subarray(offset, offset + length);

/** Both as programs, if they are of one kind. */
async function programs(
  old: Uint8Array,
  young: Uint8Array,
): Promise<{ old: Program; young: Program } | undefined> {
  const [a, b] = [
    await readProgram(readerOf(old), old.length),
    await readProgram(readerOf(young), young.length),
  ];
  return a !== undefined && b !== undefined && a.machine === b.machine ? { old: a, young: b } : undefined;
}

/**
 * @param known   the ranges, of files that are no programs; by default they are looked for
 * @param grading how they are looked for in programs
 * @returns undefined when there are more ranges than a reader takes
 */
export async function encodeMoves(
  old: Uint8Array,
  young: Uint8Array,
  known?: Ranges,
  grading: Grading = 'program',
): Promise<EncodedMoves | undefined> {
  const both = known === undefined ? await programs(old, young) : undefined;
  let ranges: Ranges;
  let references: References | undefined;
  let prediction: Prediction | ModulePrediction | undefined;
  const segments: Segment[] = both?.young.segments ?? [];
  let moves: number[] = [];
  if (both === undefined) {
    ranges = known ?? findRanges(old, young, 'data');
  } else {
    references = new References(both.old, readerOf(old), old.length);
    const theirs = new References(both.young, readerOf(young), young.length);
    ranges = findRanges(await masked(old, references), await masked(young, theirs), grading);
    moves = anchorMoves(both.old, both.young);
    prediction = predictionOf(both.old, segments, ranges, moves);
  }
  if (ranges.count > LIMITS.rangesMax) return undefined;

  const plan = writePlan(segments, moves, ranges);
  if (plan.length > LIMITS.movesChunkBytesMax) return undefined;
  const chunks = [plan];
  const needs = new Set<Codec>(both?.old.module === undefined ? [] : ['modules-1']);
  const literals: Uint8Array[] = [];
  const data = new DataWriter();
  const view = new DataView(young.buffer, young.byteOffset, young.length);
  const count = { count: 0, wrong: 0 };
  let pieceAt = 0;
  const fix: Fix = (_view, at, kind, predicted) => {
    const value = readField(view, pieceAt + at, kind);
    const miss = value - predicted;
    count.count += 1;
    if (miss === 0 || Math.abs(miss) > FIX_MAX) return data.right(predicted);
    count.wrong += 1;
    data.wrong(miss);
    return value;
  };
  let copied: Copied[] = [];
  const take = async (): Promise<void> => {
    const { columns, inline } = data.take();
    const ways: Told[] = [{ chunk: columns }];
    if (columns.length >= INLINE_BYTES_MIN) ways.push({ chunk: inline, needs: 'inline-1' });
    // A program's data was predicted, and what was missed has no width.
    if (both === undefined && columns.length >= WORDS_BYTES_MIN)
      for (const chunk of byWords(copied)) ways.push({ chunk, needs: 'words-1' });
    const { chunk, needs: codec } = await smallest(ways);
    chunks.push(chunk);
    if (codec !== undefined) needs.add(codec);
    copied = [];
  };
  let place = 0;
  let copiedBytes = 0;
  for (let index = 0; index < ranges.count; index += 1) {
    const to = ranges.news[index] as number;
    const from = ranges.olds[index] as number;
    const length = ranges.lengths[index] as number;
    if (to > place) literals.push(young.subarray(place, to));
    for (let done = 0; done < length; ) {
      const found = references?.heldAt(from + done) ?? (await references?.at(from + done));
      const some = pieceBytes(from + done, length - done, found);
      const piece = Buffer.from(old.subarray(from + done, from + done + some));
      pieceAt = to + done;
      if (found !== undefined && prediction !== undefined)
        predict(piece, from + done, pieceAt, index, found, prediction, fix);
      const actual = young.subarray(pieceAt, pieceAt + some);
      data.differ(piece, actual);
      if (both === undefined)
        copied.push({ old: old.subarray(from + done, from + done + some), young: actual });
      done += some;
      if (data.full) await take();
    }
    place = to + length;
    copiedBytes += length;
  }
  if (data.copied > 0) await take();
  if (young.length > place) literals.push(young.subarray(place));
  return {
    chunks: chunks.flatMap(withLength),
    literals,
    copiedBytes,
    ranges: ranges.count,
    references: count,
    needs,
  };
}

/** One way to tell the differences, and the codec that it takes. */
interface Told {
  chunk: Buffer;
  needs?: Codec;
}

/** Once compressed. @param ways the first keeps to the bound, and needs no other codec */
async function smallest(ways: readonly Told[]): Promise<Told> {
  const [plain, ...others] = ways as [Told, ...Told[]];
  if (others.length === 0) return plain;
  let best = plain;
  let cost = OTHER_PART * (await packedBytes(plain.chunk));
  for (const way of others) {
    if (way.chunk.length > LIMITS.movesChunkBytesMax) continue;
    const bytes = await packedBytes(way.chunk);
    if (bytes < cost) [best, cost] = [way, bytes];
  }
  return best;
}

const packedBytes = async (chunk: Buffer): Promise<number> =>
  (chunk.length <= BROTLI_BYTES_MAX ? await compressBrotli(chunk) : await compress(chunk, LEVEL)).length;

/** Files that are no programs, with ranges that are looked for in these ways. */
export async function gradedMoves(
  old: Uint8Array,
  young: Uint8Array,
  gradings: readonly Grading[],
): Promise<(EncodedMoves | undefined)[]> {
  const ways: (EncodedMoves | undefined)[] = [];
  for (const grading of gradings) ways.push(await encodeMoves(old, young, findRanges(old, young, grading)));
  return ways;
}

function withLength(chunk: Buffer): Buffer[] {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(chunk.length);
  return [length, chunk];
}

/** Some integers, the columns' lengths, the columns. */
function join<Name extends string>(
  first: readonly number[],
  names: readonly Name[],
  columns: Record<Name, ByteWriter>,
): Buffer {
  const head = new ByteWriter();
  for (const value of first) head.integer(value);
  return joinColumns(head, names, columns);
}

/** How far each anchor of the old program is from that of the new one, less that of the one before. */
function anchorMoves(old: Program, young: Program): number[] {
  const addresses = new Map(young.anchors.map(({ name, address }) => [name, address]));
  let last = 0;
  return old.anchors.map(({ name, address }) => {
    const moved = addresses.get(name);
    const move = moved === undefined || moved >= UNLOADED !== address >= UNLOADED ? last : moved - address;
    const more = move - last;
    last = move;
    return more;
  });
}

function writePlan(segments: readonly Segment[], moves: readonly number[], ranges: Ranges): Buffer {
  const columns = writers(PLAN_COLUMNS);
  for (const { offset, address, fileBytes, memoryBytes } of segments) {
    for (const value of [offset, address, fileBytes, memoryBytes - fileBytes])
      columns.segments.integer(value);
  }
  for (const move of moves) columns.anchors.signed(move);
  let [place, oldEnd] = [0, 0];
  for (let at = 0; at < ranges.count; at += 1) {
    const [to, from, length] = [ranges.news[at], ranges.olds[at], ranges.lengths[at]] as [
      number,
      number,
      number,
    ];
    columns.gaps.integer(to - place);
    columns.lengths.integer(length);
    columns.seeks.signed(from - oldEnd);
    place = to + length;
    oldEnd = from + length;
  }
  return join([ranges.count], PLAN_COLUMNS, columns);
}

/** One chunk after the other of what the prediction missed. */
class DataWriter {
  #columns = writers(DATA_COLUMNS);
  #inline = new ByteWriter();
  copied = 0;
  #right = 0;
  /** Bytes that agreed before the run, and since its last byte that did not. */
  #same = 0;
  #since = 0;
  #run: number[] = [];

  get full(): boolean {
    const { fixes, bytes } = this.#columns;
    return (
      this.copied >= LIMITS.movesChunkCopiedBytes || fixes.length + bytes.length >= LIMITS.movesChunkBytes
    );
  }

  right(predicted: number): number {
    this.#right += 1;
    return predicted;
  }

  wrong(miss: number): void {
    this.#columns.skips.integer(this.#right);
    this.#columns.fixes.signed(miss);
    this.#right = 0;
  }

  differ(predicted: Uint8Array, actual: Uint8Array): void {
    this.copied += actual.length;
    for (let at = 0; at < actual.length; at += 1) {
      const differs = ((actual[at] as number) - (predicted[at] as number)) & 0xff;
      if (differs === 0) {
        this.#since += 1;
        continue;
      }
      if (this.#since >= SAME_BYTES_MIN || this.#run.length === 0) {
        this.#endRun();
        this.#same += this.#since;
      } else {
        for (let more = this.#since; more > 0; more -= 1) this.#run.push(0);
      }
      this.#since = 0;
      this.#run.push(differs);
    }
  }

  #endRun(): void {
    if (this.#run.length === 0) return;
    const run = Uint8Array.from(this.#run);
    const inline = { same: this.#inline, runs: this.#inline, bytes: this.#inline };
    for (const { same, runs, bytes } of [this.#columns, inline]) {
      same.integer(this.#same);
      runs.integer(run.length);
      bytes.bytes(run);
    }
    this.#run = [];
    this.#same = 0;
  }

  /** The same, told in two ways. */
  take(): { columns: Buffer; inline: Buffer } {
    this.#endRun();
    const { skips, fixes } = this.#columns;
    const columns = join([this.copied], DATA_COLUMNS, this.#columns);
    const inline = join([0, INLINE, this.copied], INLINE_COLUMNS, {
      skips,
      fixes,
      differences: this.#inline,
    });
    this.#columns = writers(DATA_COLUMNS);
    this.#inline = new ByteWriter();
    this.copied = 0;
    this.#right = 0;
    this.#same = 0;
    this.#since = 0;
    return { columns, inline };
  }
}
