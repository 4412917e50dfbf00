/**
 * Which bytes to fetch: a pure choice between a delta and the layers that the engine lacks.
 *
 * Invariant: every plan is enough to serve each layer that the engine may ask for; the last plan needs no basis.
 */
import type { Blob, Image, Layer } from '#fleet/protocol.ts';

/** An image on the engine: its diffIDs, bottom first. */
export interface Held {
  id: string;
  diffIds: readonly string[];
}

export interface Plan {
  as: 'delta' | 'layers';
  /** Which artifact rebuilds the lacking layers; with `as: 'delta'` only. */
  delta?: Image['deltas'][number];
  /** Layers that the engine has not at their place (their chainID is unknown to it). */
  lacking: Layer[];
  /** Config, delta or layers, in the order in which to fetch them. */
  blobs: Blob[];
  /** What of that is not on this disk yet. */
  remainingBytes: number;
}

/**
 * @param onDisk bytes of a blob that earlier attempts left here
 * @returns best first: `[delta, layers]` when a delta fits and is the smaller, else `[layers]`
 */
export function plans(image: Image, held: readonly Held[], onDisk: (blob: Blob) => number): Plan[] {
  const lacking = image.layers.slice(sharedLayers(image, held));
  const known = new Set(held.flatMap(({ diffIds }) => diffIds));
  const remaining = (blobs: readonly Blob[]) =>
    blobs.reduce((sum, blob) => sum + Math.max(0, blob.bytes - onDisk(blob)), 0);
  const plan = (as: Plan['as'], blobs: Blob[], delta?: Plan['delta']): Plan => ({
    as,
    lacking,
    blobs,
    remainingBytes: remaining(blobs),
    ...(delta && { delta }),
  });

  const whole = new Map(
    lacking.filter(({ diffId }) => !known.has(diffId)).map((layer) => [layer.diffId, layer.blob]),
  );
  const layers = plan('layers', [image.config, ...whole.values()]);
  const ids = new Set(held.map(({ id }) => id));
  const delta = image.deltas
    .filter(({ basis }) => ids.has(basis))
    .map((each) => plan('delta', [image.config, each.blob], each))
    .sort((a, b) => a.remainingBytes - b.remainingBytes)[0];
  return delta && whole.size > 0 && delta.remainingBytes < layers.remainingBytes ? [delta, layers] : [layers];
}

/** How many layers, from the bottom, some image on the engine has in the same order: those it will not ask for. */
function sharedLayers(image: Image, held: readonly Held[]): number {
  let shared = 0;
  for (const { diffIds } of held) {
    let same = 0;
    while (same < image.layers.length && diffIds[same] === image.layers[same]?.diffId) same++;
    shared = Math.max(shared, same);
  }
  return shared;
}
