/**
 * The two slots of a journal's file: how a value is put into one, and which of two is the newest whole one.
 *
 * Invariant: a slot that was torn anywhere is not whole, and the other is never touched by the same write.
 */
import { crc32 } from 'node:zlib';

/** Before each value: magic, CRC-32 of what follows it, sequence number, length; little-endian. */
const HEADER_BYTES = 16;
const MAGIC = 0x314a_444d; // "MDJ1"

export interface Slot {
  readonly sequence: number;
  readonly text: string;
  /** As they stand in the file. */
  readonly bytes: Buffer;
}

export const slotBytes = (bytesMax: number): number => HEADER_BYTES + bytesMax;

/** Where the slot of that sequence number begins: in turn. */
export const slotAt = (sequence: number, bytesMax: number): number => (sequence % 2) * slotBytes(bytesMax);

export const encodeSlot = (sequence: number, body: Uint8Array): Buffer => {
  const slot = Buffer.alloc(HEADER_BYTES + body.length);
  slot.writeUInt32LE(MAGIC, 0);
  slot.writeUInt32LE(sequence, 8);
  slot.writeUInt32LE(body.length, 12);
  slot.set(body, HEADER_BYTES);
  slot.writeUInt32LE(crc32(slot.subarray(8)), 4);
  return slot;
};

const readSlot = (slot: Buffer): Slot | undefined => {
  const length = slot.readUInt32LE(12);
  if (slot.readUInt32LE(0) !== MAGIC || length > slot.length - HEADER_BYTES) return undefined;
  if (slot.readUInt32LE(4) !== crc32(slot.subarray(8, HEADER_BYTES + length))) return undefined;
  const bytes = slot.subarray(0, HEADER_BYTES + length);
  return { sequence: slot.readUInt32LE(8), text: bytes.toString('utf8', HEADER_BYTES), bytes };
};

/** @param file both slots, `2 * slotBytes(bytesMax)` */
export const newestSlot = (file: Buffer): Slot | undefined => {
  const [first, second] = [file.subarray(0, file.length / 2), file.subarray(file.length / 2)].map(readSlot);
  return first && second ? (first.sequence > second.sequence ? first : second) : (first ?? second);
};
