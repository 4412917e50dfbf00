/**
 * Integers and strings of the format, written and read with bounds.
 *
 * Invariant: a reader never reads past its end nor returns an unsafe integer; it throws DeltaError `CORRUPT` instead.
 * Integers are LEB128 (7 bits a byte, low first), at most 2^53-1; signed ones are zigzag; strings end with a NUL.
 */
import { DeltaError } from '#deltas/errors.ts';

export class ByteWriter {
  #buffer = Buffer.allocUnsafe(256);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  #room(bytes: number): void {
    if (this.#length + bytes <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + bytes));
    this.#buffer.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
  }

  byte(value: number): void {
    this.#room(1);
    this.#buffer[this.#length++] = value;
  }

  integer(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`not a length: ${value}`);
    this.#room(8);
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[this.#length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#buffer[this.#length++] = rest;
  }

  signed(value: number): void {
    this.integer(value < 0 ? -2 * value - 1 : 2 * value);
  }

  bytes(value: Uint8Array): void {
    this.#room(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
  }

  /** @param value one character a byte (latin1), without NUL */
  string(value: string): void {
    this.bytes(Buffer.from(value, 'latin1'));
    this.byte(0);
  }

  finish(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }
}

export class ByteReader {
  readonly #buffer: Buffer;
  readonly #what: string;
  #at = 0;

  constructor(buffer: Buffer, what: string) {
    this.#buffer = buffer;
    this.#what = what;
  }

  /** All that there is to read, also what was. */
  get whole(): Buffer {
    return this.#buffer;
  }

  /** Of the next byte, in `whole`. */
  get at(): number {
    return this.#at;
  }

  /** Somebody else has read up to there. */
  skipTo(at: number): void {
    if (!(at >= this.#at && at <= this.#buffer.length)) throw new RangeError(`not a place ahead: ${at}`);
    this.#at = at;
  }

  get left(): number {
    return this.#buffer.length - this.#at;
  }

  #corrupt(why: string): DeltaError {
    return new DeltaError('CORRUPT', `${this.#what}: ${why} at byte ${this.#at}`);
  }

  byte(): number {
    const value = this.#buffer[this.#at];
    if (value === undefined) throw this.#corrupt('ends early');
    this.#at += 1;
    return value;
  }

  /** @param max refuse anything larger */
  integer(max: number = Number.MAX_SAFE_INTEGER): number {
    let value = 0;
    let scale = 1;
    for (let count = 0; count < 8; count += 1) {
      const next = this.byte();
      value += (next & 0x7f) * scale;
      if (next < 0x80) {
        if (value > max) throw this.#corrupt(`${value} exceeds ${max}`);
        return value;
      }
      scale *= 0x80;
    }
    throw this.#corrupt('integer too long');
  }

  signed(): number {
    const value = this.integer();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  bytes(length: number): Buffer {
    if (length > this.left) throw this.#corrupt(`ends ${length - this.left} bytes early`);
    this.#at += length;
    return this.#buffer.subarray(this.#at - length, this.#at);
  }

  string(): string {
    const end = this.#buffer.indexOf(0, this.#at);
    if (end < 0) throw this.#corrupt('string without an end');
    const value = this.#buffer.toString('latin1', this.#at, end);
    this.#at = end + 1;
    return value;
  }
}

export function isZero(bytes: Uint8Array): boolean {
  for (const value of bytes) if (value !== 0) return false;
  return true;
}
