/** An input layer, read as tar items, with its digest and length checked at its end. */
import { ByteSource } from '#deltas/byte-source.ts';
import { asDeltaError, DeltaError } from '#deltas/errors.ts';
import { type TarItem, walkTar } from '#deltas/tar.ts';

export interface LayerSource {
  /** `sha256:` and 64 hexadecimal digits, of the uncompressed tar. */
  diffId: string;
  /** Length of the uncompressed tar. */
  bytes: number;
  /** The uncompressed tar; called more than once, each time from the start. */
  open(): AsyncIterable<Uint8Array>;
}

const DIGEST = /^sha256:([0-9a-f]{64})$/;

/** The 32 bytes of `sha256:…`. @throws DeltaError `BAD_INPUT` */
export function digestBytes(id: string, what: string): Buffer {
  const hex = DIGEST.exec(id)?.[1];
  if (hex === undefined) throw new DeltaError('BAD_INPUT', `${what} is not a sha256 digest: ${id}`);
  return Buffer.from(hex, 'hex');
}

export function digestText(bytes: Uint8Array): string {
  return `sha256:${Buffer.from(bytes).toString('hex')}`;
}

/** The layer's stream, whose own failures are told from those of whoever reads it. */
async function* guarded(layer: LayerSource): AsyncGenerator<Uint8Array> {
  try {
    yield* layer.open();
  } catch (error) {
    throw asDeltaError(error, 'READ_FAILED', `layer ${layer.diffId} cannot be read`);
  }
}

/**
 * Hands each item of the layer's tar to `visit`, with the source for its position and running digest.
 *
 * @param visit must use up the item's pieces
 * @throws DeltaError `BAD_INPUT` (the layer is not what diffID and length say), `READ_FAILED`; or what `visit` throws
 */
export async function readLayer(
  layer: LayerSource,
  visit: (item: TarItem, source: ByteSource) => Promise<void> | void,
): Promise<void> {
  const source = new ByteSource(guarded(layer));
  try {
    for await (const item of walkTar(source, layer.bytes)) await visit(item, source);
    const more = await source.peek(1);
    const whole = source.position === layer.bytes && more.length === 0;
    if (!whole || digestText(source.digest()) !== layer.diffId) {
      const length = more.length > 0 ? `more than ${layer.bytes}` : String(source.position);
      throw new DeltaError(
        'BAD_INPUT',
        `layer ${layer.diffId} is not what it says: ${length} bytes, ${digestText(source.digest())}`,
      );
    }
  } finally {
    await source.close();
  }
}
