/** A file of the basis read in blocks, of which the last few are kept: many short ranges lie close together. */
import type { BasisFile } from '#deltas/basis.ts';

const BLOCK_BYTES = 64 * 1024;
const BLOCKS_MAX = 128;

export class BlockFile {
  readonly #file: BasisFile;
  readonly #blocks = new Map<number, Uint8Array>();

  constructor(file: BasisFile) {
    this.#file = file;
  }

  /** Without waiting, if they are all in one block that is held. */
  cached(offset: number, length: number): Uint8Array | undefined {
    const number = Math.floor(offset / BLOCK_BYTES);
    const block = this.#held(number);
    const at = offset - number * BLOCK_BYTES;
    return block === undefined || at + length > block.length ? undefined : block.subarray(at, at + length);
  }

  /** Fewer than `length` only at the file's end. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    const stop = Math.min(offset + length, this.#file.size);
    for (let at = offset; at < stop; ) {
      const number = Math.floor(at / BLOCK_BYTES);
      const block = this.#held(number) ?? (await this.#load(number));
      const from = at - number * BLOCK_BYTES;
      const part = block.subarray(from, Math.min(block.length, from + stop - at));
      if (part.length === 0) break;
      parts.push(part);
      at += part.length;
    }
    return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
  }

  /** The one that was not asked for the longest is forgotten first. */
  #held(number: number): Uint8Array | undefined {
    const block = this.#blocks.get(number);
    if (block === undefined) return undefined;
    this.#blocks.delete(number);
    this.#blocks.set(number, block);
    return block;
  }

  async #load(number: number): Promise<Uint8Array> {
    const start = number * BLOCK_BYTES;
    const block = await this.#file.read(start, Math.min(BLOCK_BYTES, this.#file.size - start));
    if (this.#blocks.size >= BLOCKS_MAX) this.#blocks.delete(this.#blocks.keys().next().value as number);
    this.#blocks.set(number, block);
    return block;
  }
}
