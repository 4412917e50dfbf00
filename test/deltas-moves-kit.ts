/** Files told by ranges, there and back; and files that are made for it. */
import { brotliCompressSync } from 'node:zlib';
import { expect } from 'vitest';
import { ByteWriter } from '#deltas/bytes.ts';
import { DeltaError } from '#deltas/errors.ts';
import type { Ranges } from '#deltas/moves/covers.ts';
import { decodeMoves, type MoveSources } from '#deltas/moves/decoder.ts';
import { type EncodedMoves, encodeMoves } from '#deltas/moves/encoder.ts';
import { GO_CODE } from '#deltas/moves/wasm-sweep.ts';
import { noise } from '#test/deltas-kit.ts';

export const sources = (chunks: Buffer, literals: Buffer): MoveSources => {
  let [chunkAt, literalAt, turns] = [0, 0, 0];
  return {
    chunk: async (length) => {
      if (length > chunks.length - chunkAt) throw new DeltaError('CORRUPT', 'no more');
      chunkAt += length;
      return chunks.subarray(chunkAt - length, chunkAt);
    },
    // Every other time they have to be waited for.
    literalNow(length) {
      if (length > literals.length - literalAt || (turns++ & 1) === 0) return undefined;
      literalAt += length;
      return literals.subarray(literalAt - length, literalAt);
    },
    async *literal(length) {
      if (length > literals.length - literalAt) throw new DeltaError('CORRUPT', 'no more');
      literalAt += length;
      yield literals.subarray(literalAt - length, literalAt);
    },
  };
};
export const fileOf = (bytes: Buffer) => ({
  size: bytes.length,
  read: async (offset: number, length: number) => bytes.subarray(offset, offset + length),
});
export const rebuild = async (
  old: Buffer,
  bytes: number,
  chunks: Buffer,
  literals: Buffer,
): Promise<Buffer> => {
  const parts: Buffer[] = [];
  for await (const part of decodeMoves(fileOf(old), bytes, sources(chunks, literals)))
    parts.push(Buffer.from(part));
  return Buffer.concat(parts);
};
export const returned = async (
  old: Buffer,
  young: Buffer,
  known?: Ranges,
): Promise<{ made: EncodedMoves; back: Buffer }> => {
  const made = await encodeMoves(old, young, known);
  if (made === undefined) throw new Error('too many ranges');
  const { chunks, literals } = made;
  return { made, back: await rebuild(old, young.length, Buffer.concat(chunks), Buffer.concat(literals)) };
};
export const comesBack = async (old: Buffer, young: Buffer): Promise<boolean> =>
  (await returned(old, young)).back.equals(young);
export const thereAndBack = async (old: Buffer, young: Buffer, known?: Ranges): Promise<EncodedMoves> => {
  const { made, back } = await returned(old, young, known);
  expect(back.equals(young)).toBe(true);
  return made;
};
export const bytesOf = ({ chunks, literals }: EncodedMoves): number =>
  brotliCompressSync(Buffer.concat(chunks)).length + brotliCompressSync(Buffer.concat(literals)).length;

export const integer = (value: number): Buffer => {
  const writer = new ByteWriter();
  writer.integer(value);
  return Buffer.from(writer.finish());
};
/** Of a constant, whose last byte's highest bit but one is the sign. */
export const constant = (value: number): Buffer => {
  const bytes = integer(value);
  const last = bytes.at(-1) as number;
  if ((last & 0x40) === 0) return bytes;
  bytes[bytes.length - 1] = last | 0x80;
  return Buffer.concat([bytes, Buffer.of(0)]);
};
export const section = (id: number, ...parts: Uint8Array[]): Buffer => {
  const bytes = Buffer.concat(parts);
  return Buffer.concat([Buffer.of(id), integer(bytes.length), bytes]);
};
export const list = (items: readonly Uint8Array[]): Buffer =>
  Buffer.concat([integer(items.length), ...items]);
export const HEAD = Buffer.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

export const DATA_AT = 2048;
export const RECORD_BYTES = 48;
export interface Shape {
  /** Functions and records put in behind number 137. */
  added: number;
  isGo: boolean;
  count?: number;
}

/** Functions that call each other, and as many records in memory that point to each other; some put in. */
export function moduleOf({ added, isGo, count = 600 }: Shape): Buffer {
  const moved = (number: number): number => (number > 137 ? number + added : number);
  const addressOf = (record: number): number => DATA_AT + RECORD_BYTES * moved(record);
  const bodyOf = (number: number, label: string): Buffer => {
    const random = noise(64, label);
    const code: Uint8Array[] = [Buffer.of(1, 1, 0x7f)];
    for (let at = 0; at < 8; at += 1) {
      const [low = 0, high = 0, small = 0] = random.subarray(3 * at, 3 * at + 3);
      const record = (256 * high + low) % count;
      code.push(Buffer.of(0x20, 0), Buffer.of(0x10), integer(moved((512 * small + 2 * low + high) % count)));
      code.push(Buffer.of(0x21, 1), Buffer.of(0x41), constant(addressOf(record)), Buffer.of(0x28, 2));
      code.push(integer(addressOf((record + small) % count)), Buffer.of(0x1a, 0x41), constant(small));
      code.push(Buffer.of(0x1a));
      if (isGo) code.push(Buffer.of(0x42), constant(GO_CODE + 65_536 * number + at), Buffer.of(0x1a));
    }
    code.push(Buffer.of(0x20, 1, 0x0b));
    const bytes = Buffer.concat(code);
    return Buffer.concat([integer(bytes.length), bytes]);
  };
  const recordOf = (label: string): Buffer => {
    const bytes = Buffer.from(noise(RECORD_BYTES, label));
    const [one = 0, two = 0, three = 0] = bytes;
    bytes.writeUInt32LE(addressOf((256 * one + two) % count), isGo ? 16 : 8);
    if (isGo) {
      bytes.writeUInt32LE(0, 20);
      bytes.writeBigUInt64LE(BigInt(GO_CODE + 65_536 * moved((256 * two + three) % count)), 24);
    }
    return bytes;
  };
  const bodies: Buffer[] = [];
  const records: Buffer[] = [];
  for (let number = 0; number < count; number += 1) {
    bodies.push(bodyOf(moved(number), `function ${number}`));
    records.push(recordOf(`record ${number}`));
    for (let more = 1; number === 137 && more <= added; more += 1) {
      bodies.push(bodyOf(number + more, `function put in ${more}`));
      records.push(recordOf(`record put in ${more}`));
    }
  }
  // Two segments, cut where nothing was put in.
  const [front, back] = [records.slice(0, 100), records.slice(100)];
  const segment = (at: number, bytes: Buffer): Buffer =>
    Buffer.concat([Buffer.of(0, 0x41), constant(at), Buffer.of(0x0b), integer(bytes.length), bytes]);
  return Buffer.concat([
    HEAD,
    ...(isGo ? [section(0, integer(10), Buffer.from('go:buildid'), noise(30, `build ${added}`))] : []),
    section(1, list([Buffer.of(0x60, 1, 0x7f, 1, 0x7f)])),
    section(3, list(bodies.map(() => integer(0)))),
    section(5, Buffer.of(1, 0), integer(2)),
    section(10, list(bodies)),
    section(
      11,
      list([
        segment(DATA_AT, Buffer.concat(front)),
        segment(DATA_AT + RECORD_BYTES * 100, Buffer.concat(back)),
      ]),
    ),
  ]);
}

/** Records of several kinds, each with a field of its own that changes in a way of its own. */
export function recordsOf(isChanged: boolean): Buffer {
  const kinds = noise(6_000, 'kinds of records');
  const records = Array.from(kinds, (random, number) => {
    const kind = random % 6;
    const record = Buffer.from(noise(8 + 5 * kind, `record ${number}`));
    for (let at = 0; isChanged && at <= kind; at += 1)
      record[2 + kind + at] = ((record[2 + kind + at] as number) + 17 * kind + 3 * at + 1) & 0xff;
    return record;
  });
  return Buffer.concat(records);
}
