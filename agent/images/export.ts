/**
 * An image's files by one streaming export of a container that is created for it and never started.
 *
 * Invariant: the container is removed again, also on failure and by the next start of the agent (its label); of
 * the stream only the files that the delta names reach the disk, one behind the other in one spool file.
 *
 * The engine lays files of its own over a few paths of every container (/etc/hosts and the like); deltas never
 * refer to those.
 */
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type Docker from 'dockerode';
import { extract, type Header } from 'tar-stream';
import type { BasisOptions, OpenBasis } from '#agent/images/basis.ts';
import { aborted, diskError } from '#agent/images/errors.ts';
import { ask, short, statusOf } from '#agent/images/inventory.ts';
import { LIMITS } from '#agent/images/limits.ts';
import { DeltaError, fileAccess, type ListedFile } from '#deltas/index.ts';

interface Spooled {
  offset: number;
  size: number;
}

export type ExportOptions = Omit<BasisOptions, 'docker' | 'facts' | 'how'> & { docker: Docker };

/** @throws ImageError `ENGINE`, `DISK_FULL`, `DISK`, `ABORTED` */
export async function exportBasis(options: ExportOptions): Promise<OpenBasis> {
  const { directory, needsList, paths, signal } = options;
  const path = join(directory, 'basis');
  const spooled = new Map<string, Spooled>();
  let files: ListedFile[] = [];
  let spool: FileHandle | undefined;
  try {
    await mkdir(directory, { recursive: true });
    spool = await open(
      path,
      constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW,
      0o600,
    );
    const file = spool;
    await withContainer(options, async (container) => {
      if (needsList) files = await listing(container, signal);
      const wanted = new Set(await paths({ list: () => files }));
      if (wanted.size > LIMITS.basisFilesMax)
        throw new RangeError(`a delta names ${wanted.size} basis files`);
      if (wanted.size === 0) return;
      const links = await fill(container, wanted, spooled, file, signal);
      if (links.size === 0) return;
      // A hard link's content comes under the name that the walk met first: ask once more, for those.
      await fill(container, new Set(links.values()), spooled, file, signal);
      for (const [link, target] of links) {
        const found = spooled.get(target);
        if (found) spooled.set(link, found);
      }
    });
  } catch (error) {
    await rm(path, { force: true });
    throw error instanceof DeltaError
      ? error
      : diskError(error, `spooling files of image ${short(options.imageId)}`);
  } finally {
    await spool?.close();
  }

  const file = await fileAccess(path);
  return {
    how: 'export',
    async open(name) {
      const found = spooled.get(name);
      if (!found) return undefined;
      return {
        size: found.size,
        read: (offset, length, into) =>
          file.read(found.offset + offset, Math.max(0, Math.min(length, found.size - offset)), into),
      };
    },
    ...(needsList && { list: () => files }),
    async close() {
      await file.close();
      await rm(path, { force: true });
    },
  };
}

async function withContainer(
  { docker, imageId, label, signal }: ExportOptions,
  use: (container: Docker.Container) => Promise<void>,
): Promise<void> {
  const doing = `making a container of image ${short(imageId)} to read its files`;
  const container = await ask(
    doing,
    (abortSignal) =>
      docker.createContainer({
        Image: imageId,
        // An image need not say what it runs; this one never does.
        Entrypoint: ['-'],
        Labels: { [label]: '' },
        NetworkDisabled: true,
        abortSignal,
      }),
    { signal },
  );
  try {
    await use(container);
  } finally {
    await removeContainer(container);
  }
}

/** Removes with its anonymous volumes; one that is gone already is fine. */
export async function removeContainer(container: Docker.Container): Promise<void> {
  await ask(`removing container ${short(container.id)}`, async () => {
    try {
      await container.remove({ v: true, force: true });
    } catch (error) {
      if (statusOf(error) !== 404) throw error;
    }
  });
}

/** All regular files by name, hard links with the length of what they share. */
async function listing(container: Docker.Container, signal: AbortSignal): Promise<ListedFile[]> {
  const sizes = new Map<string, number>();
  await eachEntry(container, signal, async ({ name, type, linkname, size }) => {
    if (sizes.size >= LIMITS.basisFilesMax) throw new RangeError(`the basis has over ${sizes.size} files`);
    if (type === 'file') sizes.set(plain(name), size);
    if (type === 'link' && linkname) sizes.set(plain(name), sizes.get(plain(linkname)) ?? 0);
  });
  return [...sizes].map(([path, size]) => ({ path, size }));
}

/** One export: spools what is wanted. @returns wanted names that are hard links, by the name of their content */
async function fill(
  container: Docker.Container,
  wanted: ReadonlySet<string>,
  spooled: Map<string, Spooled>,
  spool: FileHandle,
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const links = new Map<string, string>();
  let end = [...spooled.values()].reduce((sum, { size }) => sum + size, 0);
  await eachEntry(container, signal, async ({ name, type, linkname }, content) => {
    const path = plain(name);
    if (!wanted.has(path)) return;
    if (type === 'link' && linkname) links.set(path, plain(linkname));
    if (type !== 'file' || spooled.has(path)) return;
    const offset = end;
    for await (const chunk of content) {
      await spool.appendFile(chunk);
      end += chunk.byteLength;
    }
    spooled.set(path, { offset, size: end - offset });
  });
  return links;
}

/** Streams one export; content that `visit` does not read is passed over. */
async function eachEntry(
  container: Docker.Container,
  signal: AbortSignal,
  visit: (header: Header, content: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<void> {
  const stream = (await ask('exporting a container', () => container.export(), { signal })) as Readable;
  const stall = new AbortController();
  const timer = setTimeout(() => stall.abort(), LIMITS.pullStallMsMax);
  const cancel = () => stream.destroy(new Error(signal.aborted ? 'called off' : 'the engine fell silent'));
  const either = AbortSignal.any([signal, stall.signal]);
  either.addEventListener('abort', cancel, { once: true });
  stream.on('data', () => timer.refresh());
  const tar = extract();
  stream.once('error', (error) => tar.destroy(error));
  stream.once('aborted', () => tar.destroy(new Error('the export broke off')));
  stream.pipe(tar);
  try {
    for await (const entry of tar) {
      await visit(entry.header, entry as AsyncIterable<Uint8Array>);
      entry.resume();
    }
  } catch (error) {
    if (signal.aborted) throw aborted(signal);
    throw error;
  } finally {
    clearTimeout(timer);
    either.removeEventListener('abort', cancel);
    stream.destroy();
  }
}

const plain = (name: string): string => name.replace(/^\.?\//, '').replace(/\/$/, '');
