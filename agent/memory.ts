/**
 * What the supervisor must remember across its own death, and what changes it. Pure.
 *
 * Invariant: the target's generation never goes back, and `good` is the release that was committed last.
 */
import type { Observed } from '#agent/planner.ts';
import { BLAMELESS, type Release, type Target } from '#fleet/protocol.ts';
import type { Failure } from '#handover/state.ts';

export interface Memory {
  readonly target: Target | null;
  /** The last release that was committed, and the one before it: their images stay on the device. */
  readonly good: Release | null;
  readonly previous: Release | null;
  readonly failed: Observed['failed'];
}
export const emptyMemory: Memory = { target: null, good: null, previous: null, failed: null };

/** `null`: an older or equal generation is no news. */
export const targeted = (memory: Memory, target: Target): Memory | null =>
  target.generation <= (memory.target?.generation ?? -1) ? null : { ...memory, target, failed: null };

/** That release was committed. */
export const flown = (memory: Memory, release: Release): Memory => ({
  ...memory,
  good: release,
  previous: memory.good?.id === release.id ? memory.previous : memory.good,
  failed: null,
});

/** The update to that release failed. `null`: there is nothing to hold against it, or it is not wanted any more. */
export const blamed = (memory: Memory, release: Release, failure: Failure): Memory | null => {
  const { target } = memory;
  if (target === null || release.id !== target.release?.id || BLAMELESS.includes(failure.code)) return null;
  return { ...memory, failed: { generation: target.generation, release: release.id, failure } };
};
