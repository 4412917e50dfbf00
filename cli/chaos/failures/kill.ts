/**
 * SIGKILL to a part, or to a container's first process, with which the kernel ends all others in it.
 *
 * Invariant: the one that was seen and marked, or nobody. It is not undone: bringing back what died is the agent's, or a
 * service manager's.
 */
import { ChaosError } from '#cli/chaos/errors.ts';
import type { Inject } from '#cli/chaos/failures/deed.ts';
import { signalKnown } from '#cli/chaos/processes.ts';
import { thingText } from '#cli/chaos/targets.ts';

export const kill: Inject = async ({ target, note }) => {
  note({ type: 'nothing' }, `kill ${thingText(target)}`);
  const container = target.kind === 'container' ? target.id : undefined;
  if (!signalKnown(target.process, 'SIGKILL', container)) {
    throw new ChaosError('TARGET_GONE', `${thingText(target)} ended by itself before`);
  }
  return `SIGKILL to process ${target.process.pid}`;
};
