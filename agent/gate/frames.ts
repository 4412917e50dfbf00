/**
 * Cuts what an app writes into whole MAVLink frames, by their headers alone: a gate knows no messages.
 *
 * Invariant: bytes leave in the order in which they came, and a frame leaves whole or not at all. What belongs to no frame
 * is dropped and counted; less than one frame is kept.
 */
import { GATE } from '#agent/gate/limits.ts';

const MAGIC = 0xfd;
const HEADER_BYTES = 10;
const CHECKSUM_BYTES = 2;
const SIGNATURE_BYTES = 13;
const FLAG_SIGNED = 1;

export class Framer {
  #partial: Buffer;
  garbageBytes = 0;

  /** @param partial of another framer, at most `GATE.frameBytesMax` bytes */
  constructor(partial: Buffer = Buffer.alloc(0)) {
    this.#partial = Buffer.from(partial.subarray(0, GATE.frameBytesMax));
  }

  /** The beginning of a frame whose end has not come. */
  get partial(): Buffer {
    return this.#partial;
  }

  /** The frames that are whole now; they may share memory with `chunk`. */
  take(chunk: Buffer): Buffer[] {
    const bytes = this.#partial.length === 0 ? chunk : Buffer.concat([this.#partial, chunk]);
    const frames: Buffer[] = [];
    let at = 0;
    for (;;) {
      const start = bytes.indexOf(MAGIC, at);
      this.garbageBytes += (start < 0 ? bytes.length : start) - at;
      at = start < 0 ? bytes.length : start;
      const end = at + lengthOf(bytes, at);
      if (end > bytes.length) break;
      frames.push(bytes.subarray(at, end));
      at = end;
    }
    this.#partial = Buffer.from(bytes.subarray(at));
    return frames;
  }
}

/** Of the frame that begins at `at`; as long as its header is not there, infinite. */
const lengthOf = (bytes: Buffer, at: number): number => {
  const [, payload, flags] = bytes.subarray(at, at + 3);
  if (payload === undefined || flags === undefined) return Number.POSITIVE_INFINITY;
  return HEADER_BYTES + payload + CHECKSUM_BYTES + ((flags & FLAG_SIGNED) === 0 ? 0 : SIGNATURE_BYTES);
};
