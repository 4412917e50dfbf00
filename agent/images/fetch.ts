/**
 * One blob, by digest, from the hub to a file.
 *
 * Invariant: a file under a blob's plain name is whole, matched its digest and is on the disk; everything before
 * that is `.part`. A `.part` outlives interruptions and power cuts: the next attempt asks for the rest of it.
 */
import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { aborted, diskError, ImageError, textOf } from '#agent/images/errors.ts';
import { LIMITS } from '#agent/images/limits.ts';
import type { System } from '#agent/images/system.ts';
import type { Blob } from '#fleet/protocol.ts';

export interface FetchOptions {
  hubUrl: string;
  /** Where blobs live; made if missing. */
  directory: string;
  system: System;
  signal: AbortSignal;
  /** Bytes of this blob on the disk now; falls when a corrupt one is begun again. */
  onProgress?: (haveBytes: number) => void;
  idleMsMax?: number;
}

export const blobPath = (directory: string, digest: string): string =>
  join(directory, digest.replace('sha256:', ''));

const sizeOf = async (path: string): Promise<number> => (await stat(path).catch(() => undefined))?.size ?? 0;

/** Bytes of a blob that need not be fetched any more. */
export async function bytesOnDisk(directory: string, blob: Blob): Promise<number> {
  const path = blobPath(directory, blob.digest);
  return Math.min(blob.bytes, Math.max(await sizeOf(path), await sizeOf(`${path}.part`)));
}

/**
 * Fetches a blob unless it is there already.
 *
 * @returns path of the whole file, and the bytes that came over the network for it in this call
 * @throws ImageError `HUB_UNREACHABLE`, `HUB_REFUSED`, `BLOB_MISSING`, `BLOB_CORRUPT`, `DISK_FULL`, `DISK`, `ABORTED`
 */
export async function fetchBlob(
  blob: Blob,
  options: FetchOptions,
): Promise<{ path: string; receivedBytes: number }> {
  const { directory, signal, system, onProgress } = options;
  const path = blobPath(directory, blob.digest);
  const whole = await stat(path).catch(() => undefined);
  if (whole?.size === blob.bytes) {
    onProgress?.(blob.bytes);
    return { path, receivedBytes: 0 };
  }
  await mkdir(directory, { recursive: true }).catch((error: unknown) => {
    throw diskError(error, `making ${directory}`);
  });

  const part = await Part.open(`${path}.part`);
  let receivedBytes = 0;
  let failures = 0;
  let refetches = 0;
  try {
    for (;;) {
      if (signal.aborted) throw aborted(signal);
      onProgress?.(part.bytes);
      const outcome = await receive(blob, part, options);
      receivedBytes += outcome.receivedBytes;
      if (outcome.end === 'whole') break;
      if (outcome.end === 'corrupt') {
        await part.restart();
        if (++refetches > LIMITS.corruptRefetchesMax) {
          throw new ImageError(
            'BLOB_CORRUPT',
            `${blob.digest} came with other bytes than its digest says, ${refetches} times (${outcome.text}); push again, or check the hub's storage`,
          );
        }
        continue;
      }
      failures = outcome.receivedBytes > 0 ? 1 : failures + 1;
      if (failures >= LIMITS.failuresInRowMax) {
        throw new ImageError(
          'HUB_UNREACHABLE',
          `no answer from ${options.hubUrl} in ${failures} attempts (${outcome.text}); what was fetched is kept: check the link and the hub, then retry`,
          { cause: outcome.cause },
        );
      }
      await pause(failures, system, signal);
    }
    await part.finish(path, directory);
    return { path, receivedBytes };
  } catch (error) {
    // A full disk harms the version that flies: give back what this download took.
    if (error instanceof ImageError && error.code === 'DISK_FULL') await rm(part.path, { force: true });
    throw error;
  } finally {
    await part.close();
  }
}

async function pause(failures: number, system: System, signal: AbortSignal): Promise<void> {
  const capMs = Math.min(LIMITS.backoffMsMax, LIMITS.backoffMsMin * 2 ** (failures - 1));
  try {
    await system.sleep(capMs * system.random(), signal);
  } catch {
    throw aborted(signal);
  }
}

type Outcome = { receivedBytes: number } & (
  | { end: 'whole' }
  | { end: 'corrupt'; text: string }
  | { end: 'cut'; text: string; cause?: unknown }
);

/** One request for what the part still lacks. Disk errors and final refusals are thrown, the rest is an outcome. */
async function receive(blob: Blob, part: Part, options: FetchOptions): Promise<Outcome> {
  let receivedBytes = 0;
  const idle = new AbortController();
  const idleMsMax = options.idleMsMax ?? LIMITS.idleMsMax;
  const timer = setTimeout(() => idle.abort(new Error(`silent for ${idleMsMax} ms`)), idleMsMax);
  try {
    if (part.bytes > blob.bytes) await part.restart();
    if (part.bytes < blob.bytes) {
      const response = await options.system.fetch(
        new URL(`v1/blobs/${blob.digest}`, slashed(options.hubUrl)),
        {
          headers: {
            'accept-encoding': 'identity',
            ...(part.bytes > 0 && { range: `bytes=${part.bytes}-` }),
          },
          signal: AbortSignal.any([options.signal, idle.signal]),
        },
      );
      const refusal = await judge(response, blob, part);
      if (refusal) {
        await response.body?.cancel();
        return { ...refusal, receivedBytes };
      }
      for await (const chunk of response.body ?? []) {
        timer.refresh();
        receivedBytes += chunk.byteLength;
        if (part.bytes + chunk.byteLength > blob.bytes) {
          return { end: 'corrupt', text: `longer than ${blob.bytes} bytes`, receivedBytes };
        }
        await part.append(chunk);
        options.onProgress?.(part.bytes);
      }
      if (part.bytes < blob.bytes) return { end: 'cut', text: 'the connection was cut', receivedBytes };
    }
    const digest = part.digest();
    if (digest === blob.digest) return { end: 'whole', receivedBytes };
    return { end: 'corrupt', text: `got ${digest}`, receivedBytes };
  } catch (error) {
    if (error instanceof ImageError) throw error;
    if (options.signal.aborted) throw aborted(options.signal);
    const cause = idle.signal.aborted ? idle.signal.reason : error;
    return { end: 'cut', text: networkText(cause), cause, receivedBytes };
  } finally {
    clearTimeout(timer);
  }
}

/** Undefined: read the body on from `part.bytes`. */
async function judge(
  response: Response,
  blob: Blob,
  part: Part,
): Promise<{ end: 'corrupt' | 'cut'; text: string } | undefined> {
  const { status } = response;
  if (status === 206) {
    // RFC 9110 §14.4: what it says it sends counts, not what was asked for.
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '');
    if (Number(range?.[1]) !== part.bytes) return { end: 'corrupt', text: 'another range than asked for' };
    if (range?.[2] !== '*' && Number(range?.[2]) !== blob.bytes)
      return { end: 'corrupt', text: `${range?.[2]} bytes` };
    return undefined;
  }
  if (status === 200) {
    await part.restart();
    return undefined;
  }
  if (status === 416) return { end: 'corrupt', text: 'the hub has fewer bytes of it' };
  if (status === 404 || status === 410) {
    throw new ImageError(
      'BLOB_MISSING',
      `the hub no longer has ${blob.digest} (HTTP ${status}); push again to have it made anew`,
    );
  }
  if (status >= 500 || status === 408 || status === 429) return { end: 'cut', text: `HTTP ${status}` };
  throw new ImageError(
    'HUB_REFUSED',
    `the hub refused ${blob.digest} (HTTP ${status}); check the hub's address and this device's access`,
  );
}

const slashed = (url: string): string => (url.endsWith('/') ? url : `${url}/`);

/** fetch() says only "fetch failed"; the reason is its cause. */
function networkText(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return textOf(inner);
}

/** The growing file with the hash of what it holds. */
class Part {
  readonly path: string;
  readonly #file: FileHandle;
  bytes = 0;
  #hash: Hash = createHash('sha256');

  private constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  static async open(path: string): Promise<Part> {
    try {
      const file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
      const part = new Part(path, file);
      await part.#rehash();
      return part;
    } catch (error) {
      throw diskError(error, `opening ${path}`);
    }
  }

  async #rehash(): Promise<void> {
    const buffer = Buffer.alloc(1024 * 1024);
    for (;;) {
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, this.bytes);
      if (bytesRead === 0) return;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.bytes += bytesRead;
    }
  }

  async append(chunk: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < chunk.byteLength; ) {
        const { bytesWritten } = await this.#file.write(
          chunk,
          done,
          chunk.byteLength - done,
          this.bytes + done,
        );
        done += bytesWritten;
      }
    } catch (error) {
      throw diskError(error, `writing ${this.path}`);
    }
    this.#hash.update(chunk);
    this.bytes += chunk.byteLength;
  }

  async restart(): Promise<void> {
    await this.#file.truncate(0).catch((error: unknown) => {
      throw diskError(error, `truncating ${this.path}`);
    });
    this.bytes = 0;
    this.#hash = createHash('sha256');
  }

  digest(): string {
    return `sha256:${this.#hash.copy().digest('hex')}`;
  }

  /** Durable first, named second: the plain name must never show a file that a power cut could hollow out. */
  async finish(path: string, directory: string): Promise<void> {
    try {
      await this.#file.sync();
      await rename(this.path, path);
      const parent = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
      try {
        await parent.sync();
      } finally {
        await parent.close();
      }
    } catch (error) {
      throw diskError(error, `saving ${path}`);
    }
  }

  async close(): Promise<void> {
    await this.#file.close().catch(() => undefined);
  }
}
