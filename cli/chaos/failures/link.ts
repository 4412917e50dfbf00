/**
 * Latency, loss or partition on the wire between a device and its hub (wire/).
 *
 * Invariant: the fault has an end of its own in the link's process, a little after ours: it ends there, too, when nobody is
 * left to clear it.
 */
import { ChaosError } from '#cli/chaos/errors.ts';
import type { Deed, Inject } from '#cli/chaos/failures/deed.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { thingText } from '#cli/chaos/targets.ts';
import { setFault } from '#cli/chaos/wire/client.ts';
import type { Fault } from '#cli/chaos/wire/link.ts';

export const link =
  (failure: Fault['failure']): Inject =>
  async (deed) => {
    const { id, target, note, parameters, seed, leftMs } = deed;
    if (target.kind !== 'link') throw new ChaosError('INTERNAL', `${thingText(target)} is no link`);
    const { control, process } = target;
    const text = faultText(failure, deed);
    note({ type: 'clear', control, fault: id, process }, `${text} on the ${thingText(target)}`);
    const { latencyMs, jitterMs, lossPercent, way } = parameters;
    const forMs = Math.max(0, leftMs()) + CHAOS.graceMs;
    await setFault(control, { id, failure, way, seed, latencyMs, jitterMs, lossPercent, forMs });
    return text;
  };

function faultText(failure: Fault['failure'], { parameters }: Deed): string {
  const { latencyMs, jitterMs, lossPercent, way } = parameters;
  const ways = way === 'both' ? 'both ways' : way === 'to-hub' ? 'to the hub' : 'from the hub';
  switch (failure) {
    case 'latency':
      return `${latencyMs} ms ± ${jitterMs} ms ${ways}`;
    case 'loss':
      return `${lossPercent} % lost ${ways}`;
    case 'partition':
      return `no byte passes ${ways}`;
  }
}
