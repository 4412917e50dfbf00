/**
 * A candidate's first second: it flies in the prior's shadow, on the same bytes, and compares.
 *
 * Invariant: writes nowhere. Ready means: as many cycles in a row as the release asks for ran through the very code that
 * will fly (so it is loaded and compiled), each close to what the prior commanded. The shadow goes on until the mirror ends.
 */
import { type Mirror, type MirrorRecord, type ShadowBounds, ShadowJudge } from 'midair/handover';
import { Parser, rehearseSigning } from 'midair/handover/mavlink';
import { LIMITS } from './limits.ts';
import type { Loop } from './loop.ts';
import { parseState } from './state.ts';

export interface Warmth {
  cycles: number;
  /** Largest distance to the prior's motor commands in these cycles, root mean square of the four, 0..1 of full thrust. */
  divergence: number;
}

/** What both said for the same IMU sample; whichever comes first waits for the other. */
export class Comparison {
  readonly #waiting = new Map<number, readonly number[]>();

  /** @returns how far the two are apart in this cycle; null as long as only one has spoken */
  add(imuUs: number, motors: readonly number[]): number | null {
    const other = this.#waiting.get(imuUs);
    if (other === undefined) {
      this.#waiting.set(imuUs, motors);
      // Insertion order: the oldest goes first. A record that the mirror dropped is never waited for.
      if (this.#waiting.size > LIMITS.warmUpOutputs)
        this.#waiting.delete(this.#waiting.keys().next().value ?? 0);
      return null;
    }
    this.#waiting.delete(imuUs);
    let squares = 0;
    for (let i = 0; i < 4; i += 1) squares += ((motors[i] as number) - (other[i] as number)) ** 2;
    return Math.sqrt(squares / 4);
  }
}

/**
 * @param loop   the one that will fly; until then it sends into the comparison
 * @param bounds what the release asks for; null: there is nothing to be measured against
 * @returns once it is ready, at once if there is no prior to shadow, or when the mirror ended
 * @throws the reason of `signal`; DivergedError if it never comes close enough to the prior; StateError: it could not take over
 */
export const shadow = async (
  loop: Loop,
  mirror: Mirror,
  signal: AbortSignal,
  bounds: ShadowBounds | null,
): Promise<Warmth> => {
  if (!mirror.available || bounds === null) return { cycles: 0, divergence: 0 };
  rehearseSigning();
  if (mirror.payload !== undefined) {
    const { state, stateVersion } = mirror.payload;
    loop.resume(parseState(state, Number(stateVersion)), loop.cursor().sequence);
  }
  const comparison = new Comparison();
  const judge = new ShadowJudge(bounds);
  const prior = new Parser();
  const startMs = performance.now();
  let ready = false;
  let judging = true;
  const compare = (imuUs: number, motors: readonly number[]) => {
    const divergence = comparison.add(imuUs, motors);
    if (judging && !ready && divergence !== null) ready = judge.add(divergence, performance.now() - startMs);
  };
  loop.output = {
    epoch: 0,
    send: (_frame, answersUs, motors) => {
      if (answersUs !== null && motors !== null) compare(answersUs, motors);
    },
  };
  const take = ({ kind, bytes }: MirrorRecord) => {
    if (kind === 'in') return loop.read(bytes);
    for (const frame of prior.read(bytes)) {
      if (frame.name === 'HIL_ACTUATOR_CONTROLS') compare(frame.fields.time_usec, frame.fields.controls);
      else if (frame.name === 'POSITION_TARGET_LOCAL_NED') loop.told(frame.fields);
    }
  };
  for await (const record of mirror) {
    signal.throwIfAborted();
    take(record);
    if (ready) break;
  }
  judging = false;
  mirror.onRecord(take);
  return judge.readiness;
};

/** The successor flies; this one goes on in its shadow from where it stopped, so that it could go on flying. */
export const follow = (loop: Loop, mirror: Mirror): void => {
  const { state, sequence } = loop.cursor();
  // The beginning of a frame that it had read went to the successor.
  loop.resume(state, sequence);
  loop.output = { epoch: 0, send: () => undefined };
  const successor = new Parser();
  mirror.onRecord(({ kind, bytes }) => {
    if (kind === 'in') return loop.read(bytes);
    for (const frame of successor.read(bytes)) {
      if (frame.name === 'POSITION_TARGET_LOCAL_NED') loop.told(frame.fields);
    }
  });
};
