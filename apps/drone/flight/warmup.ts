/**
 * A candidate's first second: it flies in the prior's shadow, on the same bytes, and compares.
 *
 * Invariant: writes nowhere. Ready means: as many cycles as asked ran through the very code that will fly (so it is
 * loaded and compiled), and the outputs were laid beside the prior's. The shadow goes on until the mirror ends.
 */
import type { Mirror, MirrorRecord } from 'midair/handover';
import { Parser } from 'midair/handover/mavlink';
import { LIMITS } from './limits.ts';
import type { Loop } from './loop.ts';

export interface Warmth {
  cycles: number;
  /** Root mean square of the difference to the prior's motor commands, 0..1, over the second half; 1 if none could be compared. */
  divergence: number;
}

/** What both said for the same IMU sample; whichever comes first waits for the other. */
export class Comparison {
  readonly #waiting = new Map<number, readonly number[]>();
  #squares = 0;
  #values = 0;

  add(imuUs: number, motors: readonly number[]): void {
    const other = this.#waiting.get(imuUs);
    if (other === undefined) {
      this.#waiting.set(imuUs, motors);
      // Insertion order: the oldest goes first. A record that the mirror dropped is never waited for.
      if (this.#waiting.size > LIMITS.warmUpOutputs)
        this.#waiting.delete(this.#waiting.keys().next().value ?? 0);
      return;
    }
    this.#waiting.delete(imuUs);
    for (let i = 0; i < 4; i += 1) this.#squares += ((motors[i] as number) - (other[i] as number)) ** 2;
    this.#values += 4;
  }

  get divergence(): number {
    return this.#values === 0 ? 1 : Math.min(1, Math.sqrt(this.#squares / this.#values));
  }
  restart(): void {
    this.#squares = 0;
    this.#values = 0;
  }
}

/**
 * @param loop the one that will fly; until then it sends into the comparison
 * @returns once `cyclesMin` cycles were flown, or at once if there is no prior to shadow, or when the mirror ended
 * @throws the reason of `signal`
 */
export const shadow = async (
  loop: Loop,
  mirror: Mirror,
  signal: AbortSignal,
  cyclesMin: number = LIMITS.warmUpCycles,
): Promise<Warmth> => {
  const comparison = new Comparison();
  const prior = new Parser();
  const first = loop.cycles;
  loop.output = {
    epoch: 0,
    send: (_frame, answersUs, motors) => {
      if (answersUs !== null && motors !== null) comparison.add(answersUs, motors);
    },
  };
  const take = ({ kind, bytes }: MirrorRecord) => {
    if (kind === 'in') return loop.read(bytes);
    for (const frame of prior.read(bytes)) {
      if (frame.name === 'HIL_ACTUATOR_CONTROLS')
        comparison.add(frame.fields.time_usec, frame.fields.controls);
    }
  };

  let halfway = false;
  for await (const record of mirror) {
    signal.throwIfAborted();
    take(record);
    const cycles = loop.cycles - first;
    if (!halfway && cycles >= cyclesMin / 2) {
      halfway = true;
      comparison.restart();
    }
    if (cycles >= cyclesMin) break;
  }
  mirror.onRecord(take);
  return { cycles: loop.cycles - first, divergence: mirror.available ? comparison.divergence : 0 };
};
