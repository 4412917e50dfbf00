/**
 * A lithium polymer battery under the motors' load: charge, voltage, current, and the thrust that is left.
 *
 * Invariant: charge is the integral of the current, and nothing else moves it but a test that sets it. The voltage is
 * the open-circuit one less current times resistance; at a full charge under hover the supply is 1, so that the
 * published thrust is what flies at the start. Nothing is allocated per step.
 */
import type { BatteryParameters, Parameters } from '#device-sim/parameters.ts';
import { hoverThrottle, shareOf } from '#device-sim/physics.ts';

/**
 * Of one cell, V, by the charge left (0 to 1): M. Chen and G. A. Rincón-Mora, "Accurate electrical battery model capable
 * of predicting runtime and I-V performance", IEEE Trans. Energy Conversion 21(2), 2006, equation 2.
 */
export const openCircuitV = (charge: number): number =>
  -1.031 * Math.exp(-35 * charge) + 3.685 + charge * (0.2156 + charge * (-0.1178 + charge * 0.3201));

/** Mean of that curve over a discharge: what a cell's charge is worth. */
const MEAN_V = 3.685 + 0.2156 / 2 - 0.1178 / 3 + 0.3201 / 4 - 1.031 / 35;
/** The cell's chemistry follows its charge with a lag. No real charge jumps; where a test makes one, the voltage does not. */
const RELAX_S = 10;

/**
 * Current at which a source gives this power: the smaller root of P = I (U - R I), and where there is none, the most it
 * can give.
 */
export const currentA = (openV: number, resistanceOhm: number, powerW: number): number => {
  if (resistanceOhm === 0) return powerW / openV;
  const root = openV * openV - 4 * resistanceOhm * powerW;
  return (openV - Math.sqrt(Math.max(0, root))) / (2 * resistanceOhm);
};

export class Battery {
  readonly #p: Parameters;
  readonly #battery: BatteryParameters;
  /** Of one motor at full nominal thrust, W. Induced power goes with the thrust's power of 1.5 (momentum theory). */
  readonly #motorW: number;
  /** Terminal voltage at which `supply` is 1. */
  readonly #nominalV: number;
  #charge = 1;
  #openV: number;
  #volts: number;
  #amps = 0;
  /** Thrust that the voltage leaves, as a share of the nominal: a rotor's speed goes with the voltage, thrust with its square. */
  supply = 1;

  constructor(p: Parameters) {
    this.#p = p;
    this.#battery = p.battery;
    const { cells, capacityAh, resistanceOhm, hoverS } = p.battery;
    const hoverW = (capacityAh * 3_600 * cells * MEAN_V) / hoverS;
    this.#motorW = hoverW / (4 * hoverThrottle(p) ** 1.5);
    this.#openV = cells * openCircuitV(1);
    this.#nominalV = this.#openV - resistanceOhm * currentA(this.#openV, resistanceOhm, hoverW);
    this.#volts = this.#openV;
    this.#settle();
  }

  /** 0 to 100. An empty one is reported and still flies, weakly: what to do then is the app's to decide. */
  get percent(): number {
    return this.#charge * 100;
  }

  set percent(percent: number) {
    this.#charge = Math.min(1, Math.max(0, percent / 100));
  }

  /** At the terminals, under load. */
  get volts(): number {
    return this.#volts;
  }

  get amps(): number {
    return this.#amps;
  }

  /** @param x the drone's state, whose motors take the power */
  drain(x: Float64Array, dtS: number): void {
    const { cells, capacityAh, resistanceOhm } = this.#battery;
    let load = 0;
    for (let motor = 13; motor < 17; motor += 1) {
      const share = shareOf(x[motor] as number, this.#p) * this.supply;
      load += share * Math.sqrt(share);
    }
    const goalV = cells * openCircuitV(this.#charge);
    this.#openV += (goalV - this.#openV) * Math.min(1, dtS / RELAX_S);
    this.#amps = currentA(this.#openV, resistanceOhm, load * this.#motorW);
    this.#volts = this.#openV - resistanceOhm * this.#amps;
    this.#charge = Math.max(0, this.#charge - (this.#amps * dtS) / (capacityAh * 3_600));
    this.#settle();
  }

  #settle(): void {
    this.supply = (this.#volts / this.#nominalV) ** 2;
  }
}
