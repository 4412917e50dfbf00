/**
 * One direction of a serial line: a buffer, and behind it ten bits a byte (8N1) at a baud rate.
 *
 * Invariant: pure; time is an input. Bytes leave in order, each one byte's time after the one before it or after it
 * came, whichever is later; what does not fit into the buffer when it comes is dropped and counted. So a line that is too
 * slow for what is sent delays it by at most a full buffer, and then loses.
 */
const BITS_PER_BYTE = 10;

export class Wire {
  droppedBytes = 0;
  readonly #byteUs: number;
  readonly #buffer: Uint8Array;
  #head = 0;
  #length = 0;
  /** When the first byte of the buffer will have left. */
  #leavesUs = 0;

  constructor(baud: number, bufferBytes: number) {
    this.#byteUs = (BITS_PER_BYTE * 1e6) / baud;
    this.#buffer = new Uint8Array(bufferBytes);
  }

  /** How many more bytes the buffer takes. */
  get room(): number {
    return this.#buffer.length - this.#length;
  }

  /** Takes what fits, in order; call `take` with the same time before, so that an empty buffer is a free line. */
  push(bytes: Uint8Array, nowUs: number): void {
    if (this.#length === 0) this.#leavesUs = nowUs + this.#byteUs;
    const fits = Math.min(bytes.length, this.room);
    this.#copyIn(bytes.subarray(0, fits));
    this.droppedBytes += bytes.length - fits;
  }

  /** Takes all of it, or drops all of it: half a frame is of no use to anybody. */
  pushWhole(bytes: Uint8Array, nowUs: number): boolean {
    if (bytes.length > this.room) {
      this.droppedBytes += bytes.length;
      return false;
    }
    this.push(bytes, nowUs);
    return true;
  }

  /** What has come out at the far end by now, at most `into.length` bytes; call until it gives none. @returns the bytes' count */
  take(nowUs: number, into: Uint8Array): number {
    if (this.#length === 0 || this.#leavesUs > nowUs) return 0;
    const left = Math.floor((nowUs - this.#leavesUs) / this.#byteUs) + 1;
    const count = Math.min(left, this.#length, into.length);
    const first = Math.min(count, this.#buffer.length - this.#head);
    into.set(this.#buffer.subarray(this.#head, this.#head + first));
    into.set(this.#buffer.subarray(0, count - first), first);
    this.#head = (this.#head + count) % this.#buffer.length;
    this.#length -= count;
    this.#leavesUs += count * this.#byteUs;
    return count;
  }

  #copyIn(bytes: Uint8Array): void {
    const tail = (this.#head + this.#length) % this.#buffer.length;
    const first = Math.min(bytes.length, this.#buffer.length - tail);
    this.#buffer.set(bytes.subarray(0, first), tail);
    this.#buffer.set(bytes.subarray(first), 0);
    this.#length += bytes.length;
  }
}
