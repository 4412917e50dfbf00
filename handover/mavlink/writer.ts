/**
 * One end of a link that sends.
 *
 * Invariant: sequence numbers rise by one a frame, modulo 256, across a change of the process too: `sequence` is
 * read by the one that lets go and set by the one that goes on. The same holds for what is signed (signing.ts).
 */
import { crcByte, crcOf } from '#handover/mavlink/crc.ts';
import { MavlinkError } from '#handover/mavlink/errors.ts';
import { LAYOUTS, writePayload } from '#handover/mavlink/layout.ts';
import { LIMITS } from '#handover/mavlink/limits.ts';
import type { FieldsToSend, MessageName } from '#handover/mavlink/messages.ts';
import { FLAG_SIGNED, type SignedLink } from '#handover/mavlink/signing.ts';

const byteOf = (value: number, what: string): number => {
  if (Number.isInteger(value) && value >= 0 && value <= 255) return value;
  const code = what === 'sequence' ? 'INVALID_SEQUENCE' : 'INVALID_ID';
  throw new MavlinkError(code, `${what} is ${value}, not an integer from 0 to 255`);
};

export class Writer {
  readonly systemId: number;
  readonly componentId: number;
  /** Every frame from here on is signed by it; undefined: none is. */
  signing: SignedLink | undefined;
  #sequence: number;
  #block = new Uint8Array(0);
  #view = new DataView(this.#block.buffer);
  #used = 0;

  /**
   * @param options `sequence`: of the last frame that was sent on this link, 0 to 255; left out, the first frame has 0
   * @throws MavlinkError `INVALID_ID`, `INVALID_SEQUENCE`
   */
  constructor(options: {
    systemId: number;
    componentId: number;
    sequence?: number | undefined;
    signing?: SignedLink | undefined;
  }) {
    this.systemId = byteOf(options.systemId, 'systemId');
    this.componentId = byteOf(options.componentId, 'componentId');
    this.#sequence = byteOf(options.sequence ?? 255, 'sequence');
    this.signing = options.signing;
  }

  /** Sequence number of the last frame that was made; 255 before the first, which then has 0. */
  get sequence(): number {
    return this.#sequence;
  }

  set sequence(last: number) {
    this.#sequence = byteOf(last, 'sequence');
  }

  /**
   * One MAVLink 2 frame, its payload cut behind the last byte that is not zero.
   *
   * @returns bytes that nobody writes to again: they may wait in a queue
   * @throws MavlinkError `FIELD_OUT_OF_RANGE`; the sequence number is then not used up
   */
  encode<N extends MessageName>(name: N, fields: FieldsToSend<N>): Uint8Array {
    const layout = LAYOUTS[name];
    if (this.#block.length - this.#used < LIMITS.frameBytesMax) {
      this.#block = new Uint8Array(LIMITS.writeBlockBytes);
      this.#view = new DataView(this.#block.buffer);
      this.#used = 0;
    }
    const block = this.#block;
    const start = this.#used;
    const payload = start + LIMITS.headerBytes;
    writePayload(layout, this.#view, payload, fields as Readonly<Record<string, number>>);
    let length = layout.payloadBytes;
    // At least one byte stays, even of an all-zero payload (serialization guide, payload truncation).
    while (length > 1 && block[payload + length - 1] === 0) length -= 1;

    this.#sequence = (this.#sequence + 1) & 0xff;
    block[start] = 0xfd;
    block[start + 1] = length;
    block[start + 2] = this.signing === undefined ? 0 : FLAG_SIGNED;
    block[start + 3] = 0; // compatibility flags
    block[start + 4] = this.#sequence;
    block[start + 5] = this.systemId;
    block[start + 6] = this.componentId;
    block[start + 7] = layout.id & 0xff;
    block[start + 8] = (layout.id >>> 8) & 0xff;
    block[start + 9] = layout.id >>> 16;
    const end = payload + length;
    this.#view.setUint16(end, crcByte(crcOf(block, start + 1, end), layout.crcExtra), true);
    this.#used = end + LIMITS.checksumBytes;
    if (this.signing !== undefined) this.#used = this.signing.sign(block, start, this.#used);
    return block.subarray(start, this.#used);
  }
}
