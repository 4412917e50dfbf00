/**
 * A stream of bytes that can be taken in exact amounts, with the digest of all that was taken.
 *
 * Invariant: `position` and the digest cover exactly the bytes handed out, never what was read ahead. One chunk of
 * the underlying stream is held at a time, joined with the next only for `peek` and `take`.
 */
import { createHash, type Hash } from 'node:crypto';
import { LIMITS } from '#deltas/limits.ts';

export class ByteSource {
  readonly #iterator: AsyncIterator<Uint8Array>;
  readonly #hash: Hash = createHash('sha256');
  #chunk: Buffer = Buffer.alloc(0);
  #ended = false;
  position = 0;

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#iterator = stream[Symbol.asyncIterator]();
  }

  async #fill(length: number): Promise<void> {
    if (this.#chunk.length >= length || this.#ended) return;
    const parts = [this.#chunk];
    let held = this.#chunk.length;
    while (held < length) {
      const next = await this.#iterator.next();
      if (next.done === true) {
        this.#ended = true;
        break;
      }
      parts.push(Buffer.from(next.value.buffer, next.value.byteOffset, next.value.length));
      held += next.value.length;
    }
    this.#chunk = parts.length === 1 ? this.#chunk : Buffer.concat(parts, held);
  }

  #consume(length: number): Buffer {
    const taken = this.#chunk.subarray(0, length);
    this.#chunk = this.#chunk.subarray(taken.length);
    this.#hash.update(taken);
    this.position += taken.length;
    return taken;
  }

  /** The next `length` bytes without taking them; fewer only at the end. */
  async peek(length: number): Promise<Buffer> {
    await this.#fill(length);
    return this.#chunk.subarray(0, length);
  }

  /** The next `length` bytes; fewer only at the end. */
  async take(length: number): Promise<Buffer> {
    await this.#fill(length);
    return this.#consume(length);
  }

  /** The next `length` bytes in pieces of at most 64 KiB; fewer only at the end. */
  async *pieces(length: number): AsyncGenerator<Buffer> {
    let left = length;
    while (left > 0) {
      await this.#fill(1);
      if (this.#chunk.length === 0) return;
      const piece = this.#consume(Math.min(left, LIMITS.chunkBytes, this.#chunk.length));
      left -= piece.length;
      yield piece;
    }
  }

  /** SHA-256 of everything taken so far. */
  digest(): Buffer {
    return this.#hash.copy().digest();
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }
}
