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
import { createReadStream } from 'node:fs';
import { access, lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { ImageInspectInfo } from 'dockerode';
import type { BasisFile } from '#deltas/index.ts';
import type { OpenBasis } from '#agent/images/basis.ts';
import { errnoOf } from '#agent/images/errors.ts';
import { FilePool } from '#agent/images/files.ts';
import { LIMITS } from '#agent/images/limits.ts';

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
  const pool = new FilePool();
  return {
    how: 'overlay',
    async open(path) {
      const found = await find(layers, path);
      if (!found) return undefined;
      const { file, size } = found;
      return {
        size,
        read: (offset, length) => pool.read(file, offset, Math.max(0, Math.min(length, size - offset))),
      } satisfies BasisFile;
    },
    close: () => pool.close(),
  };
}

async function find(
  layers: readonly LayerDirectory[],
  path: string,
): Promise<{ file: string; size: number } | undefined> {
  const parts = path.split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..' || part.includes('\0'))) return undefined;
  let merged = layers;
  for (const [index, part] of parts.entries()) {
    const here = parts.slice(0, index + 1).join('/');
    const last = index === parts.length - 1;
    const next: LayerDirectory[] = [];
    for (const [depth, layer] of merged.entries()) {
      const full = join(layer.directory, here);
      const entry = await lstat(full).catch((error: unknown) => {
        if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
        throw error;
      });
      if (!entry) continue;
      if (!entry.isDirectory()) {
        // A whiteout is a character device 0/0: like any other non-directory it ends the search, and is no file.
        if (last && next.length === 0 && entry.isFile()) return { file: full, size: entry.size };
        break;
      }
      next.push(layer);
      if (depth < merged.length - 1 && (await layer.opaque()).has(here)) break;
    }
    if (next.length === 0) return undefined;
    merged = next;
  }
  return undefined;
}

/** OCI image specification §"Layer ChainID". */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(
      below === undefined ? diffId : `sha256:${createHash('sha256').update(`${below} ${diffId}`).digest('hex')}`,
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
      if (line.length > LIMITS.tarSplitLineCharsMax) throw new RangeError(`${record}: a line of ${line.length}`);
      if (!line.includes(OPAQUE)) continue;
      const entry = JSON.parse(line) as { type?: unknown; name?: unknown };
      if (entry.type !== 1 || typeof entry.name !== 'string') continue;
      const name = entry.name.replace(/^\.?\//, '');
      if (!name.endsWith(`/${OPAQUE}`)) continue;
      if (found.size >= LIMITS.opaqueDirectoriesMax) throw new RangeError(`${record}: too many opaque directories`);
      found.add(name.slice(0, -OPAQUE.length - 1));
    }
  };
  await Promise.race([read(), failed.promise]);
  return found;
}
