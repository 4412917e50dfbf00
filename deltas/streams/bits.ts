/** Bits as deflate packs them: the lowest of each byte first. */
import { DeltaError } from '#deltas/errors.ts';

export class BitWriter {
  #buffer = Buffer.allocUnsafe(64 * 1024);
  #length = 0;
  #held = 0;
  #count = 0;

  /** Whole bytes that wait to be taken. */
  get length(): number {
    return this.#length;
  }

  /** @param count at most 16 */
  bits(value: number, count: number): void {
    this.#held |= value << this.#count;
    this.#count += count;
    while (this.#count >= 8) {
      if (this.#length === this.#buffer.length) this.#grow(1);
      this.#buffer[this.#length++] = this.#held & 0xff;
      this.#held >>>= 8;
      this.#count -= 8;
    }
  }

  /** Zeros up to the next byte. */
  align(): void {
    if (this.#count > 0) this.bits(0, 8 - this.#count);
  }

  /** At a byte's border. */
  bytes(some: Uint8Array): void {
    if (this.#length + some.length > this.#buffer.length) this.#grow(some.length);
    this.#buffer.set(some, this.#length);
    this.#length += some.length;
  }

  #grow(bytes: number): void {
    const larger = Buffer.allocUnsafe(Math.max(2 * this.#buffer.length, this.#length + bytes));
    this.#buffer.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
  }

  take(): Buffer {
    const taken = Buffer.from(this.#buffer.subarray(0, this.#length));
    this.#length = 0;
    return taken;
  }
}

export class BitReader {
  readonly #bytes: Uint8Array;
  readonly #what: string;
  #at: number;
  #held = 0;
  #count = 0;

  constructor(bytes: Uint8Array, at: number, what: string) {
    this.#bytes = bytes;
    this.#at = at;
    this.#what = what;
  }

  #fill(count: number): void {
    while (this.#count < count) {
      this.#held |= (this.#bytes[this.#at] ?? 0) << this.#count;
      this.#at += 1;
      this.#count += 8;
    }
  }

  /** The next bits, zeros behind the end, without taking them. @param count at most 16 */
  peek(count: number): number {
    this.#fill(count);
    return this.#held & ((1 << count) - 1);
  }

  /** @throws DeltaError `CORRUPT` when there are not so many */
  skip(count: number): void {
    this.#fill(count);
    this.#held >>>= count;
    this.#count -= count;
    if (this.#at - (this.#count >> 3) > this.#bytes.length)
      throw new DeltaError('CORRUPT', `${this.#what} ends early`);
  }

  bits(count: number): number {
    const value = this.peek(count);
    this.skip(count);
    return value;
  }

  /** What is left of the byte that was begun. */
  rest(): number {
    return this.bits(this.#count & 7);
  }

  /** Byte that the next bit is in. */
  get at(): number {
    return this.#at - Math.ceil(this.#count / 8);
  }

  /** At a byte's border. */
  take(length: number): Uint8Array {
    const from = this.at;
    if (length > this.#bytes.length - from) throw new DeltaError('CORRUPT', `${this.#what} ends early`);
    this.#at = from + length;
    this.#held = 0;
    this.#count = 0;
    return this.#bytes.subarray(from, from + length);
  }
}
