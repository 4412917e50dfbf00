/**
 * A disk as a power cut sees it: what was written is in the cache, what was synced is on the platter.
 *
 * Invariants
 * - A read sees the cache, also after the writer was killed; a power cut leaves the durable layer and, of what was not
 *   synced, any sectors in any combination, each whole.
 * - A sync that failed has cleaned the cache's marks, as Linux does: a later sync does not write those sectors again.
 */
import type { Random } from '#device-sim/random.ts';

const SECTOR_BYTES = 512;

export interface DiskFile {
  /** As many bytes as there are, up to the buffer's length. */
  read(into: Buffer): void;
  write(bytes: Uint8Array, at: number): void;
  sync(): void;
}

export interface DiskOptions {
  readonly random: Random;
  /** Before each operation of a process; it may take time (of that process), or throw: an error, or its end. */
  readonly onOperation?: (what: 'write' | 'sync', path: string) => void;
  /** A planted bug: says that it is durable. */
  readonly skipsSync?: boolean;
}

interface File {
  cache: Buffer;
  durable: Buffer;
  /** Sectors in the cache that no sync has taken yet. */
  readonly dirty: Set<number>;
  /** How often it was made durable. */
  syncs: number;
}

export class Disk {
  readonly #options: DiskOptions;
  readonly #files = new Map<string, File>();
  /** Bytes that are left for new files and their growth. */
  freeBytes = Number.POSITIVE_INFINITY;

  constructor(options: DiskOptions) {
    this.#options = options;
  }

  /** Made durable, name and space, if it is not there or shorter. @throws if there is no space */
  open(path: string, bytes: number): DiskFile {
    const { onOperation, skipsSync = false, random } = this.#options;
    const there = this.#files.get(path);
    const grows = bytes - (there?.cache.length ?? 0);
    if (grows > this.freeBytes) throw new Error('ENOSPC: no space left on device');
    const file: File = there ?? {
      cache: Buffer.alloc(0),
      durable: Buffer.alloc(0),
      dirty: new Set(),
      syncs: 0,
    };
    if (grows > 0) {
      onOperation?.('sync', path);
      this.freeBytes -= grows;
      file.cache = Buffer.concat([file.cache], bytes);
      file.durable = Buffer.concat([file.durable], bytes);
      file.syncs += 1;
      this.#files.set(path, file);
    }
    return {
      read: (into) => void file.cache.copy(into),
      write: (data, at) => {
        onOperation?.('write', path);
        file.cache.set(data, at);
        const last = Math.floor((at + data.length - 1) / SECTOR_BYTES);
        for (let sector = Math.floor(at / SECTOR_BYTES); sector <= last; sector++) file.dirty.add(sector);
      },
      sync: () => {
        if (skipsSync) return;
        try {
          onOperation?.('sync', path);
        } catch (error) {
          // Some of it got there. A killed process leaves the rest to be written some day; a failed sync gives it up.
          this.#some(file, random);
          if ((error as { code?: string }).code === 'EIO') file.dirty.clear();
          throw error;
        }
        for (const sector of file.dirty) this.#flush(file, sector);
        file.dirty.clear();
        file.syncs += 1;
      },
    };
  }

  /** What a power cut would leave for certain. */
  durable(path: string): Buffer | undefined {
    return this.#files.get(path)?.durable;
  }

  syncs(path: string): number {
    return this.#files.get(path)?.syncs ?? 0;
  }

  /** Everything that is not durable is gone, but for what the kernel happened to have written. */
  powerCut(): void {
    for (const file of this.#files.values()) {
      this.#some(file, this.#options.random);
      file.dirty.clear();
      file.cache = Buffer.from(file.durable);
    }
  }

  #some(file: File, random: Random): void {
    for (const sector of file.dirty) if (random.uniform() < 0.5) this.#flush(file, sector);
  }

  #flush(file: File, sector: number): void {
    const from = sector * SECTOR_BYTES;
    file.cache.copy(file.durable, from, from, from + SECTOR_BYTES);
  }
}
