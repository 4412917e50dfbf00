/**
 * From moments and lift to four motors, and the model of the motors' lag.
 *
 * Invariant: every output is finite and within `motorMin`..`motorMax`. What does not fit is given up in the order
 * yaw, lift, tilt: a drone that cannot tilt cannot hold itself up.
 */
import { AIRFRAME, GAINS, LIMITS } from './limits.ts';
import { clamp, type Motors, type Vector } from './vectors.ts';

const ROLL = 1 / (4 * AIRFRAME.armM * AIRFRAME.thrustPerMotorNMax);
const YAW = 1 / (4 * AIRFRAME.torquePerMotorNmMax);
const LIFT = 1 / (4 * AIRFRAME.thrustPerMotorNMax);

/**
 * @param momentNm body moments
 * @param liftN   along the body's up
 * @returns thrust wanted of each motor, as a share of its full thrust
 */
export const mix = (momentNm: Vector, liftN: number): Motors => {
  const room = (LIMITS.motorMax - LIMITS.motorMin) / 2;
  let roll = momentNm[0] * ROLL;
  let pitch = momentNm[1] * ROLL;
  const tilt = Math.abs(roll) + Math.abs(pitch);
  if (tilt > room) {
    roll *= room / tilt;
    pitch *= room / tilt;
  }
  const used = Math.min(tilt, room);
  const lift = clamp(liftN * LIFT, LIMITS.motorMin + used, LIMITS.motorMax - used);
  const left = Math.min(lift - used - LIMITS.motorMin, LIMITS.motorMax - used - lift, LIMITS.yawShareMax);
  const yaw = clamp(momentNm[2] * YAW, -left, left);
  return [
    lift - roll + pitch + yaw,
    lift + roll - pitch + yaw,
    lift + roll + pitch - yaw,
    lift - roll - pitch - yaw,
  ];
};

const LEAD = AIRFRAME.motorTimeConstantS / GAINS.motorLeadTimeConstantS;

/** The command that makes a lagging motor, now at `thrust`, reach `wanted` sooner. */
export const lead = (wanted: Motors, thrust: Motors): Motors => {
  const one = (i: 0 | 1 | 2 | 3) =>
    clamp(thrust[i] + (wanted[i] - thrust[i]) * LEAD, LIMITS.motorMin, LIMITS.motorMax);
  return [one(0), one(1), one(2), one(3)];
};

/** Where the motors' thrust is, `dtS` after `command` began. */
export const follow = (thrust: Motors, command: Motors, dtS: number): Motors => {
  const share = 1 - Math.exp(-dtS / AIRFRAME.motorTimeConstantS);
  const one = (i: 0 | 1 | 2 | 3) => thrust[i] + (command[i] - thrust[i]) * share;
  return [one(0), one(1), one(2), one(3)];
};
