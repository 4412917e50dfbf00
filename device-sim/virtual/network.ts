/**
 * A network that loses, doubles, delays and reorders, and falls apart in two.
 *
 * Invariant: a message arrives not at all, once or twice, never changed, and never while its way is cut.
 */
import type { Random } from '#device-sim/random.ts';
import type { Scheduler } from '#device-sim/virtual/scheduler.ts';

export interface Weather {
  /** Shares of all messages. */
  lost: number;
  doubled: number;
  /** One way; each message draws its own, so that a later one may arrive first. */
  latencyUsMin: number;
  latencyUsMax: number;
}
export const FAIR: Weather = { lost: 0, doubled: 0, latencyUsMin: 5_000, latencyUsMax: 40_000 };

export class Network {
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #cut = new Set<string>();
  weather: Weather = { ...FAIR };

  constructor(scheduler: Scheduler, random: Random) {
    this.#scheduler = scheduler;
    this.#random = random;
  }

  /** No message to or from there arrives, also none that is on its way. */
  cut(node: string, isCut: boolean): void {
    if (isCut) this.#cut.add(node);
    else this.#cut.delete(node);
  }
  isCut(node: string): boolean {
    return this.#cut.has(node);
  }

  /** @param far the end that may be cut off: each way has one end at the hub */
  send(far: string, sentUs: number, arrive: () => void): void {
    const { lost, doubled, latencyUsMin, latencyUsMax } = this.weather;
    const copies = this.#random.uniform() < doubled ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const delayUs = latencyUsMin + Math.floor(this.#random.uniform() * (latencyUsMax - latencyUsMin));
      if (this.#random.uniform() < lost || this.#cut.has(far)) continue;
      this.#scheduler.at(sentUs + delayUs, () => {
        if (!this.#cut.has(far)) arrive();
      });
    }
  }
}
