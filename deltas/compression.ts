/**
 * zstd and brotli in one call and as streams, over Node's zlib.
 *
 * Invariant: nothing decompresses to more than the length it was declared with, nor with more history than 8 MiB, or what
 * `decompressBehind` is given to look back at, up to 16 MiB.
 */
import { Readable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import {
  brotliCompress,
  constants,
  createBrotliCompress,
  createBrotliDecompress,
  createZstdDecompress,
  zstdCompress,
  zstdDecompress,
} from 'node:zlib';
import { asDeltaError, DeltaError } from '#deltas/errors.ts';
import { LIMITS } from '#deltas/limits.ts';

/** What a section may be compressed with. */
export type Compression = 'zstd' | 'brotli';

const brotliCall = promisify(brotliCompress);
const compressCall = promisify(zstdCompress);
const decompressCall = promisify(zstdDecompress);

/** The same bytes, not a copy. */
const view = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);

/** Parameters for a stream or call at `level` whose history reaches back at most 8 MiB. */
export function compressParameters(level: number, rawBytes?: number): Record<number, number> {
  const log = rawBytes === undefined ? LIMITS.zstdWindowLogMax : Math.ceil(Math.log2(Math.max(rawBytes, 1)));
  return {
    [constants.ZSTD_c_compressionLevel]: level,
    [constants.ZSTD_c_windowLog]: Math.min(Math.max(log, 10), LIMITS.zstdWindowLogMax),
  };
}

/** zstd takes what begins so for a dictionary of its own making, and refuses the rest. */
const DICTIONARY_MAGIC = 0xec30a437;

/** Whether zstd takes `bytes` for what they are: then they can be a dictionary. */
export function isPlain(bytes: Uint8Array): boolean {
  return bytes.length < 4 || view(bytes).readUInt32LE(0) !== DICTIONARY_MAGIC;
}

/** @param dictionary plain (see isPlain), raw bytes that matches may refer to (an old file); the same must be given to decompress */
export async function compress(raw: Uint8Array, level: number, dictionary?: Uint8Array): Promise<Buffer> {
  return await compressCall(raw, {
    params: compressParameters(level, raw.length + (dictionary?.length ?? 0)),
    pledgedSrcSize: raw.length,
    ...(dictionary === undefined ? {} : { dictionary: view(dictionary) }),
  });
}

/** At its best, which is some 1 MB/s: a few per cent less than zstd's best. */
export async function compressBrotli(raw: Uint8Array): Promise<Buffer> {
  const log = Math.ceil(Math.log2(Math.max(raw.length, 1)));
  return await brotliCall(raw, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_LGWIN]: Math.min(Math.max(log, 16), LIMITS.zstdWindowLogMax),
      [constants.BROTLI_PARAM_SIZE_HINT]: raw.length,
    },
  });
}

/** So many bits of history that all of it is in reach, if there are so many; RFC 7932 has 24 at most. */
function historyBits(bytes: number): number {
  let bits = 18;
  while (bits < 24 && 2 ** bits - 16 < bytes) bits += 1;
  return bits;
}

/** What a brotli stream begins with, and its first block, of `bytes` bytes as they are, which follow (RFC 7932 §9.1, §9.2). */
function plainHead(bits: number, bytes: number): Buffer {
  const nibbles = bytes <= 2 ** 16 ? 4 : bytes <= 2 ** 20 ? 5 : 6;
  // Low bits first: the history's, not the last block, how long a length, the length, as it is.
  const fields: [value: number, bits: number][] = [
    [2 * (bits - 17) + 1, 4],
    [0, 1],
    [nibbles - 4, 2],
    [bytes - 1, 4 * nibbles],
    [1, 1],
  ];
  let [value, at] = [0, 0];
  for (const [field, width] of fields) {
    value += field * 2 ** at;
    at += width;
  }
  const head = Buffer.alloc(Math.ceil(at / 8));
  head.writeUIntLE(value, 0, head.length);
  return head;
}

/**
 * `raw` as brotli tells it behind `old`, which it looks back at: Node's has no dictionary of one's own, but one stream holds both, and a reader that
 * has `old` puts it in again as it is (`decompressBehind`). Only the last distances that the encoder knew at that place differ, and
 * are hardly ever used.
 * @param old 1 byte to 16 MiB
 * @returns undefined when they were: it does not come back
 */
export async function compressBehind(raw: Uint8Array, old: Uint8Array): Promise<Buffer | undefined> {
  const stream = createBrotliCompress({
    params: {
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_LGWIN]: historyBits(old.length + raw.length),
      [constants.BROTLI_PARAM_SIZE_HINT]: old.length + raw.length,
    },
  });
  let parts: Buffer[] = [];
  stream.on('data', (part: Buffer) => parts.push(part));
  stream.write(old);
  await new Promise<void>((resolve) => stream.flush(constants.BROTLI_OPERATION_FLUSH, resolve));
  parts = [];
  stream.end(raw);
  await finished(stream);
  const packed = Buffer.concat(parts);
  try {
    return (await decompressBehind(packed, raw.length, 'it', old)).equals(raw) ? packed : undefined;
  } catch {
    return undefined;
  }
}

/** @throws DeltaError `CORRUPT` unless it decompresses to exactly `rawBytes` */
export async function decompressBehind(
  packed: Uint8Array,
  rawBytes: number,
  what: string,
  old: Uint8Array,
): Promise<Buffer> {
  const raw = Buffer.allocUnsafe(rawBytes);
  let at = -old.length;
  const head = plainHead(historyBits(old.length + rawBytes), old.length);
  try {
    await pipeline(
      Readable.from([head, view(old), view(packed)], { objectMode: false }),
      createBrotliDecompress({ chunkSize: LIMITS.chunkBytes }),
      async (pieces: AsyncIterable<Buffer>) => {
        for await (const piece of pieces) {
          if (at + piece.length > rawBytes) throw new DeltaError('CORRUPT', `${what} decompresses to more`);
          raw.set(piece.subarray(Math.min(piece.length, Math.max(0, -at))), Math.max(0, at));
          at += piece.length;
        }
      },
    );
  } catch (error) {
    throw asDeltaError(error, 'CORRUPT', `${what} does not decompress`);
  }
  if (at !== rawBytes)
    throw new DeltaError('CORRUPT', `${what} decompresses to ${at} bytes instead of ${rawBytes}`);
  return raw;
}

/** RFC 7932 §9.1: the first byte says how much history a stream asks of its reader; refused before any is reserved. */
async function* withinHistory(packed: AsyncIterable<Uint8Array>, what: string): AsyncGenerator<Uint8Array> {
  let first = true;
  for await (const bytes of packed) {
    if (first && bytes.length > 0) {
      first = false;
      const head = bytes[0] as number;
      // 2^24 is the largest there is but for `large windows`, whose first bits are 0010001.
      if ((head & 0x0f) === 0x0f || (head & 0x7f) === 0x11)
        throw new DeltaError('TOO_LARGE', `${what} asks for more than 8 MiB of history`);
    }
    yield bytes;
  }
}

/** @throws DeltaError `CORRUPT` unless it decompresses to exactly `rawBytes` */
export async function decompress(
  packed: Uint8Array,
  rawBytes: number,
  what: string,
  dictionary?: Uint8Array,
): Promise<Buffer> {
  let raw: Buffer;
  try {
    raw = await decompressCall(packed, {
      // One more than declared, so that a longer stream is seen as such; zero would mean no limit.
      maxOutputLength: rawBytes + 1,
      params: { [constants.ZSTD_d_windowLogMax]: LIMITS.zstdWindowLogMax },
      ...(dictionary === undefined ? {} : { dictionary: view(dictionary) }),
    });
  } catch (error) {
    throw asDeltaError(error, 'CORRUPT', `${what} does not decompress`);
  }
  if (raw.length !== rawBytes) {
    throw new DeltaError('CORRUPT', `${what} decompresses to ${raw.length} bytes instead of ${rawBytes}`);
  }
  return raw;
}

/**
 * A compressed section read front to back, in exact amounts. Backpressure reaches the artifact: what is not asked for
 * is not decompressed.
 */
export class SectionReader {
  readonly #iterator: AsyncIterator<Buffer>;
  readonly #running: Promise<void>;
  readonly #abort = new AbortController();
  readonly #what: string;
  #failure: unknown;
  #chunk: Buffer = Buffer.alloc(0);
  #left: number;

  /** @param rawBytes declared length of the whole stream */
  constructor(packed: AsyncIterable<Uint8Array>, rawBytes: number, what: string, codec: Compression) {
    this.#what = what;
    this.#left = rawBytes;
    const stream =
      codec === 'brotli'
        ? createBrotliDecompress({ chunkSize: LIMITS.chunkBytes })
        : createZstdDecompress({
            chunkSize: LIMITS.chunkBytes,
            params: { [constants.ZSTD_d_windowLogMax]: LIMITS.zstdWindowLogMax },
          });
    const source = codec === 'brotli' ? withinHistory(packed, what) : packed;
    // A call of zlib's that is under way when the pipeline is given up may fail afterwards, when nobody listens any more.
    stream.on('error', () => undefined);
    this.#running = pipeline(Readable.from(source, { objectMode: false }), stream, {
      signal: this.#abort.signal,
      end: true,
    }).catch((error: unknown) => {
      this.#failure = error;
    });
    this.#iterator = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  async #fill(): Promise<boolean> {
    while (this.#chunk.length === 0) {
      try {
        const next = await this.#iterator.next();
        if (next.done === true) return false;
        this.#chunk = next.value;
      } catch (error) {
        await this.#running;
        // The stream reports its own end as the reason; the first failure says more.
        const cause = this.#failure instanceof DeltaError ? this.#failure : error;
        throw asDeltaError(cause, 'CORRUPT', `${this.#what} does not decompress`);
      }
    }
    return true;
  }

  /** The next `length` bytes in pieces. */
  async *pieces(length: number): AsyncGenerator<Buffer> {
    if (length > this.#left) throw new DeltaError('CORRUPT', `${this.#what} is used beyond its length`);
    this.#left -= length;
    let wanted = length;
    while (wanted > 0) {
      if (!(await this.#fill())) throw new DeltaError('CORRUPT', `${this.#what} ends early`);
      const piece = this.#chunk.subarray(0, wanted);
      this.#chunk = this.#chunk.subarray(piece.length);
      wanted -= piece.length;
      yield piece;
    }
  }

  /** The next `length` bytes, if they are all here already. */
  now(length: number): Buffer | undefined {
    if (length > this.#left || length > this.#chunk.length) return undefined;
    this.#left -= length;
    const piece = this.#chunk.subarray(0, length);
    this.#chunk = this.#chunk.subarray(length);
    return piece;
  }

  async take(length: number): Promise<Buffer> {
    const now = this.now(length);
    if (now !== undefined) return now;
    const parts: Buffer[] = [];
    for await (const piece of this.pieces(length)) parts.push(piece);
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts, length);
  }

  /** @throws DeltaError `CORRUPT` when bytes are left over */
  async finish(): Promise<void> {
    if (this.#left !== 0 || (await this.#fill())) {
      throw new DeltaError('CORRUPT', `${this.#what} holds more than is used`);
    }
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }
}
