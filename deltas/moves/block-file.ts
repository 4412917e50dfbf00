/** A file of the basis read in blocks, of which the last few are kept: many short ranges lie close together. */
import type { BasisFile } from '#deltas/basis.ts';

const BLOCK_BYTES = 64 * 1024;
const BLOCKS_MAX = 128;

interface Block {
  bytes: Uint8Array;
  /** What it was read into, unless the file gave its own: taken for another one when this is forgotten. */
  memory: Uint8Array;
}

export class BlockFile {
  readonly #file: BasisFile;
  readonly #blocks = new Map<number, Block>();

  constructor(file: BasisFile) {
    this.#file = file;
  }

  /** Without waiting, if they are all in one block that is held; valid until the next is read. */
  cached(offset: number, length: number): Uint8Array | undefined {
    const number = Math.floor(offset / BLOCK_BYTES);
    const block = this.#held(number);
    const at = offset - number * BLOCK_BYTES;
    return block === undefined || at + length > block.length ? undefined : block.subarray(at, at + length);
  }

  /** Fewer than `length` only at the file's end. @param memory for them */
  async read(offset: number, length: number, memory?: Uint8Array): Promise<Uint8Array> {
    const stop = Math.max(offset, Math.min(offset + length, this.#file.size));
    const into = memory ?? Buffer.alloc(stop - offset);
    let done = 0;
    while (offset + done < stop) {
      const at = offset + done;
      const number = Math.floor(at / BLOCK_BYTES);
      const block = this.#held(number) ?? (await this.#load(number));
      const from = at - number * BLOCK_BYTES;
      const part = block.subarray(from, Math.min(block.length, from + stop - at));
      if (part.length === 0) break;
      into.set(part, done);
      done += part.length;
    }
    return into.subarray(0, done);
  }

  /** The one that was not asked for the longest is forgotten first. */
  #held(number: number): Uint8Array | undefined {
    const block = this.#blocks.get(number);
    if (block === undefined) return undefined;
    this.#blocks.delete(number);
    this.#blocks.set(number, block);
    return block.bytes;
  }

  async #load(number: number): Promise<Uint8Array> {
    const start = number * BLOCK_BYTES;
    let memory: Uint8Array | undefined;
    if (this.#blocks.size >= BLOCKS_MAX) {
      const oldest = this.#blocks.keys().next().value as number;
      memory = this.#blocks.get(oldest)?.memory;
      this.#blocks.delete(oldest);
    }
    memory ??= new Uint8Array(BLOCK_BYTES);
    const bytes = await this.#file.read(start, Math.min(BLOCK_BYTES, this.#file.size - start), memory);
    this.#blocks.set(number, { bytes, memory });
    return bytes;
  }
}
