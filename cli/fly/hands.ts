/** When the rotors changed hands, by what the flight controller got: the epochs of the fresh commands. Pure. */
import type { Trace } from '#cli/sim-client.ts';

export interface Hand {
  readonly lastUs: number;
  readonly firstUs: number;
  /** Epochs. */
  readonly before: number;
  readonly after: number;
}

interface Last {
  readonly epoch: number;
  readonly tUs: number;
}

/** @param last fresh command of what was looked at before; there is none of the first owner's first command */
export const handsOf = (
  commands: Trace['commands'],
  last?: Last,
): { hands: Hand[]; last: Last | undefined } => {
  const hands: Hand[] = [];
  for (const { kind, epoch, tUs } of commands) {
    if (kind !== 'fresh') continue;
    if (last !== undefined && last.epoch !== epoch) {
      hands.push({ lastUs: last.tUs, firstUs: tUs, before: last.epoch, after: epoch });
    }
    last = { epoch, tUs };
  }
  return { hands, last };
};
