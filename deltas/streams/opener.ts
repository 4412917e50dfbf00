/**
 * An old file with some of its deflate streams opened: the bytes between them as they are, the streams as what they hold.
 *
 * Invariant: opened content is at most what the plan says, stream by stream; up to `openedMemoryBytes` of it are kept in memory, more in
 * one scratch file that goes with it.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { createInflateRaw } from 'node:zlib';
import type { BasisFile } from '#deltas/basis.ts';
import { asDeltaError, DeltaError } from '#deltas/errors.ts';
import { LIMITS } from '#deltas/limits.ts';
import { memoryAccess, piecesOf } from '#deltas/random-access.ts';
import { Spool } from '#deltas/spool.ts';
import { CHUNK_BYTES, FRAME_EDGE, type OldStream, placeBytes } from '#deltas/streams/plan.ts';

const CHUNK_HEAD = 8;

/** Bytes `from` to `from + length` of what the chunks hold that begin at `offset`. */
async function* inChunks(
  file: BasisFile,
  offset: number,
  frame: number,
  from: number,
  length: number,
): AsyncGenerator<Uint8Array> {
  for (let at = from; at < from + length; ) {
    const number = Math.floor(at / frame);
    const some = Math.min(from + length, (number + 1) * frame, at + LIMITS.chunkBytes) - at;
    yield await file.read(offset + number * CHUNK_BYTES + CHUNK_HEAD + at, some);
    at += some;
  }
}

/** A stream's content, exactly as long as it should be. */
async function* inflated(packed: AsyncIterable<Uint8Array>, rawBytes: number): AsyncGenerator<Uint8Array> {
  const stream = createInflateRaw({ chunkSize: LIMITS.chunkBytes });
  const source = Readable.from(packed, { objectMode: false });
  source.on('error', (error) => stream.destroy(error));
  source.pipe(stream);
  let made = 0;
  try {
    for await (const piece of stream as AsyncIterable<Buffer>) {
      made += piece.length;
      if (made > rawBytes) break;
      yield piece;
    }
  } catch (error) {
    throw asDeltaError(error, 'CORRUPT', 'streams: what is to be opened is no stream');
  } finally {
    source.destroy();
    stream.destroy();
  }
  if (made !== rawBytes) throw new DeltaError('CORRUPT', `streams: a stream does not hold ${rawBytes} bytes`);
}

/** Where a part of the opened file comes from: the old file, or what was inflated. */
interface Part {
  start: number;
  length: number;
  inflated: boolean;
  offset: number;
}

export class OpenedFile implements BasisFile {
  readonly size: number;
  readonly #file: BasisFile;
  readonly #parts: Part[] = [];
  readonly #content: Pick<BasisFile, 'read'>;
  readonly #spool: Spool | undefined;

  private constructor(
    file: BasisFile,
    parts: Part[],
    content: Pick<BasisFile, 'read'>,
    spool: Spool | undefined,
  ) {
    this.#file = file;
    this.#parts = parts;
    this.#content = content;
    this.#spool = spool;
    const last = parts.at(-1);
    this.size = last === undefined ? 0 : last.start + last.length;
  }

  /** @throws DeltaError `CORRUPT`, what `file.read` throws, or the scratch directory's own error */
  static async open(
    file: BasisFile,
    streams: readonly OldStream[],
    scratchDirectory: string,
  ): Promise<OpenedFile> {
    const parts: Part[] = [];
    let size = 0;
    let held = 0;
    const add = (length: number, offset: number, isInflated: boolean): void => {
      if (length > 0) parts.push({ start: size, length, inflated: isInflated, offset });
      size += length;
      if (isInflated) held += length;
    };
    const contents: AsyncIterable<Uint8Array>[] = [];
    let end = 0;
    for (const { offset, packedBytes, rawBytes, frame } of streams) {
      add(offset - end, end, false);
      end = offset + placeBytes(packedBytes, frame);
      if (frame === 0) {
        contents.push(inflated(piecesOf(file, offset, packedBytes), rawBytes));
        add(rawBytes, held, true);
        continue;
      }
      const { before, after } = FRAME_EDGE;
      contents.push(inChunks(file, offset, frame, 0, before));
      contents.push(inflated(inChunks(file, offset, frame, before, packedBytes), rawBytes));
      contents.push(inChunks(file, offset, frame, before + packedBytes, after));
      add(before + rawBytes + after, held, true);
    }
    add(file.size - end, end, false);
    if (held > LIMITS.openedBytesMax) throw new DeltaError('TOO_LARGE', `streams: ${held} bytes to open`);
    if (held <= LIMITS.openedMemoryBytes) {
      const all: Uint8Array[] = [];
      for (const content of contents) for await (const piece of content) all.push(piece);
      return new OpenedFile(file, parts, memoryAccess(Buffer.concat(all)), undefined);
    }
    const spool = await Spool.create(join(scratchDirectory, `opened-${randomUUID()}`));
    try {
      for (const content of contents) await spool.append(content);
    } catch (error) {
      await spool.close();
      throw error;
    }
    return new OpenedFile(file, parts, spool.file(0, held), spool);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const stop = Math.min(offset + length, this.size);
    const pieces: Uint8Array[] = [];
    for (let at = offset, number = this.#partAt(offset); at < stop; number += 1) {
      const part = this.#parts[number] as Part;
      const within = at - part.start;
      const some = Math.min(part.length - within, stop - at);
      const from = part.inflated ? this.#content : this.#file;
      const piece = await from.read(part.offset + within, some);
      pieces.push(piece);
      if (piece.length < some) break;
      at += some;
    }
    return pieces.length === 1 ? (pieces[0] as Uint8Array) : Buffer.concat(pieces);
  }

  /** The last part that does not begin behind `offset`. */
  #partAt(offset: number): number {
    let [low, high] = [0, this.#parts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#parts[middle] as Part).start <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The old file stays open. */
  async close(): Promise<void> {
    await this.#spool?.close();
  }
}
