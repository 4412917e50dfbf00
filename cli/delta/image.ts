/**
 * An image as people have it, as layers that the delta library reads: a `docker save` file, an OCI layout (folder or tar), an
 * image's name on an engine, or a plain tar, which counts as an image of one layer.
 *
 * Invariant: nothing is unpacked to disk but an engine's export and layers that are compressed; both in `scratch`.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import Docker from 'dockerode';
import * as v from 'valibot';
import { ByteSource } from '#deltas/byte-source.ts';
import type { LayerSource } from '#deltas/index.ts';
import { walkTar } from '#deltas/tar.ts';

export interface DeltaImage {
  /** Config digest; of a plain tar, its own. */
  id: string;
  layers: LayerSource[];
}

/** Part of a file on disk. */
interface Extent {
  path: string;
  offset: number;
  bytes: number;
}

export class ImageError extends Error {
  readonly code: 'NO_SUCH_IMAGE' | 'NOT_AN_IMAGE' | 'NO_ENGINE';

  constructor(code: ImageError['code'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

const DOCUMENT_BYTES_MAX = 8 * 1024 * 1024;
const digest = v.pipe(v.string(), v.regex(/^sha256:[0-9a-f]{64}$/));
const described = v.looseObject({ digest, mediaType: v.optional(v.string()) });
const savedSchema = v.array(v.looseObject({ Config: v.string(), Layers: v.array(v.string()) }));
const indexSchema = v.looseObject({ manifests: v.array(described) });
const manifestSchema = v.looseObject({ config: described, layers: v.array(described) });
const configSchema = v.looseObject({ rootfs: v.looseObject({ diff_ids: v.array(digest) }) });

/**
 * @param name a path, or else an image's name on the engine
 * @param scratch a folder for what must be unpacked
 * @throws ImageError; valibot's error when a document in it is not what it should be
 */
export async function openImage(name: string, scratch: string, engineUrl: string): Promise<DeltaImage> {
  if (!existsSync(name)) return await openFile(await saveFromEngine(name, scratch, engineUrl), scratch);
  return statSync(name).isDirectory() ? await openLayout(name, scratch) : await openFile(name, scratch);
}

async function saveFromEngine(name: string, scratch: string, engineUrl: string): Promise<string> {
  const docker = new Docker({ socketPath: engineUrl.replace(/^unix:\/\//, '') });
  const path = join(scratch, `saved-${createHash('sha256').update(name).digest('hex').slice(0, 16)}.tar`);
  try {
    await pipeline(await docker.getImage(name).get(), createWriteStream(path));
  } catch (error) {
    const { code, statusCode, message } = error as { code?: string; statusCode?: number; message: string };
    if (statusCode === 404) {
      throw new ImageError(
        'NO_SUCH_IMAGE',
        `${name} is neither a file nor an image that the engine at ${engineUrl} has`,
      );
    }
    const hint = `${name} is no file, and the engine at ${engineUrl} cannot be asked for an image of that name`;
    throw new ImageError('NO_ENGINE', `${hint}: ${code ?? message} (--engine names another)`, {
      cause: error,
    });
  }
  return path;
}

const streamOf = ({ path, offset, bytes }: Extent): Readable =>
  bytes === 0 ? Readable.from([]) : createReadStream(path, { start: offset, end: offset + bytes - 1 });

async function documentOf(extent: Extent | undefined, what: string): Promise<Buffer> {
  if (extent === undefined || extent.bytes > DOCUMENT_BYTES_MAX)
    throw new ImageError('NOT_AN_IMAGE', `its ${what} is ${extent === undefined ? 'missing' : 'too long'}`);
  const parts: Buffer[] = [];
  for await (const part of streamOf(extent)) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

const json = async <Schema extends v.GenericSchema>(
  schema: Schema,
  extent: Extent | undefined,
  what: string,
): Promise<v.InferOutput<Schema>> => {
  const text = (await documentOf(extent, what)).toString();
  try {
    return v.parse(schema, JSON.parse(text));
  } catch (cause) {
    throw new ImageError('NOT_AN_IMAGE', `its ${what} is not understood: ${(cause as Error).message}`, {
      cause,
    });
  }
};

async function openFile(path: string, scratch: string): Promise<DeltaImage> {
  const { size } = statSync(path);
  const whole = { path, offset: 0, bytes: size };
  const kind = await packing(whole);
  if (kind !== undefined) {
    const plain = await unpacked(whole, kind, scratch);
    return await openTar(plain.path, scratch);
  }
  return await openTar(path, scratch);
}

/** Files of a tar by name, if it is an image; its digest otherwise. */
async function openTar(path: string, scratch: string): Promise<DeltaImage> {
  const { size } = statSync(path);
  const files = new Map<string, Extent>();
  const links = new Map<string, string>();
  const source = new ByteSource(createReadStream(path));
  for await (const item of walkTar(source, size)) {
    if (item.kind === 'entry') {
      const { path: name, type, linkPath } = item.entry;
      if ((type === '1' || type === '2') && name !== undefined && linkPath !== undefined)
        links.set(name, type === '1' ? linkPath : join(name, '..', linkPath));
    } else if (item.kind === 'content') {
      const { offset, length, meta, entry, pieces } = item;
      if (!meta && entry.path !== undefined) files.set(entry.path, { path, offset, bytes: length });
      for await (const _ of pieces);
    } else if (item.kind === 'run') {
      for await (const _ of item.pieces);
    }
  }
  const find = (name: string): Extent | undefined => files.get(links.get(name) ?? name);
  if (files.has('manifest.json')) return await openSaved(find, scratch);
  if (files.has('oci-layout')) return await openOci(find, scratch);
  const id = `sha256:${source.digest().toString('hex')}`;
  return { id, layers: [{ diffId: id, bytes: size, open: () => createReadStream(path) }] };
}

async function openLayout(folder: string, scratch: string): Promise<DeltaImage> {
  const find = (name: string): Extent | undefined => {
    const path = join(folder, name);
    return existsSync(path) ? { path, offset: 0, bytes: statSync(path).size } : undefined;
  };
  if (find('index.json') === undefined)
    throw new ImageError('NOT_AN_IMAGE', `${folder} is a folder without an OCI layout's index.json`);
  return await openOci(find, scratch);
}

async function openSaved(find: (name: string) => Extent | undefined, scratch: string): Promise<DeltaImage> {
  const [manifest, ...others] = await json(savedSchema, find('manifest.json'), 'manifest.json');
  if (manifest === undefined || others.length > 0)
    throw new ImageError(
      'NOT_AN_IMAGE',
      `it holds ${others.length + (manifest ? 1 : 0)} images; save one at a time`,
    );
  return await imageOf(find(manifest.Config), manifest.Layers.map(find), scratch);
}

async function openOci(find: (name: string) => Extent | undefined, scratch: string): Promise<DeltaImage> {
  const blob = (name: string): Extent | undefined => find(`blobs/${name.replace(':', '/')}`);
  let { manifests } = await json(indexSchema, find('index.json'), 'index.json');
  // An index may name an index of platforms.
  const [first] = manifests;
  if (manifests.length === 1 && first?.mediaType?.includes('index') === true)
    manifests = (await json(indexSchema, blob(first.digest), 'index')).manifests;
  const [only, ...others] = manifests;
  if (only === undefined || others.length > 0)
    throw new ImageError('NOT_AN_IMAGE', `it holds ${manifests.length} images; give a layout of one`);
  const manifest = await json(manifestSchema, blob(only.digest), 'manifest');
  return await imageOf(
    blob(manifest.config.digest),
    manifest.layers.map((layer) => blob(layer.digest)),
    scratch,
  );
}

async function imageOf(
  config: Extent | undefined,
  stored: (Extent | undefined)[],
  scratch: string,
): Promise<DeltaImage> {
  const bytes = await documentOf(config, 'config');
  const { rootfs } = v.parse(configSchema, JSON.parse(bytes.toString()));
  if (rootfs.diff_ids.length !== stored.length)
    throw new ImageError(
      'NOT_AN_IMAGE',
      `its config names ${rootfs.diff_ids.length} layers, it has ${stored.length}`,
    );
  const layers: LayerSource[] = [];
  for (const [at, diffId] of rootfs.diff_ids.entries()) {
    const extent = stored[at];
    if (extent === undefined) throw new ImageError('NOT_AN_IMAGE', `its layer ${at + 1} is missing`);
    const kind = await packing(extent);
    const plain = kind === undefined ? extent : await unpacked(extent, kind, scratch);
    layers.push({ diffId, bytes: plain.bytes, open: () => streamOf(plain) });
  }
  return { id: `sha256:${createHash('sha256').update(bytes).digest('hex')}`, layers };
}

type Packing = 'gzip' | 'zstd';

async function packing({ path, offset, bytes }: Extent): Promise<Packing | undefined> {
  const file = await open(path);
  try {
    const head = Buffer.alloc(4);
    await file.read(head, 0, Math.min(4, bytes), offset);
    if (head.readUInt16BE(0) === 0x1f8b) return 'gzip';
    return head.readUInt32LE(0) === 0xfd2fb528 ? 'zstd' : undefined;
  } finally {
    await file.close();
  }
}

async function unpacked(extent: Extent, kind: Packing, scratch: string): Promise<Extent> {
  const name = createHash('sha256').update(`${extent.path} ${extent.offset}`).digest('hex').slice(0, 16);
  const path = join(scratch, `unpacked-${name}`);
  await pipeline(
    streamOf(extent),
    kind === 'gzip' ? createGunzip() : createZstdDecompress(),
    createWriteStream(path),
  );
  return { path, offset: 0, bytes: statSync(path).size };
}
