/**
 * Where each layer's bytes come from when the engine asks: the delta, a fetched blob, or the engine itself.
 *
 * Invariant: every layer of the image has a source, also those that the engine is not expected to ask for.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream';
import { constants, createZstdDecompress } from 'node:zlib';
import type Docker from 'dockerode';
import { type BasisFacts, type OpenBasis, openBasis } from '#agent/images/basis.ts';
import { aborted, ImageError, textOf } from '#agent/images/errors.ts';
import { blobPath } from '#agent/images/fetch.ts';
import { LIMITS } from '#agent/images/limits.ts';
import type { Held } from '#agent/images/plan.ts';
import type { ServedLayer } from '#agent/images/registry.ts';
import { spoolSavedLayer } from '#agent/images/saved.ts';
import { applyLayer, type DeltaReader, fileAccess, openDelta } from '#deltas/index.ts';
import type { Blob, DeltaOffer, Image, Layer } from '#fleet/protocol.ts';

export interface LayersOptions {
  docker: () => Promise<Docker>;
  image: Image;
  /** Digests of the blobs that are on the disk whole. */
  fetched: ReadonlySet<string>;
  delta?: DeltaOffer;
  /** Of the delta's basis. */
  facts?: BasisFacts;
  held: readonly Held[];
  downloads: string;
  spool: string;
  label: string;
  basis: 'auto' | 'overlay' | 'export';
  /** Fetches a blob that the plan did not foresee; gives its path. */
  fetch: (blob: Blob) => Promise<string>;
  signal: AbortSignal;
}

export interface Layers {
  served: ServedLayer[];
  close(): Promise<void>;
}

/** @throws ImageError, DeltaError: a delta that is not the one the target names, or a basis that cannot be read */
export async function openLayers(options: LayersOptions): Promise<Layers> {
  const { image, fetched, held, downloads } = options;
  const { delta: offer, facts } = options;
  const delta = offer && facts ? await openOneDelta(options, offer, facts) : undefined;
  let turn: Promise<unknown> = Promise.resolve();

  /** One `save` at a time: each writes the whole image inside the engine. */
  const fromEngine = (layer: Layer, signal: AbortSignal): Promise<string | undefined> => {
    const holder = held.find(({ diffIds }) => diffIds.includes(layer.diffId));
    if (!holder) return Promise.resolve(undefined);
    const spooled = turn.then(async () =>
      spoolSavedLayer({
        docker: await options.docker(),
        imageId: holder.id,
        layer,
        directory: options.spool,
        signal,
      }),
    );
    turn = spooled.catch(() => undefined);
    return spooled;
  };

  async function* unforeseen(layer: Layer, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    let saved: string | undefined;
    try {
      saved = await fromEngine(layer, signal);
    } catch (error) {
      if (signal.aborted || (error instanceof ImageError && error.code === 'DISK_FULL')) throw error;
    }
    if (saved) yield* createReadStream(saved, { highWaterMark: 256 * 1024 });
    else yield* decompressed(layer, await options.fetch(layer.blob), signal);
  }

  const open = (layer: Layer, signal: AbortSignal): AsyncIterable<Uint8Array> => {
    if (delta?.rebuilds.has(layer.diffId))
      return applyLayer(delta.reader, layer.diffId, delta.basis, {
        outputBytesMax: layer.bytes,
        scratchDirectory: options.spool,
      });
    if (fetched.has(layer.blob.digest))
      return decompressed(layer, blobPath(downloads, layer.blob.digest), signal);
    return unforeseen(layer, signal);
  };

  return {
    served: image.layers.map((layer) => ({
      diffId: layer.diffId,
      bytes: layer.bytes,
      open: (signal) => open(layer, signal),
    })),
    close: async () => delta?.close(),
  };
}

interface OneDelta {
  reader: DeltaReader;
  basis: OpenBasis;
  rebuilds: ReadonlySet<string>;
  close(): Promise<void>;
}

async function openOneDelta(options: LayersOptions, delta: DeltaOffer, facts: BasisFacts): Promise<OneDelta> {
  const { docker, image, downloads, spool, label, signal } = options;
  const file = await fileAccess(blobPath(downloads, delta.blob.digest));
  try {
    const reader = await openDelta(file);
    if (reader.basisId !== delta.basis || reader.targetId !== image.id) {
      throw new ImageError(
        'WRONG_IMAGE',
        `the delta ${delta.blob.digest} is of other images than its target says; push again`,
      );
    }
    const bytesByDiffId = new Map(image.layers.map((layer) => [layer.diffId, layer.bytes]));
    for (const { diffId, bytes } of reader.layers) {
      if (bytesByDiffId.get(diffId) !== bytes) {
        throw new ImageError(
          'WRONG_IMAGE',
          `the delta ${delta.blob.digest} rebuilds ${diffId}, which is not in the image; push again`,
        );
      }
    }
    const basis = await openBasis({
      docker,
      imageId: delta.basis,
      facts,
      paths: (listing) => reader.basisPaths(listing),
      needsList: reader.needsList,
      directory: spool,
      label,
      how: options.basis,
      signal,
    });
    return {
      reader,
      basis,
      rebuilds: new Set(reader.layers.map(({ diffId }) => diffId)),
      async close() {
        await basis.close();
        await file.close();
      },
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The last bytes are given only once the digest of all is known to be right: the engine never gets a wrong layer whole. */
async function* decompressed(layer: Layer, path: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const zstd = createZstdDecompress({
    params: { [constants.ZSTD_d_windowLogMax]: LIMITS.zstdWindowLogMax },
  });
  // The reader of `zstd` sees its error, unless it left before; the callback is only what pipeline wants.
  zstd.on('error', () => undefined);
  pipeline(createReadStream(path, { highWaterMark: 256 * 1024 }), zstd, () => undefined);
  const hash = createHash('sha256');
  let bytes = 0;
  let held: Uint8Array | undefined;
  try {
    for await (const chunk of zstd as AsyncIterable<Uint8Array>) {
      if (held) yield held;
      held = chunk;
      hash.update(chunk);
      bytes += chunk.byteLength;
      if (bytes > layer.bytes) break;
    }
  } catch (error) {
    if (signal.aborted) throw aborted(signal);
    throw new ImageError(
      'BLOB_CORRUPT',
      `${layer.blob.digest} is no zstd file (${textOf(error)}); push again`,
      { cause: error },
    );
  }
  if (bytes !== layer.bytes || `sha256:${hash.digest('hex')}` !== layer.diffId) {
    throw new ImageError(
      'WRONG_IMAGE',
      `${layer.blob.digest} holds another layer than ${layer.diffId}, which its target says; push again`,
    );
  }
  if (held) yield held;
}
