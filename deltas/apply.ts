/**
 * Rebuilds layers from a basis image and a delta.
 *
 * Invariant: what was yielded in full has the layer's diffID. The last bytes are held back until the whole digest was
 * compared, so that a layer that went wrong anywhere never reaches its end. Bytes yielded before are to be thrown away
 * when a DeltaError follows.
 *
 * Memory: 16 MiB for xdelta3 if it is used, history for each stream (as much as it is long, at most 8), at most 4 of index and its items, a
 * window with its source and patch, or 32 while a group is made, buffers; plus, when the artifact asks for one, the basis's listing, some 250
 * bytes a file. It is meant to be below 64 together, and is in all that was measured (bench/deltas.ts): 49 at most, in a process with
 * APPLY_FLAGS. Without them it grows by more, since buffers are collected late: by 95 for a file of 127 MB in 201 windows.
 */
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import type { DeltaReader } from '#deltas/artifact.ts';
import { type Basis, listBasis } from '#deltas/basis.ts';
import { DeltaError } from '#deltas/errors.ts';
import { indexBlocks } from '#deltas/index-blocks.ts';
import type { Item } from '#deltas/index-format.ts';
import { digestText } from '#deltas/layer.ts';
import { LIMITS } from '#deltas/limits.ts';
import { severalNames } from '#deltas/paths.ts';
import { Sources } from '#deltas/sources.ts';
import { BLOCK } from '#deltas/tar.ts';

export interface ApplyLimits {
  /** Refuse a layer that claims to be larger: give the length that was signed. */
  outputBytesMax?: number;
  /**
   * Exists; default: the system's. Compressed files of the basis that hold more than 4 MiB are opened into a file there, one at a
   * time, which is gone at the end.
   */
  scratchDirectory?: string;
}

/** The tar so far: its digest, and its bytes in chunks, the last of which is held back. */
class Output {
  readonly #hash = createHash('sha256');
  readonly #bytesMax: number;
  #chunk = Buffer.allocUnsafeSlow(LIMITS.chunkBytes);
  #held = 0;
  position = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Before anything is made, so that a lying length costs nothing. */
  expect(length: number): void {
    if (length > this.#bytesMax - this.position) {
      throw new DeltaError('CORRUPT', `the layer would be longer than its ${this.#bytesMax} bytes`);
    }
  }

  *push(bytes: Uint8Array): Generator<Buffer> {
    this.expect(bytes.length);
    this.#hash.update(bytes);
    this.position += bytes.length;
    for (let at = 0; at < bytes.length; ) {
      if (this.#held === this.#chunk.length) {
        yield this.#chunk;
        this.#chunk = Buffer.allocUnsafeSlow(LIMITS.chunkBytes);
        this.#held = 0;
      }
      const some = bytes.subarray(at, at + this.#chunk.length - this.#held);
      this.#chunk.set(some, this.#held);
      this.#held += some.length;
      at += some.length;
    }
  }

  digest(): Buffer {
    return this.#hash.copy().digest();
  }

  /** The chunk that was held back. */
  rest(): Buffer {
    return this.#chunk.subarray(0, this.#held);
  }
}

const ZEROS = Buffer.alloc(LIMITS.chunkBytes);

async function* itemBytes(item: Item, position: number, sources: Sources): AsyncGenerator<Uint8Array> {
  switch (item.kind) {
    case 'raw':
      yield item.bytes;
      return;
    case 'header':
      yield item.block;
      return;
    case 'run':
      yield* sources.solid(item.length);
      return;
    case 'content':
      yield* sources.content(item.length, item.content);
      return;
    case 'zeros':
    case 'pad': {
      let left = item.kind === 'zeros' ? item.length : (BLOCK - (position % BLOCK)) % BLOCK;
      for (; left > 0; left -= Math.min(left, ZEROS.length)) yield ZEROS.subarray(0, left);
      return;
    }
  }
}

function itemLength(item: Item): number {
  if (item.kind === 'raw') return item.bytes.length;
  if (item.kind === 'header') return BLOCK;
  return item.kind === 'pad' ? 0 : item.length;
}

/** What a digest that does not agree means: the artifact's own bytes were checked before they were used. */
function mismatch(what: string, suspects: ReadonlySet<string>): DeltaError {
  if (suspects.size === 0) return new DeltaError('CORRUPT', `${what}: the delta contradicts itself`);
  const names = severalNames([...suspects]);
  return new DeltaError('BASIS_MISMATCH', `${what}: one of these differs in the basis: ${names}`);
}

/**
 * Rebuilds one layer from a basis image and a delta, in one pass.
 *
 * @param delta  format v1 (docs/delta-format.md)
 * @param diffId one of `delta.layers`
 * @param basis  the old image's files, random access by path
 * @param limits `outputBytesMax` (bytes)
 * @yields the layer's uncompressed tar, chunks of at most 64 KiB; trust none before the end was reached
 * @throws DeltaError `NOT_FOUND`, `BASIS_MISMATCH`, `CORRUPT`, `TRUNCATED`, `TOO_LARGE`, `UNSUPPORTED`, `READ_FAILED`
 */
export async function* applyLayer(
  delta: DeltaReader,
  diffId: string,
  basis: Basis,
  limits: ApplyLimits = {},
): AsyncGenerator<Uint8Array> {
  const layer = delta.header.layers.find((one) => digestText(one.diffId) === diffId);
  if (layer === undefined) throw new DeltaError('NOT_FOUND', `the delta holds no layer ${diffId}`);
  const bytesMax = limits.outputBytesMax ?? LIMITS.outputBytesMax;
  if (layer.bytes > bytesMax) {
    throw new DeltaError('TOO_LARGE', `layer ${diffId} has ${layer.bytes} bytes, ${bytesMax} are allowed`);
  }
  const { listDigest } = delta.header;
  const list = listDigest === undefined ? undefined : await listBasis(basis, listDigest);
  const output = new Output(layer.bytes);
  const sources = new Sources(delta, layer, basis, list, limits.scratchDirectory ?? tmpdir());
  try {
    let checkedAt = 0;
    let previous: Item['kind'] | undefined;
    for await (const block of indexBlocks(delta, layer, list)) {
      while (!block.ended) {
        const item = block.next();
        if (item.kind === 'pad' && previous !== 'content') {
          throw new DeltaError('CORRUPT', 'index: padding without content before it');
        }
        previous = item.kind;
        output.expect(itemLength(item));
        for await (const bytes of itemBytes(item, output.position, sources)) yield* output.push(bytes);
        if (!block.ended && output.position - checkedAt < LIMITS.checkEveryBytes) continue;
        if (!output.digest().subarray(0, LIMITS.checkBytes).equals(block.check())) {
          throw mismatch(`layer ${diffId} is wrong by byte ${output.position}`, sources.suspects);
        }
        checkedAt = output.position;
        sources.suspects = new Set();
      }
      block.finish();
    }
    await sources.finish();
    if (output.position !== layer.bytes) {
      throw new DeltaError(
        'CORRUPT',
        `layer ${diffId} has ${output.position} bytes instead of ${layer.bytes}`,
      );
    }
    if (!output.digest().equals(layer.diffId)) throw mismatch(`layer ${diffId} is wrong`, sources.suspects);
    if (layer.bytes > 0) yield output.rest();
  } finally {
    await sources.close();
  }
}
