/**
 * The pty as a serial line of some baud: both directions through a wire (wire.ts).
 *
 * Invariants: pure but for the two functions that it is given. A frame of the board's goes out whole or not at all, as a
 * board does that looks for room first. On a slow line all fast streams become slower alike, since those of one tick go
 * together or not at all, and what is said seldom (heartbeat, states, answers) still has room, as PX4's rate multiplier
 * spares it (mavlink_main.cpp, update_rate_mult). What the companion sends is cut where its buffer was full, as on a
 * line without flow control.
 */
import { LIMITS } from '#device-sim/limits.ts';
import { frameLength, type Write } from '#device-sim/outlet.ts';
import { Wire } from '#device-sim/wire.ts';
import { LAYOUTS, type MessageName } from '#handover/mavlink/index.ts';

const FAST: readonly MessageName[] = ['HIGHRES_IMU', 'ATTITUDE_QUATERNION', 'LOCAL_POSITION_NED'];
const FAST_IDS = FAST.map((name) => LAYOUTS[name].id);
const isFast = (bytes: Uint8Array, at: number): boolean =>
  FAST_IDS.includes((bytes[at + 7] as number) + 256 * (bytes[at + 8] as number));

export class PacedPort {
  framesSent = 0;
  framesDropped = 0;
  /** For which there was no room, or nobody at the far end. */
  #lostBytes = 0;
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
    return this.#lostBytes;
  }

  /** From the companion. */
  receive(bytes: Uint8Array, nowUs: number): void {
    this.pump(nowUs);
    this.#in.push(bytes, nowUs);
  }

  /** From the board: whole MAVLink 2 frames. */
  send(bytes: Uint8Array, nowUs: number): void {
    this.pump(nowUs);
    let fastBytes = 0;
    for (let at = 0; at < bytes.length; at += frameLength(bytes, at)) {
      if (isFast(bytes, at)) fastBytes += frameLength(bytes, at);
    }
    const hasRoom = this.#out.room >= fastBytes + LIMITS.wireSeldomBytes;
    for (let at = 0; at < bytes.length; ) {
      const end = at + frameLength(bytes, at);
      const goes = (hasRoom || !isFast(bytes, at)) && this.#out.pushWhole(bytes.subarray(at, end), nowUs);
      if (goes) this.framesSent += 1;
      else {
        this.framesDropped += 1;
        this.#lostBytes += end - at;
      }
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
      this.#lostBytes += length - Math.max(0, this.#write(this.#buffer, 0, length));
      length = this.#out.take(nowUs, this.#buffer);
    }
  }
}
