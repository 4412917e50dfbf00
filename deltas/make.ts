/**
 * Makes the artifact that rebuilds one image's layers from another image's files.
 *
 * Invariant: inputs are read as streams (each layer once for its survey, unless that is kept; again the basis layers that hold files
 * to patch from, and the new ones) and checked against their diffIDs; nothing appears at `output` unless it is whole and on disk.
 *
 * Memory: about 250 MB beside the process's own, most of it zstd's tables at level 19; plus about 1 kB for each file
 * of the two images, at most 50 MB of sketches (sketch.ts), and as much of one layer's survey (survey.ts); plus five times the largest
 * file that changed (moves/encoder.ts), at most 2.5 GiB, or seven times if it is made of several. Scratch: the basis files to patch from
 * and the new sections.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { bodyDigest, type HeaderLayer, writeHeader } from '#deltas/artifact.ts';
import { makeList } from '#deltas/basis.ts';
import type { SectionKind } from '#deltas/codecs.ts';
import { type FlatFile, flatten, spoolFiles } from '#deltas/flatten.ts';
import { digestBytes, digestText, type LayerSource } from '#deltas/layer.ts';
import { type EncodedIndex, type EncodedLayer, encodeLayer, type LayerTally } from '#deltas/layer-encoder.ts';
import { LIMITS } from '#deltas/limits.ts';
import { type Match, Matcher } from '#deltas/match.ts';
import { below, SampleRate } from '#deltas/sketch.ts';
import type { Stored } from '#deltas/solid-writer.ts';
import { Spool } from '#deltas/spool.ts';
import { type SurveyOptions, type SurveyStore, surveyOf } from '#deltas/survey.ts';

export interface MakeProgress {
  stage: 'read-basis' | 'read-target' | 'encode' | 'write';
  /** Bytes of tar, counted within the stage. */
  doneBytes: number;
  allBytes: number;
}

export interface MakeDeltaOptions {
  /** Config digest (`sha256:…`) of the image that a device has. */
  basisId: string;
  basisLayers: readonly LayerSource[];
  /** Config digest of the image that it is to have. */
  targetId: string;
  targetLayers: readonly LayerSource[];
  /** Exists; a folder of its own is made in it and removed at the end. */
  scratchDirectory: string;
  /** File that the artifact is written to; replaced as a whole. */
  output: string;
  /**
   * `auto` (the default): names and lengths are taken from the basis's listing where that makes the artifact at least
   * 1 KiB smaller, or a small one by 256 bytes and a fiftieth; such a one is applied only with a Basis that has `list`. `never`: Basis.open alone will do.
   */
  listing?: 'auto' | 'never';
  /**
   * `auto` (the default): a changed file is told by ranges where that is smaller, and then the reader needs the codec
   * `moves-1`; compressed files (gzip, zip, PNG) are opened where that is smaller, codec `streams-1`; and small ones are
   * compressed together, codec `grouped-1`. `never`: for readers
   * that lack them, and for a maker with little memory: see file-encoder.ts.
   */
  moves?: 'auto' | 'never';
  /** Layers that it has surveys of are read only as far as files are patched from them; the artifact is the same. */
  surveys?: SurveyStore;
  onProgress?: (progress: MakeProgress) => void;
  signal?: AbortSignal;
}

export interface DeltaSummary {
  basisId: string;
  targetId: string;
  /** Length of the artifact. */
  bytes: number;
  /** Length of the tars that it rebuilds. */
  tarBytes: number;
  needsList: boolean;
  headerBytes: number;
  layers: ({
    diffId: string;
    bytes: number;
    storedBytes: number;
    sections: Record<SectionKind, number>;
  } & LayerTally)[];
}

export interface MadeDelta {
  path: string;
  bytes: number;
  /** `sha256:…` of the artifact. */
  digest: string;
  summary: DeltaSummary;
}

/** zstd's level by the bytes that no basis file has: 19 does some 2 MB/s a core, 12 some 15, 6 some 60. */
function levelFor(newBytes: number): number {
  if (newBytes <= 64 * 1024 ** 2) return 19;
  return newBytes <= 512 * 1024 ** 2 ? 12 : 6;
}

/**
 * Encodes those target layers whose diffID the basis does not have.
 * @throws DeltaError `BAD_INPUT` (an id or a layer is not what it says), `READ_FAILED`; the reason of `signal`; or the
 * file system's own error when scratch or artifact cannot be written
 */
export async function makeDelta(options: MakeDeltaOptions): Promise<MadeDelta> {
  const { basisLayers, targetLayers, surveys, onProgress, signal } = options;
  const basisId = digestBytes(options.basisId, 'basisId');
  const targetId = digestBytes(options.targetId, 'targetId');
  const known = new Set(basisLayers.map(({ diffId }) => diffId));
  // A layer may occur twice in an image; once is enough here.
  const wanted = [...new Map(targetLayers.map((layer) => [layer.diffId, layer])).values()];
  const layers = wanted.filter(({ diffId }) => !known.has(diffId));
  for (const { diffId } of [...basisLayers, ...layers]) digestBytes(diffId, 'diffId');

  const counter = (stage: MakeProgress['stage'], of: readonly LayerSource[]): ((bytes: number) => void) => {
    const allBytes = of.reduce((sum, { bytes }) => sum + bytes, 0);
    let doneBytes = 0;
    return (bytes) => {
      signal?.throwIfAborted();
      doneBytes += bytes;
      onProgress?.({ stage, doneBytes, allBytes });
    };
  };

  const scratch = await mkdtemp(join(options.scratchDirectory, 'delta-'));
  let spool: Spool | undefined;
  const encoded: EncodedLayer[] = [];
  try {
    const rate = new SampleRate();
    const image = await flatten(basisLayers, {
      surveys,
      rate,
      onBytes: counter('read-basis', basisLayers),
    });
    const matcher = new Matcher(image, rate);
    const contents = await readContents(layers, matcher, rate, {
      surveys,
      onBytes: counter('read-target', layers),
    });
    const list = await makeList(image.list());

    const sources = new Set<FlatFile>();
    let newBytes = 0;
    for (const { bytes, same, similar } of contents.flatMap((layer) => [...layer.values()])) {
      if (same === undefined) newBytes += bytes;
      for (const { file } of similar) sources.add(file);
    }
    spool = await Spool.create(join(scratch, 'basis'));
    const starts = await spoolFiles(basisLayers, sources, spool);
    signal?.throwIfAborted();

    const onBytes = counter('encode', layers);
    for (const [at, layer] of layers.entries()) {
      const held = spool;
      const result = await encodeLayer(layer, {
        list,
        contents: contents[at] ?? new Map(),
        basisFile: ({ file }) => {
          const start = starts.get(file);
          return start === undefined ? undefined : held.file(start, file.bytes);
        },
        scratchDirectory: scratch,
        name: `layer-${at}`,
        level: levelFor(newBytes),
        moves: options.moves ?? 'auto',
        onBytes,
      });
      encoded.push(result);
    }

    const indexBytes = (key: 'plainIndex' | 'listedIndex'): number =>
      encoded.reduce(
        (sum, layer) => sum + layer[key].blocks.reduce((bytes, block) => bytes + block.bytes, 0),
        0,
      );
    const saving = indexBytes('plainIndex') - indexBytes('listedIndex');
    const plain = encoded.flatMap((layer) => layerSections(layer, false));
    const plainBytes = plain.reduce((sum, { stored }) => sum + stored.bytes, 0);
    const leastSaving = Math.min(
      LIMITS.listSavingBytesMin,
      Math.max(LIMITS.listSavingOfSmallBytesMin, plainBytes * LIMITS.listSavingPartMin),
    );
    const listing = options.listing !== 'never' && saving >= leastSaving;
    const sections = encoded.map((layer) => layerSections(layer, listing));
    const all = sections.flat();
    const header: Parameters<typeof writeHeader>[0] = {
      basisId,
      targetId,
      listDigest: listing ? list.digest.subarray(0, LIMITS.digestBytes) : undefined,
      layers: encoded.map(({ layer }, at) => headerLayer(layer, sections[at] ?? [])),
      bodyBytes: all.reduce((sum, { stored }) => sum + stored.bytes, 0),
      bodyDigests: [],
    };
    for await (const piece of bodyPieces(all)) header.bodyDigests.push(bodyDigest(piece));
    const needs = encoded.flatMap((layer) => [...layer.needs, ...indexOf(layer, listing).needs]);
    const head = writeHeader(header, needs);
    const bytes = head.length + header.bodyBytes;
    const digest = await writeArtifact(options.output, head, bodyPieces(all), (doneBytes) =>
      onProgress?.({ stage: 'write', doneBytes, allBytes: bytes }),
    );
    return {
      path: options.output,
      bytes,
      digest,
      summary: {
        basisId: options.basisId,
        targetId: options.targetId,
        bytes,
        tarBytes: layers.reduce((sum, layer) => sum + layer.bytes, 0),
        needsList: listing,
        headerBytes: head.length,
        layers: encoded.map(({ layer, tally }, at) => {
          const sizes: Record<SectionKind, number> = {
            index: 0,
            solid: 0,
            patches: 0,
            frames: 0,
            moves: 0,
            streams: 0,
            groups: 0,
          };
          for (const { kind, stored } of sections[at] ?? []) sizes[kind] += stored.bytes;
          const storedBytes = Object.values(sizes).reduce((sum, size) => sum + size, 0);
          return { diffId: layer.diffId, bytes: layer.bytes, storedBytes, sections: sizes, ...tally };
        }),
      },
    };
  } finally {
    for (const layer of encoded) await layer.close();
    await spool?.close();
    await rm(scratch, { recursive: true, force: true });
  }
}

interface TargetContent {
  bytes: number;
  /** The basis file that it is. */
  same: Match | undefined;
  /** Else the basis files that it may be made from, the likeliest first. */
  similar: Match[];
}

/** Each file's content, by offset in its layer's tar. */
async function readContents(
  layers: readonly LayerSource[],
  matcher: Matcher,
  rate: SampleRate,
  options: SurveyOptions,
): Promise<Map<number, TargetContent>[]> {
  const all: Map<number, TargetContent>[] = [];
  for (const layer of layers) {
    const contents = new Map<number, TargetContent>();
    const { entries } = await surveyOf(layer, true, options);
    for (const { entry, content } of entries) {
      if (content === undefined) continue;
      const { offset, bytes, digest, features } = content;
      const same = matcher.same(entry.path, digest);
      const names = matcher.expected(entry.path, bytes);
      const similar =
        same !== undefined || entry.sparse
          ? []
          : matcher.similar(entry.path, bytes, names ? undefined : below(features, rate.limit));
      contents.set(offset, { bytes, same, similar });
    }
    all.push(contents);
  }
  return all;
}

interface StoredSection {
  kind: SectionKind;
  stored: Stored;
}

const indexOf = (layer: EncodedLayer, listing: boolean): EncodedIndex =>
  listing ? layer.listedIndex : layer.plainIndex;

function layerSections(layer: EncodedLayer, listing: boolean): StoredSection[] {
  const sections: StoredSection[] = indexOf(layer, listing).blocks.map((stored) => ({
    kind: 'index',
    stored,
  }));
  for (const kind of ['solid', 'patches', 'frames', 'moves', 'streams', 'groups'] as const) {
    if (layer[kind].rawBytes > 0) sections.push({ kind, stored: layer[kind] });
  }
  return sections;
}

function headerLayer(layer: LayerSource, sections: StoredSection[]): HeaderLayer {
  return {
    diffId: digestBytes(layer.diffId, 'diffId'),
    bytes: layer.bytes,
    sections: sections.map(({ kind, stored }) => ({
      kind,
      codec: stored.codec,
      offset: 0,
      bytes: stored.bytes,
      rawBytes: stored.rawBytes,
    })),
  };
}

/** The body cut at the places where its digests are. */
async function* bodyPieces(sections: StoredSection[]): AsyncGenerator<Buffer> {
  let waiting = Buffer.alloc(0);
  for (const { stored } of sections) {
    for await (const bytes of stored.stream()) {
      waiting = Buffer.concat([waiting, bytes]);
      while (waiting.length >= LIMITS.bodyChunkBytes) {
        yield waiting.subarray(0, LIMITS.bodyChunkBytes);
        waiting = waiting.subarray(LIMITS.bodyChunkBytes);
      }
    }
  }
  if (waiting.length > 0) yield waiting;
}

/** Written beside its place, flushed, and renamed. @returns its digest */
async function writeArtifact(
  path: string,
  head: Buffer,
  body: AsyncIterable<Buffer>,
  onBytes: (doneBytes: number) => void,
): Promise<string> {
  const part = `${path}.part`;
  const hash = createHash('sha256');
  try {
    const file = await open(part, 'w', 0o644);
    try {
      let done = 0;
      const write = async (bytes: Buffer): Promise<void> => {
        hash.update(bytes);
        await file.writeFile(bytes);
        done += bytes.length;
        onBytes(done);
      };
      await write(head);
      for await (const piece of body) await write(piece);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, path);
    const folder = await open(dirname(path), 'r');
    await folder.sync();
    await folder.close();
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
  return digestText(hash.digest());
}
