/**
 * Reading parts of files by offset, with few of them open at once.
 *
 * Invariant: a read gives the bytes asked for, cut only by the end of the file; nothing is followed through a
 * symbolic link.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { RandomAccess } from '#deltas/index.ts';
import { LIMITS } from '#agent/images/limits.ts';

async function readAt(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  if (length > LIMITS.readBytesMax) throw new RangeError(`a read of ${length} bytes, over ${LIMITS.readBytesMax}`);
  const bytes = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
}

/** A file held open until `close`. */
export async function openFile(path: string): Promise<RandomAccess & { close(): Promise<void> }> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const { size } = await file.stat();
  return {
    size,
    // A window of a file never reaches past its end.
    read: (offset, length) => readAt(file, offset, Math.max(0, Math.min(length, size - offset))),
    close: () => file.close(),
  };
}

/** Many files, opened when read; the one unread for longest is closed when too many are open. */
export class FilePool {
  readonly #open = new Map<string, { file: Promise<FileHandle>; readers: number }>();

  async read(path: string, offset: number, length: number): Promise<Uint8Array> {
    const entry = this.#open.get(path) ?? {
      file: open(path, constants.O_RDONLY | constants.O_NOFOLLOW),
      readers: 0,
    };
    // Map keeps insertion order: last is the most recently used.
    this.#open.delete(path);
    this.#open.set(path, entry);
    entry.readers++;
    try {
      await this.#trim();
      return await readAt(await entry.file, offset, length);
    } catch (error) {
      if (this.#open.get(path) === entry) this.#open.delete(path);
      throw error;
    } finally {
      entry.readers--;
    }
  }

  async #trim(): Promise<void> {
    for (const [path, { file, readers }] of this.#open) {
      if (this.#open.size <= LIMITS.openFilesMax) return;
      if (readers > 0) continue;
      this.#open.delete(path);
      await close(file);
    }
  }

  async close(): Promise<void> {
    const files = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(files.map(({ file }) => close(file)));
  }
}

async function close(file: Promise<FileHandle>): Promise<void> {
  await file.then((handle) => handle.close()).catch(() => undefined);
}
