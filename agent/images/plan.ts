/**
 * Which bytes to fetch: a pure choice between a delta, deltas in a row, and the layers that the engine lacks.
 *
 * Invariant: every plan is enough to serve each layer that the engine may ask for; the last plan needs no basis.
 *
 * Deltas in a row go by way of images that are installed, never started, and removed again: each is checked by the engine like
 * any other. A reader of two deltas at once would need random access to files that do not exist yet.
 */
import type { Blob, DeltaOffer, Image, Layer } from '#fleet/protocol.ts';

/** An image on the engine: its diffIDs, bottom first. */
export interface Held {
  id: string;
  diffIds: readonly string[];
}

/** One image to install; the plan's last is the target. */
export interface Leg {
  image: Image;
  /** Which artifact rebuilds the lacking layers; undefined: they come whole. */
  delta?: DeltaOffer;
  /** Layers that the engine has not at their place (their chainID is unknown to it). */
  lacking: Layer[];
}

export interface Plan {
  as: 'delta' | 'layers';
  legs: Leg[];
  /** Configs, deltas or layers, in the order in which to fetch them. */
  blobs: Blob[];
  /** What of that is not on this disk yet. */
  remainingBytes: number;
}

/** A plan in figures, as it is told. */
export interface PlanFigures {
  as: Plan['as'];
  /** Images on the way, by id: what it starts from, and what it goes by way of. */
  from?: string[];
  bytes: number;
  /** Of the layers that are made. */
  outputBytes: number;
  /** At the hub, which tried it; undefined where it did not say. */
  cpuMs?: number;
  memoryBytes?: number;
}

/**
 * @param onDisk bytes of a blob that earlier attempts left here
 * @returns smallest first, the first of each kind; whole layers are the last, and the only one when nothing is smaller
 */
export function plans(image: Image, held: readonly Held[], onDisk: (blob: Blob) => number): Plan[] {
  const all = candidates(image, held, onDisk);
  const layers = all.find(({ as }) => as === 'layers') as Plan;
  const [first] = all;
  return first === undefined || first === layers ? [layers] : [first, layers];
}

/** Everything that would do: each delta whose basis is there, the smallest row of deltas, whole layers; smallest first. */
export function candidates(image: Image, held: readonly Held[], onDisk: (blob: Blob) => number): Plan[] {
  const left = (blob: Blob): number => Math.max(0, blob.bytes - onDisk(blob));
  const known = new Set(held.flatMap(({ diffIds }) => diffIds));
  const ids = new Set(held.map(({ id }) => id));
  const legOf = (target: Image, delta?: DeltaOffer): Leg => ({
    image: target,
    lacking: target.layers.slice(sharedLayers(target, held)),
    ...(delta && { delta }),
  });
  const plan = (as: Plan['as'], legs: Leg[], blobs: Blob[]): Plan => ({
    as,
    legs,
    blobs,
    remainingBytes: blobs.reduce((sum, blob) => sum + left(blob), 0),
  });

  const last = legOf(image);
  const whole = new Map(
    last.lacking.filter(({ diffId }) => !known.has(diffId)).map((layer) => [layer.diffId, layer.blob]),
  );
  const layers = plan('layers', [last], [image.config, ...whole.values()]);
  if (whole.size === 0) return [layers];
  const rows = [
    ...image.deltas.filter(({ basis }) => ids.has(basis)).map((delta) => [{ image, delta }]),
    ...smallestRow(image, ids, left),
  ];
  const byDelta = rows.map((row) =>
    plan(
      'delta',
      row.map((step) => legOf(step.image, step.delta)),
      row.flatMap((step) => [step.image.config, step.delta.blob]),
    ),
  );
  // Of equal ones whole layers, then the fewest legs: less can go wrong.
  return [layers, ...byDelta].sort(
    (a, b) => a.remainingBytes - b.remainingBytes || a.legs.length - b.legs.length,
  );
}

interface Step {
  image: Image;
  delta: DeltaOffer;
}

/** The row of two or more deltas with the fewest bytes from an image that is there to the target; one or none. */
function smallestRow(target: Image, ids: ReadonlySet<string>, left: (blob: Blob) => number): Step[][] {
  const bridges = (target.bridges ?? []).filter(({ id }) => !ids.has(id));
  const rows = new Map<string, { bytes: number; steps: Step[] }>(
    [...ids].map((id) => [id, { bytes: 0, steps: [] }]),
  );
  const extend = (image: Image): void => {
    for (const delta of image.deltas) {
      const before = rows.get(delta.basis);
      if (!before || before.steps.some((step) => step.image.id === image.id)) continue;
      const bytes = before.bytes + left(image.config) + left(delta.blob);
      if (bytes < (rows.get(image.id)?.bytes ?? Number.POSITIVE_INFINITY))
        rows.set(image.id, { bytes, steps: [...before.steps, { image, delta }] });
    }
  };
  // As often as a row may have steps: then no shorter one is left (Bellman and Ford).
  for (const _ of bridges) for (const bridge of bridges) extend(bridge);
  const last = target.deltas
    .filter(({ basis }) => !ids.has(basis))
    .flatMap((delta) => {
      const before = rows.get(delta.basis);
      return before
        ? [{ bytes: before.bytes + left(delta.blob), steps: [...before.steps, { image: target, delta }] }]
        : [];
    })
    .toSorted((a, b) => a.bytes - b.bytes)[0];
  return last ? [last.steps] : [];
}

export function figuresOf({ as, legs, remainingBytes }: Plan): PlanFigures {
  const costs = legs.map(({ delta }) => delta?.cost);
  const told = costs.every((cost) => cost !== undefined) ? costs : [];
  const memory = told.map(({ memoryBytes }) => memoryBytes ?? 0);
  return {
    as,
    ...(as === 'delta' && { from: legs.map(({ delta }) => delta?.basis ?? '') }),
    bytes: remainingBytes,
    outputBytes: lackingBytes(legs),
    ...(told.length > 0 && {
      cpuMs: told.reduce((sum, { cpuMs }) => sum + cpuMs, 0),
      memoryBytes: Math.max(...memory),
    }),
  };
}

/** One line for people. */
export function planText(plan: Plan): string {
  const { as, from = [], bytes, outputBytes, cpuMs, memoryBytes } = figuresOf(plan);
  const id = plan.legs.at(-1)?.image.id ?? '';
  const many = from.length > 1 ? `${from.length} deltas in a row` : 'a delta';
  const way = as === 'delta' ? `${many} from ${short(from[0] ?? '')}` : 'whole layers';
  const memory = memoryBytes ? ` and ${megabytes(memoryBytes)} of memory` : '';
  const cost =
    cpuMs === undefined ? '' : `; the hub needed ${(cpuMs / 1000).toFixed(1)} s of a core${memory}`;
  return `${short(id)} comes by ${way}: ${megabytes(bytes)} to fetch, ${megabytes(outputBytes)} to make${cost}`;
}

const short = (id: string): string => id.replace('sha256:', '').slice(0, 12);
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0)} MB`;

/** The image, and those on the way to it, without these artifacts. */
export function withoutDeltas(image: Image, digests: ReadonlySet<string>): Image {
  const kept = <Some extends Omit<Image, 'bridges'>>(each: Some): Some => ({
    ...each,
    deltas: each.deltas.filter(({ blob }) => !digests.has(blob.digest)),
  });
  return { ...kept(image), ...(image.bridges && { bridges: image.bridges.map(kept) }) };
}

export const lackingBytes = (legs: readonly Leg[]): number =>
  legs.flatMap(({ lacking }) => lacking).reduce((sum, { bytes }) => sum + bytes, 0);

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
