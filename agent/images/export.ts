/**
 * An image's files by one streaming export of a container that is created for it and never started.
 *
 * Invariant: the container is removed again, also on failure and by the next start of the agent (its label); of
 * the stream only the files that the delta names reach the disk, one behind the other in one spool file.
 *
 * The engine lays its own empty files over a few paths of every container (INIT_PATHS); the image's content there
 * cannot be had this way, so they read as absent and such a delta gives way to whole layers.
 */
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type Docker from 'dockerode';
import { extract } from 'tar-stream';
import type { BasisOptions, OpenBasis } from '#agent/images/basis.ts';
import { diskError, ImageError } from '#agent/images/errors.ts';
import { openFile } from '#agent/images/files.ts';
import { ask, short, statusOf } from '#agent/images/inventory.ts';
import { LIMITS } from '#agent/images/limits.ts';

/** moby daemon/initlayer. */
const INIT_PATHS = ['.dockerenv', 'dev/console', 'etc/hostname', 'etc/hosts', 'etc/mtab', 'etc/resolv.conf'];

interface Spooled {
  offset: number;
  size: number;
}

/** @throws ImageError `ENGINE`, `DISK_FULL`, `DISK`, `ABORTED` */
export async function exportBasis(options: BasisOptions): Promise<OpenBasis> {
  const { directory } = options;
  const wanted = new Set<string>();
  for (const path of await options.paths()) {
    if (wanted.size >= LIMITS.basisPathsMax) throw new RangeError(`a delta names over ${wanted.size} basis files`);
    if (!INIT_PATHS.includes(path)) wanted.add(path);
  }
  const path = join(directory, 'basis');
  const spooled = new Map<string, Spooled>();
  let spool: FileHandle | undefined;
  try {
    await mkdir(directory, { recursive: true });
    spool = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW, 0o600);
    if (wanted.size > 0) {
      await withContainer(options, async (container) => {
        const links = await pass(container, wanted, spooled, spool as FileHandle, options.signal);
        if (links.size === 0) return;
        // A hard link's content comes under the name that the walk met first: ask once more, for those.
        await pass(container, new Set(links.values()), spooled, spool as FileHandle, options.signal);
        for (const [link, target] of links) {
          const found = spooled.get(target);
          if (found) spooled.set(link, found);
        }
      });
    }
  } catch (error) {
    await rm(path, { force: true });
    throw diskError(error, `spooling files of image ${short(options.imageId)}`);
  } finally {
    await spool?.close();
  }

  const file = await openFile(path);
  return {
    how: 'export',
    async open(name) {
      const found = spooled.get(name);
      if (!found) return undefined;
      return {
        size: found.size,
        read: (offset, length) =>
          file.read(found.offset + offset, Math.max(0, Math.min(length, found.size - offset))),
      };
    },
    async close() {
      await file.close();
      await rm(path, { force: true });
    },
  };
}

async function withContainer(
  { docker, imageId, label, signal }: BasisOptions,
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

/** One export: spools what is wanted. @returns wanted names that are hard links, by the name of their content */
async function pass(
  container: Docker.Container,
  wanted: ReadonlySet<string>,
  spooled: Map<string, Spooled>,
  spool: FileHandle,
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const links = new Map<string, string>();
  let end = [...spooled.values()].reduce((sum, { size }) => sum + size, 0);
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
      const { name, type, linkname } = entry.header;
      const path = plain(name);
      if (type === 'link' && linkname && wanted.has(path)) links.set(path, plain(linkname));
      if (type === 'file' && wanted.has(path) && !spooled.has(path)) {
        const offset = end;
        for await (const chunk of entry) {
          await spool.appendFile(chunk as Buffer);
          end += (chunk as Buffer).length;
        }
        spooled.set(path, { offset, size: end - offset });
      } else {
        entry.resume();
      }
    }
  } catch (error) {
    if (signal.aborted) throw new ImageError('ABORTED', 'the installation was called off', { cause: error });
    throw error;
  } finally {
    clearTimeout(timer);
    either.removeEventListener('abort', cancel);
    stream.destroy();
  }
  return links;
}

const plain = (name: string): string => name.replace(/^\.?\//, '').replace(/\/$/, '');
