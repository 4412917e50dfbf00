/**
 * What the board knows of the true state: IMU samples with noise and bias, barometer, GPS, and its estimator's outcome.
 *
 * Invariant: all chance comes from the seed, in the order of the calls; one call a cycle of the board.
 */

import { Barometer } from '#device-sim/barometer.ts';
import { Gps } from '#device-sim/gps.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { GaussMarkov, walk } from '#device-sim/noise.ts';
import type { Parameters } from '#device-sim/parameters.ts';
import { type Air, AT, STILL_AIR, type State, specificForce, toBody } from '#device-sim/physics.ts';
import type { Random } from '#device-sim/random.ts';

const SAMPLE_S = LIMITS.tickUs / 1e6;
const AXES = [0, 1, 2] as const;

export class Sensors {
  readonly #p: Parameters;
  readonly #random: Random;
  readonly #gyroSigma: number;
  readonly #accelerometerSigma: number;
  readonly #gyroBias = new Float64Array(3);
  readonly #accelerometerBias = new Float64Array(3);
  readonly #gyroWalk: readonly GaussMarkov[];
  readonly #accelerometerWalk: readonly GaussMarkov[];
  /** Of the estimated roll, pitch and yaw, rad. */
  readonly #wander: readonly GaussMarkov[];
  readonly #vector = new Float64Array(3);
  #samples = 0;

  readonly accelerometer = new Float64Array(3);
  readonly gyro = new Float64Array(3);
  readonly magnetometer = new Float64Array(3);
  readonly attitude = new Float64Array(4);
  readonly position = new Float64Array(3);
  readonly velocity = new Float64Array(3);
  readonly barometer: Barometer;
  readonly gps: Gps;
  /** Whether the last sample brought a new `gps.fix`. */
  hasNewFix = false;

  constructor(parameters: Parameters, random: Random) {
    this.#p = parameters;
    this.#random = random;
    const s = parameters.sensors;
    const bandwidth = Math.sqrt(1 / SAMPLE_S / 2);
    this.#gyroSigma = s.gyroRadSPerSqrtHz * bandwidth;
    this.#accelerometerSigma = s.accelerometerMS2PerSqrtHz * bandwidth;
    for (const axis of AXES) {
      this.#gyroBias[axis] = random.normal() * s.gyroBiasRadS;
      this.#accelerometerBias[axis] = random.normal() * s.accelerometerBiasMS2;
    }
    this.#gyroWalk = AXES.map(() => walk(random, s.gyroWalkRadSPerSqrtS, s.gyroWalkS, SAMPLE_S));
    this.#accelerometerWalk = AXES.map(() =>
      walk(random, s.accelerometerWalkMS2PerSqrtS, s.accelerometerWalkS, SAMPLE_S),
    );
    this.#wander = AXES.map(() => new GaussMarkov(random, s.attitudeErrorRad, s.wanderS, SAMPLE_S));
    this.barometer = new Barometer(s.barometer, random, SAMPLE_S);
    this.gps = new Gps(s.gps, random, SAMPLE_S);
  }

  /** Takes one sample of everything into the fields above. */
  sample(state: State, air: Air = STILL_AIR): void {
    const { x } = state;
    const s = this.#p.sensors;
    const random = this.#random;
    this.#samples += 1;
    this.hasNewFix = this.gps.sample(this.#samples * LIMITS.tickUs, x);
    this.barometer.sample(-(x[AT.position + 2] as number));
    specificForce(state, this.#p, this.#vector, air);
    toBody(x, s.fieldGauss[0], s.fieldGauss[1], s.fieldGauss[2], this.magnetometer);
    for (let at = 0; at < 3; at += 1) {
      this.accelerometer[at] =
        (this.#vector[at] as number) +
        (this.#accelerometerBias[at] as number) +
        (this.#accelerometerWalk[at] as GaussMarkov).step() +
        this.#accelerometerSigma * random.normal();
      this.gyro[at] =
        (x[AT.rates + at] as number) +
        (this.#gyroBias[at] as number) +
        (this.#gyroWalk[at] as GaussMarkov).step() +
        this.#gyroSigma * random.normal();
      this.magnetometer[at] = (this.magnetometer[at] as number) + s.magnetometerNoiseGauss * random.normal();
      // The estimator knows the receiver's latency and bridges it with the IMU: what is left is the fix's own error.
      this.position[at] = (x[AT.position + at] as number) + (this.gps.error[at] as number);
      this.velocity[at] = (x[AT.velocity + at] as number) + s.velocityNoiseMS * random.normal();
      (this.#wander[at] as GaussMarkov).step();
    }
    this.#estimateAttitude(x);
  }

  get pressureHPa(): number {
    return this.barometer.hPa;
  }

  get pressureAltitudeM(): number {
    return this.barometer.heightM;
  }

  /** The true attitude, turned by the small error: q * (1, e / 2). */
  #estimateAttitude(x: Float64Array): void {
    const w = x[6] as number;
    const i = x[7] as number;
    const j = x[8] as number;
    const k = x[9] as number;
    const a = (this.#wander[0] as GaussMarkov).value / 2;
    const b = (this.#wander[1] as GaussMarkov).value / 2;
    const c = (this.#wander[2] as GaussMarkov).value / 2;
    const out = this.attitude;
    out[0] = w - i * a - j * b - k * c;
    out[1] = i + w * a + j * c - k * b;
    out[2] = j + w * b + k * a - i * c;
    out[3] = k + w * c + i * b - j * a;
    const norm = Math.hypot(out[0], out[1], out[2], out[3]);
    for (let n = 0; n < 4; n += 1) out[n] = (out[n] as number) / norm;
  }
}
