/**
 * Makes one file from others by whichever way gives the fewest bytes: ranges of one or of several (moves/), windows of one, or
 * as it is; and each of these but the second with the files' deflate streams opened (streams/). Or, when it is small, together with
 * others (group-writer.ts).
 *
 * Invariant: what was not chosen leaves nothing in the sinks.
 */
import type { BasisFile } from '#deltas/basis.ts';
import type { Codec } from '#deltas/codecs.ts';
import { compress } from '#deltas/compression.ts';
import { GroupWriter } from '#deltas/group-writer.ts';
import type { Window } from '#deltas/index-format.ts';
import { LIMITS } from '#deltas/limits.ts';
import { inPlace } from '#deltas/moves/covers.ts';
import { type EncodedMoves, encodeMoves, gradedMoves } from '#deltas/moves/encoder.ts';
import { memoryAccess } from '#deltas/random-access.ts';
import { Budget } from '#deltas/streams/closer.ts';
import { openStreams } from '#deltas/streams/encoder.ts';
import { CONTAINER_HEAD_BYTES, isContainer } from '#deltas/streams/finder.ts';
import { WindowEncoder, type WindowSinks } from '#deltas/window-encoder.ts';

type Sink = WindowSinks['solid'];
export type FileSinks = WindowSinks & { moves: Sink; streams: Sink };

type Patch =
  | { type: 'windows'; windows: Window[] }
  | {
      type: 'moves';
      movesBytes: number;
      literalBytes: number;
      ranges: number;
      references: { count: number; wrong: number };
      needs: ReadonlySet<Codec>;
      /** Of all basis files, one behind the other; or of the first alone. */
      isJoined: boolean;
    };

export type EncodedFile =
  | { type: 'literal' }
  /** Left to the caller, with what it comes from: undefined for a new file. */
  | { type: 'grouped'; young: Buffer; old: Buffer | undefined }
  | Patch
  | {
      type: 'streams';
      /** Lengths with the streams opened. */
      openedBytes: number;
      openedBasisBytes: number;
      planBytes: number;
      streams: number;
      /** What they hold. */
      rawBytes: number;
      inside: { type: 'solid' } | Patch;
    };

/** The other files of the layer that may be compressed together. */
export interface Beside {
  /** Of those that come from a basis file. */
  changedBytes: number;
  /** Whether a new file, like nothing that is there, does best among them. */
  takesNew: boolean;
}

/** One way to make a file, and what it would write. */
interface Way {
  made: EncodedFile;
  /** About, once compressed. */
  cost: number;
  writes: { to: keyof FileSinks; bytes: Uint8Array }[];
  /** What the reader will spend. */
  spent?: { bytes: number; steps: number };
}

/** A second compressed section beside others costs less than alone: headers, and what it shares with them. */
const SHARED_BYTES = 24;
/** A check, lengths and a reference: what any patch costs. */
const PATCH_BYTES = 12;
/** Of less there is not much to save by ranges of other kinds; and files that changed alike share more when they are told alike. */
const TRIES_COST_MIN = 1024;
/** What opening costs: lengths. */
const OPENED_BYTES = 8;
/**
 * About what a change costs that is compressed together with nothing beside it, and with as much again of others, of what it costs alone by zstd:
 * other ways end with brotli, which takes a little less. And what its frame takes beside that.
 */
const GROUPED_PART = { alone: 1.04, shared: 0.85 };
/** The same where all of it is told by brotli behind the old files. */
const BEHIND_PART = { alone: 0.95, shared: 0.78 };
const GROUPED_SAVES_BYTES = 20;
/** When the ranges that were found are less of a new file than this, all of it is tried in place. */
const IN_PLACE_BELOW = 0.9;
const NO_BASIS: BasisFile = memoryAccess(Buffer.alloc(0));
/** Another basis file: its name or its place in the listing, and its length. */
const FURTHER_BYTES = 6;

export class FileEncoder {
  readonly #sinks: FileSinks;
  readonly #level: number;
  readonly #moveBytesMax: number;
  readonly #budget = new Budget();

  /** @param level of zstd */
  constructor(sinks: FileSinks, level: number, moves: 'auto' | 'never') {
    this.#sinks = sinks;
    this.#level = level;
    this.#moveBytesMax = moves === 'auto' ? LIMITS.movesFilesBytesMax : 0;
  }

  /**
   * @param pieces  the new file, `bytes` in all
   * @param basis   the file that it most likely comes from; undefined when there is nothing like it
   * @param further files that may have what that one lacks
   */
  async encode(
    pieces: AsyncIterable<Uint8Array>,
    bytes: number,
    basis: BasisFile | undefined,
    further: readonly BasisFile[] = [],
    beside: Beside = { changedBytes: 0, takesNew: false },
  ): Promise<EncodedFile> {
    if (basis === undefined) {
      if (!beside.takesNew || this.#moveBytesMax === 0 || bytes > LIMITS.groupFileBytesMax)
        return await this.#alone(pieces, bytes);
      const young = await whole(pieces, bytes);
      if (isText(young) && GroupWriter.takes(young)) return { type: 'grouped', young, old: undefined };
      return await this.#alone(once(young), bytes);
    }
    if (bytes + basis.size > this.#moveBytesMax) {
      const encoder = new WindowEncoder(this.#sinks, this.#level);
      const windows = await encoder.encode(pieces, bytes, basis);
      return windows.every(({ codec }) => codec === 'literal')
        ? { type: 'literal' }
        : { type: 'windows', windows };
    }
    const young = await whole(pieces, bytes);
    const ways = [
      await this.#moves(young, [basis]),
      await this.#joined(young, [basis, ...further]),
      ...((await this.#grouped(young, basis, beside)) ?? (await this.#small(young, basis))),
      await this.#opened(young, basis),
    ];
    return await this.#write(ways, young);
  }

  async #write(ways: (Way | undefined)[], young: Buffer): Promise<EncodedFile> {
    const { made, writes, spent }: Way = cheapest(ways) ?? literal(young, 0);
    for (const { to, bytes } of writes) await this.#sinks[to].write(bytes);
    if (spent !== undefined) this.#budget.spend(spent.bytes, spent.steps);
    return made;
  }

  /** A new file: as it is, or with its streams opened. */
  async #alone(pieces: AsyncIterable<Uint8Array>, bytes: number): Promise<EncodedFile> {
    const parts: Uint8Array[] = [];
    let held = 0;
    let keep: boolean | undefined =
      this.#moveBytesMax > 0 && bytes <= LIMITS.openedFilesBytesMax ? undefined : false;
    for await (const piece of pieces) {
      if (keep === false) {
        await this.#sinks.solid.write(piece);
        continue;
      }
      parts.push(Uint8Array.from(piece));
      held += piece.length;
      if (keep !== undefined || held < Math.min(CONTAINER_HEAD_BYTES, bytes)) continue;
      keep = isContainer(Buffer.concat(parts));
      if (!keep) for (const part of parts.splice(0)) await this.#sinks.solid.write(part);
    }
    if (keep !== true) return { type: 'literal' };
    const young = Buffer.concat(parts, bytes);
    const ways = [await this.#asIs(young), await this.#opened(young, NO_BASIS)];
    return await this.#write(ways, young);
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

  async #asIs(young: Buffer): Promise<Way> {
    return literal(young, await this.#cost([young]));
  }

  async #joined(young: Buffer, files: readonly BasisFile[]): Promise<Way | undefined> {
    const bytes = files.reduce((sum, { size }) => sum + size, young.length);
    return files.length > 1 && bytes <= this.#moveBytesMax ? await this.#moves(young, files) : undefined;
  }

  async #moves(young: Buffer, files: readonly BasisFile[]): Promise<Way | undefined> {
    const parts: Uint8Array[] = [];
    for (const file of files) parts.push(await file.read(0, file.size));
    const old = parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
    const found = await encodeMoves(old, young);
    const first = await this.#moved(found, files.length);
    const others: (EncodedMoves | undefined)[] = [];
    const known = (found?.copiedBytes ?? 0) < IN_PLACE_BELOW * young.length ? inPlace(old, young) : undefined;
    if (known !== undefined) others.push(await encodeMoves(old, young, known));
    // It is not known beforehand how close ranges should be looked for.
    if (found !== undefined && (first?.cost ?? 0) >= TRIES_COST_MIN) {
      if (found.needs.has('modules-1')) others.push(await encodeMoves(old, young, undefined, 'coarse'));
      else if (found.references.count === 0 && old.length + young.length <= LIMITS.movesTriesBytesMax)
        others.push(...(await gradedMoves(old, young, ['fine', 'coarse', 'sparse'])));
    }
    return cheapest([first, ...(await Promise.all(others.map((moved) => this.#moved(moved, files.length))))]);
  }

  async #moved(moved: EncodedMoves | undefined, fileCount: number): Promise<Way | undefined> {
    if (moved === undefined || moved.copiedBytes === 0) return undefined;
    const { chunks, literals, ranges, references, needs } = moved;
    const length = (list: Uint8Array[]): number => list.reduce((sum, one) => sum + one.length, 0);
    const [movesBytes, literalBytes] = [length(chunks), length(literals)];
    return {
      made: { type: 'moves', movesBytes, literalBytes, ranges, references, needs, isJoined: fileCount > 1 },
      cost: PATCH_BYTES + FURTHER_BYTES * (fileCount - 1) + (await this.#cost(chunks, literals)),
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
    const ways = [await this.#asIs(young)];
    if (windows.every(({ codec }) => codec === 'literal')) return ways;
    const of = (to: keyof FileSinks): Uint8Array[] =>
      writes.filter((one) => one.to === to).map((one) => one.bytes);
    const frames = of('frames').reduce((sum, one) => sum + one.length, 0);
    const cost = PATCH_BYTES + frames + (await this.#cost(of('patches'), of('solid')));
    return [...ways, { made: { type: 'windows', windows }, cost, writes }];
  }

  /** Or as it is. Windows would hardly ever take less, and much time. */
  async #grouped(young: Buffer, basis: BasisFile, { changedBytes }: Beside): Promise<Way[] | undefined> {
    if (Math.max(young.length, basis.size) > LIMITS.groupFileBytesMax) return undefined;
    const old = Buffer.from(await basis.read(0, basis.size));
    if (!GroupWriter.takes(young) || !GroupWriter.takes(old)) return undefined;
    const alone = (await compress(young, Math.min(this.#level, 12), old)).length;
    // What cannot be compressed alone shares nothing with others either, nor does what has none.
    const shared = alone < young.length / 2 ? Math.min(1, changedBytes / young.length) : 0;
    const isBehind = 2 * (changedBytes + young.length) <= LIMITS.groupBehindBytesMax;
    const parts = isBehind ? BEHIND_PART : GROUPED_PART;
    const part = parts.alone + shared * (parts.shared - parts.alone);
    const cost = Math.max(8, part * alone - (changedBytes > 0 ? GROUPED_SAVES_BYTES : 0));
    return [{ made: { type: 'grouped', young, old }, cost, writes: [] }, await this.#asIs(young)];
  }

  /** The same ways, with the streams of both files opened. */
  async #opened(young: Buffer, basis: BasisFile): Promise<Way | undefined> {
    if (!isContainer(young) || young.length + basis.size > LIMITS.openedFilesBytesMax) return undefined;
    const old = Buffer.from(await basis.read(0, basis.size));
    const opened = await openStreams(young, old, this.#budget);
    if (opened === undefined) return undefined;
    const openedBasis = memoryAccess(opened.old);
    const ways =
      basis.size === 0
        ? []
        : [await this.#moves(opened.young, [openedBasis]), ...(await this.#small(opened.young, openedBasis))];
    const plain = await this.#asIs(opened.young);
    const { made, cost, writes }: Way = cheapest([...ways, plain]) ?? plain;
    if (made.type === 'streams' || made.type === 'grouped') return undefined;
    return {
      made: {
        type: 'streams',
        openedBytes: opened.young.length,
        openedBasisBytes: opened.old.length,
        planBytes: opened.plan.length,
        streams: opened.streams,
        rawBytes: opened.spent.bytes,
        inside: made.type === 'literal' ? { type: 'solid' } : made,
      },
      cost: OPENED_BYTES + cost + (await this.#cost([opened.plan])),
      writes: [...writes, { to: 'streams', bytes: opened.plan }],
      spent: opened.spent,
    };
  }
}

function cheapest(ways: readonly (Way | undefined)[]): Way | undefined {
  let best: Way | undefined;
  for (const way of ways) if (way !== undefined && (best === undefined || way.cost < best.cost)) best = way;
  return best;
}

/** As far as its beginning shows. */
const isText = (bytes: Buffer): boolean => !bytes.subarray(0, 8 * 1024).includes(0);

const literal = (young: Buffer, cost: number): Way => ({
  made: { type: 'literal' },
  cost,
  writes: [{ to: 'solid', bytes: young }],
});

async function whole(pieces: AsyncIterable<Uint8Array>, bytes: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const piece of pieces) parts.push(Uint8Array.from(piece));
  return Buffer.concat(parts, bytes);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
