/**
 * Where a file has deflate streams: the members of a gzip file, the entries of a zip (jar, wheel, office document), a PNG's picture. For the
 * maker alone: what it finds is only a guess until each stream was opened and closed again; a reader is told the places.
 */
import { createHash } from 'node:crypto';
import { inflateRawSync } from 'node:zlib';
import { CHUNK_BYTES, FRAME_EDGE, type OldStream } from '#deltas/streams/plan.ts';

export interface FoundStream extends OldStream {
  packed: Buffer;
  raw: Buffer;
  /** Of the packed bytes. */
  digest: string;
  windowBits: number;
}

const GZIP = Buffer.from([0x1f, 0x8b, 0x08]);
const ZIP_ENTRY = Buffer.from('PK\x03\x04', 'latin1');
const PNG = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
/** A stream of less is not worth its place in the plan. */
const PACKED_MIN = 32;

/** What isContainer looks at. */
export const CONTAINER_HEAD_BYTES = PNG.length;
/** Whether it is worth looking: only what is a container from its first byte. */
export const isContainer = (head: Buffer): boolean =>
  [GZIP, ZIP_ENTRY, PNG].some((magic) => head.subarray(0, magic.length).equals(magic));

/** The stream that begins at `at`, if one does. */
function inflate(
  bytes: Buffer,
  at: number,
  rawBytesMax: number,
): { packed: Buffer; raw: Buffer } | undefined {
  try {
    const { buffer, engine } = inflateRawSync(bytes.subarray(at), {
      info: true,
      maxOutputLength: Math.max(rawBytesMax, 1),
    }) as unknown as { buffer: Buffer; engine: { bytesWritten: number } };
    return { packed: bytes.subarray(at, at + engine.bytesWritten), raw: buffer };
  } catch {
    return undefined;
  }
}

/** Behind a gzip member's header (RFC 1952 §2.3); undefined when there is none at `at`. */
function gzipBody(bytes: Buffer, at: number): number | undefined {
  if (at + 18 > bytes.length || !bytes.subarray(at, at + 3).equals(GZIP)) return undefined;
  const flags = bytes[at + 3] as number;
  let body = at + 10;
  if ((flags & 4) !== 0) body += 2 + (bytes[body] ?? 0) + 256 * (bytes[body + 1] ?? 0);
  for (const flag of [8, 16]) {
    if ((flags & flag) === 0) continue;
    const end = bytes.indexOf(0, body);
    if (end < 0) return undefined;
    body = end + 1;
  }
  if ((flags & 2) !== 0) body += 2;
  return body < bytes.length ? body : undefined;
}

/** Behind a zip entry's local header, if it is deflated and not encrypted. */
function zipBody(bytes: Buffer, at: number): number | undefined {
  if (at + 30 > bytes.length) return undefined;
  const flags = bytes.readUInt16LE(at + 6);
  if (bytes.readUInt16LE(at + 8) !== 8 || (flags & 1) !== 0) return undefined;
  return at + 30 + bytes.readUInt16LE(at + 26) + bytes.readUInt16LE(at + 28);
}

/** The place of each body, one after the other: `next` is given where to look, and finds where a stream begins. */
function* bodies(
  bytes: Buffer,
  rawBytesMax: number,
  next: (at: number) => number | undefined,
): Generator<FoundStream> {
  let left = rawBytesMax;
  for (let at = next(0); at !== undefined; ) {
    const found = inflate(bytes, at, left);
    if (found !== undefined && found.packed.length > 0) {
      left -= found.raw.length;
      yield stream(at, 0, found.packed, found.raw, 15);
      at = next(at + found.packed.length);
    } else {
      at = next(at + 1);
    }
  }
}

const stream = (
  offset: number,
  frame: number,
  packed: Buffer,
  raw: Buffer,
  windowBits: number,
): FoundStream => ({
  offset,
  packedBytes: packed.length,
  rawBytes: raw.length,
  frame,
  packed,
  raw,
  digest: createHash('sha256').update(packed).digest('hex'),
  windowBits,
});

/** The picture of a PNG, whose IDAT chunks all have the length of the first, but for the last. */
function* picture(bytes: Buffer, rawBytesMax: number): Generator<FoundStream> {
  const data: Buffer[] = [];
  let start = 0;
  let at = PNG.length;
  for (; at + CHUNK_BYTES <= bytes.length; at += bytes.readUInt32BE(at) + CHUNK_BYTES) {
    const isData = bytes.toString('latin1', at + 4, at + 8) === 'IDAT';
    if (!isData && data.length > 0) break;
    if (!isData) continue;
    if (data.length === 0) start = at;
    data.push(bytes.subarray(at + 8, at + 8 + bytes.readUInt32BE(at)));
  }
  const frame = data[0]?.length ?? 0;
  const regular = data.every(
    ({ length }, number) => length === frame || (number === data.length - 1 && length < frame),
  );
  const joined = Buffer.concat(data);
  const { before, after } = FRAME_EDGE;
  if (frame === 0 || !regular || joined.length <= before + after || data.at(-1)?.length === 0) return;
  const found = inflate(joined, before, rawBytesMax);
  if (found === undefined || found.packed.length !== joined.length - before - after) return;
  const windowBits = Math.min(Math.max(((joined[0] as number) >> 4) + 8, 9), 15);
  // A single chunk needs no frame: its head and CRC are bytes like others.
  if (data.length === 1) yield stream(start + 8 + before, 0, found.packed, found.raw, windowBits);
  else yield stream(start, frame, found.packed, found.raw, windowBits);
}

/** All streams, in order. @param rawBytesMax what they hold together */
export function findStreams(bytes: Buffer, rawBytesMax: number): FoundStream[] {
  let found: Iterable<FoundStream> = [];
  if (bytes.subarray(0, GZIP.length).equals(GZIP)) {
    found = bodies(bytes, rawBytesMax, (from) => {
      for (let at = from === 0 ? 0 : bytes.indexOf(GZIP, from); at >= 0; at = bytes.indexOf(GZIP, at + 1)) {
        const body = gzipBody(bytes, at);
        if (body !== undefined) return body;
      }
      return undefined;
    });
  } else if (bytes.subarray(0, ZIP_ENTRY.length).equals(ZIP_ENTRY)) {
    found = bodies(bytes, rawBytesMax, (from) => {
      for (let at = bytes.indexOf(ZIP_ENTRY, from); at >= 0; at = bytes.indexOf(ZIP_ENTRY, at + 1)) {
        const body = zipBody(bytes, at);
        if (body !== undefined && body < bytes.length) return body;
      }
      return undefined;
    });
  } else if (bytes.subarray(0, PNG.length).equals(PNG)) {
    found = picture(bytes, rawBytesMax);
  }
  return [...found].filter(({ packed }) => packed.length >= PACKED_MIN);
}
