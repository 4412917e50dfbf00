/**
 * What acts on the drone besides its commands: the wind around it and the battery that feeds it.
 *
 * Invariant: stepped beside the physics, once a step, and read by it in between; the battery every step, the wind, which
 * is slower, every cycle of the board.
 */
import { Battery } from '#device-sim/battery.ts';
import { assertPossible } from '#device-sim/check-parameters.ts';
import { LIMITS } from '#device-sim/limits.ts';
import type { Parameters } from '#device-sim/parameters.ts';
import { type Air, AT, type State } from '#device-sim/physics.ts';
import { CALM, Wind, type WindOptions } from '#device-sim/wind.ts';

const TICK_S = LIMITS.tickUs / 1e6;

export class Surroundings implements Air {
  readonly battery: Battery;
  readonly wind: Float64Array;
  readonly #wind: Wind;
  #sinceS = 0;

  /** @throws SimError `IMPOSSIBLE_PARAMETERS`: the first that is made of them asks */
  constructor(parameters: Parameters, seed: number, wind: WindOptions = CALM) {
    assertPossible(parameters);
    this.battery = new Battery(parameters);
    this.#wind = new Wind(wind, seed);
    this.wind = this.#wind.now;
  }

  get supply(): number {
    return this.battery.supply;
  }

  /** After the physics made a step of this length. */
  step({ x }: State, dtS: number): void {
    this.battery.drain(x, dtS);
    this.#sinceS += dtS;
    if (this.#sinceS < TICK_S * (1 - 1e-9)) return;
    const height = -(x[AT.position + 2] as number);
    this.#wind.step(this.#sinceS, height, x[AT.velocity] as number, x[AT.velocity + 1] as number);
    this.#sinceS = 0;
  }
}
