/**
 * Encodes one layer: walks its tar once, and writes its index and its sections into scratch.
 *
 * Invariant: the items written, decoded in order, are the layer bit by bit. The index is written twice, with and without
 * reference to the basis's listing, since only the end shows whether the listing is worth asking for.
 *
 * A content that is new and stands twice in the layer costs nothing the second time within the 8 MiB that zstd and brotli look back,
 * and is sent twice beyond: to say "as before" the reader would have to keep what it yields, or to decompress from the start again.
 * In 426 MB of node_modules such contents are 0.1 %. Nor does a layer draw on another new one: the engine asks for them in any order.
 */
import { join } from 'node:path';
import type { BasisFile, List } from '#deltas/basis.ts';
import type { ByteSource } from '#deltas/byte-source.ts';
import { checkOf } from '#deltas/check.ts';
import type { Codec } from '#deltas/codecs.ts';
import { compress } from '#deltas/compression.ts';
import { type EncodedFile, FileEncoder } from '#deltas/file-encoder.ts';
import { GroupWriter } from '#deltas/group-writer.ts';
import type { Content, Patched, Window } from '#deltas/index-format.ts';
import { IndexWriter } from '#deltas/index-writer.ts';
import { type LayerSource, readLayer } from '#deltas/layer.ts';
import { LIMITS } from '#deltas/limits.ts';
import type { Match } from '#deltas/match.ts';
import { piecesOf } from '#deltas/random-access.ts';
import { SolidWriter, type Stored } from '#deltas/solid-writer.ts';
import { Spool } from '#deltas/spool.ts';
import type { TarItem } from '#deltas/tar.ts';
import { splitHeader } from '#deltas/tar-header.ts';

/** What became of the layer's contents. Bytes are of the tar, patch bytes as written before further compression. */
export interface LayerTally {
  copied: { files: number; bytes: number };
  patched: { files: number; bytes: number };
  literal: { files: number; bytes: number };
  windows: Record<Window['codec'], { count: number; bytes: number; patchBytes: number }>;
  /** Files made by ranges; references in them, and those that were predicted wrongly. */
  moves: { files: number; bytes: number; ranges: number; references: number; wrong: number };
  /** Files whose deflate streams were opened; those streams, and what they hold, which is compressed anew by the reader. */
  streams: { files: number; bytes: number; streams: number; rawBytes: number };
  /** Files that are compressed together. */
  grouped: { files: number; bytes: number };
  /** Those of them that are made from several old ones, and how many. */
  joined: { files: number; bases: number };
}

export interface EncodedIndex {
  /** Compressed. */
  blocks: Stored[];
  /** Codecs of what is told in it. */
  needs: Set<Codec>;
}

export interface EncodedLayer {
  layer: LayerSource;
  /** Without and with the listing. */
  plainIndex: EncodedIndex;
  listedIndex: EncodedIndex;
  /** Codecs that its sections need, beside those that all such sections do. */
  needs: ReadonlySet<Codec>;
  solid: Stored;
  patches: Stored;
  frames: Stored;
  moves: Stored;
  streams: Stored;
  groups: Stored;
  tally: LayerTally;
  close(): Promise<void>;
}

export interface LayerContext {
  list: List;
  /** By offset in the tar, of each content: the basis files that it may be made from. */
  contents: ReadonlyMap<number, { bytes: number; same: Match | undefined; similar: readonly Match[] }>;
  /** Content of a basis file in `similar`; undefined when it was not spooled. */
  basisFile(match: Match): BasisFile | undefined;
  scratchDirectory: string;
  /** Unique among the layers. */
  name: string;
  /** zstd's. */
  level: number;
  moves: 'auto' | 'never';
  onBytes(bytes: number): void;
}

const INDEX_LEVEL = 19;

/** The index in its two forms, block by block, with the checkpoints. */
class IndexPair {
  readonly #list: List;
  #writers: [IndexWriter, IndexWriter];
  readonly plain: EncodedIndex = { blocks: [], needs: new Set() };
  readonly listed: EncodedIndex = { blocks: [], needs: new Set() };
  #checkedAt = 0;
  #unchecked = 0;
  #items = 0;

  constructor(list: List) {
    this.#list = list;
    this.#writers = [new IndexWriter(undefined), new IndexWriter(list)];
  }

  write(item: (writer: IndexWriter) => void): void {
    for (const writer of this.#writers) item(writer);
  }

  /** After each item; `source` stands behind its last byte. */
  async itemEnded(source: ByteSource): Promise<void> {
    this.#items += 1;
    this.#unchecked += 1;
    if (source.position - this.#checkedAt >= LIMITS.checkEveryBytes) this.#check(source);
    const [plain] = this.#writers;
    if (plain.complete && plain.length >= LIMITS.indexBlockBytes) await this.endBlock(source);
  }

  #check(source: ByteSource): void {
    const digest = source.digest().subarray(0, LIMITS.checkBytes);
    for (const writer of this.#writers) writer.check(digest);
    this.#checkedAt = source.position;
    this.#unchecked = 0;
  }

  async endBlock(source: ByteSource): Promise<void> {
    if (this.#items === 0) return;
    if (this.#unchecked > 0) this.#check(source);
    this.#items = 0;
    for (const [at, { blocks, needs }] of [this.plain, this.listed].entries()) {
      const writer = this.#writers[at] as IndexWriter;
      const raw = writer.finish();
      for (const codec of writer.needs) needs.add(codec);
      const packed = await compress(raw, INDEX_LEVEL);
      blocks.push({ bytes: packed.length, rawBytes: raw.length, codec: 'zstd', stream: () => [packed] });
    }
    this.#writers = [new IndexWriter(undefined), new IndexWriter(this.#list)];
  }
}

const stored = (spool: Spool): Stored => ({
  bytes: spool.length,
  rawBytes: spool.length,
  codec: 'raw',
  stream: () => spool.stream(),
});

/** Of the small files. */
function smallBytes(contents: LayerContext['contents']): { changed: number; fresh: number } {
  let [changed, fresh] = [0, 0];
  for (const { bytes, same, similar } of contents.values()) {
    if (same !== undefined || bytes > LIMITS.groupFileBytesMax) continue;
    if (similar.length > 0) changed += bytes;
    else fresh += bytes;
  }
  return { changed, fresh };
}

/** The bytes of one behind those of the other. */
async function* bytesOf(files: readonly { file: BasisFile }[]): AsyncGenerator<Uint8Array> {
  for (const { file } of files) yield* piecesOf(file);
}

/** @throws DeltaError `BAD_INPUT`, `READ_FAILED`; or the scratch directory's own error */
export async function encodeLayer(layer: LayerSource, context: LayerContext): Promise<EncodedLayer> {
  const path = (section: string): string => join(context.scratchDirectory, `${context.name}.${section}`);
  const solid = new SolidWriter(path('solid'), context.level);
  const patches = new SolidWriter(path('patches'), context.level);
  const spool = await Spool.create(path('frames'));
  const frames = { write: async (bytes: Uint8Array) => void (await spool.append([bytes])) };
  const moves = new SolidWriter(path('moves'), context.level);
  const streams = new SolidWriter(path('streams'), context.level);
  const fileEncoder = new FileEncoder(
    { solid, patches, frames, moves, streams },
    context.level,
    context.moves,
  );
  const groupSpool = await Spool.create(path('groups'));
  const groups = new GroupWriter(groupSpool, context.level);
  const { changed, fresh } = smallBytes(context.contents);
  // A few new ones among many that changed are like these; many new ones do best in the solid section.
  const takesNew = changed > fresh;
  const index = new IndexPair(context.list);
  const nothing = (): { files: number; bytes: number } => ({ files: 0, bytes: 0 });
  const none = (): { count: number; bytes: number; patchBytes: number } => ({
    count: 0,
    bytes: 0,
    patchBytes: 0,
  });
  const tally: LayerTally = {
    copied: nothing(),
    patched: nothing(),
    literal: nothing(),
    windows: { copy: none(), literal: none(), vcdiff: none(), 'zstd-dictionary': none() },
    moves: { files: 0, bytes: 0, ranges: 0, references: 0, wrong: 0 },
    streams: { files: 0, bytes: 0, streams: 0, rawBytes: 0 },
    grouped: nothing(),
    joined: { files: 0, bases: 0 },
  };
  const count = (kind: 'copied' | 'patched' | 'literal', bytes: number): void => {
    tally[kind].files += 1;
    tally[kind].bytes += bytes;
  };

  const needs = new Set<Codec>();
  /** How a file is made from a basis file, counted. */
  const patchedBy = (
    made: Extract<EncodedFile, { type: 'windows' | 'moves' }>,
    bytes: number,
    known: Pick<Patched, 'path' | 'basisBytes' | 'basisCheck'>,
  ): Patched => {
    if (made.type === 'moves') {
      const { ranges, references, movesBytes, literalBytes } = made;
      for (const codec of made.needs) needs.add(codec);
      tally.moves.files += 1;
      tally.moves.bytes += bytes;
      tally.moves.ranges += ranges;
      tally.moves.references += references.count;
      tally.moves.wrong += references.wrong;
      return { type: 'moves', ...known, movesBytes, literalBytes };
    }
    for (const { codec, bytes: some, patchBytes } of made.windows) {
      tally.windows[codec].count += 1;
      tally.windows[codec].bytes += some;
      tally.windows[codec].patchBytes += patchBytes;
    }
    return { type: 'windows', ...known, windows: made.windows };
  };

  const toSolid = async (pieces: AsyncIterable<Buffer>): Promise<void> => {
    for await (const piece of pieces) await solid.write(piece);
  };

  const fileContent = async (item: Extract<TarItem, { kind: 'content' }>): Promise<Content> => {
    const { length, offset, pieces } = item;
    const { same, similar: matches = [] } = context.contents.get(offset) ?? {};
    if (same !== undefined) {
      for await (const _ of pieces);
      count('copied', length);
      return { type: 'copy', path: same.path };
    }
    const files = matches.flatMap((match) => {
      const file = context.basisFile(match);
      return file === undefined ? [] : [{ path: match.path, file }];
    });
    const [first, ...further] = files;
    const others = further.map(({ file }) => file);
    const made = await fileEncoder.encode(pieces, length, first?.file, others, {
      changedBytes: Math.max(0, changed - length),
      takesNew,
    });
    if (made.type === 'literal') {
      count('literal', length);
      return { type: 'solid' };
    }
    if (made.type === 'grouped') {
      const { young, old } = made;
      const basis = first && old && { path: first.path, bytes: old };
      count(basis === undefined ? 'literal' : 'patched', length);
      tally.grouped.files += 1;
      tally.grouped.bytes += length;
      needs.add('crc-32');
      await groups.add(young, basis);
      return { type: 'grouped', path: basis?.path };
    }
    const known = {
      path: first?.path ?? '',
      basisBytes: first?.file.size ?? 0,
      basisCheck: await checkOf(bytesOf(made.type === 'moves' && made.isJoined ? files : files.slice(0, 1))),
    };
    if (made.type !== 'streams') {
      count('patched', length);
      const patched = patchedBy(made, length, known);
      if (patched.type === 'windows' || made.type === 'windows' || !made.isJoined) return patched;
      tally.joined.files += 1;
      tally.joined.bases += files.length;
      const { movesBytes, literalBytes } = made;
      const parts = files.map(({ path: from, file }) => ({ path: from, bytes: file.size }));
      const { basisCheck } = known;
      return { type: 'joined', parts, basisCheck, movesBytes, literalBytes };
    }
    const { openedBytes, openedBasisBytes, planBytes, inside } = made;
    tally.streams.files += 1;
    tally.streams.bytes += length;
    tally.streams.streams += made.streams;
    tally.streams.rawBytes += made.rawBytes;
    count(inside.type === 'solid' ? 'literal' : 'patched', length);
    const opened = { ...known, basisBytes: openedBasisBytes };
    return {
      type: 'streams',
      openedBytes,
      planBytes,
      inside:
        inside.type === 'solid'
          ? inside
          : { ...patchedBy(inside, openedBytes, opened), closedBasisBytes: known.basisBytes },
    };
  };

  const visit = async (item: TarItem, position: number): Promise<boolean> => {
    switch (item.kind) {
      case 'entry':
        return false;
      case 'header': {
        const parts = splitHeader(item.block);
        const content = context.contents.get(position);
        const from = (content?.same ?? content?.similar[0])?.path;
        index.write((writer) => (parts === undefined ? writer.raw(item.block) : writer.header(parts, from)));
        return true;
      }
      case 'raw':
        index.write((writer) => writer.raw(item.bytes));
        return true;
      case 'zeros':
        index.write((writer) => writer.zeros(item.length));
        return true;
      case 'pad':
        index.write((writer) => writer.pad());
        return true;
      case 'run':
        await toSolid(item.pieces);
        index.write((writer) => writer.run(item.length));
        return true;
      case 'content': {
        let content: Content;
        if (item.meta) {
          const parts: Buffer[] = [];
          for await (const piece of item.pieces) parts.push(piece);
          content = { type: 'meta', bytes: Buffer.concat(parts) };
        } else {
          content = await fileContent(item);
        }
        index.write((writer) => writer.content(item.length, content));
        return true;
      }
    }
  };

  const close = async (): Promise<void> => {
    await spool.close();
    await groupSpool.close();
  };
  let finished = false;
  try {
    let end: ByteSource | undefined;
    let position = 0;
    await readLayer(layer, async (item, source) => {
      end = source;
      if (await visit(item, source.position)) await index.itemEnded(source);
      context.onBytes(source.position - position);
      position = source.position;
    });
    if (end !== undefined) await index.endBlock(end);
    await groups.end();
    for (const codec of groups.needs) needs.add(codec);
    const encoded: EncodedLayer = {
      layer,
      plainIndex: index.plain,
      listedIndex: index.listed,
      needs,
      solid: await solid.finish(),
      patches: await patches.finish(),
      frames: stored(spool),
      moves: await moves.finish(),
      streams: await streams.finish(),
      groups: stored(groupSpool),
      tally,
      close,
    };
    finished = true;
    return encoded;
  } finally {
    if (!finished) {
      await solid.abandon();
      await patches.abandon();
      await moves.abandon();
      await streams.abandon();
      await close();
    }
  }
}
