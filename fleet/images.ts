/**
 * Takes a built image from the engine into the hub's blobs.
 *
 * Invariant: what is kept is what the engine built: the config's digest is the image's id, and every layer's tar
 * has the diffID that the config names. Layers that are here already are recognised and not kept twice.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { posix } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { constants, createZstdCompress } from 'node:zlib';
import type Docker from 'dockerode';
import * as tar from 'tar-stream';
import * as v from 'valibot';
import type { Blobs } from '#fleet/blobs.ts';
import { FleetError } from '#fleet/errors.ts';
import { LIMITS } from '#fleet/limits.ts';
import type { Image } from '#fleet/protocol.ts';
import type { LayerRecord, Store } from '#fleet/store.ts';

const manifestSchema = v.pipe(
  v.array(
    v.object({ Config: v.string(), Layers: v.pipe(v.array(v.string()), v.maxLength(LIMITS.layersMax)) }),
  ),
  v.length(1),
);
const configSchema = v.object({
  rootfs: v.object({ diff_ids: v.array(v.string()) }),
  config: v.optional(
    v.nullable(v.object({ Labels: v.optional(v.nullable(v.record(v.string(), v.string()))) })),
  ),
});

export interface Taken {
  image: Image;
  labels: Record<string, string>;
  /** Layers that were not in the store before. */
  newLayers: number;
}

export interface TakeOptions {
  engine: Docker;
  imageId: string;
  blobs: Blobs;
  store: Store;
  signal: AbortSignal;
}

/**
 * Streams `docker save`'s tar (either layout, docker-archive or OCI) and keeps its parts.
 *
 * @throws FleetError `IMAGE_MISMATCH`, `IMAGE_TOO_LARGE`, `DISK_FULL`, `ENGINE_ANSWER`
 */
export async function takeImage(options: TakeOptions): Promise<Taken> {
  const fresh = new Set<string>();
  const known = await knownLayers(options);
  const taken = (await take(options, known, fresh)) ?? (await take(options, [], fresh));
  if (!taken) throw odd('with no layer known one was taken for another');
  return taken;
}

/** Long layers that the engine says the image has, and that are here and whole. */
async function knownLayers({ engine, imageId, blobs, store }: TakeOptions): Promise<LayerRecord[]> {
  const { RootFS } = await engine.getImage(imageId).inspect();
  const known: LayerRecord[] = [];
  for (const diffId of RootFS?.Layers ?? []) {
    const layer = store.layer(diffId);
    if (layer && layer.bytes > LIMITS.spooledLayerBytes && (await blobs.isWhole(layer.blob)))
      known.push(layer);
  }
  return known;
}

/**
 * @param known a layer as long as one of these is taken to be it: hashed, and not spooled
 * @param fresh diffIDs of the layers that were not in the store before, filled here
 * @returns undefined if that was wrong of a layer, whose bytes are gone now
 */
async function take(
  options: TakeOptions,
  known: readonly LayerRecord[],
  fresh: Set<string>,
): Promise<Taken | undefined> {
  const { engine, imageId, signal } = options;
  const saved = await engine.getImage(imageId).get();
  const documents = new Map<string, Buffer>();
  const layers = new Map<string, LayerRecord>();
  const links = new Map<string, string>();
  let bytes = 0;
  let mistaken = false;

  const source = tar.extract();
  const read = async () => {
    for await (const entry of source) {
      const { name, size, type, linkname } = entry.header;
      bytes += size;
      if (bytes > LIMITS.imageBytesMax) {
        throw new FleetError(
          'IMAGE_TOO_LARGE',
          'the built image is too large',
          'make it smaller, commit, push again',
        );
      }
      if (type === 'symlink' || type === 'link') {
        // Old engines save a layer that occurs twice as a link to the first.
        links.set(name, type === 'link' ? (linkname ?? '') : posix.join(posix.dirname(name), linkname ?? ''));
        entry.resume();
      } else if (type !== 'file') {
        entry.resume();
      } else if (size <= LIMITS.documentBytesMax && !name.endsWith('/layer.tar')) {
        documents.set(name, await buffer(entry));
      } else if (known.some((layer) => layer.bytes === size)) {
        const hash = createHash('sha256');
        for await (const chunk of entry) hash.update(chunk as Buffer);
        const diffId = `sha256:${hash.digest('hex')}`;
        const layer = known.find((one) => one.diffId === diffId);
        if (layer) layers.set(name, layer);
        else mistaken = true;
      } else {
        layers.set(name, await keepLayer(entry, options, fresh));
      }
    }
  };
  await Promise.all([read(), pipeline(saved, source, { signal })]);
  if (mistaken) return undefined;

  const [manifest] = parsed(manifestSchema, documents.get('manifest.json'));
  const configBytes = manifest && documents.get(manifest.Config);
  if (!manifest || !configBytes) throw odd('its manifest names no config');
  const digest = `sha256:${createHash('sha256').update(configBytes).digest('hex')}`;
  if (digest !== imageId) {
    throw new FleetError(
      'IMAGE_MISMATCH',
      `the engine calls the image ${imageId}, its config has the digest ${digest}`,
      "use an engine with the classic image store (containerd's image store is not supported yet)",
    );
  }
  const config = parsed(configSchema, configBytes);
  const ordered: LayerRecord[] = [];
  for (const name of manifest.Layers) {
    const file = links.get(name) ?? name;
    let layer = layers.get(file);
    const small = documents.get(file);
    if (!layer && small) layer = await keepLayer([small], options, fresh);
    if (!layer) throw odd(`its layer ${name} is missing`);
    ordered.push(layer);
  }
  const found = ordered.map((layer) => layer.diffId);
  if (found.join() !== config.rootfs.diff_ids.join()) {
    throw new FleetError(
      'IMAGE_MISMATCH',
      `the engine's layers are not those that the image ${imageId} names`,
      "see to the engine's disk (docker image inspect, the kernel's log), then push again",
    );
  }
  const blob = await options.blobs.put([configBytes]);
  return {
    image: { id: imageId, config: blob, layers: ordered, deltas: [] },
    labels: config.config?.Labels ?? {},
    newLayers: fresh.size,
  };
}

/**
 * One uncompressed layer tar that is not known by its length. It is spooled first, since only its digest tells whether it is here
 * already: to write a known layer once costs far less than to compress it again.
 */
async function keepLayer(
  source: AsyncIterable<unknown> | Iterable<Uint8Array>,
  { blobs, store, signal }: TakeOptions,
  fresh: Set<string>,
): Promise<LayerRecord> {
  const spool = blobs.temporary();
  try {
    const hash = createHash('sha256');
    let bytes = 0;
    const count = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        hash.update(chunk);
        bytes += chunk.length;
        done(null, chunk);
      },
    });
    await pipeline(Readable.from(source), count, createWriteStream(spool), { signal });
    const diffId = `sha256:${hash.digest('hex')}`;
    const known = store.layer(diffId);
    if (known && (await blobs.isWhole(known.blob))) return known;
    const compress = createZstdCompress({
      params: {
        [constants.ZSTD_c_compressionLevel]: LIMITS.zstdLevel,
        [constants.ZSTD_c_checksumFlag]: 1,
      },
    });
    const spooled = createReadStream(spool, { highWaterMark: 256 * 1024 });
    spooled.on('error', (error) => compress.destroy(error));
    const layer = { diffId, bytes, blob: await blobs.put(spooled.pipe(compress)) };
    store.putLayer(layer);
    fresh.add(diffId);
    return layer;
  } finally {
    await rm(spool, { force: true });
  }
}

const odd = (why: string) =>
  new FleetError(
    'ENGINE_ANSWER',
    `the engine's export of the image is not understood: ${why}`,
    "see the hub's log",
  );

function parsed<S extends v.GenericSchema>(schema: S, document: Buffer | undefined): v.InferOutput<S> {
  if (!document) throw odd('a document is missing');
  const result = v.safeParse(schema, JSON.parse(document.toString()));
  if (!result.success) throw odd(v.flatten(result.issues).root?.join() ?? 'a document has another form');
  return result.output;
}
