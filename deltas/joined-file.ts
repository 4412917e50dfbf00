/**
 * Several basis files one behind the other, as one.
 *
 * Invariant: each is opened with the length that was promised for it; at most `basisFilesOpenMax` are open at a time.
 */
import type { BasisFile } from '#deltas/basis.ts';
import { LIMITS } from '#deltas/limits.ts';

export interface Part {
  path: string;
  /** Length of the file. */
  bytes: number;
}

export class JoinedFile implements BasisFile {
  readonly size: number;
  readonly #parts: readonly Part[];
  readonly #starts: number[] = [];
  readonly #open: (part: Part) => Promise<BasisFile>;
  /** By number; the one that was not read for the longest first. */
  readonly #files = new Map<number, BasisFile>();

  /** @param open gives a file of the part's length, or throws */
  constructor(parts: readonly Part[], open: (part: Part) => Promise<BasisFile>) {
    this.#parts = parts;
    this.#open = open;
    let size = 0;
    for (const { bytes } of parts) {
      this.#starts.push(size);
      size += bytes;
    }
    this.size = size;
  }

  /** Fewer bytes than asked for when a part ends before its length. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let at = offset;
    const end = Math.min(offset + length, this.size);
    for (let number = this.#partAt(offset); at < end; number += 1) {
      const into = at - (this.#starts[number] as number);
      const some = Math.min(end - at, (this.#parts[number] as Part).bytes - into);
      if (some === 0) continue;
      const piece = await (await this.#file(number)).read(into, some);
      pieces.push(piece);
      at += piece.length;
      if (piece.length < some) break;
    }
    return pieces.length === 1 ? (pieces[0] as Uint8Array) : Buffer.concat(pieces);
  }

  /** The last part that begins at or before `offset`. */
  #partAt(offset: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#starts[middle] as number) <= offset) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  async #file(number: number): Promise<BasisFile> {
    const known = this.#files.get(number);
    if (known !== undefined) {
      this.#files.delete(number);
      this.#files.set(number, known);
      return known;
    }
    if (this.#files.size >= LIMITS.basisFilesOpenMax) {
      const [oldest, file] = this.#files.entries().next().value as [number, BasisFile];
      this.#files.delete(oldest);
      await file.close?.();
    }
    const file = await this.#open(this.#parts[number] as Part);
    this.#files.set(number, file);
    return file;
  }

  async close(): Promise<void> {
    const files = [...this.#files.values()];
    this.#files.clear();
    for (const file of files) await file.close?.();
  }
}
