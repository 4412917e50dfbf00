/**
 * An image's files read from the engine's overlay2 layer directories, top layer first.
 *
 * Invariant: the view is the kernel's (Documentation/filesystems/overlayfs.rst): a whiteout, an opaque directory
 * or a non-directory hides everything below it. No symbolic link is ever followed: each component is looked at
 * by lstat in the layer that it was found in, and the file itself is opened with O_NOFOLLOW.
 *
 * Node cannot read extended attributes, so opaque directories are learnt from the engine's own record of the
 * layer's tar (layerdb/…/tar-split.json.gz), where each is an entry `dir/.wh..wh..opq`. A layer's record is read
 * when a lookup first passes through it to a lower layer; the bottom layer's never is.
 */
import { createHash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { access, type FileHandle, lstat, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { ImageInspectInfo } from 'dockerode';
import type { OpenBasis } from '#agent/images/basis.ts';
import { errnoOf } from '#agent/images/errors.ts';
import { LIMITS } from '#agent/images/limits.ts';
import { type ListedFile, readAt } from '#deltas/index.ts';

interface LayerDirectory {
  /** The layer's `diff` directory. */
  directory: string;
  /** Its directories that hide all lower ones; throws if the record cannot be read. */
  opaque(): Promise<ReadonlySet<string>>;
}

/** Undefined when this engine keeps layers otherwise, or out of this process's sight. */
export async function overlayBasis(
  image: Pick<ImageInspectInfo, 'GraphDriver' | 'RootFS'>,
  engineRoot: string,
): Promise<OpenBasis | undefined> {
  const driver = image.GraphDriver;
  const data = driver?.Data as Record<string, string> | null | undefined;
  const upper = data?.UpperDir;
  if (driver?.Name !== 'overlay2' || !upper) return undefined;
  const directories = [upper, ...(data.LowerDir?.split(':') ?? [])];
  const chain = chainIds(image.RootFS?.Layers ?? []).reverse();
  if (chain.length !== directories.length) return undefined;

  const records = chain.map((id) =>
    join(engineRoot, 'image/overlay2/layerdb/sha256', id.replace('sha256:', ''), 'tar-split.json.gz'),
  );
  try {
    await Promise.all([...directories, ...records.slice(0, -1)].map((path) => access(path)));
  } catch {
    return undefined;
  }
  return layeredBasis(
    directories.map((directory, index) => {
      let opaque: Promise<ReadonlySet<string>> | undefined;
      return { directory, opaque: () => (opaque ??= opaqueDirectories(records[index] ?? '')) };
    }),
  );
}

/** @param layers top first */
export function layeredBasis(layers: readonly LayerDirectory[]): OpenBasis {
  const files = new Set<FileHandle>();
  return {
    how: 'overlay',
    async open(path) {
      const found = await find(layers, path);
      if (!found) return undefined;
      const file = await open(found, constants.O_RDONLY | constants.O_NOFOLLOW);
      files.add(file);
      const { size } = await file.stat();
      return {
        size,
        async read(offset, length, into) {
          if (length > LIMITS.readBytesMax)
            throw new RangeError(`a read of ${length} bytes, over ${LIMITS.readBytesMax}`);
          return readAt(file, offset, Math.max(0, Math.min(length, size - offset)), into);
        },
        async close() {
          if (files.delete(file)) await file.close();
        },
      };
    },
    list: () => walk(layers, ''),
    async close() {
      const left = [...files];
      files.clear();
      await Promise.all(left.map((file) => file.close()));
    },
  };
}

/** @returns where the regular file of that path lies */
async function find(layers: readonly LayerDirectory[], path: string): Promise<string | undefined> {
  const parts = path.split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..' || part.includes('\0')))
    return undefined;
  let merged = layers;
  for (const index of parts.keys()) {
    const here = parts.slice(0, index + 1).join('/');
    const seen = await look(merged, here);
    if (seen.is === 'file' && index === parts.length - 1) return seen.file;
    if (seen.is !== 'directory') return undefined;
    merged = seen.layers;
  }
  return undefined;
}

type Seen =
  | { is: 'file'; file: string; size: number }
  /** Of which layers, top first, its content is made. */
  | { is: 'directory'; layers: LayerDirectory[] }
  | { is: 'nothing' };

/** What the layers show at a path whose parent is a directory made of all of them. */
async function look(layers: readonly LayerDirectory[], path: string): Promise<Seen> {
  const merged: LayerDirectory[] = [];
  for (const [depth, layer] of layers.entries()) {
    const file = join(layer.directory, path);
    const entry = await lstat(file).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    });
    if (!entry) continue;
    if (!entry.isDirectory()) {
      // A whiteout is a character device 0/0: like any other non-directory it ends the search, and is no file.
      if (merged.length === 0 && entry.isFile()) return { is: 'file', file, size: entry.size };
      break;
    }
    merged.push(layer);
    if (depth < layers.length - 1 && (await layer.opaque()).has(path)) break;
  }
  return merged.length > 0 ? { is: 'directory', layers: merged } : { is: 'nothing' };
}

/** All regular files below a directory. Names that are not UTF-8 come out changed; no delta refers to those. */
async function* walk(layers: readonly LayerDirectory[], path: string): AsyncGenerator<ListedFile> {
  const names = new Set<string>();
  for (const { directory } of layers) {
    for (const name of await readdir(join(directory, path))) names.add(name);
  }
  const inside = [...names].map((name) => (path === '' ? name : `${path}/${name}`));
  for (let at = 0; at < inside.length; at += LIMITS.lookupsAtOnce) {
    const some = inside.slice(at, at + LIMITS.lookupsAtOnce);
    const seen = await Promise.all(some.map((each) => look(layers, each)));
    for (const [index, each] of seen.entries()) {
      const here = some[index] as string;
      if (each.is === 'file') yield { path: here, size: each.size };
      if (each.is === 'directory') yield* walk(each.layers, here);
    }
  }
}

/** OCI image specification §"Layer ChainID". */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(
      below === undefined
        ? diffId
        : `sha256:${createHash('sha256').update(`${below} ${diffId}`).digest('hex')}`,
    );
  }
  return chain;
}

const OPAQUE = '.wh..wh..opq';

/** Reads tar-split's JSON lines; entries of type 1 have the tar header's name. */
async function opaqueDirectories(record: string): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => undefined);
  const bytes = pipeline(createReadStream(record), createGunzip(), (error) => {
    if (error) failed.reject(error);
  });
  const read = async () => {
    for await (const line of createInterface({ input: bytes, crlfDelay: Number.POSITIVE_INFINITY })) {
      if (line.length > LIMITS.tarSplitLineCharsMax)
        throw new RangeError(`${record}: a line of ${line.length}`);
      if (!line.includes(OPAQUE)) continue;
      const entry = JSON.parse(line) as { type?: unknown; name?: unknown };
      if (entry.type !== 1 || typeof entry.name !== 'string') continue;
      const name = entry.name.replace(/^\.?\//, '');
      if (!name.endsWith(`/${OPAQUE}`)) continue;
      if (found.size >= LIMITS.opaqueDirectoriesMax)
        throw new RangeError(`${record}: too many opaque directories`);
      found.add(name.slice(0, -OPAQUE.length - 1));
    }
  };
  await Promise.race([read(), failed.promise]);
  return found;
}
