/**
 * A barometer: the standard atmosphere above the ground, white noise, and a drift that weather and temperature make.
 *
 * Invariant: all chance is the given `Random`'s, in the order of the calls.
 */
import { GaussMarkov } from '#device-sim/noise.ts';
import type { BarometerParameters } from '#device-sim/parameters.ts';
import type { Random } from '#device-sim/random.ts';

/** ISO 2533: temperature at sea level, lapse rate, and g M / (R L). */
const SEA_K = 288.15;
const LAPSE_K_PER_M = 0.0065;
const EXPONENT = 5.25588;
const SEA_HPA = 1013.25;

/** Altitude above sea level at which the standard atmosphere has this pressure. */
export const altitudeM = (hPa: number): number =>
  (SEA_K / LAPSE_K_PER_M) * (1 - (hPa / SEA_HPA) ** (1 / EXPONENT));

export class Barometer {
  readonly #p: BarometerParameters;
  readonly #random: Random;
  readonly #drift: GaussMarkov;
  readonly #groundM: number;
  readonly #groundK: number;
  hPa: number;
  /** Above the place of the take-off, as the pressure says it. */
  heightM = 0;

  constructor(parameters: BarometerParameters, random: Random, stepS: number) {
    this.#p = parameters;
    this.#random = random;
    // From 0: the board takes the pressure at power-on as that of the ground.
    this.#drift = new GaussMarkov(random, parameters.driftHPa, parameters.driftS, stepS, 0);
    this.#groundM = altitudeM(parameters.groundPressureHPa);
    this.#groundK = SEA_K - LAPSE_K_PER_M * this.#groundM;
    this.hPa = parameters.groundPressureHPa;
  }

  /** @param heightM above the ground, the true one */
  sample(heightM: number): void {
    const { groundPressureHPa, noiseHPa } = this.#p;
    const expected = groundPressureHPa * (1 - (LAPSE_K_PER_M * heightM) / this.#groundK) ** EXPONENT;
    this.hPa = expected + this.#drift.step() + noiseHPa * this.#random.normal();
    this.heightM = altitudeM(this.hPa) - this.#groundM;
  }
}
