/**
 * One end of a signed link: MAVLink 2 message signing (https://mavlink.io/en/guide/message_signing.html).
 *
 * Invariants
 * - What is signed here rises by one tick (10 us) a message at least, whatever the clock does, and across a change of the
 *   process too: `lastTimestamp` is read by the one that lets go and given to the one that goes on.
 * - A frame passes once, and only above the last of its stream. What passes moves our time forward; nothing moves it back.
 *   So an end without a clock, or with one that was put back, is right again as soon as it has heard the other.
 */
import { hash } from 'node:crypto';
import { MavlinkError } from '#handover/mavlink/errors.ts';
import { LIMITS } from '#handover/mavlink/limits.ts';

/** Of the header's incompatibility flags: a signature follows the checksum. */
export const FLAG_SIGNED = 0x01;
const EPOCH_MS = Date.UTC(2015, 0, 1);
const TWO_POW_32 = 0x1_0000_0000;
const HASH_BYTES = 6;
/** Link id and timestamp: the part of the signature that is signed itself. */
const STAMP_BYTES = LIMITS.signatureBytes - HASH_BYTES;

/** This machine's clock in 10 us since 2015-01-01 UTC; below 0 where it was never set. */
export const systemTicks = (): number => (Date.now() - EPOCH_MS) * LIMITS.ticksPerMs;

/**
 * Why a frame did not pass: no signature; another key, or changed on the way; heard before, or older than what was;
 * first of its stream and over a minute behind; one stream too many.
 */
export const REFUSALS = ['unsigned', 'badSignature', 'replayed', 'tooOld', 'tooManyStreams'] as const;
export type Refusal = (typeof REFUSALS)[number];

/** Last timestamp of one sender on one link: [system, component, link id, timestamp]. */
export type Stream = readonly [systemId: number, componentId: number, linkId: number, timestamp: number];

export interface SigningOptions {
  /** 32 bytes, or their hex or base64. */
  readonly key: Uint8Array | string;
  /** 0 to 255, the same for all versions of a device's software: a receiver keeps 16 streams, for good. */
  readonly linkId: number;
  /** Of the last message signed on this link, in 10 us since 2015-01-01 UTC; 0 if none is known. */
  readonly lastTimestamp: number;
  /** What was heard so far: a successor accepts nothing that its prior has heard. */
  readonly streams?: readonly Stream[] | undefined;
  /** The time in ticks, of this machine by default. */
  readonly now?: () => number;
}

/** @throws MavlinkError `INVALID_KEY`: the text is neither 64 digits of hex nor 44 characters of base64 */
export const parseKey = (text: string): Uint8Array => {
  const trimmed = text.trim();
  const hex = /^[0-9a-f]{64}$/i.test(trimmed);
  if (!hex && !/^[A-Za-z0-9+/]{43}=$/.test(trimmed)) {
    throw new MavlinkError('INVALID_KEY', 'a key is 32 bytes: 64 digits of hex, or 44 characters of base64');
  }
  return Uint8Array.from(Buffer.from(trimmed, hex ? 'hex' : 'base64'));
};

export class SignedLink {
  readonly linkId: number;
  readonly #now: () => number;
  /** The key, and behind it what is hashed with it. */
  readonly #scratch = new Uint8Array(LIMITS.signingKeyBytes + LIMITS.frameBytesMax);
  readonly #heard = new Map<number, number>();
  #last: number;

  /** @throws MavlinkError `INVALID_KEY`, `INVALID_ID`, `INVALID_TIMESTAMP` */
  constructor({ key, linkId, lastTimestamp, streams = [], now = systemTicks }: SigningOptions) {
    const bytes = typeof key === 'string' ? parseKey(key) : key;
    if (bytes.length !== LIMITS.signingKeyBytes) {
      throw new MavlinkError('INVALID_KEY', `a key is 32 bytes, not ${bytes.length}`);
    }
    this.#scratch.set(bytes);
    this.linkId = within(linkId, 255, 'INVALID_ID', 'link id');
    this.#last = within(lastTimestamp, LIMITS.timestampMax, 'INVALID_TIMESTAMP', 'timestamp');
    this.#now = now;
    for (const [systemId, componentId, id, timestamp] of streams.slice(0, LIMITS.signedStreamsMax)) {
      const ids = [systemId, componentId, id].map((one) => within(one, 255, 'INVALID_ID', 'stream'));
      this.#heard.set(
        streamOf(ids[0] as number, ids[1] as number, ids[2] as number),
        within(timestamp, LIMITS.timestampMax, 'INVALID_TIMESTAMP', 'timestamp'),
      );
    }
  }

  /** The highest time that was signed or heard here: what a successor has to be above. */
  get lastTimestamp(): number {
    return this.#last;
  }

  get streamCount(): number {
    return this.#heard.size;
  }

  get streams(): Stream[] {
    return [...this.#heard].map(([stream, timestamp]) => [
      Math.floor(stream / 0x1_0000),
      (stream >>> 8) & 0xff,
      stream & 0xff,
      timestamp,
    ]);
  }

  /**
   * Signs the frame at `start`..`end` (its checksum included, its flag set) in the 13 bytes behind it.
   * @returns where the signature ends
   */
  sign(bytes: Uint8Array, start: number, end: number): number {
    this.#last = Math.min(LIMITS.timestampMax, Math.max(this.#now(), this.#last + 1));
    bytes[end] = this.linkId;
    let low = this.#last % TWO_POW_32;
    const high = Math.floor(this.#last / TWO_POW_32);
    for (let at = 1; at <= 4; at += 1, low = Math.floor(low / 256)) bytes[end + at] = low & 0xff;
    bytes[end + 5] = high & 0xff;
    bytes[end + 6] = high >>> 8;
    const digest = this.#digest(bytes, start, end);
    for (let at = 0; at < HASH_BYTES; at += 1) bytes[end + STAMP_BYTES + at] = digest.charCodeAt(at);
    return end + LIMITS.signatureBytes;
  }

  /** Whether the signed frame at `start`..`end`, its signature behind it, may be heard: null, and it then was. */
  refusal(bytes: Uint8Array, start: number, end: number): Refusal | null {
    const digest = this.#digest(bytes, start, end);
    let difference = 0;
    // All of it, whatever differs: time tells nothing.
    for (let at = 0; at < HASH_BYTES; at += 1) {
      difference |= (bytes[end + STAMP_BYTES + at] as number) ^ digest.charCodeAt(at);
    }
    if (difference !== 0) return 'badSignature';
    let timestamp = 0;
    for (let at = 6; at >= 1; at -= 1) timestamp = timestamp * 256 + (bytes[end + at] as number);
    const stream = streamOf(bytes[start + 5] as number, bytes[start + 6] as number, bytes[end] as number);
    const last = this.#heard.get(stream);
    if (last === undefined) {
      if (timestamp + LIMITS.firstBehindTicksMax < Math.max(this.#last, this.#now())) return 'tooOld';
      if (this.#heard.size >= LIMITS.signedStreamsMax) return 'tooManyStreams';
    } else if (timestamp <= last) return 'replayed';
    this.#heard.set(stream, timestamp);
    this.#last = Math.max(this.#last, timestamp);
    return null;
  }

  /** SHA-256 over key, frame, link id and timestamp; a character a byte. */
  #digest(bytes: Uint8Array, start: number, end: number): string {
    const frame = bytes.subarray(start, end + STAMP_BYTES);
    this.#scratch.set(frame, LIMITS.signingKeyBytes);
    // 'binary' is latin1; a string takes a third of the time of a buffer.
    return hash('sha256', this.#scratch.subarray(0, LIMITS.signingKeyBytes + frame.length), 'binary');
  }
}

const streamOf = (systemId: number, componentId: number, linkId: number): number =>
  systemId * 0x1_0000 + componentId * 0x100 + linkId;

const within = (
  value: number,
  max: number,
  code: 'INVALID_ID' | 'INVALID_TIMESTAMP',
  what: string,
): number => {
  if (Number.isInteger(value) && value >= 0 && value <= max) return value;
  throw new MavlinkError(code, `${what} is ${value}, not an integer from 0 to ${max}`);
};
