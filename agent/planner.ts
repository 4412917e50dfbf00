/**
 * What to do next, from what is wanted and what is there.
 *
 * Invariant: pure, and one step at a time. An update is a candidate started beside the owner; nothing here
 * ever stops an owner that flies.
 */
import type { Release, Target } from '#fleet/protocol.ts';
import type { Failure, State } from '#handover/state.ts';

export interface Container {
  readonly id: string;
  readonly release: string;
  readonly imageId: string;
  readonly running: boolean;
}

export interface Observed {
  readonly target: Target | null;
  readonly containers: readonly Container[];
  readonly images: readonly string[];
  readonly handover: State;
  /** Of the target's generation; a new generation is a new chance. */
  readonly failed: {
    readonly generation: number;
    readonly release: string;
    readonly failure: Failure;
  } | null;
  /** The last release that this device committed to; what to start again when nobody owns the drone. */
  readonly good: Release | null;
}

export type Plan =
  | { readonly do: 'wait'; readonly for: 'target' | 'handover' }
  | { readonly do: 'nothing' }
  /** What is wanted has changed during a handover. */
  | { readonly do: 'abort'; readonly failure: Failure }
  | { readonly do: 'remove'; readonly container: Container }
  | { readonly do: 'install'; readonly release: Release }
  | { readonly do: 'start'; readonly release: Release };

/** The one service of a release. @throws if there are several: not supported yet */
export const serviceOf = (release: Release) => {
  const [first, ...others] = Object.values(release.services);
  if (!first || others.length > 0) throw new Error(`release ${release.id} must have exactly one service`);
  return first;
};

export const plan = (observed: Observed): Plan => {
  const { target, containers, handover, failed, good, images } = observed;
  if (handover.phase !== 'idle' && handover.phase !== 'failsafe') return during(observed, handover);
  const owner = handover.phase === 'idle' ? containers.find(({ id }) => id === handover.owner) : undefined;
  const leftover = containers.find((container) => container !== owner);
  if (leftover) return { do: 'remove', container: leftover };

  const wanted = target?.release ?? null;
  const hopeless =
    wanted !== null && failed?.generation === target?.generation && failed?.release === wanted.id;
  const release = wanted === null || hopeless ? (owner ? null : good) : wanted;
  if (release === null) return target === null ? { do: 'wait', for: 'target' } : { do: 'nothing' };
  if (owner?.release === release.id && owner.imageId === serviceOf(release).image.id)
    return { do: 'nothing' };
  return { do: images.includes(serviceOf(release).image.id) ? 'start' : 'install', release };
};

/**
 * Another release is wanted than the one that is on its way. Before anything passed the candidate is sent away; later only
 * who wants the prior back gets it back, and anything newer follows when this is over: two short handovers are safer
 * than one turned round and another.
 */
const during = (
  { target, containers }: Observed,
  handover: Exclude<State, { phase: 'idle' | 'failsafe' }>,
): Plan => {
  const releaseOf = (id: string | null) => containers.find((container) => container.id === id)?.release;
  const wanted = target?.release?.id;
  const candidate = releaseOf(handover.candidate);
  if (wanted === undefined || candidate === undefined || candidate === wanted)
    return { do: 'wait', for: 'handover' };
  const early = handover.phase === 'warming' || handover.phase === 'ready' || handover.phase === 'postponed';
  const back =
    handover.phase !== 'committed' && handover.failure === null && releaseOf(handover.prior) === wanted;
  if (!early && !back) return { do: 'wait', for: 'handover' };
  return {
    do: 'abort',
    failure: { code: 'SUPERSEDED', text: `${wanted} is wanted instead of ${candidate}` },
  };
};
