/**
 * Every process of the target stands still, by SIGSTOP.
 *
 * Invariant: each process is in the ledger before it is stopped. Never the freezer: that is the agent's, for fences, and what
 * it froze must stay frozen until it is dead. SIGSTOP and SIGCONT are apart from it, so that no undoing can thaw a fence.
 */
import { ChaosError } from '#cli/chaos/errors.ts';
import type { Inject } from '#cli/chaos/failures/deed.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { processesOf, signalKnown } from '#cli/chaos/processes.ts';
import { thingText } from '#cli/chaos/targets.ts';

export const pause: Inject = async ({ target, note }) => {
  const container = target.kind === 'container' ? target.id : undefined;
  const stopped = new Set<number>();
  // A stopped process starts no other: the rounds end.
  for (let round = 0; round < CHAOS.stopRoundsMax; round += 1) {
    const all = container === undefined ? [target.process] : processesOf(container);
    const processes = all.filter(({ pid }) => !stopped.has(pid));
    if (processes.length === 0) break;
    if (stopped.size + processes.length > CHAOS.processesMax) {
      throw new ChaosError(
        'TARGET_GONE',
        `${thingText(target)} has more than ${CHAOS.processesMax} processes`,
      );
    }
    note({ type: 'continue', processes }, `pause ${thingText(target)}`);
    for (const known of processes) {
      signalKnown(known, 'SIGSTOP', container);
      stopped.add(known.pid);
    }
  }
  if (stopped.size === 0) throw new ChaosError('TARGET_GONE', `${thingText(target)} ended by itself before`);
  return `SIGSTOP to ${stopped.size} ${stopped.size === 1 ? 'process' : 'processes'}`;
};
