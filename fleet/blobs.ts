/**
 * Immutable files by digest: what devices fetch.
 *
 * Invariant: a file under its digest's name is whole and durable. It is written beside, synced, and only then
 * named; what a crash leaves behind is a nameless temporary file, removed at the next start.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { createZstdDecompress } from 'node:zlib';
import { FleetError } from '#fleet/errors.ts';
import type { Blob } from '#fleet/protocol.ts';

const DIGEST = /^sha256:([0-9a-f]{64})$/;

export class Blobs {
  readonly #directory: string;
  readonly #scratch: string;

  constructor(directory: string, scratch: string) {
    this.#directory = directory;
    this.#scratch = scratch;
  }

  /** Makes the directories and empties the scratch directory. */
  static async open(directory: string): Promise<Blobs> {
    const scratch = join(directory, 'scratch');
    await rm(scratch, { recursive: true, force: true });
    await mkdir(scratch, { recursive: true });
    await mkdir(join(directory, 'sha256'), { recursive: true });
    return new Blobs(directory, scratch);
  }

  /** A path of its own for a temporary file or directory, gone after a restart; same file system as the blobs. */
  temporary(): string {
    return join(this.#scratch, randomBytes(12).toString('hex'));
  }

  /** A directory beside the blobs for what can be made anew, kept over restarts; made by who needs it. */
  derived(name: 'surveys' | 'compiled'): string {
    return join(this.#directory, name);
  }

  /** Where the blob is, or would be. The digest is checked, so a foreign one cannot name another file. */
  path(digest: string): string {
    const hex = DIGEST.exec(digest)?.[1];
    if (!hex) {
      throw new FleetError(
        'BAD_REQUEST',
        `not a digest: ${digest.slice(0, 100)}`,
        'give sha256: and 64 hexadecimal digits',
      );
    }
    return join(this.#directory, 'sha256', hex.slice(0, 2), hex);
  }

  /** Length in bytes, or undefined if there is no such blob. */
  async size(digest: string): Promise<number | undefined> {
    try {
      return (await stat(this.path(digest))).size;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Whether the blob is here and still what its digest says: a disk may forget. */
  async isWhole(blob: Blob): Promise<boolean> {
    if ((await this.size(blob.digest)) !== blob.bytes) return false;
    return (await hashFile(this.path(blob.digest))).digest === blob.digest;
  }

  /** Stores what the source gives; durable when it resolves. */
  async put(source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<Blob> {
    const path = this.temporary();
    const file = await open(path, 'wx');
    try {
      const hash = createHash('sha256');
      let bytes = 0;
      for await (const chunk of source) {
        hash.update(chunk);
        bytes += chunk.length;
        await writeAll(file, chunk);
      }
      return await this.#name(file, path, { digest: `sha256:${hash.digest('hex')}`, bytes });
    } catch (error) {
      await file.close();
      await rm(path, { force: true });
      throw error;
    }
  }

  /** Stores a finished file that was made at a `temporary()` path; the file is moved. */
  async take(path: string): Promise<Blob> {
    const blob = await hashFile(path);
    return this.#name(await open(path, 'r+'), path, blob);
  }

  async #name(file: FileHandle, path: string, blob: Blob): Promise<Blob> {
    await file.sync();
    await file.close();
    const name = this.path(blob.digest);
    await mkdir(dirname(name), { recursive: true });
    await rename(path, name);
    // The name, its directory's name, and that directory's, for a first blob under two new digits.
    await syncDirectory(dirname(name));
    await syncDirectory(dirname(dirname(name)));
    return blob;
  }

  /** The uncompressed bytes of a zstd blob. */
  openZstd(digest: string): Readable {
    return openZstd(this.path(digest));
  }

  /** Digests of all blobs. */
  async list(): Promise<string[]> {
    const names = await readdir(join(this.#directory, 'sha256'), { recursive: true });
    return names.map((name) => `sha256:${name.split('/').at(-1)}`).filter((digest) => DIGEST.test(digest));
  }
}

/** The uncompressed bytes of a zstd file; an error of either stream ends the returned one. */
export function openZstd(path: string): Readable {
  const source = createReadStream(path, { highWaterMark: 256 * 1024 });
  const output = createZstdDecompress();
  source.on('error', (error) => output.destroy(error));
  output.on('close', () => source.destroy());
  return source.pipe(output);
}

async function hashFile(path: string): Promise<Blob> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 })) {
    hash.update(chunk as Uint8Array);
    bytes += (chunk as Uint8Array).length;
  }
  return { digest: `sha256:${hash.digest('hex')}`, bytes };
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let offset = 0; offset < chunk.length; ) {
    offset += (await file.write(chunk, offset)).bytesWritten;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
