/** A battery that lasts a set time of hover, drained in proportion to the throttles. */
import type { Parameters } from '#device-sim/parameters.ts';

export class Battery {
  /** 0 to 100. An empty one is reported and still flies: what to do then is the app's to decide. */
  percent = 100;
  readonly #percentPerThrottleS: number;
  readonly #volts: (percent: number) => number;

  constructor(p: Parameters) {
    const hover = (p.massKg * p.gravityMS2) / p.thrustN;
    this.#percentPerThrottleS = 100 / (p.battery.capacityS * hover);
    const { fullV, emptyV } = p.battery;
    this.#volts = (percent) => emptyV + ((fullV - emptyV) * percent) / 100;
  }

  get volts(): number {
    return this.#volts(this.percent);
  }

  drain(throttles: Float64Array, dtS: number): void {
    const sum =
      (throttles[0] as number) +
      (throttles[1] as number) +
      (throttles[2] as number) +
      (throttles[3] as number);
    this.percent = Math.max(0, this.percent - this.#percentPerThrottleS * sum * dtS);
  }
}
