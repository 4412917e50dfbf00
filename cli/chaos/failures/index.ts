/** Every failure and what does it; one that is missing here is a type error. */
import type { Failure } from '#cli/chaos/experiment.ts';
import { cpu } from '#cli/chaos/failures/cpu.ts';
import type { Inject } from '#cli/chaos/failures/deed.ts';
import { disk } from '#cli/chaos/failures/disk.ts';
import { kill } from '#cli/chaos/failures/kill.ts';
import { link } from '#cli/chaos/failures/link.ts';
import { pause } from '#cli/chaos/failures/pause.ts';

export const INJECT: Readonly<Record<Failure, Inject>> = {
  latency: link('latency'),
  loss: link('loss'),
  partition: link('partition'),
  pause,
  kill,
  cpu,
  'disk-full': disk,
};
