/**
 * What the judge can know of a setpoint's sender.
 *
 * SET_ATTITUDE_TARGET and SET_POSITION_TARGET_LOCAL_NED carry no epoch. What there is: system and component id, and
 * `time_boot_ms`. So:
 * - the sender's number is the order in which its ids were first heard, from 1. Versions that share their ids, as Midair's
 *   do, are one sender; one that speaks again after another took over is stale.
 * - a companion that writes the board's own `time_boot_ms`, of the newest word that its setpoint answers, is judged as in
 *   the `direct` kind: a second answer to one word is doubled, an answer to an older word stale, whoever sent it. That is a
 *   convention of ours; the definition only says "since system boot".
 * - any other time (0, in the future, over a minute old) is no evidence: then only the gaps count.
 *
 * Invariant: pure bookkeeping, bounded.
 */
import type { Arrival } from '#device-sim/judge.ts';

const SENDERS_MAX = 16;
const US_PER_MINUTE = 60_000_000;

export class Senders {
  readonly #ids: number[] = [];

  arrival(tUs: number, bootUs: number, bootMs: number, systemId: number, componentId: number): Arrival {
    const answersUs = bootUs + bootMs * 1_000;
    const plausible = bootMs > 0 && answersUs <= tUs && tUs - answersUs <= US_PER_MINUTE;
    return {
      tUs,
      epoch: this.#numberOf(systemId * 256 + componentId),
      imuUs: plausible ? answersUs : Number.NaN,
    };
  }

  #numberOf(id: number): number {
    let index = this.#ids.indexOf(id);
    if (index < 0) index = this.#ids.length < SENDERS_MAX ? this.#ids.push(id) - 1 : SENDERS_MAX;
    return index + 1;
  }
}

/** Meant for this board: by its ids, or for all. */
export const isMine = (targetSystem: number, targetComponent: number): boolean =>
  (targetSystem === 0 || targetSystem === 1) && (targetComponent === 0 || targetComponent === 1);
