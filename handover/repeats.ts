/** What a peer can cause as often as it likes is answered, or told, so often a second. */
import { BOUNDS } from '#handover/bounds.ts';

export class Repeats {
  #sinceMs = Number.NEGATIVE_INFINITY;
  #told = 0;
  #omitted = 0;

  /** @returns whether once more is too much in this second, of CLOCK_MONOTONIC */
  isTooMuch(atMs: number): boolean {
    if (atMs - this.#sinceMs >= 1_000) {
      this.#sinceMs = atMs;
      this.#told = 0;
    }
    this.#told += 1;
    const isTooMuch = this.#told > BOUNDS.repeatsPerSecMax;
    if (isTooMuch) this.#omitted += 1;
    return isTooMuch;
  }

  /** How often it was too much since this was asked last. */
  takeOmitted(): number {
    const omitted = this.#omitted;
    this.#omitted = 0;
    return omitted;
  }
}
