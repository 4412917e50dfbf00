/**
 * What the items of a layer's index are filled with: the artifact's sections, each read front to back, and the basis's files.
 *
 * Invariant: a basis file that content is made from is known by the check that the index has, before a byte of it is used; what is copied
 * whole is covered by the layer's own digests, and named when these do not agree.
 */
import { createHash } from 'node:crypto';
import type { DeltaReader, HeaderLayer, Section } from '#deltas/artifact.ts';
import type { Basis, BasisFile, List } from '#deltas/basis.ts';
import { agrees, checkBytesOf } from '#deltas/check.ts';
import { type Compression, decompress, SectionReader } from '#deltas/compression.ts';
import { asDeltaError, DeltaError } from '#deltas/errors.ts';
import { GroupReader } from '#deltas/group-reader.ts';
import { groupedContents } from '#deltas/index-blocks.ts';
import type { Content, Patched, StreamsContent, Window } from '#deltas/index-format.ts';
import { JoinedFile } from '#deltas/joined-file.ts';
import { LIMITS } from '#deltas/limits.ts';
import { decodeMoves } from '#deltas/moves/decoder.ts';
import { severalNames } from '#deltas/paths.ts';
import { RawSection } from '#deltas/raw-section.ts';
import { Budget, closeStreams, openingSteps } from '#deltas/streams/closer.ts';
import { OpenedFile } from '#deltas/streams/opener.ts';
import { PlanReader } from '#deltas/streams/plan.ts';
import { Xdelta3 } from '#deltas/xdelta3.ts';

const STREAMS = ['solid', 'patches', 'moves', 'streams'] as const;
type StreamKind = (typeof STREAMS)[number];

/** Of one layer while it is rebuilt. */
export class Sources {
  readonly #basis: Basis;
  readonly #xdelta3 = new Xdelta3();
  readonly #piece = new Uint8Array(4 * LIMITS.chunkBytes);
  readonly #readers = new Map<StreamKind, SectionReader>();
  readonly #scratchDirectory: string;
  readonly #budget = new Budget();
  readonly #frames: RawSection | undefined;
  readonly #groups: GroupReader | undefined;
  /** Basis files copied since the last checkpoint: when that fails, one of them is not what it was. Others were compared before. */
  suspects = new Set<string>();

  constructor(
    delta: DeltaReader,
    layer: HeaderLayer,
    basis: Basis,
    list: List | undefined,
    scratchDirectory: string,
  ) {
    this.#basis = basis;
    this.#scratchDirectory = scratchDirectory;
    for (const kind of STREAMS) {
      const section = onlySection(layer, kind);
      if (section === undefined) continue;
      // Which the header's reader has seen to.
      const codec = section.codec as Compression;
      const reader = new SectionReader(delta.stream(section), section.rawBytes, `section ${kind}`, codec);
      this.#readers.set(kind, reader);
    }
    const raw = (kind: 'frames' | 'groups'): RawSection | undefined => {
      const section = onlySection(layer, kind);
      return section && new RawSection(delta.stream(section), section.bytes, `section ${kind}`);
    };
    this.#frames = raw('frames');
    const groups = raw('groups');
    if (groups !== undefined) {
      const open = async (path: string): Promise<BasisFile> => {
        const file = await this.#open(path);
        return { ...this.#guarded(file, path), close: async () => await file.close?.() };
      };
      const contents = groupedContents(delta, layer, list);
      this.#groups = new GroupReader(groups, contents, open, checkBytesOf(delta.header.codecs));
    }
  }

  #reader(kind: StreamKind): SectionReader {
    return named(this.#readers.get(kind), kind);
  }

  solid(length: number): AsyncGenerator<Buffer> {
    return this.#reader('solid').pieces(length);
  }

  /** @param bytes that it must have */
  async #open(path: string, bytes?: number): Promise<BasisFile> {
    let file: BasisFile | undefined;
    try {
      file = await this.#basis.open(path);
    } catch (error) {
      throw asDeltaError(error, 'READ_FAILED', `the basis's ${path} cannot be opened`);
    }
    if (file === undefined) throw new DeltaError('BASIS_MISMATCH', `the basis has no file ${path}`);
    if (bytes !== undefined && file.size !== bytes) {
      await file.close?.();
      throw new DeltaError(
        'BASIS_MISMATCH',
        `the basis's ${path} has ${file.size} bytes instead of ${bytes}`,
      );
    }
    return file;
  }

  async #read(
    file: BasisFile,
    path: string,
    offset: number,
    length: number,
    into?: Uint8Array,
  ): Promise<Uint8Array> {
    let bytes: Uint8Array;
    try {
      bytes = await file.read(offset, length, into);
    } catch (error) {
      throw asDeltaError(error, 'READ_FAILED', `the basis's ${path} cannot be read`);
    }
    if (bytes.length !== length) {
      throw new DeltaError('BASIS_MISMATCH', `the basis's ${path} ended while it was read`);
    }
    return bytes;
  }

  /** Each piece is valid until the next is asked for. */
  async *#range(file: BasisFile, path: string, offset: number, length: number): AsyncGenerator<Uint8Array> {
    for (let done = 0; done < length; ) {
      const bytes = Math.min(length - done, this.#piece.length);
      const some = await this.#read(file, path, offset + done, bytes, this.#piece);
      done += some.length;
      yield some;
    }
  }

  async *content(length: number, content: Content): AsyncGenerator<Uint8Array> {
    if (content.type === 'meta') {
      yield content.bytes;
    } else if (content.type === 'solid') {
      yield* this.solid(length);
    } else if (content.type === 'grouped') {
      yield await named(this.#groups, 'groups').take(length);
    } else if (content.type === 'streams') {
      yield* this.#checked(this.#closed(content), length, content);
    } else if (content.type === 'joined') {
      const file = new JoinedFile(content.parts, ({ path, bytes }) => this.#open(path, bytes));
      try {
        const path = severalNames(content.parts.map((part) => part.path));
        const moves = { ...content, type: 'moves', path, basisBytes: file.size } as const;
        yield* this.#checked(this.#patched(file, length, moves), length, content);
      } finally {
        await file.close();
      }
    } else {
      const { path } = content;
      const file = await this.#open(path, content.type === 'copy' ? length : content.basisBytes);
      try {
        if (content.type === 'copy') {
          this.suspects.add(path);
          yield* this.#range(file, path, 0, length);
        } else {
          yield* this.#checked(this.#patched(file, length, content), length, content);
        }
      } finally {
        await file.close?.();
      }
    }
  }

  /** Hands on what is made of files that were compared, and compares it at its end. */
  async *#checked(
    made: AsyncIterable<Uint8Array>,
    length: number,
    { outputCheck }: { outputCheck?: Buffer | undefined },
  ): AsyncGenerator<Uint8Array> {
    // A checkpoint follows, which covers it: a further digest of each byte would cost a fifth of the whole time.
    if (outputCheck === undefined || length >= LIMITS.checkEveryBytes) {
      yield* made;
      return;
    }
    const hash = createHash('sha256');
    for await (const some of made) {
      hash.update(some);
      yield some;
    }
    if (!hash.digest().subarray(0, outputCheck.length).equals(outputCheck))
      throw new DeltaError('CORRUPT', 'a patch does not give the file that it should');
  }

  /** A file that is made with its deflate streams opened. */
  async *#closed({ inside, openedBytes, planBytes }: StreamsContent): AsyncGenerator<Uint8Array> {
    const chunk = await this.#reader('streams').take(planBytes);
    const basisBytes = inside.type === 'solid' ? 0 : inside.closedBasisBytes;
    const plan = new PlanReader(chunk, basisBytes, openedBytes);
    if (inside.type === 'solid') {
      yield* closeStreams(this.solid(openedBytes), openedBytes, plan, this.#budget);
      return;
    }
    const file = await this.#open(inside.path, basisBytes);
    let opened: OpenedFile | undefined;
    try {
      await this.#verify(file, inside);
      this.#budget.spend(0, openingSteps(plan.olds));
      opened = await OpenedFile.open(this.#guarded(file, inside.path), plan.olds, this.#scratchDirectory);
      if (opened.size !== inside.basisBytes)
        throw new DeltaError('CORRUPT', 'streams: the opened basis file has another length');
      const made = this.#made(opened, openedBytes, inside);
      yield* closeStreams(made, openedBytes, plan, this.#budget);
    } finally {
      await opened?.close();
      await file.close?.();
    }
  }

  async *#patched(file: BasisFile, length: number, content: Patched): AsyncGenerator<Uint8Array> {
    await this.#verify(file, content);
    yield* this.#made(file, length, content);
  }

  /** @throws DeltaError `BASIS_MISMATCH` */
  async #verify(file: BasisFile, { path, basisCheck }: Patched): Promise<void> {
    if (!(await agrees(this.#range(file, path, 0, file.size), basisCheck))) {
      throw new DeltaError(
        'BASIS_MISMATCH',
        `the basis's ${path} is not the file that the delta was made from`,
      );
    }
  }

  #made(file: BasisFile, length: number, content: Patched): AsyncGenerator<Uint8Array> {
    return content.type === 'moves' ? this.#moved(file, length, content) : this.#windows(file, content);
  }

  /** Whose reads fail with a DeltaError, or give what was asked for. */
  #guarded(file: BasisFile, path: string): BasisFile {
    return { size: file.size, read: (offset, length, into) => this.#read(file, path, offset, length, into) };
  }

  async *#windows(
    file: BasisFile,
    { path, windows }: Extract<Patched, { type: 'windows' }>,
  ): AsyncGenerator<Uint8Array> {
    for (const window of windows) yield* this.#window(file, path, window);
  }

  async *#moved(
    file: BasisFile,
    length: number,
    { path, movesBytes, literalBytes }: Extract<Patched, { type: 'moves' }>,
  ): AsyncGenerator<Uint8Array> {
    const moves = this.#reader('moves');
    const literals = this.#readers.get('solid');
    let left = { moves: movesBytes, literal: literalBytes };
    const take = (from: 'moves' | 'literal', bytes: number): void => {
      left = { ...left, [from]: left[from] - bytes };
      if (left[from] < 0) throw new DeltaError('CORRUPT', `the patch for ${path} uses more than its own`);
    };
    yield* decodeMoves(this.#guarded(file, path), length, {
      chunk: (bytes) => {
        take('moves', bytes);
        return moves.take(bytes);
      },
      literalNow: (bytes) => {
        const now = literals?.now(bytes);
        if (now !== undefined) take('literal', bytes);
        return now;
      },
      literal: (bytes) => {
        take('literal', bytes);
        return this.solid(bytes);
      },
    });
    if (left.moves > 0 || left.literal > 0)
      throw new DeltaError('CORRUPT', `the patch for ${path} leaves bytes of its own`);
  }

  async *#window(file: BasisFile, path: string, window: Window): AsyncGenerator<Uint8Array> {
    const { codec, bytes, sourceOffset, sourceBytes, patchBytes } = window;
    if (codec === 'copy') {
      yield* this.#range(file, path, sourceOffset, bytes);
    } else if (codec === 'literal') {
      yield* this.solid(bytes);
    } else {
      const source = await this.#read(file, path, sourceOffset, sourceBytes);
      if (codec === 'vcdiff') {
        yield this.#xdelta3.decode(await this.#reader('patches').take(patchBytes), source, bytes);
      } else {
        yield await decompress(
          await named(this.#frames, 'frames').take(patchBytes),
          bytes,
          `the frame for ${path}`,
          source,
        );
      }
    }
  }

  /** @throws DeltaError `CORRUPT` when a section holds more than was used */
  async finish(): Promise<void> {
    for (const reader of this.#readers.values()) await reader.finish();
    this.#frames?.finish();
    this.#groups?.finish();
  }

  async close(): Promise<void> {
    for (const reader of this.#readers.values()) await reader.close();
    await this.#frames?.close();
    await this.#groups?.close();
  }
}

/** @throws DeltaError `CORRUPT` */
function named<Used>(section: Used | undefined, kind: Section['kind']): Used {
  if (section === undefined) throw new DeltaError('CORRUPT', `the layer has no section ${kind}`);
  return section;
}

function onlySection(layer: HeaderLayer, kind: Section['kind']): Section | undefined {
  const found = layer.sections.filter((section) => section.kind === kind);
  if (found.length > 1) throw new DeltaError('CORRUPT', `the layer has several sections ${kind}`);
  return found[0];
}
