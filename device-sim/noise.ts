/**
 * Slow errors: first-order Gauss-Markov, the bounded kind of a random walk.
 *
 * Invariant: stationary from the start with the given deviation, exact for any step; all chance is the given `Random`'s.
 */
import type { Random } from '#device-sim/random.ts';

export class GaussMarkov {
  readonly #random: Random;
  readonly #sigma: number;
  readonly #keep: number;
  readonly #kick: number;
  value: number;

  /** @param start its first value; drawn from the stationary distribution by default */
  constructor(random: Random, sigma: number, correlationS: number, stepS: number, start?: number) {
    this.#random = random;
    this.#sigma = sigma;
    this.#keep = Math.exp(-stepS / correlationS);
    this.#kick = Math.sqrt(1 - this.#keep ** 2);
    this.value = start ?? random.normal() * sigma;
  }

  step(): number {
    this.value = this.#keep * this.value + this.#kick * this.#sigma * this.#random.normal();
    return this.value;
  }
}

/**
 * A bias that walks from 0 by `density` * sqrt(t) and forgets after `correlationS`, when it has the deviation
 * density * sqrt(correlationS / 2).
 */
export const walk = (random: Random, density: number, correlationS: number, stepS: number): GaussMarkov =>
  new GaussMarkov(random, density * Math.sqrt(correlationS / 2), correlationS, stepS, 0);
