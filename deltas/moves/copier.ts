/**
 * The bytes of a copied range as they are predicted, piece by piece, with each reference in it put right.
 *
 * Maker and reader walk the same pieces in the same order; they differ in `fix`: the maker compares the prediction with the new
 * file and writes down what it missed, the reader reads that.
 */
import type { Ranges } from '#deltas/moves/covers.ts';
import { readField, targetFor, valueFor, writeField } from '#deltas/moves/fields.ts';
import { ModulePrediction } from '#deltas/moves/module-prediction.ts';
import { Prediction } from '#deltas/moves/prediction.ts';
import type { Program, Segment } from '#deltas/moves/program.ts';
import { BLOCK_BYTES, type Found, KIND, WIDTH } from '#deltas/moves/references.ts';

/**
 * @param at of the field, in the piece
 * @returns what the field is to hold
 */
export type Fix = (view: DataView, at: number, kind: number, predicted: number) => number;
/**
 * Does the work of `predict`, and of `fix`, for as many references as it can, from the one at `index` on.
 * @returns the first that is left to do
 */
export type Ahead = (index: number) => number;

const PAGE = 4096;

/** A block and what of a reference reaches over its end. */
export const PIECE_BYTES_MAX = BLOCK_BYTES + 8;

/** @param moves of the old program's anchors */
export function predictionOf(
  old: Program,
  segments: readonly Segment[],
  ranges: Ranges,
  moves: readonly number[],
): Prediction | ModulePrediction {
  return old.module === undefined
    ? new Prediction(old, segments, ranges, moves)
    : new ModulePrediction(old.module);
}

/**
 * A piece ends where a block of the old file ends, or with the reference that reaches over that end: what a piece's references
 * need is one block.
 * @param found references of the block in which `from` lies
 */
export function pieceBytes(from: number, left: number, found: Found | undefined): number {
  const room = BLOCK_BYTES - (from % BLOCK_BYTES);
  if (left <= room || found === undefined) return Math.min(left, room);
  const { count, offsets, kinds } = found;
  if (count === 0) return room;
  const last = (offsets[count - 1] as number) + (WIDTH[kinds[count - 1] as number] as number);
  return Math.max(room, Math.min(left, last - from));
}

/** The first reference whose field does not begin before `from`. */
function firstFrom({ count, offsets }: Found, from: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((offsets[middle] as number) < from) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Puts right the references of `piece`, a copy of the old file's bytes from `from` on that is to stand at `to` in the new one, as part
 * of that range.
 * A reference that the piece holds only a part of stays as it is.
 */
export function predict(
  piece: Buffer,
  from: number,
  to: number,
  range: number,
  found: Found,
  prediction: Prediction | ModulePrediction,
  fix: Fix,
  ahead?: Ahead,
): void {
  if (prediction instanceof ModulePrediction) {
    predictModule(piece, from, found, prediction, fix);
    return;
  }
  const { count, offsets, kinds, targets, extras } = found;
  if (count === 0) return;
  const view = new DataView(piece.buffer, piece.byteOffset, piece.length);
  const end = from + piece.length;
  for (let index = firstFrom(found, from); index < count; index += 1) {
    // Of Go's table there are many in a row, all left to do here.
    if (ahead !== undefined && kinds[index] !== KIND.go32) {
      index = ahead(index);
      if (index >= count) break;
    }
    const offset = offsets[index] as number;
    const kind = kinds[index] as number;
    if (offset + (WIDTH[kind] as number) > end) break;
    const at = offset - from;
    const address = prediction.address(to + at);
    const old = targets[index] as number;
    let extra = extras[index] as number;
    if (kind === KIND.relative32) {
      // The same as what follows, for most references of x86.
      const predicted = (prediction.target(old, range) - address - extra) | 0;
      const value = fix(view, at, kind, predicted);
      view.setInt32(at, value | 0, true);
      prediction.learn(old, value + address + extra, value === predicted);
      continue;
    }
    if (kind === KIND.relative8) {
      const predicted = ((prediction.target(old, range) - address - extra) << 24) >> 24;
      view.setInt8(at, fix(view, at, kind, predicted));
      continue;
    }
    if (kind === KIND.offset32 || kind === KIND.index32) extra = prediction.anchor(extra);
    else if (kind === KIND.table32 || kind === KIND.go32) extra = prediction.target(extra, range);
    const isLength = kind === KIND.length32 || kind === KIND.length64;
    const moved = kind === KIND.go32 ? prediction.tableMoves.get(extras[index] as number) : undefined;
    const value_ = isLength
      ? prediction.length(extra, old)
      : valueFor(kind, moved === undefined ? prediction.target(old, range) : old + moved, address, extra);
    const predicted = cut(kind, value_);
    const value = fix(view, at, kind, predicted);
    writeField(view, at, kind, value);
    const target =
      pagedTarget(view, at, kind, value, address, extra, prediction) ??
      targetFor(kind, value, address, extra);
    if (kind === KIND.go32 && target !== undefined)
      prediction.tableMoves.set(extras[index] as number, target - old);
    else if (target !== undefined) prediction.learn(old, target, value === predicted);
  }
}

/** What `predict` does, for a module. */
function predictModule(
  piece: Buffer,
  from: number,
  found: Found,
  prediction: ModulePrediction,
  fix: Fix,
): void {
  const { count, offsets, kinds, targets, extras } = found;
  const view = new DataView(piece.buffer, piece.byteOffset, piece.length);
  const end = from + piece.length;
  for (let index = firstFrom(found, from); index < count; index += 1) {
    const offset = offsets[index] as number;
    const kind = kinds[index] as number;
    if (offset + (WIDTH[kind] as number) > end) break;
    const at = offset - from;
    const old = targets[index] as number;
    const space = extras[index] as number;
    // As it will be read back from the field, which has room for so much.
    writeField(view, at, kind, Math.max(0, prediction.target(old) - space));
    const predicted = readField(view, at, kind);
    const value = fix(view, at, kind, predicted);
    writeField(view, at, kind, value);
    prediction.learn(old, space + value);
  }
}

/** AArch64: an ADRP says the page, what follows the place in it; together they point somewhere. */
function pagedTarget(
  view: DataView,
  at: number,
  kind: number,
  value: number,
  address: number,
  shift: number,
  prediction: Prediction,
): number | undefined {
  if (kind !== KIND.page21 && kind !== KIND.low12) return undefined;
  const word = view.getInt32(at, true);
  if (kind === KIND.page21) {
    prediction.pages[word & 31] = (Math.floor(address / PAGE) + value) * PAGE;
    return undefined;
  }
  return (prediction.pages[(word >>> 5) & 31] as number) + value * 2 ** shift;
}

/** As it will be read back from the field. */
const scratch = new DataView(new ArrayBuffer(4));
function cut(kind: number, value: number): number {
  if (kind === KIND.absolute64 || kind === KIND.length64) return value < 0 || value >= 2 ** 53 ? 0 : value;
  scratch.setUint32(0, 0);
  writeField(scratch, 0, kind, value);
  return readField(scratch, 0, kind);
}
