/** Bytes that can be read at any place: an artifact in a file, in memory, or at the other end of HTTP ranges. */
import { readSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { LIMITS } from '#deltas/limits.ts';

/**
 * Read on the caller's thread: what another thread costs, some 80 µs there and back, is most of a patch's reads, which mostly
 * find their few pages in memory. After so many the event loop has its turn.
 */
const NOW_BYTES_MAX = 64 * 1024;
const NOW_READS_MAX = 16;
let reads = 0;

export interface RandomAccess {
  /** Bytes. */
  readonly size: number;
  /**
   * Exactly `length` bytes; fewer only at the end.
   * @param into may be taken for them: memory of at least that length that the caller has done with
   */
  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array>;
}

/** `length` bytes from `offset` on, which there must be; by default all. */
export async function* piecesOf(
  file: RandomAccess,
  offset = 0,
  length = file.size,
): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < length; at += LIMITS.chunkBytes)
    yield await file.read(offset + at, Math.min(LIMITS.chunkBytes, length - at));
}

export function memoryAccess(bytes: Uint8Array): RandomAccess {
  return {
    size: bytes.length,
    read: async (offset, length) => bytes.subarray(offset, offset + length),
  };
}

/** @throws the file system's error when it cannot be opened */
export async function fileAccess(path: string): Promise<RandomAccess & { close(): Promise<void> }> {
  const handle = await open(path, 'r');
  const { size } = await handle.stat();
  return {
    size,
    read: (offset, length, into) => readAt(handle, offset, length, into),
    close: () => handle.close(),
  };
}

/** Exactly `length` bytes of a file, fewer only at its end; in `into` when that is given. */
export async function readAt(
  handle: FileHandle,
  offset: number,
  length: number,
  into: Uint8Array = Buffer.allocUnsafe(length),
): Promise<Uint8Array> {
  const isNow = length <= NOW_BYTES_MAX;
  if (isNow && ++reads % NOW_READS_MAX === 0) await setImmediate();
  let done = 0;
  while (done < length) {
    const bytesRead = isNow
      ? readSync(handle.fd, into, done, length - done, offset + done)
      : (await handle.read(into, done, length - done, offset + done)).bytesRead;
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return into.subarray(0, done);
}
