/**
 * A section that is written piece by piece and compressed as one stream into scratch.
 *
 * Invariant: at most `solidBufferBytes` wait in memory; a longer stream goes to a file as it comes.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createZstdCompress, type ZstdCompress } from 'node:zlib';
import { LIMITS } from '#deltas/limits.ts';
import { compress, compressParameters } from '#deltas/zstd.ts';

/** A finished section as it goes into the artifact, in memory or in scratch. */
export interface Stored {
  bytes: number;
  rawBytes: number;
  stream(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

export class SolidWriter {
  readonly #path: string;
  readonly #level: number;
  #waiting: Buffer[] = [];
  #stream: ZstdCompress | undefined;
  #running: Promise<void> | undefined;
  #failure: unknown;
  rawBytes = 0;

  constructor(path: string, level: number) {
    this.#path = path;
    this.#level = level;
  }

  async write(piece: Uint8Array): Promise<void> {
    this.rawBytes += piece.length;
    if (this.#stream === undefined) {
      this.#waiting.push(Buffer.from(piece));
      if (this.rawBytes <= LIMITS.solidBufferBytes) return;
      this.#stream = createZstdCompress({ params: compressParameters(this.#level) });
      this.#running = pipeline(
        this.#stream,
        createWriteStream(this.#path, { flags: 'wx', mode: 0o600 }),
      ).catch((error: unknown) => {
        this.#failure = error;
      });
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const early of waiting) await this.#send(early);
      return;
    }
    await this.#send(piece);
  }

  async #send(piece: Uint8Array): Promise<void> {
    const stream = this.#stream as ZstdCompress;
    await new Promise<void>((resolve, reject) => {
      stream.write(piece, (error) =>
        error ? reject((this.#failure as Error | undefined) ?? error) : resolve(),
      );
    });
  }

  async finish(): Promise<Stored> {
    if (this.#stream === undefined) {
      const bytes = await compress(Buffer.concat(this.#waiting, this.rawBytes), this.#level);
      this.#waiting = [];
      return { bytes: bytes.length, rawBytes: this.rawBytes, stream: () => [bytes] };
    }
    this.#stream.end();
    await this.#running;
    if (this.#failure !== undefined) throw this.#failure;
    const { size } = await stat(this.#path);
    return { bytes: size, rawBytes: this.rawBytes, stream: () => createReadStream(this.#path) };
  }

  /** Stops without a result; does nothing once finished. */
  async abandon(): Promise<void> {
    this.#stream?.destroy();
    await this.#running;
  }
}
