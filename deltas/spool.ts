/**
 * One scratch file that many contents are appended to and read back from.
 *
 * Invariant: memory does not grow with what is spooled, and one descriptor is open however many contents there are.
 */
import { type FileHandle, open, rm } from 'node:fs/promises';
import type { BasisFile } from '#deltas/basis.ts';
import { piecesOf, readAt } from '#deltas/random-access.ts';

export class Spool {
  readonly #path: string;
  readonly #handle: FileHandle;
  #length = 0;

  private constructor(path: string, handle: FileHandle) {
    this.#path = path;
    this.#handle = handle;
  }

  static async create(path: string): Promise<Spool> {
    return new Spool(path, await open(path, 'wx+', 0o600));
  }

  get length(): number {
    return this.#length;
  }

  /** @returns where it starts */
  async append(pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<number> {
    const start = this.#length;
    for await (const piece of pieces) {
      let done = 0;
      while (done < piece.length) {
        const { bytesWritten } = await this.#handle.write(piece, done, piece.length - done, this.#length);
        done += bytesWritten;
        this.#length += bytesWritten;
      }
    }
    return start;
  }

  /** Part of the spool as a file of its own. */
  file(start: number, size: number): BasisFile {
    return {
      size,
      read: (offset, length, into) =>
        readAt(this.#handle, start + offset, Math.max(0, Math.min(length, size - offset)), into),
    };
  }

  /** All of it, in pieces. */
  stream(): AsyncGenerator<Uint8Array> {
    return piecesOf(this.file(0, this.#length));
  }

  /** Closes it and leaves the file. */
  async detach(): Promise<void> {
    await this.#handle.close();
  }

  /** Closes and removes it. */
  async close(): Promise<void> {
    await this.#handle.close();
    await rm(this.#path, { force: true });
  }
}
