/**
 * Makes one file from others by whichever way gives the fewest bytes: ranges of one or of several (moves/), windows of one, or
 * as it is.
 *
 * Invariant: what was not chosen leaves nothing in the sinks.
 */
import { createHash } from 'node:crypto';
import type { BasisFile } from '#deltas/basis.ts';
import { compress } from '#deltas/compression.ts';
import type { Window } from '#deltas/index-format.ts';
import { LIMITS } from '#deltas/limits.ts';
import { encodeMoves } from '#deltas/moves/encoder.ts';
import { WindowEncoder, type WindowSinks } from '#deltas/window-encoder.ts';

type Sink = WindowSinks['solid'];
export type FileSinks = WindowSinks & { moves: Sink };

export type EncodedFile =
  | { type: 'literal' }
  | { type: 'windows'; windows: Window[] }
  | {
      type: 'moves';
      movesBytes: number;
      literalBytes: number;
      ranges: number;
      references: { count: number; wrong: number };
      /** For several, SHA-256 of all of them, one behind the other; undefined for the first alone. */
      joinedDigest: Buffer | undefined;
    };

/** One way to make a file, and what it would write. */
interface Way {
  made: EncodedFile;
  /** About, once compressed. */
  cost: number;
  writes: { to: keyof FileSinks; bytes: Uint8Array }[];
}

/** A second compressed section beside others costs less than alone: headers, and what it shares with them. */
const SHARED_BYTES = 24;
/** Two checks, lengths and a reference: what any patch costs. */
const PATCH_BYTES = 24;
/** Another basis file: its name or its place in the listing, and its length. */
const FURTHER_BYTES = 6;

export class FileEncoder {
  readonly #sinks: FileSinks;
  readonly #level: number;
  readonly #moveBytesMax: number;

  /** @param level of zstd */
  constructor(sinks: FileSinks, level: number, moves: 'auto' | 'never') {
    this.#sinks = sinks;
    this.#level = level;
    this.#moveBytesMax = moves === 'auto' ? LIMITS.movesFilesBytesMax : 0;
  }

  /**
   * @param pieces  the new file, `bytes` in all
   * @param basis   the file that it most likely comes from
   * @param further files that may have what that one lacks
   */
  async encode(
    pieces: AsyncIterable<Uint8Array>,
    bytes: number,
    basis: BasisFile,
    further: readonly BasisFile[] = [],
  ): Promise<EncodedFile> {
    if (bytes + basis.size > this.#moveBytesMax) {
      const encoder = new WindowEncoder(this.#sinks, this.#level);
      const windows = await encoder.encode(pieces, bytes, basis);
      return windows.every(({ codec }) => codec === 'literal')
        ? { type: 'literal' }
        : { type: 'windows', windows };
    }
    const parts: Uint8Array[] = [];
    for await (const piece of pieces) parts.push(Uint8Array.from(piece));
    const young = Buffer.concat(parts, bytes);
    const ways = [
      await this.#moves(young, [basis]),
      await this.#joined(young, [basis, ...further]),
      ...(await this.#small(young, basis)),
    ];
    let best: Way | undefined;
    for (const way of ways) if (way !== undefined && (best === undefined || way.cost < best.cost)) best = way;
    const { made, writes }: Way = best ?? literal(young, 0);
    for (const { to, bytes: some } of writes) await this.#sinks[to].write(some);
    return made;
  }

  /** What compresses well is estimated by zstd: brotli may take over at the end, for all ways alike. */
  async #cost(...parts: Uint8Array[][]): Promise<number> {
    let sum = 0;
    for (const part of parts) {
      const raw = Buffer.concat(part);
      if (raw.length === 0) continue;
      sum += Math.max(8, (await compress(raw, Math.min(this.#level, 12))).length - SHARED_BYTES);
    }
    return sum;
  }

  async #joined(young: Buffer, files: readonly BasisFile[]): Promise<Way | undefined> {
    const bytes = files.reduce((sum, { size }) => sum + size, young.length);
    return files.length > 1 && bytes <= this.#moveBytesMax ? await this.#moves(young, files) : undefined;
  }

  async #moves(young: Buffer, files: readonly BasisFile[]): Promise<Way | undefined> {
    const parts: Uint8Array[] = [];
    for (const file of files) parts.push(await file.read(0, file.size));
    const old = parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
    const moved = await encodeMoves(old, young);
    if (moved === undefined || moved.copiedBytes === 0) return undefined;
    const { chunks, literals, ranges, references } = moved;
    const length = (list: Uint8Array[]): number => list.reduce((sum, one) => sum + one.length, 0);
    const joinedDigest = files.length > 1 ? createHash('sha256').update(old).digest() : undefined;
    const [movesBytes, literalBytes] = [length(chunks), length(literals)];
    return {
      made: { type: 'moves', movesBytes, literalBytes, ranges, references, joinedDigest },
      cost: PATCH_BYTES + FURTHER_BYTES * (files.length - 1) + (await this.#cost(chunks, literals)),
      writes: [
        ...chunks.map((some) => ({ to: 'moves' as const, bytes: some })),
        ...literals.map((some) => ({ to: 'solid' as const, bytes: some })),
      ],
    };
  }

  /** Ways that are worth their time for a small file only. */
  async #small(young: Buffer, basis: BasisFile): Promise<Way[]> {
    if (young.length > LIMITS.windowsFileBytesMax) return [];
    const writes: Way['writes'] = [];
    const sink = (to: keyof WindowSinks): Sink => ({
      write: async (some) => void writes.push({ to, bytes: Uint8Array.from(some) }),
    });
    const sinks = { solid: sink('solid'), patches: sink('patches'), frames: sink('frames') };
    const windows = await new WindowEncoder(sinks, this.#level).encode(once(young), young.length, basis);
    const ways = [literal(young, await this.#cost([young]))];
    if (windows.every(({ codec }) => codec === 'literal')) return ways;
    const of = (to: keyof FileSinks): Uint8Array[] =>
      writes.filter((one) => one.to === to).map((one) => one.bytes);
    const frames = of('frames').reduce((sum, one) => sum + one.length, 0);
    const cost = PATCH_BYTES + frames + (await this.#cost(of('patches'), of('solid')));
    return [...ways, { made: { type: 'windows', windows }, cost, writes }];
  }
}

const literal = (young: Buffer, cost: number): Way => ({
  made: { type: 'literal' },
  cost,
  writes: [{ to: 'solid', bytes: young }],
});

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
