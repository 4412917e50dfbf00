/**
 * Moving air: a steady wind, Dryden turbulence on it, and discrete gusts that come by chance.
 *
 * Invariant: all chance comes from the seed, and each step's filter is exact for its length, so the variance does not
 * depend on the step. Turbulence: MIL-F-8785C, 3.7.3 (low altitude, below 1,000 ft) in its own axes: along the mean
 * wind, across it, vertical. No object is made per step, and still air costs nothing.
 */
import { Random } from '#device-sim/random.ts';

export const TURBULENCE = ['none', 'light', 'moderate', 'severe'] as const;
export type Turbulence = (typeof TURBULENCE)[number];

export interface WindOptions {
  readonly speedMS: number;
  /** Where it comes from, degrees from north, clockwise, as a weather report says it. */
  readonly fromDeg: number;
  readonly turbulence: Turbulence;
  /** Added at the top of a gust; 0: no gusts. */
  readonly gustMS: number;
}

export const CALM: WindOptions = { speedMS: 0, fromDeg: 0, turbulence: 'none', gustMS: 0 };

const KNOT_MS = 1852 / 3600;
const FOOT_M = 0.3048;
/** Wind at 20 ft by severity, which the intensity follows from: 15, 30 and 45 kt (MIL-F-8785C, figure 9). */
const AT_20_FT_KT: Record<Turbulence, number> = { none: 0, light: 15, moderate: 30, severe: 45 };
/** The model holds from 10 ft to 1,000 ft; outside, its ends. */
const HEIGHT_FT = { min: 10, max: 1_000 } as const;
/** A drone meets the frozen field at its speed against the mean wind; where that is next to nothing, at this one. */
const FIELD_MS_MIN = 1;
/** Mean time between gusts, and how long one takes to rise and fall: 1 - cosine (MIL-F-8785C, 3.7.1.3). */
const GUST_EVERY_S = 20;
const GUST_S = 3;

/** What the specification gives for a height: scale lengths (m) and standard deviations (m/s). */
export interface DrydenField {
  horizontalM: number;
  verticalM: number;
  horizontalMS: number;
  verticalMS: number;
}

/** MIL-F-8785C, 3.7.3.4, figures 10 and 11; written into `out`. */
export const drydenField = (heightM: number, turbulence: Turbulence, out: DrydenField): void => {
  const ft = Math.min(HEIGHT_FT.max, Math.max(HEIGHT_FT.min, heightM / FOOT_M));
  const slope = 0.177 + 0.000823 * ft;
  out.verticalM = ft * FOOT_M;
  out.horizontalM = (ft / slope ** 1.2) * FOOT_M;
  out.verticalMS = 0.1 * AT_20_FT_KT[turbulence] * KNOT_MS;
  out.horizontalMS = out.verticalMS / slope ** 0.4;
};

/**
 * One axis of turbulence of unit variance, its time in units of L / V. Along the wind (MIL-F-8785C, 3.7.3.1):
 * 1 / (1 + s). Across and vertical: (1 + sqrt(3) s) / (1 + s)^2.
 */
export class DrydenAxis {
  readonly #second: boolean;
  readonly #random: Random;
  #a: number;
  #b: number;

  constructor(kind: 'along' | 'across', random: Random) {
    this.#second = kind === 'across';
    this.#random = random;
    // Stationary from the start: the covariance is [[1/2, 1/4], [1/4, 1/4]].
    this.#a = random.normal() * Math.SQRT1_2;
    this.#b = this.#second ? this.#a / 2 + random.normal() * Math.sqrt(1 / 8) : 0;
  }

  /** @param h the step, V dt / L */
  step(h: number): number {
    const keep = Math.exp(-h);
    const keep2 = keep * keep;
    const kickA = Math.sqrt((1 - keep2) / 2) * this.#random.normal();
    if (!this.#second) {
      this.#a = keep * this.#a + kickA;
      return Math.SQRT2 * this.#a;
    }
    // The noise of a step is what the stationary covariance lacks after the decay, as a Cholesky factor.
    const q11 = (1 - keep2) / 2;
    const q12 = 1 / 4 - keep2 * (h / 2 + 1 / 4);
    const q22 = 1 / 4 - keep2 * (h * h + h + 1 / 2) * (1 / 2);
    const own = Math.sqrt(Math.max(0, q22 - (q12 * q12) / q11));
    const b = keep * (this.#b + h * this.#a) + (q12 / q11) * kickA + own * this.#random.normal();
    this.#a = keep * this.#a + kickA;
    this.#b = b;
    return Math.sqrt(3) * this.#a + (1 - Math.sqrt(3)) * b;
  }
}

export class Wind {
  /** NED, m/s: where the air moves to. */
  readonly now = new Float64Array(3);
  readonly #options: WindOptions;
  readonly #random: Random;
  readonly #along: DrydenAxis;
  readonly #across: DrydenAxis;
  readonly #vertical: DrydenAxis;
  readonly #field: DrydenField = { horizontalM: 1, verticalM: 1, horizontalMS: 0, verticalMS: 0 };
  readonly #north: number;
  readonly #east: number;
  readonly #still: boolean;
  /** Since the last gust began; above its length: none. */
  #gustS = GUST_S;

  constructor(options: WindOptions, seed: number) {
    this.#options = options;
    // A stream of its own: the sensors' noise is the same with and without wind.
    this.#random = new Random(seed, 2);
    this.#along = new DrydenAxis('along', this.#random);
    this.#across = new DrydenAxis('across', this.#random);
    this.#vertical = new DrydenAxis('across', this.#random);
    const to = ((options.fromDeg + 180) * Math.PI) / 180;
    this.#north = Math.cos(to);
    this.#east = Math.sin(to);
    this.#still = options.turbulence === 'none' && options.gustMS === 0;
    this.#put(options.speedMS, 0, 0);
  }

  /** @param heightM above the ground; @param north of the drone, as `east`, m/s: the faster it meets the field, the faster it changes */
  step(dtS: number, heightM: number, north = 0, east = 0): void {
    if (this.#still) return;
    const { speedMS, turbulence } = this.#options;
    let along = speedMS + this.#gust(dtS);
    let across = 0;
    let down = 0;
    if (turbulence !== 'none') {
      const field = this.#field;
      drydenField(heightM, turbulence, field);
      const meetsN = north - speedMS * this.#north;
      const meetsE = east - speedMS * this.#east;
      const path = Math.max(FIELD_MS_MIN, Math.sqrt(meetsN * meetsN + meetsE * meetsE)) * dtS;
      along += field.horizontalMS * this.#along.step(path / field.horizontalM);
      across = field.horizontalMS * this.#across.step(path / field.horizontalM);
      down = field.verticalMS * this.#vertical.step(path / field.verticalM);
    }
    this.#put(along, across, down);
  }

  #gust(dtS: number): number {
    const { gustMS } = this.#options;
    if (gustMS === 0) return 0;
    this.#gustS += dtS;
    if (this.#gustS >= GUST_S) {
      if (this.#random.uniform() >= dtS / GUST_EVERY_S) return 0;
      this.#gustS = 0;
    }
    return (gustMS / 2) * (1 - Math.cos((2 * Math.PI * this.#gustS) / GUST_S));
  }

  #put(along: number, across: number, down: number): void {
    this.now[0] = along * this.#north - across * this.#east;
    this.now[1] = along * this.#east + across * this.#north;
    this.now[2] = down;
  }
}
