/**
 * Rebuilds layers from a basis image and a delta.
 *
 * Invariant: what was yielded in full has the layer's diffID. The last bytes are held back until the whole digest was
 * compared, so that a layer that went wrong anywhere never reaches its end. Bytes yielded before are to be thrown away
 * when a DeltaError follows.
 *
 * Memory: what is held at one time is below 64 MiB for any layer and image (16 for xdelta3, 8 of history for each of two
 * streams, at most 4 of index and its items, a window with its source and patch, buffers); plus, when the artifact asks
 * for one, the basis's listing, some 250 bytes a file. The process grows by more since buffers are collected late:
 * measured for a file of 127 MB in 201 windows, 50 MiB with --max-old-space-size=64 and 95 MiB without.
 */
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import type { DeltaReader, HeaderLayer, Section } from '#deltas/artifact.ts';
import { type Basis, type BasisFile, listBasis } from '#deltas/basis.ts';
import { type Compression, decompress, SectionReader } from '#deltas/compression.ts';
import { asDeltaError, DeltaError } from '#deltas/errors.ts';
import { indexBlocks } from '#deltas/index-blocks.ts';
import type { Content, Item, Patched, StreamsContent, Window } from '#deltas/index-format.ts';
import { JoinedFile } from '#deltas/joined-file.ts';
import { digestText } from '#deltas/layer.ts';
import { LIMITS } from '#deltas/limits.ts';
import { decodeMoves } from '#deltas/moves/decoder.ts';
import { Budget, closeStreams, openingSteps } from '#deltas/streams/closer.ts';
import { OpenedFile } from '#deltas/streams/opener.ts';
import { PlanReader } from '#deltas/streams/plan.ts';
import { BLOCK } from '#deltas/tar.ts';
import { Xdelta3 } from '#deltas/xdelta3.ts';

export interface ApplyLimits {
  /** Refuse a layer that claims to be larger: give the length that was signed. */
  outputBytesMax?: number;
  /**
   * Exists; default: the system's. Compressed files of the basis that hold more than 4 MiB are opened into a file there, one at a
   * time, which is gone at the end.
   */
  scratchDirectory?: string;
}

/** The tar so far: its digest, and its bytes in chunks, the last of which is held back. */
class Output {
  readonly #hash = createHash('sha256');
  readonly #bytesMax: number;
  #chunk = Buffer.allocUnsafeSlow(LIMITS.chunkBytes);
  #held = 0;
  position = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Before anything is made, so that a lying length costs nothing. */
  expect(length: number): void {
    if (length > this.#bytesMax - this.position) {
      throw new DeltaError('CORRUPT', `the layer would be longer than its ${this.#bytesMax} bytes`);
    }
  }

  *push(bytes: Uint8Array): Generator<Buffer> {
    this.expect(bytes.length);
    this.#hash.update(bytes);
    this.position += bytes.length;
    for (let at = 0; at < bytes.length; ) {
      if (this.#held === this.#chunk.length) {
        yield this.#chunk;
        this.#chunk = Buffer.allocUnsafeSlow(LIMITS.chunkBytes);
        this.#held = 0;
      }
      const some = bytes.subarray(at, at + this.#chunk.length - this.#held);
      this.#chunk.set(some, this.#held);
      this.#held += some.length;
      at += some.length;
    }
  }

  digest(): Buffer {
    return this.#hash.copy().digest();
  }

  /** The chunk that was held back. */
  rest(): Buffer {
    return this.#chunk.subarray(0, this.#held);
  }
}

const STREAMS = ['solid', 'patches', 'moves', 'streams'] as const;
type StreamKind = (typeof STREAMS)[number];

/** The sections of one layer while it is rebuilt, and the files that went into it. */
class Sources {
  readonly #delta: DeltaReader;
  readonly #basis: Basis;
  readonly #xdelta3 = new Xdelta3();
  readonly #piece = new Uint8Array(4 * LIMITS.chunkBytes);
  readonly #readers = new Map<StreamKind, SectionReader>();
  readonly #scratchDirectory: string;
  readonly #budget = new Budget();
  readonly #frames: { stream: AsyncGenerator<Buffer>; left: number; chunk: Buffer } | undefined;
  /** Basis files used since the last checkpoint: the suspects when that fails. */
  suspects = new Set<string>();

  constructor(delta: DeltaReader, layer: HeaderLayer, basis: Basis, scratchDirectory: string) {
    this.#delta = delta;
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
    const frames = onlySection(layer, 'frames');
    if (frames !== undefined) {
      this.#frames = { stream: this.#delta.stream(frames), left: frames.bytes, chunk: Buffer.alloc(0) };
    }
  }

  #reader(kind: StreamKind): SectionReader {
    const reader = this.#readers.get(kind);
    if (reader === undefined) throw new DeltaError('CORRUPT', `the layer has no section ${kind}`);
    return reader;
  }

  solid(length: number): AsyncGenerator<Buffer> {
    return this.#reader('solid').pieces(length);
  }

  async #frame(length: number): Promise<Buffer> {
    const frames = this.#frames;
    if (frames === undefined || length > frames.left) {
      throw new DeltaError('CORRUPT', 'section frames is used beyond its length');
    }
    frames.left -= length;
    const parts = [frames.chunk];
    let held = frames.chunk.length;
    while (held < length) {
      const next = await frames.stream.next();
      if (next.done === true) throw new DeltaError('CORRUPT', 'section frames ends early');
      parts.push(next.value);
      held += next.value.length;
    }
    const joined = Buffer.concat(parts, held);
    frames.chunk = joined.subarray(length);
    return joined.subarray(0, length);
  }

  async #open(path: string, bytes: number): Promise<BasisFile> {
    this.suspects.add(path);
    let file: BasisFile | undefined;
    try {
      file = await this.#basis.open(path);
    } catch (error) {
      throw asDeltaError(error, 'READ_FAILED', `the basis's ${path} cannot be opened`);
    }
    if (file === undefined) throw new DeltaError('BASIS_MISMATCH', `the basis has no file ${path}`);
    if (file.size !== bytes) {
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
    } else if (content.type === 'streams') {
      yield* this.#checked(this.#closed(content), content);
    } else if (content.type === 'joined') {
      const file = new JoinedFile(content.parts, ({ path, bytes }) => this.#open(path, bytes));
      try {
        const path = severalNames(content.parts.map((part) => part.path));
        const moves = { ...content, type: 'moves', path, basisBytes: file.size } as const;
        yield* this.#checked(this.#patched(file, length, moves), content);
      } finally {
        await file.close();
      }
    } else {
      const { path } = content;
      const file = await this.#open(path, content.type === 'copy' ? length : content.basisBytes);
      try {
        if (content.type === 'copy') yield* this.#range(file, path, 0, length);
        else yield* this.#checked(this.#patched(file, length, content), content);
      } finally {
        await file.close?.();
      }
    }
  }

  /** Hands on what is made of a file, and compares it at its end. */
  async *#checked(
    made: AsyncIterable<Uint8Array>,
    { outputCheck }: { outputCheck: Buffer },
  ): AsyncGenerator<Uint8Array> {
    const hash = createHash('sha256');
    for await (const some of made) {
      hash.update(some);
      yield some;
    }
    if (!hash.digest().subarray(0, LIMITS.checkBytes).equals(outputCheck))
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
    const hash = createHash('sha256');
    for await (const some of this.#range(file, path, 0, file.size)) hash.update(some);
    if (!hash.digest().subarray(0, LIMITS.checkBytes).equals(basisCheck)) {
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
        yield await decompress(await this.#frame(patchBytes), bytes, `the frame for ${path}`, source);
      }
    }
  }

  /** @throws DeltaError `CORRUPT` when a section holds more than was used */
  async finish(): Promise<void> {
    for (const reader of this.#readers.values()) await reader.finish();
    if (this.#frames !== undefined && this.#frames.left > 0) {
      throw new DeltaError('CORRUPT', 'section frames holds more than is used');
    }
  }

  async close(): Promise<void> {
    for (const reader of this.#readers.values()) await reader.close();
    await this.#frames?.stream.return(undefined);
  }
}

function onlySection(layer: HeaderLayer, kind: Section['kind']): Section | undefined {
  const found = layer.sections.filter((section) => section.kind === kind);
  if (found.length > 1) throw new DeltaError('CORRUPT', `the layer has several sections ${kind}`);
  return found[0];
}

const ZEROS = Buffer.alloc(LIMITS.chunkBytes);

async function* itemBytes(item: Item, position: number, sources: Sources): AsyncGenerator<Uint8Array> {
  switch (item.kind) {
    case 'raw':
      yield item.bytes;
      return;
    case 'header':
      yield item.block;
      return;
    case 'run':
      yield* sources.solid(item.length);
      return;
    case 'content':
      yield* sources.content(item.length, item.content);
      return;
    case 'zeros':
    case 'pad': {
      let left = item.kind === 'zeros' ? item.length : (BLOCK - (position % BLOCK)) % BLOCK;
      for (; left > 0; left -= Math.min(left, ZEROS.length)) yield ZEROS.subarray(0, left);
      return;
    }
  }
}

function itemLength(item: Item): number {
  if (item.kind === 'raw') return item.bytes.length;
  if (item.kind === 'header') return BLOCK;
  return item.kind === 'pad' ? 0 : item.length;
}

/** What a digest that does not agree means: the artifact's own bytes were checked before they were used. */
function mismatch(what: string, suspects: ReadonlySet<string>): DeltaError {
  if (suspects.size === 0) return new DeltaError('CORRUPT', `${what}: the delta contradicts itself`);
  const names = severalNames([...suspects]);
  return new DeltaError('BASIS_MISMATCH', `${what}: one of these differs in the basis: ${names}`);
}

const severalNames = (names: readonly string[]): string =>
  names.slice(0, 3).join(', ') + (names.length > 3 ? ` and ${names.length - 3} more` : '');

/**
 * Rebuilds one layer from a basis image and a delta, in one pass.
 *
 * @param delta  format v1 (docs/delta-format.md)
 * @param diffId one of `delta.layers`
 * @param basis  the old image's files, random access by path
 * @param limits `outputBytesMax` (bytes)
 * @yields the layer's uncompressed tar, chunks of at most 64 KiB; trust none before the end was reached
 * @throws DeltaError `NOT_FOUND`, `BASIS_MISMATCH`, `CORRUPT`, `TRUNCATED`, `TOO_LARGE`, `UNSUPPORTED`, `READ_FAILED`
 */
export async function* applyLayer(
  delta: DeltaReader,
  diffId: string,
  basis: Basis,
  limits: ApplyLimits = {},
): AsyncGenerator<Uint8Array> {
  const layer = delta.header.layers.find((one) => digestText(one.diffId) === diffId);
  if (layer === undefined) throw new DeltaError('NOT_FOUND', `the delta holds no layer ${diffId}`);
  const bytesMax = limits.outputBytesMax ?? LIMITS.outputBytesMax;
  if (layer.bytes > bytesMax) {
    throw new DeltaError('TOO_LARGE', `layer ${diffId} has ${layer.bytes} bytes, ${bytesMax} are allowed`);
  }
  const { listDigest } = delta.header;
  const list = listDigest === undefined ? undefined : await listBasis(basis, listDigest);
  const output = new Output(layer.bytes);
  const sources = new Sources(delta, layer, basis, limits.scratchDirectory ?? tmpdir());
  try {
    let checkedAt = 0;
    let previous: Item['kind'] | undefined;
    for await (const block of indexBlocks(delta, layer, list)) {
      while (!block.ended) {
        const item = block.next();
        if (item.kind === 'pad' && previous !== 'content') {
          throw new DeltaError('CORRUPT', 'index: padding without content before it');
        }
        previous = item.kind;
        output.expect(itemLength(item));
        for await (const bytes of itemBytes(item, output.position, sources)) yield* output.push(bytes);
        if (!block.ended && output.position - checkedAt < LIMITS.checkEveryBytes) continue;
        if (!output.digest().subarray(0, LIMITS.checkBytes).equals(block.check())) {
          throw mismatch(`layer ${diffId} is wrong by byte ${output.position}`, sources.suspects);
        }
        checkedAt = output.position;
        sources.suspects = new Set();
      }
      block.finish();
    }
    await sources.finish();
    if (output.position !== layer.bytes) {
      throw new DeltaError(
        'CORRUPT',
        `layer ${diffId} has ${output.position} bytes instead of ${layer.bytes}`,
      );
    }
    if (!output.digest().equals(layer.diffId)) throw mismatch(`layer ${diffId} is wrong`, sources.suspects);
    if (layer.bytes > 0) yield output.rest();
  } finally {
    await sources.close();
  }
}
