/**
 * Contents that are compressed together, by the basis files that they come from (docs/delta-format.md §4.8).
 *
 * Invariant: these files are known by the check that the group has, before a byte is made with them. Memory: one group, its files and what was sent of it;
 * zstd's or brotli's history: four times `groupBytesMax` and what the collector leaves of the group before, and a few hundred bytes for each of its contents.
 */
import type { BasisFile } from '#deltas/basis.ts';
import { agrees } from '#deltas/check.ts';
import { decompress, decompressBehind, SectionReader } from '#deltas/compression.ts';
import { DeltaError } from '#deltas/errors.ts';
import { LIMITS } from '#deltas/limits.ts';
import { decodeMoves } from '#deltas/moves/decoder.ts';
import { severalNames } from '#deltas/paths.ts';
import { memoryAccess } from '#deltas/random-access.ts';
import type { RawSection } from '#deltas/raw-section.ts';

/** How a group is made: a zstd frame with the files as its dictionary, moves over them, or brotli behind them. Part of the format. */
export const GROUP = { frame: 0, moves: 1, behind: 2 } as const;

/** In the order of the index. */
export interface GroupedContent {
  length: number;
  path: string | undefined;
}

export class GroupReader {
  readonly #section: RawSection;
  readonly #contents: AsyncGenerator<GroupedContent>;
  readonly #open: (path: string) => Promise<BasisFile>;
  readonly #checkBytes: number;
  /** What is left of the group. */
  #held: Buffer = Buffer.alloc(0);

  /**
   * @param contents all of the layer's, of which as many are asked for as the present group has
   * @param open     a file that is closed by us
   * @param checkBytes of a group's files
   */
  constructor(
    section: RawSection,
    contents: AsyncGenerator<GroupedContent>,
    open: (path: string) => Promise<BasisFile>,
    checkBytes: number,
  ) {
    this.#section = section;
    this.#contents = contents;
    this.#open = open;
    this.#checkBytes = checkBytes;
  }

  /** The next content. */
  async take(length: number): Promise<Buffer> {
    if (this.#held.length === 0) this.#held = await this.#next();
    const content = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    return content;
  }

  /** @throws DeltaError `CORRUPT` when bytes are left over */
  finish(): void {
    this.#section.finish();
  }

  async close(): Promise<void> {
    await this.#section.close();
    await this.#contents.return(undefined);
  }

  async #length(bytesMax: number = LIMITS.groupBytesMax): Promise<number> {
    const length = (await this.#section.take(4)).readUInt32LE(0);
    if (length > bytesMax) throw new DeltaError('TOO_LARGE', 'a group larger than a reader holds');
    return length;
  }

  async #next(): Promise<Buffer> {
    const form = (await this.#section.take(1))[0];
    const bytes = await this.#length();
    const oldBytes = await this.#length();
    if (form === GROUP.behind && bytes + oldBytes > LIMITS.groupBehindBytesMax)
      throw new DeltaError('TOO_LARGE', 'a group larger than a reader holds');
    const check = await this.#section.take(this.#checkBytes);
    const old = await this.#files(await this.#paths(bytes), oldBytes, check);
    if (form === GROUP.moves) return await this.#moved(old, bytes);
    if (form !== GROUP.frame && form !== GROUP.behind)
      throw new DeltaError('CORRUPT', `unknown form of a group ${form}`);
    // What cannot be compressed takes some bytes more.
    const frame = await this.#section.take(await this.#length(LIMITS.groupBytesMax + LIMITS.chunkBytes));
    if (form === GROUP.behind) {
      if (old.length === 0) throw new DeltaError('CORRUPT', 'a group behind no files');
      return await decompressBehind(frame, bytes, 'a group', old);
    }
    return await decompress(frame, bytes, 'a group', old.length === 0 ? undefined : old);
  }

  async #moved(old: Buffer, bytes: number): Promise<Buffer> {
    const [moves, literals] = [await this.#part('moves'), await this.#part('literals')];
    try {
      const made = Buffer.allocUnsafe(bytes);
      let at = 0;
      const sources = {
        chunk: (length: number) => moves.take(length),
        literalNow: (length: number) => literals.now(length),
        literal: (length: number) => literals.pieces(length),
      };
      for await (const some of decodeMoves(memoryAccess(old), bytes, sources)) {
        made.set(some, at);
        at += some.length;
      }
      for (const part of [moves, literals]) await part.finish();
      return made;
    } finally {
      for (const part of [moves, literals]) await part.close();
    }
  }

  /** Of brotli. */
  async #part(what: string): Promise<SectionReader> {
    const rawBytes = await this.#length(LIMITS.movesChunkBytesMax);
    const packed = await this.#section.take(await this.#length(LIMITS.movesChunkBytesMax));
    const pieces = async function* (): AsyncGenerator<Uint8Array> {
      yield packed;
    };
    return new SectionReader(pieces(), rawBytes, `the ${what} of a group`, 'brotli');
  }

  /** Of the contents that are `bytes` together, each once. */
  async #paths(bytes: number): Promise<Set<string>> {
    const paths = new Set<string>();
    let sum = 0;
    for (let count = 0; sum < bytes; count += 1) {
      const next = await this.#contents.next();
      if (next.done === true || count === LIMITS.groupFilesMax)
        throw new DeltaError('CORRUPT', 'a group has not as many contents as it says');
      sum += next.value.length;
      if (next.value.path !== undefined) paths.add(next.value.path);
    }
    if (bytes === 0 || sum > bytes) throw new DeltaError('CORRUPT', 'a content goes on behind its group');
    return paths;
  }

  /** One behind the other. @throws DeltaError `BASIS_MISMATCH` */
  async #files(paths: ReadonlySet<string>, bytes: number, check: Buffer): Promise<Buffer> {
    const all = Buffer.allocUnsafe(bytes);
    let at = 0;
    for (const path of paths) {
      const file = await this.#open(path);
      try {
        if (file.size > bytes - at)
          throw new DeltaError('BASIS_MISMATCH', `the basis's ${path} is longer than it was`);
        all.set(await file.read(0, file.size), at);
        at += file.size;
      } finally {
        await file.close?.();
      }
    }
    if (at !== bytes || !(await agrees([all], check))) {
      const names = severalNames([...paths]);
      throw new DeltaError('BASIS_MISMATCH', `one of these differs in the basis: ${names}`);
    }
    return all;
  }
}
