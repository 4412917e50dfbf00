/**
 * Huffman codes as zlib and GNU gzip make them, from how often each symbol is used in a block.
 *
 * Invariant: for the same counts the same lengths as theirs, ties included: of two nodes used equally often the one of
 * lesser depth is taken first, then the one that the heap has first. Part of the format: what a reader finds
 * otherwise it writes otherwise.
 */
import { DISTANCE_EXTRA, END_OF_BLOCK, LENGTH_EXTRA, LENGTHS_FROM } from '#deltas/streams/symbols.ts';

const CODE_BITS_MAX = 15;
const LENGTH_CODE_BITS_MAX = 7;
/** The order in which the lengths of the lengths' own code are written (RFC 1951 §3.2.7). */
export const LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15] as const;
/** Extra bits of the three symbols that repeat: 16, 17, 18. */
export const REPEAT_EXTRA = [2, 3, 7] as const;

/** Lengths of the code for symbols used `counts` times; at least two symbols get one. */
export function codeLengths(counts: ArrayLike<number>, bitsMax: number = CODE_BITS_MAX): Uint8Array {
  const symbols = counts.length;
  const nodes = 2 * symbols + 1;
  const weights = new Uint32Array(nodes);
  const depths = new Uint16Array(nodes);
  const parents = new Uint16Array(nodes);
  const lengths = new Uint8Array(nodes);
  // From 1 to `held` a heap, the least first; from `sorted` on the nodes in the order in which they were taken.
  const heap = new Uint16Array(nodes + 1);
  let held = 0;
  let sorted = nodes;
  let last = -1;
  for (let symbol = 0; symbol < symbols; symbol += 1) {
    const count = counts[symbol] as number;
    if (count === 0) continue;
    weights[symbol] = count;
    last = symbol;
    heap[++held] = symbol;
  }
  while (held < 2) {
    const symbol = last < 2 ? ++last : 0;
    weights[symbol] = 1;
    heap[++held] = symbol;
  }

  const before = (a: number, b: number): boolean => {
    const [x, y] = [weights[a] as number, weights[b] as number];
    return x < y || (x === y && (depths[a] as number) <= (depths[b] as number));
  };
  const sink = (from: number): void => {
    const node = heap[from] as number;
    let at = from;
    for (let child = 2 * at; child <= held; child = 2 * at) {
      if (child < held && before(heap[child + 1] as number, heap[child] as number)) child += 1;
      if (before(node, heap[child] as number)) break;
      heap[at] = heap[child] as number;
      at = child;
    }
    heap[at] = node;
  };
  for (let at = held >> 1; at >= 1; at -= 1) sink(at);
  let next = symbols;
  do {
    const least = heap[1] as number;
    heap[1] = heap[held--] as number;
    sink(1);
    const second = heap[1] as number;
    heap[--sorted] = least;
    heap[--sorted] = second;
    weights[next] = (weights[least] as number) + (weights[second] as number);
    depths[next] = Math.max(depths[least] as number, depths[second] as number) + 1;
    parents[least] = next;
    parents[second] = next;
    heap[1] = next++;
    sink(1);
  } while (held >= 2);
  heap[--sorted] = heap[1] as number;

  const perLength = new Uint16Array(bitsMax + 2);
  let tooLong = 0;
  for (let at = sorted + 1; at < nodes; at += 1) {
    const node = heap[at] as number;
    let bits = (lengths[parents[node] as number] as number) + 1;
    if (bits > bitsMax) {
      bits = bitsMax;
      tooLong += 1;
    }
    lengths[node] = bits;
    if (node <= last) perLength[bits] = (perLength[bits] as number) + 1;
  }
  if (tooLong > 0) shorten(perLength, bitsMax, tooLong, heap.subarray(0, nodes), lengths, last);
  return lengths.slice(0, symbols);
}

/** Makes room for codes that would be longer than allowed, as zlib does: by lengthening a shorter one for each two. */
function shorten(
  perLength: Uint16Array,
  bitsMax: number,
  tooLong: number,
  order: Uint16Array,
  lengths: Uint8Array,
  last: number,
): void {
  for (let left = tooLong; left > 0; left -= 2) {
    let bits = bitsMax - 1;
    while (perLength[bits] === 0) bits -= 1;
    perLength[bits] = (perLength[bits] as number) - 1;
    perLength[bits + 1] = (perLength[bits + 1] as number) + 2;
    perLength[bitsMax] = (perLength[bitsMax] as number) - 1;
  }
  let at = order.length;
  for (let bits = bitsMax; bits > 0; bits -= 1) {
    for (let left = perLength[bits] as number; left > 0; ) {
      const node = order[--at] as number;
      if (node > last) continue;
      lengths[node] = bits;
      left -= 1;
    }
  }
}

/** Codes for those lengths, with their bits turned round, as they are written. */
export function codesOf(lengths: Uint8Array): Uint16Array {
  const perLength = new Uint16Array(CODE_BITS_MAX + 2);
  for (const bits of lengths) if (bits > 0) perLength[bits] = (perLength[bits] as number) + 1;
  const next = new Uint16Array(CODE_BITS_MAX + 2);
  for (let bits = 1; bits <= CODE_BITS_MAX; bits += 1)
    next[bits + 1] = ((next[bits] as number) + (perLength[bits] as number)) << 1;
  const codes = new Uint16Array(lengths.length);
  for (const [symbol, bits] of lengths.entries()) {
    if (bits === 0) continue;
    let code = next[bits] as number;
    next[bits] = code + 1;
    let turned = 0;
    for (let bit = 0; bit < bits; bit += 1, code >>= 1) turned = (turned << 1) | (code & 1);
    codes[symbol] = turned;
  }
  return codes;
}

/** A dynamic block's codes and how they are written before it. */
export interface Trees {
  literals: Uint8Array;
  distances: Uint8Array;
  /** Lengths of the code that the lengths are written in, and how many of them are written. */
  lengths: Uint8Array;
  written: number;
  /** The lengths as symbols of that code, each with the value of its extra bits above the low 5. */
  symbols: number[];
}

/** Runs of lengths as symbols 0 to 15, or 16, 17 and 18 for repeats. */
function repeats(lengths: Uint8Array, symbols: number[]): void {
  let previous = -1;
  for (let at = 0; at < lengths.length; ) {
    const value = lengths[at] as number;
    const [least, most] = value === 0 ? [3, 138] : value === previous ? [3, 6] : [4, 7];
    let run = 1;
    while (run < most && lengths[at + run] === value) run += 1;
    at += run;
    if (run < least) {
      for (; run > 0; run -= 1) symbols.push(value);
    } else if (value !== 0) {
      if (value !== previous) {
        symbols.push(value);
        run -= 1;
      }
      symbols.push(16 | ((run - 3) << 5));
    } else {
      symbols.push(run <= 10 ? 17 | ((run - 3) << 5) : 18 | ((run - 11) << 5));
    }
    previous = value;
  }
}

/** Without the symbols at the end that have no code, but at least `least` of them. */
function trimmed(lengths: Uint8Array, least: number): Uint8Array {
  let end = lengths.length;
  while (end > least && lengths[end - 1] === 0) end -= 1;
  return lengths.subarray(0, end);
}

export function treesFor(literalCounts: Uint32Array, distanceCounts: Uint32Array): Trees {
  const literals = trimmed(codeLengths(literalCounts), LENGTHS_FROM);
  const distances = trimmed(codeLengths(distanceCounts), 1);
  const symbols: number[] = [];
  repeats(literals, symbols);
  repeats(distances, symbols);
  const counts = new Uint32Array(19);
  for (const symbol of symbols) counts[symbol & 31] = (counts[symbol & 31] as number) + 1;
  const lengths = codeLengths(counts, LENGTH_CODE_BITS_MAX);
  let written = LENGTH_ORDER.length;
  while (written > 4 && lengths[LENGTH_ORDER[written - 1] as number] === 0) written -= 1;
  return { literals, distances, lengths, written, symbols };
}

/** Bits of a block in these codes, without its first three. */
export function blockBits(
  literalCounts: Uint32Array,
  distanceCounts: Uint32Array,
  literals: Uint8Array,
  distances: Uint8Array,
): number {
  let bits = 0;
  for (const [symbol, count] of literalCounts.entries()) {
    const extra = symbol > END_OF_BLOCK ? (LENGTH_EXTRA[symbol - LENGTHS_FROM] as number) : 0;
    if (count > 0) bits += count * ((literals[symbol] ?? 0) + extra);
  }
  for (const [symbol, count] of distanceCounts.entries())
    if (count > 0) bits += count * ((distances[symbol] ?? 0) + (DISTANCE_EXTRA[symbol] as number));
  return bits;
}

export function treesBits({ lengths, written, symbols }: Trees): number {
  let bits = 5 + 5 + 4 + 3 * written;
  for (const symbol of symbols)
    bits += (lengths[symbol & 31] as number) + (REPEAT_EXTRA[(symbol & 31) - 16] ?? 0);
  return bits;
}
