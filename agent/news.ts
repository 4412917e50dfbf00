/** What a target that was told is to the one that is remembered. Pure. */
import type { Image, Target } from '#fleet/protocol.ts';

/**
 * - `old`    nothing that is not known
 * - `target` another target state: what failed before may be tried again
 * - `offers` the same one, with other deltas to come to it by
 */
export type News = 'old' | 'target' | 'offers';

const images = (target: Target): Image[] =>
  Object.values(target.release?.services ?? {}).map(({ image }) => image);
const what = (target: Target): string =>
  JSON.stringify([target.release?.id ?? null, images(target).map(({ id }) => id)]);
const offers = (target: Target): string =>
  JSON.stringify(images(target).map(({ deltas, bridges = [] }) => [deltas, bridges]));

export function newsOf(known: Target | null, told: Target): News {
  if (known === null || told.generation > known.generation) return 'target';
  if (told.generation < known.generation || what(told) !== what(known)) return 'old';
  return offers(told) === offers(known) ? 'old' : 'offers';
}
