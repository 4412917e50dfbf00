/**
 * What differs between copied bytes and those that they are to become, told by words: of numbers that changed a little the
 * high bytes' differences are nearly all zero and the low bytes' are not, which told byte by byte is hard to see.
 *
 * Words lie in what a chunk copies, not in the file: a first one of `lead` bytes, then one behind the other, the last as long as
 * what is left. The difference is little-endian, modulo 256 to the power of the word's bytes, zigzag.
 */
import { ByteWriter } from '#deltas/bytes.ts';
import { joinColumns, writers } from '#deltas/moves/columns.ts';
import { WORD_COLUMNS, WORD_WIDTHS } from '#deltas/moves/format.ts';

/** Bytes of the old file, and of the new one: equally long. */
export interface Copied {
  readonly old: Uint8Array;
  readonly young: Uint8Array;
}

/**
 * What differs, by words of each width.
 * @param copied all that the chunk is to speak of, in order
 */
export function byWords(copied: readonly Copied[]): Buffer[] {
  const places = differences(copied);
  return WORD_WIDTHS.map((width) => writeChunk(copied, places, width, leadOf(places, width)));
}

/** Where copied bytes differ, counted through all that is copied. */
function differences(copied: readonly Copied[]): Float64Array {
  const places: number[] = [];
  let start = 0;
  for (const { old, young } of copied) {
    for (let at = 0; at < old.length; at += 1) if (old[at] !== young[at]) places.push(start + at);
    start += old.length;
  }
  return Float64Array.from(places);
}

/** Bytes that the first word lacks. */
const lackOf = (lead: number, width: number): number => (width - lead) % width;

/** Where words begin so that the fewest differ. */
function leadOf(places: Float64Array, width: number): number {
  let [best, fewest] = [0, Number.POSITIVE_INFINITY];
  for (let lead = 0; lead < width; lead += 1) {
    const lack = lackOf(lead, width);
    let words = 0;
    let last = -1;
    for (const place of places) {
      const word = Math.floor((place + lack) / width);
      if (word !== last) words += 1;
      last = word;
    }
    if (words < fewest) [best, fewest] = [lead, words];
  }
  return best;
}

function writeChunk(copied: readonly Copied[], places: Float64Array, width: number, lead: number): Buffer {
  const total = copied.reduce((sum, { old }) => sum + old.length, 0);
  const columns = writers(WORD_COLUMNS);
  const planes = [columns.plane0, columns.plane1, columns.plane2, columns.plane3];
  // Words are told in order: the piece that has a byte is the one of the byte before, or one that follows.
  let [piece, pieceStart] = [0, 0];
  const differenceAt = (place: number): number => {
    while (place >= pieceStart + (copied[piece] as Copied).old.length) {
      pieceStart += (copied[piece] as Copied).old.length;
      piece += 1;
    }
    const { old, young } = copied[piece] as Copied;
    return (young[place - pieceStart] as number) - (old[place - pieceStart] as number);
  };
  const lack = lackOf(lead, width);
  let told = 0;
  for (const place of places) {
    const word = Math.floor((place + lack) / width);
    if (word < told) continue;
    columns.same.integer(word - told);
    told = word + 1;
    const start = Math.max(0, word * width - lack);
    const end = Math.min(total, (word + 1) * width - lack);
    let difference = 0;
    for (let at = start; at < end; at += 1) difference += differenceAt(at) * 2 ** (8 * (at - start));
    // Signed, of as many bits as the word has; then the sign goes last.
    const spare = 32 - 8 * (end - start);
    const signed = (difference << spare) >> spare;
    const zigzag = (signed << 1) ^ (signed >> 31);
    for (let at = 0; at < end - start; at += 1) (planes[at] as ByteWriter).byte((zigzag >>> (8 * at)) & 0xff);
  }
  const head = new ByteWriter();
  for (const value of [0, width, lead, total]) head.integer(value);
  return joinColumns(head, WORD_COLUMNS, columns);
}
