/**
 * What the supervisor must remember across its own death, and what changes it. Pure.
 *
 * Invariant: the target's generation never goes back, and `good` is the release that was committed last.
 */
import { newsOf } from '#agent/news.ts';
import type { Observed } from '#agent/planner.ts';
import { BLAMELESS, type Release, type Target } from '#fleet/protocol.ts';
import type { Failure } from '#handover/state.ts';

export interface Memory {
  readonly target: Target | null;
  /** The last release that was committed, and the one before it: their images stay on the device. */
  readonly good: Release | null;
  readonly previous: Release | null;
  readonly failed: Observed['failed'];
  /** On its way when the target moved on: the one that a handover still under way may end with. */
  readonly candidate: Release | null;
}
export const emptyMemory: Memory = {
  target: null,
  good: null,
  previous: null,
  failed: null,
  candidate: null,
};

/**
 * `null`: what was told is no news. Other ways to the same target state leave what failed as it is.
 * @param inFlight of an update that is under way
 */
export const targeted = (memory: Memory, target: Target, inFlight: Release | null): Memory | null => {
  switch (newsOf(memory.target, target)) {
    case 'old':
      return null;
    case 'offers':
      return { ...memory, target };
    case 'target':
      return { ...memory, target, failed: null, candidate: inFlight };
  }
};

/** The whole release of that name, if it is one that can have been started. */
export const releaseNamed = ({ target, candidate, good, previous }: Memory, name: string): Release | null =>
  [target?.release, candidate, good, previous].find((one) => one?.id === name) ?? null;

/**
 * At the start, from the release that flies by the other journal: a death between the two may have left `good` behind.
 * `null`: nothing is to be changed.
 */
export const reconciled = (memory: Memory, owner: string | null): Memory | null => {
  if (owner === null || memory.good?.id === owner) return null;
  const release = releaseNamed(memory, owner);
  return release && flown(memory, release);
};

/** That release was committed. */
export const flown = (memory: Memory, release: Release): Memory => ({
  ...memory,
  good: release,
  previous: memory.good?.id === release.id ? memory.previous : memory.good,
  failed: null,
  candidate: null,
});

/** It was gone when the agent came back: a power cut, an engine's end. Nobody saw that it was the release's fault. */
export const unwatched = ({ text }: Failure): Failure => ({
  code: 'UNWATCHED',
  text: `${text} while no agent watched it`,
});

/** The update to that release failed. `null`: there is nothing to hold against it, or it is not wanted any more. */
export const blamed = (memory: Memory, release: Release, failure: Failure): Memory | null => {
  const { target } = memory;
  if (target === null || release.id !== target.release?.id || BLAMELESS.includes(failure.code)) return null;
  return { ...memory, failed: { generation: target.generation, release: release.id, failure } };
};
