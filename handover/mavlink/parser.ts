/**
 * One end of a link that receives: bytes in, frames out, cut anywhere.
 *
 * Invariant: a frame comes out only with a checksum that fits, each byte is used once, and whatever the peer sends,
 * the parser keeps less than one frame of it and finds the next good frame. Nothing is thrown for what a peer sent:
 * it is dropped and counted. The kept part can be taken out (`partial`) and given to a successor (`head`).
 * With `signing` only what is signed and new comes out; without it a signature is passed over, as nobody here has the key.
 */
import { crcByte, crcOf } from '#handover/mavlink/crc.ts';
import { MavlinkError } from '#handover/mavlink/errors.ts';
import { LAYOUT_BY_ID, type Layout, readPayload } from '#handover/mavlink/layout.ts';
import { LIMITS } from '#handover/mavlink/limits.ts';
import type { Fields, MessageName } from '#handover/mavlink/messages.ts';
import { FLAG_SIGNED, REFUSALS, type Refusal, type SignedLink } from '#handover/mavlink/signing.ts';

const MAGIC = 0xfd;

type FrameOf<N extends MessageName> = {
  readonly name: N;
  readonly sequence: number;
  readonly systemId: number;
  readonly componentId: number;
  /** Frames of this sender that are missing right before this one, by its sequence numbers, 0 to 255. */
  readonly lost: number;
  readonly fields: Fields<N>;
};
/** Narrow it by `name`. */
export type Frame = { [N in MessageName]: FrameOf<N> }[MessageName];

/** Since the parser was made. `lost` is the sum of the gaps; the others are what was dropped and why. */
export interface ParserCounts extends Record<Refusal, number> {
  frames: number;
  lost: number;
  /** Bytes skipped on the way to the next frame: noise, frames with a wrong checksum, MAVLink 1, unknown messages. */
  garbageBytes: number;
  badChecksums: number;
  /** Frames of messages that messages.ts does not have: their checksum cannot be known. */
  unknownMessages: number;
  /** Incompatibility flags other than a signature's: not understood, so dropped as the specification demands. */
  incompatible: number;
  /** Frames with a u64 above 2^53 - 1. */
  inexact: number;
}

export interface ParserOptions {
  /** What a predecessor's `partial()` gave, at most 280 bytes. */
  readonly head?: Uint8Array | undefined;
  readonly signing?: SignedLink | undefined;
  /** A whole frame that did not pass the signing; what it says is anybody's word. */
  readonly onRefused?: ((refusal: Refusal, frame: Frame) => void) | undefined;
}

export class Parser {
  readonly counts: ParserCounts = {
    frames: 0,
    lost: 0,
    garbageBytes: 0,
    badChecksums: 0,
    unknownMessages: 0,
    incompatible: 0,
    inexact: 0,
    ...(Object.fromEntries(REFUSALS.map((refusal) => [refusal, 0])) as Record<Refusal, number>),
  };
  readonly #signing: SignedLink | undefined;
  readonly #onRefused: ParserOptions['onRefused'];
  #buffer = new Uint8Array(4096);
  #length = 0;
  readonly #payload = new Uint8Array(LIMITS.payloadBytesMax);
  readonly #payloadView = new DataView(this.#payload.buffer);
  /** Last sequence number by sender (system and component). */
  readonly #sequences = new Map<number, number>();

  /** @throws MavlinkError `HEAD_TOO_LONG` */
  constructor({ head, signing, onRefused }: ParserOptions = {}) {
    this.#signing = signing;
    this.#onRefused = onRefused;
    if (head === undefined) return;
    if (head.length > LIMITS.frameBytesMax) {
      throw new MavlinkError('HEAD_TOO_LONG', `${head.length} bytes are more than one frame`);
    }
    this.#buffer.set(head);
    this.#length = head.length;
  }

  /** A copy of the bytes that wait for the rest of their frame: fewer than 280. */
  partial(): Uint8Array {
    return this.#buffer.slice(0, this.#length);
  }

  /** Takes in the next bytes of the stream, of any length; gives the frames that they complete, in order. */
  read(chunk: Uint8Array): Frame[] {
    const end = this.#length + chunk.length;
    if (end > this.#buffer.length) {
      const grown = new Uint8Array(end);
      grown.set(this.#buffer.subarray(0, this.#length));
      this.#buffer = grown;
    }
    this.#buffer.set(chunk, this.#length);
    const frames: Frame[] = [];
    let at = 0;
    while (at < end) {
      const used = this.#next(at, end, frames);
      if (used === 0) break;
      at += used;
    }
    this.#buffer.copyWithin(0, at, end);
    this.#length = end - at;
    return frames;
  }

  /** Bytes used from `at` on: 0 if more are needed. */
  #next(at: number, end: number, frames: Frame[]): number {
    const bytes = this.#buffer;
    if (bytes[at] !== MAGIC) {
      const magic = bytes.indexOf(MAGIC, at + 1);
      return this.#skip((magic < 0 || magic > end ? end : magic) - at);
    }
    // Refuse by the header alone where possible: a false start must not hold back the frames behind it.
    if (end - at >= 3 && ((bytes[at + 2] as number) & ~FLAG_SIGNED) !== 0) {
      this.counts.incompatible += 1;
      return this.#skip(1);
    }
    if (end - at < LIMITS.headerBytes) return 0;
    const id =
      (bytes[at + 7] as number) | ((bytes[at + 8] as number) << 8) | ((bytes[at + 9] as number) << 16);
    const layout = LAYOUT_BY_ID.get(id);
    if (layout === undefined) {
      this.counts.unknownMessages += 1;
      return this.#skip(1);
    }
    const length = bytes[at + 1] as number;
    const unsigned = LIMITS.headerBytes + length + LIMITS.checksumBytes;
    const isSigned = bytes[at + 2] === FLAG_SIGNED;
    const used = unsigned + (isSigned ? LIMITS.signatureBytes : 0);
    if (end - at < used) return 0;
    const payload = at + LIMITS.headerBytes;
    const checksum = crcByte(crcOf(bytes, at + 1, payload + length), layout.crcExtra);
    const sent = (bytes[payload + length] as number) | ((bytes[payload + length + 1] as number) << 8);
    if (checksum !== sent) {
      this.counts.badChecksums += 1;
      return this.#skip(1);
    }
    const refusal = this.#refusal(at, at + unsigned, isSigned);
    const frame = this.#frame(layout, at, length, refusal === null);
    if (refusal !== null) {
      this.counts[refusal] += 1;
      if (frame !== undefined) this.#onRefused?.(refusal, frame);
    } else if (frame === undefined) this.counts.inexact += 1;
    else {
      this.counts.frames += 1;
      frames.push(frame);
    }
    return used;
  }

  #refusal(at: number, end: number, isSigned: boolean): Refusal | null {
    if (this.#signing === undefined) return null;
    return isSigned ? this.#signing.refusal(this.#buffer, at, end) : 'unsigned';
  }

  /** Undefined: a number in it is not exact. A frame that does not pass is in nobody's sequence. */
  #frame(layout: Layout, at: number, length: number, passes: boolean): Frame | undefined {
    const bytes = this.#buffer;
    const payload = at + LIMITS.headerBytes;
    this.#payload.fill(0);
    this.#payload.set(bytes.subarray(payload, payload + length));
    const sequence = bytes[at + 4] as number;
    const systemId = bytes[at + 5] as number;
    const componentId = bytes[at + 6] as number;
    const lost = passes ? this.#lostBefore(sequence, systemId, componentId) : 0;
    const fields = readPayload(layout, this.#payloadView);
    if (fields === undefined) return undefined;
    return { name: layout.name, sequence, systemId, componentId, lost, fields } as unknown as Frame;
  }

  #skip(count: number): number {
    this.counts.garbageBytes += count;
    return count;
  }

  #lostBefore(sequence: number, systemId: number, componentId: number): number {
    const sender = systemId * 256 + componentId;
    const last = this.#sequences.get(sender);
    this.#sequences.set(sender, sequence);
    const lost = last === undefined ? 0 : (sequence - last - 1) & 0xff;
    this.counts.lost += lost;
    return lost;
  }
}
