/**
 * The pty as a serial line of some baud: both directions through a wire (wire.ts).
 *
 * Invariant: pure but for the two functions that it is given. A frame of the board's goes out whole or not at all, as a
 * board does that looks for room first; what the companion sends is cut where its buffer was full, as on a line without
 * flow control.
 */
import { LIMITS } from '#device-sim/limits.ts';
import { frameLength, type Write } from '#device-sim/outlet.ts';
import { Wire } from '#device-sim/wire.ts';

export class PacedPort {
  framesSent = 0;
  framesDropped = 0;
  /** Came out at the far end, and nobody listened. */
  unheardBytes = 0;
  readonly #in: Wire;
  readonly #out: Wire;
  readonly #write: Write;
  readonly #hear: (bytes: Uint8Array, tUs: number) => void;
  readonly #buffer = new Uint8Array(LIMITS.readBytes);

  constructor(baud: number, write: Write, hear: (bytes: Uint8Array, tUs: number) => void) {
    this.#in = new Wire(baud, LIMITS.wireInBytes);
    this.#out = new Wire(baud, LIMITS.wireOutBytes);
    this.#write = write;
    this.#hear = hear;
  }

  get inDroppedBytes(): number {
    return this.#in.droppedBytes;
  }
  get outDroppedBytes(): number {
    return this.#out.droppedBytes + this.unheardBytes;
  }

  /** From the companion. */
  receive(bytes: Uint8Array, nowUs: number): void {
    this.pump(nowUs);
    this.#in.push(bytes, nowUs);
  }

  /** From the board: whole MAVLink 2 frames. */
  send(bytes: Uint8Array, nowUs: number): void {
    this.pump(nowUs);
    for (let at = 0; at < bytes.length; ) {
      const end = at + frameLength(bytes, at);
      if (this.#out.pushWhole(bytes.subarray(at, end), nowUs)) this.framesSent += 1;
      else this.framesDropped += 1;
      at = end;
    }
  }

  /** Passes on what has come through by now. */
  pump(nowUs: number): void {
    for (let length = this.#in.take(nowUs, this.#buffer); length > 0; ) {
      this.#hear(this.#buffer.subarray(0, length), nowUs);
      length = this.#in.take(nowUs, this.#buffer);
    }
    for (let length = this.#out.take(nowUs, this.#buffer); length > 0; ) {
      this.unheardBytes += length - Math.max(0, this.#write(this.#buffer, 0, length));
      length = this.#out.take(nowUs, this.#buffer);
    }
  }
}
