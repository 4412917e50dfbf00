/**
 * What the board knows of the true state: IMU samples with noise and bias, and its estimator's outcome.
 *
 * Invariant: all chance comes from the seed, in the order of the calls.
 */

import { LIMITS } from '#device-sim/limits.ts';
import type { Parameters } from '#device-sim/parameters.ts';
import { AT, type State, specificForce, toBody } from '#device-sim/physics.ts';
import type { Random } from '#device-sim/random.ts';

const SAMPLE_HZ = 1e6 / LIMITS.tickUs;

export class Sensors {
  readonly #p: Parameters;
  readonly #random: Random;
  readonly #gyroSigma: number;
  readonly #accelerometerSigma: number;
  readonly #gyroBias = new Float64Array(3);
  readonly #accelerometerBias = new Float64Array(3);
  /** Gauss-Markov: roll, pitch, yaw (rad), north, east, down (m). */
  readonly #wander = new Float64Array(6);
  readonly #keep: number;
  readonly #kick: number;
  readonly #vector = new Float64Array(3);

  readonly accelerometer = new Float64Array(3);
  readonly gyro = new Float64Array(3);
  readonly magnetometer = new Float64Array(3);
  readonly attitude = new Float64Array(4);
  readonly position = new Float64Array(3);
  readonly velocity = new Float64Array(3);
  pressureHPa = 0;
  pressureAltitudeM = 0;

  constructor(parameters: Parameters, random: Random) {
    this.#p = parameters;
    this.#random = random;
    const s = parameters.sensors;
    const bandwidth = Math.sqrt(SAMPLE_HZ / 2);
    this.#gyroSigma = s.gyroRadSPerSqrtHz * bandwidth;
    this.#accelerometerSigma = s.accelerometerMS2PerSqrtHz * bandwidth;
    for (let axis = 0; axis < 3; axis += 1) {
      this.#gyroBias[axis] = random.normal() * s.gyroBiasRadS;
      this.#accelerometerBias[axis] = random.normal() * s.accelerometerBiasMS2;
    }
    this.#keep = Math.exp(-1 / (SAMPLE_HZ * s.wanderS));
    this.#kick = Math.sqrt(1 - this.#keep ** 2);
    for (let i = 0; i < 6; i += 1) this.#wander[i] = random.normal() * this.#wanderSigma(i);
  }

  /** Takes one sample of everything into the fields above. */
  sample(state: State): void {
    const { x } = state;
    const s = this.#p.sensors;
    const random = this.#random;
    for (let i = 0; i < 6; i += 1) {
      const kick = this.#kick * random.normal() * this.#wanderSigma(i);
      this.#wander[i] = this.#keep * (this.#wander[i] as number) + kick;
    }
    specificForce(state, this.#p, this.#vector);
    toBody(x, ...s.fieldGauss, this.magnetometer);
    for (let at = 0; at < 3; at += 1) {
      this.accelerometer[at] =
        (this.#vector[at] as number) +
        (this.#accelerometerBias[at] as number) +
        this.#accelerometerSigma * random.normal();
      this.gyro[at] =
        (x[AT.rates + at] as number) + (this.#gyroBias[at] as number) + this.#gyroSigma * random.normal();
      this.magnetometer[at] = (this.magnetometer[at] as number) + s.magnetometerNoiseGauss * random.normal();
      this.position[at] = (x[AT.position + at] as number) + (this.#wander[3 + at] as number);
      this.velocity[at] = (x[AT.velocity + at] as number) + s.velocityNoiseMS * random.normal();
    }
    this.#estimateAttitude(x);
    // Near the ground 1 hPa is 8.4 m (standard atmosphere, linearised).
    const height = -(x[AT.position + 2] as number);
    this.pressureHPa = s.groundPressureHPa - height / 8.4 + s.pressureNoiseHPa * random.normal();
    this.pressureAltitudeM = (s.groundPressureHPa - this.pressureHPa) * 8.4;
  }

  #wanderSigma(index: number): number {
    return index < 3 ? this.#p.sensors.attitudeErrorRad : this.#p.sensors.positionErrorM;
  }

  /** The true attitude, turned by the small error: q * (1, e / 2). */
  #estimateAttitude(x: Float64Array): void {
    const w = x[6] as number;
    const i = x[7] as number;
    const j = x[8] as number;
    const k = x[9] as number;
    const a = (this.#wander[0] as number) / 2;
    const b = (this.#wander[1] as number) / 2;
    const c = (this.#wander[2] as number) / 2;
    const out = this.attitude;
    out[0] = w - i * a - j * b - k * c;
    out[1] = i + w * a + j * c - k * b;
    out[2] = j + w * b + k * a - i * c;
    out[3] = k + w * c + i * b - j * a;
    const norm = Math.hypot(out[0], out[1], out[2], out[3]);
    for (let n = 0; n < 4; n += 1) out[n] = (out[n] as number) / norm;
  }
}
