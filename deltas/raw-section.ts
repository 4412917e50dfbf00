/** A section that is stored as it is, read front to back in exact amounts. */
import { DeltaError } from '#deltas/errors.ts';

export class RawSection {
  readonly #stream: AsyncGenerator<Buffer>;
  readonly #what: string;
  #chunk: Buffer = Buffer.alloc(0);
  #left: number;

  /** @param bytes of the whole stream */
  constructor(stream: AsyncGenerator<Buffer>, bytes: number, what: string) {
    this.#stream = stream;
    this.#left = bytes;
    this.#what = what;
  }

  async take(length: number): Promise<Buffer> {
    if (length > this.#left) throw new DeltaError('CORRUPT', `${this.#what} is used beyond its length`);
    this.#left -= length;
    const parts = [this.#chunk];
    let held = this.#chunk.length;
    while (held < length) {
      const next = await this.#stream.next();
      if (next.done === true) throw new DeltaError('CORRUPT', `${this.#what} ends early`);
      parts.push(next.value);
      held += next.value.length;
    }
    const joined = Buffer.concat(parts, held);
    this.#chunk = joined.subarray(length);
    return joined.subarray(0, length);
  }

  /** @throws DeltaError `CORRUPT` when bytes are left over */
  finish(): void {
    if (this.#left > 0) throw new DeltaError('CORRUPT', `${this.#what} holds more than is used`);
  }

  async close(): Promise<void> {
    await this.#stream.return(undefined);
  }
}
