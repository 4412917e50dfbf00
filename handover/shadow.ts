/**
 * Whether a candidate flies as the prior does: one figure a cycle, from whoever can compare the two.
 *
 * Invariant: ready means so many cycles in a row within the limit; one cycle beyond it and the count begins anew. A
 * candidate that does not settle is told by how far it was off, and when.
 */
import { BOUNDS } from '#handover/bounds.ts';

/** From the release's labels, by the agent's OFFER: cycles in a row, and the app's own unit of distance. */
export interface ShadowBounds {
  readonly cyclesMin: number;
  readonly divergenceMax: number;
}

/** It never came near enough; the agent hears of it as a FAULT of this code. */
export class DivergedError extends Error {
  override readonly name = 'DivergedError';
  readonly code = 'DIVERGED';
}

export class ShadowJudge {
  readonly #bounds: ShadowBounds;
  #compared = 0;
  #inARow = 0;
  /** In the present row. */
  #largest = 0;
  #worst = { divergence: 0, cycle: 0, atMs: 0 };

  constructor(bounds: ShadowBounds) {
    this.#bounds = bounds;
  }

  /** Cycles in a row within the limit, and the largest divergence among them. */
  get readiness(): { cycles: number; divergence: number } {
    return { cycles: this.#inARow, divergence: this.#largest };
  }

  /**
   * @param divergence of this cycle's output from the prior's, 0 or more; not a number counts as beyond any limit
   * @param atMs since the shadow began
   * @returns whether it is ready
   * @throws DivergedError after `BOUNDS.shadowCyclesFactor` times the cycles asked for
   */
  add(divergence: number, atMs: number): boolean {
    const { cyclesMin, divergenceMax } = this.#bounds;
    this.#compared += 1;
    if (divergence <= divergenceMax) {
      this.#inARow += 1;
      this.#largest = Math.max(this.#largest, divergence);
    } else {
      this.#inARow = 0;
      this.#largest = 0;
    }
    // The first cycles of a controller that starts from nothing are far off; what it settles to is the news.
    const settling = this.#compared <= cyclesMin;
    if (!(divergence <= this.#worst.divergence) && !settling) {
      this.#worst = { divergence, cycle: this.#compared, atMs };
    }
    if (this.#inARow >= cyclesMin) return true;
    if (this.#compared < Math.max(1, cyclesMin) * BOUNDS.shadowCyclesFactor) return false;
    const { divergence: worst, cycle, atMs: when } = this.#worst;
    throw new DivergedError(
      `its output was up to ${round(worst)} from the prior's, at cycle ${cycle}, ${Math.round(when)} ms into the shadow; ` +
        `${round(divergence)} at the end, at most ${divergenceMax} is allowed for ${cyclesMin} cycles in a row`,
    );
  }
}

const round = (value: number): string => value.toPrecision(3);
