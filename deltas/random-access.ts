/** Bytes that can be read at any place: an artifact in a file, in memory, or at the other end of HTTP ranges. */
import { open } from 'node:fs/promises';

export interface RandomAccess {
  /** Bytes. */
  readonly size: number;
  /** Exactly `length` bytes; fewer only at the end. */
  read(offset: number, length: number): Promise<Uint8Array>;
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
    async read(offset, length) {
      const buffer = Buffer.allocUnsafe(length);
      let done = 0;
      while (done < length) {
        const { bytesRead } = await handle.read(buffer, done, length - done, offset + done);
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return buffer.subarray(0, done);
    },
    close: () => handle.close(),
  };
}
