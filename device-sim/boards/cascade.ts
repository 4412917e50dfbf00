/**
 * The inner loops of a board that flies by itself: position (P), velocity (PI), attitude (P on the reduced attitude),
 * rates (PID), mixer, one above the other.
 *
 * The structure is PX4's, as published (docs.px4.io, Controller Diagrams; src/modules/mc_pos_control/PositionControl,
 * mc_att_control/AttitudeControl, lib/rate_control): what is not controlled is NaN, height comes before sideways, the
 * tilt before the heading. The gains of the two inner loops follow from the airframe's motors, so that any parameter set
 * flies; the outer ones are the profile's.
 *
 * Invariant: uses only what a board has (its estimate and the airframe's numbers); one call is one cycle of 4 ms.
 */
import {
  attitudeOf,
  between,
  canonical,
  clamp,
  conjugate,
  downOf,
  multiply,
  ofAxis,
  type Quaternion,
  type Vector,
  verticalIn,
  yawOf,
} from '#device-sim/boards/rotation.ts';
import { LIMITS } from '#device-sim/limits.ts';
import type { Parameters } from '#device-sim/parameters.ts';
import { PITCH, ROLL, YAW } from '#device-sim/physics.ts';
import type { Sensors } from '#device-sim/sensors.ts';

export interface Gains {
  /** 1/s. */
  readonly position: { readonly xy: number; readonly z: number };
  /** 1/s, and 1/s^2 of its integral. */
  readonly velocity: { readonly xy: number; readonly z: number };
  readonly velocityIntegral: { readonly xy: number; readonly z: number };
  readonly speedMS: { readonly xy: number; readonly up: number; readonly down: number };
  /** A position is approached no faster than this can brake; Infinity: as the gain says. */
  readonly brakeMS2: { readonly xy: number; readonly z: number };
  readonly tiltRadMax: number;
  /** 1/s: roll and pitch, yaw; less on an airframe whose motors are too slow for it. */
  readonly attitude: { readonly tilt: number; readonly yaw: number };
  readonly rateRadSMax: Vector;
}

/** Where to, how fast, how hard (NED); NaN is not controlled. Heading: NaN holds the present one. */
export interface Move {
  readonly position: Vector;
  readonly velocity: Vector;
  readonly acceleration: Vector;
  readonly yawRad: number;
  readonly yawRateRadS: number;
}

const DT_S = LIMITS.tickUs / 1e6;
/** Heading counts this much beside the tilt (MC_YAW_WEIGHT). */
const YAW_WEIGHT = 0.4;
/**
 * The rate loop's gain in parts of the motors' time constant (damping 0.6 with the D term beside it), and what 250 Hz
 * allow at most, 1/s. On PX4's own airframe (SIH) that is MC_ROLLRATE_P, 0.15, in other units.
 */
const RATE_PER_TAU = { tilt: 0.85, yaw: 0.4, integral: 0.6, derivative: 0.3 };
const RATE_GAIN_MAX = { tilt: 30, yaw: 12 };
/** The attitude's gain stays so far below it (6.5 and 17 on SIH), however slow the motors are. */
const ATTITUDE_PER_RATE = 1 / 2.6;
const RATE_INTEGRAL_RAD_S2_MAX: Vector = [6, 6, 2];
/** Low-pass of the rates' derivative (IMU_DGYRO_CUTOFF, 30 Hz). */
const DERIVATIVE_SHARE = DT_S / (DT_S + 1 / (2 * Math.PI * 30));
/** The least upward force, as a share of gravity, however fast the descent that is wanted (as MPC_THR_MIN does). */
const LIFT_MIN = 0.25;
const YAW_SHARE_MAX = 0.15;

export class Cascade {
  readonly #p: Parameters;
  readonly #gains: Gains;
  readonly #out: Float64Array;
  /** 1/s, by axis. */
  readonly #rateGain: Vector;
  readonly #attitudeGain: Vector;
  readonly #velocityIntegral = [0, 0, 0];
  readonly #rateIntegral = [0, 0, 0];
  readonly #rateBefore = [0, 0, 0];
  readonly #derivative = [0, 0, 0];
  #yawRad = Number.NaN;
  /** The last force asked for more tilt than there may be: what pushes farther is not learned. */
  #isLeaning = false;

  /** @param out throttles of the four motors, 0 to 1 */
  constructor(parameters: Parameters, gains: Gains, out: Float64Array) {
    this.#p = parameters;
    this.#gains = gains;
    this.#out = out;
    const { motorTauS: tau } = parameters;
    const tilt = Math.min(RATE_GAIN_MAX.tilt, RATE_PER_TAU.tilt / tau);
    const yaw = Math.min(RATE_GAIN_MAX.yaw, RATE_PER_TAU.yaw / tau);
    this.#rateGain = [tilt, tilt, yaw];
    const { attitude } = gains;
    const lean = Math.min(attitude.tilt, tilt * ATTITUDE_PER_RATE);
    this.#attitudeGain = [lean, lean, Math.min(attitude.yaw, yaw * ATTITUDE_PER_RATE)];
  }

  /** The heading that is held. */
  get yawRad(): number {
    return this.#yawRad;
  }

  /** On the ground: motors turn slowly, and nothing is learned. */
  idle(sensors: Sensors, throttle: number): void {
    this.#velocityIntegral.fill(0);
    this.#rateIntegral.fill(0);
    this.#derivative.fill(0);
    this.#yawRad = yawOf(estimateOf(sensors));
    this.#out.fill(throttle);
  }

  move(sensors: Sensors, target: Move): void {
    this.#turn(sensors, target.yawRad, target.yawRateRadS);
    const acceleration = this.#accelerate(sensors, target);
    const { gravityMS2, massKg } = this.#p;
    const up = Math.max(LIFT_MIN * gravityMS2, gravityMS2 - acceleration[2]);
    const level = Math.hypot(acceleration[0], acceleration[1]);
    const shorten = Math.min(1, (up * Math.tan(this.#gains.tiltRadMax)) / Math.max(level, 1e-9));
    this.#isLeaning = shorten < 1;
    const force: Vector = [acceleration[0] * shorten, acceleration[1] * shorten, -up];
    const size = Math.hypot(...force);
    const down: Vector = [-force[0] / size, -force[1] / size, -force[2] / size];
    const yawRate = Number.isNaN(target.yawRateRadS) ? 0 : target.yawRateRadS;
    this.#point(sensors, attitudeOf(down, this.#yawRad), [0, 0, yawRate], this.#share(massKg * size));
  }

  /** @param rates added to what the attitude's error asks for, rad/s, body @param thrust of all motors, 0 to 1 */
  attitude(sensors: Sensors, q: Quaternion, rates: Vector, thrust: number): void {
    this.#yawRad = yawOf(q);
    this.#turnTo(sensors, q, rates, thrust);
  }

  /** An attitude, with the height kept by the board. @param zM where to be, @param downMS how fast it moves */
  attitudeAtHeight(sensors: Sensors, q: Quaternion, rates: Vector, zM: number, downMS: number): void {
    this.#yawRad = yawOf(q);
    const free = Number.NaN;
    const acceleration = this.#accelerate(sensors, {
      position: [free, free, zM],
      velocity: [free, free, downMS],
      acceleration: [free, free, free],
      yawRad: free,
      yawRateRadS: free,
    });
    const { gravityMS2, massKg } = this.#p;
    const lift = massKg * Math.max(LIFT_MIN * gravityMS2, gravityMS2 - acceleration[2]);
    const upright = Math.max(0.3, downOf(estimateOf(sensors))[2]);
    this.#turnTo(sensors, q, rates, this.#share(lift / upright));
  }

  rates(sensors: Sensors, wanted: Vector, thrust: number): void {
    const { gyro } = sensors;
    const tau = this.#p.motorTauS;
    const turn = [0, 0, 0];
    for (let axis = 0; axis < 3; axis += 1) {
      const rate = gyro[axis] as number;
      const gain = this.#rateGain[axis] as number;
      const limit = RATE_INTEGRAL_RAD_S2_MAX[axis] as number;
      const error = (wanted[axis] as number) - rate;
      const slope = (rate - (this.#rateBefore[axis] as number)) / DT_S;
      const smooth = this.#derivative[axis] as number;
      this.#derivative[axis] = smooth + DERIVATIVE_SHARE * (slope - smooth);
      this.#rateBefore[axis] = rate;
      const grown = (this.#rateIntegral[axis] as number) + RATE_PER_TAU.integral * gain * error * DT_S;
      this.#rateIntegral[axis] = clamp(grown, -limit, limit);
      const brake =
        axis === 2 ? 0 : RATE_PER_TAU.derivative * tau * gain * (this.#derivative[axis] as number);
      turn[axis] = gain * error + (this.#rateIntegral[axis] as number) - brake;
    }
    this.#mix(turn as unknown as Vector, thrust);
  }

  #turn(sensors: Sensors, yawRad: number, yawRateRadS: number): void {
    if (!Number.isNaN(yawRad)) this.#yawRad = yawRad;
    else if (Number.isNaN(this.#yawRad)) this.#yawRad = yawOf(estimateOf(sensors));
    else if (!Number.isNaN(yawRateRadS)) this.#yawRad += yawRateRadS * DT_S;
  }

  #accelerate({ position, velocity }: Sensors, target: Move): Vector {
    const { position: gain, velocity: velocityGain, velocityIntegral, speedMS, brakeMS2 } = this.#gains;
    const pick = <T>(pair: { readonly xy: T; readonly z: T }, axis: number): T =>
      axis === 2 ? pair.z : pair.xy;
    const speed = [0, 1, 2].map((axis) => {
      const goal = target.position[axis] as number;
      const wanted = target.velocity[axis] as number;
      if (Number.isNaN(goal)) return wanted;
      const approach = approachMS(goal - (position[axis] as number), pick(gain, axis), pick(brakeMS2, axis));
      return approach + (Number.isNaN(wanted) ? 0 : wanted);
    }) as [number, number, number];
    const level = Math.hypot(speed[0], speed[1]);
    if (level > speedMS.xy) {
      speed[0] *= speedMS.xy / level;
      speed[1] *= speedMS.xy / level;
    }
    speed[2] = clamp(speed[2], -speedMS.up, speedMS.down);
    return speed.map((wanted, axis) => {
      const given = target.acceleration[axis] as number;
      const forward = Number.isNaN(given) ? 0 : given;
      if (Number.isNaN(wanted)) return forward;
      const error = wanted - (velocity[axis] as number);
      const learned = this.#velocityIntegral[axis] as number;
      const blocked = this.#isLeaning && axis !== 2 && learned * error > 0;
      const grown = blocked ? learned : learned + pick(velocityIntegral, axis) * error * DT_S;
      const limit = this.#p.gravityMS2;
      this.#velocityIntegral[axis] = clamp(grown, -limit, limit);
      return pick(velocityGain, axis) * error + (this.#velocityIntegral[axis] as number) + forward;
    }) as unknown as Vector;
  }

  /** `ahead`: how fast the heading turns, about the world's vertical. */
  #point(sensors: Sensors, q: Quaternion, ahead: Vector, thrust: number): void {
    const vertical = verticalIn(estimateOf(sensors));
    const rates = vertical.map((part) => part * ahead[2]) as unknown as Vector;
    this.#turnTo(sensors, q, rates, thrust);
  }

  /** First the tilt, by the shortest way; the heading with less weight (AttitudeControl.cpp). */
  #turnTo(sensors: Sensors, wanted: Quaternion, ahead: Vector, thrust: number): void {
    const q = estimateOf(sensors);
    const reduced = multiply(between(downOf(q), downOf(wanted)), q);
    const about = canonical(multiply(conjugate(reduced), wanted));
    const twist = 2 * Math.atan2(about[3], about[0]);
    const target = multiply(reduced, ofAxis([0, 0, 1], YAW_WEIGHT * twist));
    const error = canonical(multiply(conjugate(q), target));
    const { rateRadSMax } = this.#gains;
    const rates = this.#attitudeGain.map((gain, axis) => {
      const max = rateRadSMax[axis] as number;
      const share = axis === 2 ? YAW_WEIGHT : 1;
      return clamp(((2 * gain) / share) * (error[axis + 1] as number) + (ahead[axis] as number), -max, max);
    });
    this.rates(sensors, rates as unknown as Vector, thrust);
  }

  /** Of all motors together, 0 to 1. */
  #share(forceN: number): number {
    return forceN / (4 * this.#p.thrustN);
  }

  /** What does not fit is given up in the order yaw, thrust, tilt. At no thrust nothing turns (MC_AIRMODE 0). */
  #mix(turn: Vector, thrust: number): void {
    const { inertiaKgM2, armM, thrustN, torqueNm } = this.#p;
    let roll = (inertiaKgM2[0] * turn[0]) / (4 * armM.roll * thrustN);
    let pitch = (inertiaKgM2[1] * turn[1]) / (4 * armM.pitch * thrustN);
    const lift = clamp(thrust, 0, 1);
    const room = Math.min(0.5, lift);
    const tilt = Math.abs(roll) + Math.abs(pitch);
    if (tilt > room) {
      roll *= room / tilt;
      pitch *= room / tilt;
    }
    const used = Math.min(tilt, room);
    const base = Math.min(lift, 1 - used);
    const left = Math.min(base - used, 1 - base - used, YAW_SHARE_MAX);
    const yaw = clamp((inertiaKgM2[2] * turn[2]) / (4 * torqueNm), -left, left);
    for (let motor = 0; motor < 4; motor += 1) {
      const turns = (ROLL[motor] as number) * roll + (PITCH[motor] as number) * pitch;
      this.#out[motor] = clamp(base + turns + (YAW[motor] as number) * yaw, 0, 1);
    }
  }
}

const estimateOf = ({ attitude }: Sensors): Quaternion => attitude as unknown as Quaternion;

/** In proportion near the goal; farther off by the root, so that `brakeMS2` is enough to stop there. */
const approachMS = (distanceM: number, gain: number, brakeMS2: number): number => {
  const linearM = brakeMS2 / gain ** 2;
  const far = Math.abs(distanceM);
  if (far <= linearM) return gain * distanceM;
  return Math.sign(distanceM) * Math.sqrt(2 * brakeMS2 * (far - linearM / 2));
};
