/**
 * Files of a basis, one behind the other in one file on disk, with a list of where each is that another process can be given.
 *
 * Invariant: of the image only the files that a delta names take disk; memory grows with their number, not with their bytes.
 */
import { rm } from 'node:fs/promises';
import type { DeltaReader } from '#deltas/artifact.ts';
import type { Basis, ListedFile } from '#deltas/basis.ts';
import { type FlatFile, flatten, spoolFiles } from '#deltas/flatten.ts';
import type { LayerSource } from '#deltas/layer.ts';
import { fileAccess } from '#deltas/random-access.ts';
import { Spool } from '#deltas/spool.ts';
import type { SurveyOptions } from '#deltas/survey.ts';

/** Plain data, as JSON if need be. */
export interface SpooledBasis {
  /** Of the file that holds them. */
  path: string;
  /** Its length. */
  bytes: number;
  files: [name: string, offset: number, bytes: number][];
  /** For a delta that asks for it. */
  list?: ListedFile[];
}

/**
 * Spools what `delta` names out of an image's layers.
 *
 * @param path a file that is not there yet
 * @throws DeltaError as applyLayer does, `BAD_INPUT`; the file system's own error. Nothing is left at `path` then
 */
export async function spoolBasis(
  layers: readonly LayerSource[],
  delta: DeltaReader,
  path: string,
  options: SurveyOptions = {},
): Promise<SpooledBasis> {
  const image = await flatten(layers, options);
  const named = await delta.basisPaths({ list: () => image.list() });
  const found = new Map<string, FlatFile>();
  for (const name of named) {
    const file = image.file(name);
    // A sparse file's content is not in the tar as it is; nothing refers to it.
    if (file !== undefined && file.digest !== '') found.set(name, file);
  }
  const spool = await Spool.create(path);
  try {
    const wanted = new Set([...found.values()].filter(({ bytes }) => bytes > 0));
    const starts = await spoolFiles(layers, wanted, spool);
    await spool.detach();
    return {
      path,
      bytes: spool.length,
      files: [...found].map(([name, file]) => [name, starts.get(file) ?? 0, file.bytes]),
      ...(delta.needsList && { list: [...image.list()] }),
    };
  } catch (error) {
    await spool.close();
    throw error;
  }
}

/** @returns the basis; `close` removes its file */
export async function openSpooled(spooled: SpooledBasis): Promise<Basis & { close(): Promise<void> }> {
  const { path, list } = spooled;
  const file = await fileAccess(path);
  const places = new Map(spooled.files.map(([name, offset, bytes]) => [name, { offset, bytes }]));
  return {
    async open(name) {
      const place = places.get(name);
      if (place === undefined) return undefined;
      const { offset, bytes } = place;
      return {
        size: bytes,
        read: (at, length, into) => file.read(offset + at, Math.max(0, Math.min(length, bytes - at)), into),
      };
    },
    ...(list && { list: () => list }),
    async close() {
      await file.close();
      await rm(path, { force: true });
    },
  };
}
