/**
 * A camera for the conformance runner: frames of the camera's format into one end of a unix stream socket.
 *
 * Invariant: the sequence numbers of the frames written have no gap; when the reader is slow no frame is begun.
 * A frame: 4 bytes LE length of the rest, 1 byte kind, 3 zero, u32 LE seq, f64 LE captureUs, the image.
 */
import { CONFORM } from '#handover/conform/limits.ts';
import { AGAIN, native, nowUs } from '#handover/native.ts';

const HEADER_BYTES = 20;
const FRAME_BYTES = HEADER_BYTES + CONFORM.frameImageBytes;

export class Feed {
  /** The reading end: rides with GRANT, and stays open here. */
  readonly camera: number;
  readonly #fd: number;
  readonly #timer: NodeJS.Timeout;
  #tail = Buffer.alloc(0);
  /** Frames begun; the next one's sequence number. */
  frames = 0;

  constructor() {
    [this.#fd, this.camera] = native.socketPair();
    this.#timer = setInterval(() => this.#tick(), CONFORM.framePeriodMs);
  }

  close(): void {
    clearInterval(this.#timer);
    native.close(this.#fd);
    native.close(this.camera);
  }

  /**
   * Reads as an owner does, from a leftover on.
   * @returns sequence numbers of the whole frames there are, and the new leftover
   */
  read(leftover: Buffer): { seqs: number[]; leftover: Buffer } {
    const chunks = [leftover];
    for (;;) {
      const chunk = Buffer.alloc(64 * 1024);
      const got = native.read(this.camera, chunk, 0, chunk.length);
      if (got <= 0) break;
      chunks.push(chunk.subarray(0, got));
    }
    let bytes = Buffer.concat(chunks);
    const seqs: number[] = [];
    while (bytes.length >= FRAME_BYTES) {
      if (bytes.readUInt32LE(0) !== FRAME_BYTES - 4) return { seqs: [...seqs, Number.NaN], leftover: bytes };
      seqs.push(bytes.readUInt32LE(8));
      bytes = bytes.subarray(FRAME_BYTES);
    }
    return { seqs, leftover: bytes };
  }

  #tick(): void {
    if (this.#tail.length === 0) {
      const frame = Buffer.alloc(FRAME_BYTES, this.frames & 0xff);
      frame.fill(0, 0, HEADER_BYTES);
      frame.writeUInt32LE(FRAME_BYTES - 4, 0);
      frame.writeUInt32LE(this.frames, 8);
      frame.writeDoubleLE(nowUs(), 12);
      this.#tail = frame;
    }
    // In two pieces, so that a release finds part of a frame.
    const whole = this.#tail.length === FRAME_BYTES;
    const length = whole ? Math.floor(FRAME_BYTES / 2) : this.#tail.length;
    const sent = native.send(this.#fd, this.#tail, 0, length, []);
    if (sent === AGAIN) return;
    if (whole) this.frames += 1;
    this.#tail = this.#tail.subarray(sent);
  }
}
