/**
 * The sending side of a port that may be full.
 *
 * Invariant: never waits, and never cuts a frame: what the port took in part is completed before anything else goes
 * out; what does not fit is dropped whole and counted.
 */
import { LIMITS } from '#device-sim/limits.ts';
import { MAVLINK_LIMITS } from '#handover/mavlink/index.ts';

/** @returns bytes taken, 0 or less for none */
export type Write = (bytes: Uint8Array, offset: number, length: number) => number;

export class Outlet {
  framesSent = 0;
  framesDropped = 0;
  readonly #write: Write;
  readonly #rest = new Uint8Array(LIMITS.tickBytesMax);
  #restLength = 0;

  constructor(write: Write) {
    this.#write = write;
  }

  /** @param bytes whole MAVLink 2 frames, at most `LIMITS.tickBytesMax` bytes; none only sends the rest */
  send(bytes: Uint8Array): void {
    const frames = countFrames(bytes);
    if (this.#restLength > 0) {
      const sent = Math.max(0, this.#write(this.#rest, 0, this.#restLength));
      this.#rest.copyWithin(0, sent, this.#restLength);
      this.#restLength -= sent;
    }
    if (frames === 0) return;
    const sent = this.#restLength > 0 ? 0 : this.#write(bytes, 0, bytes.length);
    if (sent <= 0) {
      this.framesDropped += frames;
      return;
    }
    this.framesSent += frames;
    this.#rest.set(bytes.subarray(sent));
    this.#restLength = bytes.length - sent;
  }

  /** The far end's input was discarded: the end of a frame alone is of no use there. */
  forget(): void {
    this.#restLength = 0;
  }
}

const { headerBytes, checksumBytes, signatureBytes } = MAVLINK_LIMITS;
/** Of the frame that begins there, by its header: with the signature that follows if it is signed. */
export const frameLength = (bytes: Uint8Array, at: number): number =>
  headerBytes + (bytes[at + 1] as number) + checksumBytes + (bytes[at + 2] === 0 ? 0 : signatureBytes);

const countFrames = (bytes: Uint8Array): number => {
  let frames = 0;
  for (let at = 0; at < bytes.length; frames += 1) at += frameLength(bytes, at);
  return frames;
};
