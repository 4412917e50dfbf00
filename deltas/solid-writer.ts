/**
 * A section that is written piece by piece and compressed as one stream, by whichever of zstd and brotli gives less.
 *
 * Invariant: at most `solidBufferBytes` wait in memory; what is longer goes to a scratch file as it comes, and is compressed at
 * the end. Brotli's best is too slow for long ones, which get zstd alone.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createZstdCompress } from 'node:zlib';
import { type Compression, compress, compressBrotli, compressParameters } from '#deltas/compression.ts';
import { LIMITS } from '#deltas/limits.ts';
import { Spool } from '#deltas/spool.ts';

/** What zstd leaves of a long section in which there is nothing to find. Brotli finds nothing either, at 1 MB/s. */
const INCOMPRESSIBLE = 0.995;
const LONG = 1 << 20;

/** A finished section as it goes into the artifact, in memory or in scratch. */
export interface Stored {
  bytes: number;
  rawBytes: number;
  codec: Compression | 'raw';
  stream(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

export class SolidWriter {
  readonly #path: string;
  readonly #level: number;
  #waiting: Buffer[] = [];
  #spool: Spool | undefined;
  rawBytes = 0;

  /** @param level of zstd */
  constructor(path: string, level: number) {
    this.#path = path;
    this.#level = level;
  }

  async write(piece: Uint8Array): Promise<void> {
    this.rawBytes += piece.length;
    if (this.#spool !== undefined) {
      await this.#spool.append([piece]);
      return;
    }
    this.#waiting.push(Buffer.from(piece));
    if (this.rawBytes <= LIMITS.solidBufferBytes) return;
    this.#spool = await Spool.create(`${this.#path}.raw`);
    await this.#spool.append(this.#waiting);
    this.#waiting = [];
  }

  async finish(): Promise<Stored> {
    const spool = this.#spool;
    if (spool === undefined) {
      const raw = Buffer.concat(this.#waiting, this.rawBytes);
      this.#waiting = [];
      return await this.#smaller(await compress(raw, this.#level), raw);
    }
    await pipeline(
      spool.stream(),
      createZstdCompress({ params: compressParameters(this.#level) }),
      createWriteStream(this.#path, { flags: 'wx', mode: 0o600 }),
    );
    const { size } = await stat(this.#path);
    let stored: Stored = {
      bytes: size,
      rawBytes: this.rawBytes,
      codec: 'zstd',
      stream: () => createReadStream(this.#path),
    };
    if (this.rawBytes <= LIMITS.brotliBytesMax)
      stored = await this.#smaller(stored, await readFile(`${this.#path}.raw`));
    await this.abandon();
    return stored;
  }

  async #smaller(zstd: Stored | Buffer, raw: Buffer): Promise<Stored> {
    const { rawBytes } = this;
    const stored: Stored = Buffer.isBuffer(zstd)
      ? { bytes: zstd.length, rawBytes, codec: 'zstd', stream: () => [zstd] }
      : zstd;
    if (rawBytes > LONG && stored.bytes > INCOMPRESSIBLE * rawBytes) return stored;
    const brotli = await compressBrotli(raw);
    if (brotli.length >= stored.bytes) return stored;
    return { bytes: brotli.length, rawBytes, codec: 'brotli', stream: () => [brotli] };
  }

  /** Removes its scratch; does nothing once finished. */
  async abandon(): Promise<void> {
    await this.#spool?.close();
    this.#spool = undefined;
  }
}
