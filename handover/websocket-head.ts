/**
 * The unread part of a websocket's byte stream, rebuilt from the state of ws's half way receiver.
 *
 * Invariant: parsing the result with a fresh receiver, followed by the bytes that still come, gives exactly the
 * messages that the old receiver would have given. Frames are RFC 6455 §5.2, as a client sends them (masked);
 * what was unmasked already is put under a zero mask.
 */
import type { Writable } from 'node:stream';

/** ws 8: lib/receiver.js */
export interface Receiver extends Writable {
  _state: number;
  _fragments: (Buffer | ArrayBuffer)[];
  /** Opcode of the message whose first frame was not its last; 0: none. */
  _fragmented: number;
  _buffers: Buffer[];
  _fin: boolean;
  _opcode: number;
  _masked: boolean;
  _payloadLength: number;
  _mask: Buffer | undefined;
  _compressed: boolean;
}

const GET_INFO = 0;
const GET_LENGTH_16 = 1;
const GET_LENGTH_64 = 2;
const GET_MASK = 3;
const GET_DATA = 4;
const FIN = 0x80;
const MASKED = 0x80;
const NO_MASK = Buffer.alloc(4);

export const receiverIsKnown = (receiver: Receiver | null | undefined): boolean =>
  receiver != null &&
  Number.isInteger(receiver._state) &&
  Number.isInteger(receiver._fragmented) &&
  Number.isInteger(receiver._opcode) &&
  Number.isInteger(receiver._payloadLength) &&
  Array.isArray(receiver._fragments) &&
  Array.isArray(receiver._buffers);

/** §5.2: the first bytes of a masked frame, up to its mask. */
const header = (fin: boolean, opcode: number, length: number): Buffer => {
  const first = (fin ? FIN : 0) | opcode;
  if (length < 126) return Buffer.from([first, MASKED | length]);
  if (length < 65_536) {
    const bytes = Buffer.from([first, MASKED | 126, 0, 0]);
    bytes.writeUInt16BE(length, 2);
    return bytes;
  }
  const bytes = Buffer.from([first, MASKED | 127, 0, 0, 0, 0, 0, 0, 0, 0]);
  bytes.writeBigUInt64BE(BigInt(length), 2);
  return bytes;
};

/** @returns undefined if the receiver is in no state that can be told as bytes (inflating, failed) */
export const receiverHead = (receiver: Receiver): Buffer | undefined => {
  const { _state: state, _fragmented: fragmented, _opcode: current } = receiver;
  if (state > GET_DATA || receiver._compressed || receiver.errored || !receiver.writable) return undefined;
  const parts: Buffer[] = [];
  // Frames of a message received in part. ws keeps no empty ones: if the first was empty, one stands for it,
  // unless a data frame under way can be the first (it then carries the message's opcode itself, below).
  let opcode = fragmented;
  for (const fragment of receiver._fragments) {
    const bytes = Buffer.isBuffer(fragment) ? fragment : Buffer.from(fragment);
    parts.push(header(false, opcode, bytes.length), NO_MASK, bytes);
    opcode = 0;
  }
  const control = state !== GET_INFO && current > 0x07;
  if (fragmented !== 0 && parts.length === 0 && (state === GET_INFO || control)) {
    parts.push(header(false, fragmented, 0), NO_MASK);
  }
  if (state !== GET_INFO) {
    const first = (receiver._fin ? FIN : 0) | (control ? current : parts.length > 0 ? 0 : current);
    const mask = receiver._masked ? MASKED : 0;
    if (state === GET_LENGTH_16 || state === GET_LENGTH_64) {
      parts.push(Buffer.from([first, mask | receiver._payloadLength]));
    } else {
      if (mask === 0) return undefined;
      parts.push(header(receiver._fin, first & 0x0f, receiver._payloadLength));
      if (state !== GET_MASK) parts.push(receiver._mask ?? NO_MASK);
    }
  }
  parts.push(...receiver._buffers);
  const waiting = receiver as unknown as { writableBuffer?: { chunk: Buffer }[] };
  for (const { chunk } of waiting.writableBuffer ?? []) parts.push(chunk);
  return Buffer.concat(parts);
};
