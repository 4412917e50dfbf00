/**
 * A rigid body with four rotors: six degrees of freedom, NED and FRD, fourth-order Runge-Kutta.
 *
 * Invariant: no clock, no chance, no I/O: the same state, throttles and dt give the same next state. The state that is
 * passed in is overwritten, since a thousand new ones a second would be garbage in a loop that must not pause.
 * Motors in PX4's quad-x order: 1 front right and 2 rear left turn counter-clockwise, 3 front left and 4 rear right
 * clockwise (seen from above).
 */
import type { Parameters } from '#device-sim/parameters.ts';

/**
 * Where things are in `State.x`; SI units, quaternion w, x, y, z from body to world, motors 0 to 1: a share of full
 * thrust or of full speed, as `Parameters.motorState` says.
 */
export const AT = { position: 0, velocity: 3, attitude: 6, rates: 10, motors: 13, length: 17 } as const;

export interface State {
  readonly x: Float64Array;
  /** Resting on the plane z = 0, which carries the weight. */
  onGround: boolean;
  /** At the last contact, downwards (m/s) and from level (rad); 0 before. */
  touchdownMS: number;
  touchdownTiltRad: number;
}

/** What surrounds the drone during a step. */
export interface Air {
  /** Speed of the air, NED, m/s. */
  readonly wind: Float64Array;
  /** Thrust and torque that the battery's voltage allows, as a share of the nominal ones. */
  readonly supply: number;
}

export const STILL_AIR: Air = { wind: new Float64Array(3), supply: 1 };

/** Level, at rest, motors off. @param heightM above the ground, 0 stands on it */
export const createState = (heightM = 0): State => {
  const x = new Float64Array(AT.length);
  x[AT.position + 2] = -heightM;
  x[AT.attitude] = 1;
  return { x, onGround: heightM === 0, touchdownMS: 0, touchdownTiltRad: 0 };
};

/** How each motor's thrust rolls and pitches, and its torque yaws (PX4 sih.cpp, generate_force_and_torques). */
export const ROLL = [-1, 1, 1, -1] as const;
export const PITCH = [1, -1, 1, -1] as const;
export const YAW = [1, 1, -1, -1] as const;

/** Legs right the body, first order. */
const RIGHTING_S = 0.1;

/** Share of full thrust that a motor in this state gives. */
export const shareOf = (motor: number, p: Parameters): number =>
  p.motorState === 'speed' ? motor * motor : motor;

/** State in which a motor ends up under a throttle. */
export const motorGoal = (throttle: number, p: Parameters): number =>
  p.motorState === 'speed' ? Math.sqrt(throttle) : throttle;

/** Throttle of all four motors that carries the weight, with the battery full. */
export const hoverThrottle = (p: Parameters): number => (p.massKg * p.gravityMS2) / (4 * p.thrustN);

/** dx/dt in the air. */
const derive = (
  x: Float64Array,
  throttles: ArrayLike<number>,
  p: Parameters,
  { wind, supply }: Air,
  out: Float64Array,
): void => {
  const vx = x[3] as number;
  const vy = x[4] as number;
  const vz = x[5] as number;
  const qw = x[6] as number;
  const qx = x[7] as number;
  const qy = x[8] as number;
  const qz = x[9] as number;
  const wx = x[10] as number;
  const wy = x[11] as number;
  const wz = x[12] as number;
  const m1 = shareOf(x[13] as number, p);
  const m2 = shareOf(x[14] as number, p);
  const m3 = shareOf(x[15] as number, p);
  const m4 = shareOf(x[16] as number, p);
  const thrustN = p.thrustN * supply;

  out[0] = vx;
  out[1] = vy;
  out[2] = vz;

  // Thrust pulls along the body's -z; the third column of the rotation matrix is that axis in the world.
  const lift = (thrustN * (m1 + m2 + m3 + m4)) / p.massKg;
  const drag = p.dragNPerMS / p.massKg;
  out[3] = -lift * 2 * (qx * qz + qw * qy) - drag * (vx - (wind[0] as number));
  out[4] = -lift * 2 * (qy * qz - qw * qx) - drag * (vy - (wind[1] as number));
  out[5] = -lift * (1 - 2 * (qx * qx + qy * qy)) - drag * (vz - (wind[2] as number)) + p.gravityMS2;

  out[6] = 0.5 * (-qx * wx - qy * wy - qz * wz);
  out[7] = 0.5 * (qw * wx + qy * wz - qz * wy);
  out[8] = 0.5 * (qw * wy + qz * wx - qx * wz);
  out[9] = 0.5 * (qw * wz + qx * wy - qy * wx);

  const [ix, iy, iz] = p.inertiaKgM2;
  const k = p.angularDragNmPerRadS;
  const roll = p.armM.roll * thrustN * (-m1 + m2 + m3 - m4);
  const pitch = p.armM.pitch * thrustN * (m1 - m2 + m3 - m4);
  const yaw = p.torqueNm * supply * (m1 + m2 - m3 - m4);
  out[10] = (roll - k * wx - wy * wz * (iz - iy)) / ix;
  out[11] = (pitch - k * wy - wz * wx * (ix - iz)) / iy;
  out[12] = (yaw - k * wz - wx * wy * (iy - ix)) / iz;

  for (let motor = 0; motor < 4; motor += 1) {
    // First order never passes its goal, so which of the two times it is does not change within a step.
    const error = motorGoal(throttles[motor] as number, p) - (x[13 + motor] as number);
    out[13 + motor] = error / (error > 0 ? p.motorTauS : p.motorTauDownS);
  }
};

const k1 = new Float64Array(AT.length);
const k2 = new Float64Array(AT.length);
const k3 = new Float64Array(AT.length);
const k4 = new Float64Array(AT.length);
const between = new Float64Array(AT.length);

const along = (x: Float64Array, slope: Float64Array, dtS: number): Float64Array => {
  for (let i = 0; i < AT.length; i += 1) between[i] = (x[i] as number) + dtS * (slope[i] as number);
  return between;
};

/**
 * Overwrites `state` with the one `dtS` seconds later.
 *
 * @param throttles of the four motors, 0 to 1, held during the step
 * @param air       wind and supply, held too; still air and the nominal supply by default
 */
export const step = (
  state: State,
  throttles: ArrayLike<number>,
  dtS: number,
  p: Parameters,
  air: Air = STILL_AIR,
): void => {
  const { x } = state;
  const north = x[AT.position] as number;
  const east = x[AT.position + 1] as number;
  derive(x, throttles, p, air, k1);
  derive(along(x, k1, dtS / 2), throttles, p, air, k2);
  derive(along(x, k2, dtS / 2), throttles, p, air, k3);
  derive(along(x, k3, dtS), throttles, p, air, k4);
  for (let i = 0; i < AT.length; i += 1) {
    const slope = (k1[i] as number) + 2 * (k2[i] as number) + 2 * (k3[i] as number) + (k4[i] as number);
    x[i] = (x[i] as number) + (dtS / 6) * slope;
  }
  normalise(x);
  if ((x[AT.position + 2] as number) < 0 || (x[AT.velocity + 2] as number) < 0) {
    state.onGround = false;
    return;
  }
  if (state.onGround) {
    // No wind pushes away what stands.
    x[AT.position] = north;
    x[AT.position + 1] = east;
  }
  touch(state, dtS);
};

/** No bounce, no slipping: what touches the ground stands on its legs. */
const touch = (state: State, dtS: number): void => {
  const { x } = state;
  if (!state.onGround) {
    state.touchdownMS = x[AT.velocity + 2] as number;
    state.touchdownTiltRad = tiltRad(x);
  }
  state.onGround = true;
  x[AT.position + 2] = 0;
  x.fill(0, AT.velocity, AT.velocity + 3);
  x.fill(0, AT.rates, AT.rates + 3);
  const righting = Math.max(0, 1 - dtS / RIGHTING_S);
  x[AT.attitude + 1] = (x[AT.attitude + 1] as number) * righting;
  x[AT.attitude + 2] = (x[AT.attitude + 2] as number) * righting;
  normalise(x);
};

const normalise = (x: Float64Array): void => {
  const norm = Math.hypot(x[6] as number, x[7] as number, x[8] as number, x[9] as number);
  for (let i = AT.attitude; i < AT.rates; i += 1) x[i] = (x[i] as number) / norm;
};

/** Angle between the body's and the world's vertical, 0 to pi. */
export const tiltRad = (x: Float64Array): number => {
  const cosine = 1 - 2 * ((x[7] as number) ** 2 + (x[8] as number) ** 2);
  return Math.acos(Math.min(1, Math.max(-1, cosine)));
};

/** A world vector (n, e, d) in the body's axes, into `out`. */
export const toBody = (x: Float64Array, n: number, e: number, d: number, out: Float64Array): void => {
  const w = x[6] as number;
  const i = x[7] as number;
  const j = x[8] as number;
  const k = x[9] as number;
  out[0] = (1 - 2 * (j * j + k * k)) * n + 2 * (i * j + w * k) * e + 2 * (i * k - w * j) * d;
  out[1] = 2 * (i * j - w * k) * n + (1 - 2 * (i * i + k * k)) * e + 2 * (j * k + w * i) * d;
  out[2] = 2 * (i * k + w * j) * n + 2 * (j * k - w * i) * e + (1 - 2 * (i * i + j * j)) * d;
};

/** What an accelerometer feels, in the body's axes (m/s^2), into `out`: at rest (0, 0, -g). */
export const specificForce = (
  state: State,
  p: Parameters,
  out: Float64Array,
  { wind, supply }: Air = STILL_AIR,
): void => {
  const { x } = state;
  if (state.onGround) {
    toBody(x, 0, 0, -p.gravityMS2, out);
    return;
  }
  const drag = -p.dragNPerMS / p.massKg;
  const vx = (x[3] as number) - (wind[0] as number);
  const vy = (x[4] as number) - (wind[1] as number);
  const vz = (x[5] as number) - (wind[2] as number);
  toBody(x, drag * vx, drag * vy, drag * vz, out);
  let motors = 0;
  for (let motor = 13; motor < 17; motor += 1) motors += shareOf(x[motor] as number, p);
  out[2] = (out[2] as number) - (p.thrustN * supply * motors) / p.massKg;
};

/** Roll, pitch, yaw in degrees (Z-Y-X), for people; nothing is computed with them. */
export const eulerDeg = (w: number, x: number, y: number, z: number): [number, number, number] => {
  const deg = 180 / Math.PI;
  const sine = Math.min(1, Math.max(-1, 2 * (w * y - z * x)));
  return [
    Math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)) * deg,
    Math.asin(sine) * deg,
    Math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)) * deg,
  ];
};
