/**
 * The flight: position, velocity, attitude and rate loops, one above the other, and the small mission around them.
 *
 * Invariant: `step` is pure, and {@link ControllerState} is all it remembers: plain JSON. A successor that is given the
 * state of its prior goes on exactly where that one stopped, bit by bit; that is what makes a handover bumpless.
 */
import { type Estimate, estimate, type Heard, NOTHING_KNOWN, type Sample, SILENCE } from './estimator.ts';
import { AIRFRAME, GAINS, GRAVITY_MS2, LIMITS, type Setpoint } from './limits.ts';
import { follow, lead, mix } from './mixer.ts';
import {
  add,
  attitudeOf,
  bound,
  clamp,
  conjugate,
  type Motors,
  multiply,
  type Quaternion,
  rotate,
  scale,
  subtract,
  times,
  type Vector,
  yawOf,
  ZERO,
} from './vectors.ts';

export type { Sample } from './estimator.ts';

/** `wait` until attitude and position are known; `landed` by someone else: stays down. */
export type Phase = 'wait' | 'spool' | 'climb' | 'hover' | 'landed';

export interface ControllerState {
  phase: Phase;
  /** Seconds in this phase. */
  phaseS: number;
  /** The last sample's time; 0 before the first. */
  imuUs: number;
  estimate: Estimate;
  /** Place of the take-off; the hover's height is measured from it. */
  home: Vector;
  /** The eased setpoint: where to be now, m NED, how fast it moves down, m/s, and heading. */
  target: Vector;
  targetMS: number;
  yawRad: number;
  /** Seconds for which the board has said "on the ground" while this hovers. */
  groundS: number;
  /** m/s² and rad/s². */
  velocityIntegral: Vector;
  rateIntegral: Vector;
  /** Modelled thrust of the motors, and the last command to them. */
  thrust: Motors;
  command: Motors;
  /** Said by the board after the last sample, for the next one; only in a state that is handed over. */
  heard: Heard;
}

const OFF: Motors = [0, 0, 0, 0];
const HOVER_THRUST = (AIRFRAME.massKg * GRAVITY_MS2) / (4 * AIRFRAME.thrustPerMotorNMax);
const HOVERING: Motors = [HOVER_THRUST, HOVER_THRUST, HOVER_THRUST, HOVER_THRUST];

export const START: ControllerState = {
  phase: 'wait',
  phaseS: 0,
  imuUs: 0,
  estimate: NOTHING_KNOWN,
  home: ZERO,
  target: ZERO,
  targetMS: 0,
  yawRad: 0,
  groundS: 0,
  velocityIntegral: ZERO,
  rateIntegral: ZERO,
  thrust: OFF,
  command: OFF,
  heard: SILENCE,
};

/** Time since the sample before, clipped: see `stepMsMin` and `stepMsMax`. */
export const dtOf = (state: ControllerState, imuUs: number): number =>
  state.imuUs === 0
    ? LIMITS.cycleMs / 1e3
    : clamp((imuUs - state.imuUs) / 1e3, LIMITS.stepMsMin, LIMITS.stepMsMax) / 1e3;

/**
 * One cycle.
 *
 * @param sample   the IMU sample to answer, with what the board said since the one before
 * @param setpoint what the mission wants
 * @param dtS      seconds since the last step, {@link dtOf}
 * @returns the next state, and four motor commands within 0..1
 */
export const step = (
  state: ControllerState,
  sample: Sample,
  setpoint: Setpoint,
  dtS: number,
): [ControllerState, Motors] => {
  const now = estimate(state.estimate, sample, dtS);
  const next = mission({ ...state, imuUs: sample.imuUs, estimate: now }, sample, setpoint, dtS);
  const command = fly(next, dtS);
  next.thrust = follow(next.thrust, command, dtS);
  next.command = command;
  next.heard = SILENCE;
  return [next, command];
};

/** Moves the phase and the eased setpoint; `state` is the caller's own fresh copy. */
const mission = (
  state: ControllerState,
  sample: Sample,
  setpoint: Setpoint,
  dtS: number,
): ControllerState => {
  const { attitude, position } = state.estimate;
  const enter = (phase: Phase) => {
    state.phase = phase;
    state.phaseS = 0;
  };
  state.phaseS += dtS;
  switch (state.phase) {
    case 'wait':
      if (attitude === null || position === null) return state;
      state.target = position;
      state.yawRad = yawOf(attitude);
      if (-position[2] > LIMITS.airborneM) {
        // No state, but in the air: the board's origin is the best guess of home.
        state.home = [position[0], position[1], 0];
        state.thrust = HOVERING;
        enter('climb');
      } else {
        state.home = position;
        enter('spool');
      }
      return state;
    case 'spool':
      if (state.phaseS >= LIMITS.spoolS) enter('climb');
      return state;
    case 'climb': {
      const goal = state.home[2] - setpoint.altitudeM;
      const rest = goal - state.target[2];
      // Eased at both ends: never faster than it can have become, nor than can still be braked.
      const gained = Math.abs(state.targetMS) + LIMITS.climbEaseMS2 * dtS;
      const braked = Math.sqrt(2 * LIMITS.climbEaseMS2 * Math.abs(rest));
      const speed = Math.min(LIMITS.climbMS, gained, braked);
      const move = clamp(rest, -speed * dtS, speed * dtS);
      state.target = [state.target[0], state.target[1], state.target[2] + move];
      state.targetMS = move / dtS;
      if (Math.abs(goal - state.target[2]) < 1e-3) {
        state.target = [state.target[0], state.target[1], goal];
        state.targetMS = 0;
        enter('hover');
      }
      return state;
    }
    case 'hover':
      if (sample.landed === false) state.groundS = 0;
      else if (sample.landed === true || state.groundS > 0) state.groundS += dtS;
      if (state.groundS >= LIMITS.landedS) enter('landed');
      return state;
    case 'landed':
      return state;
  }
};

/** The loops; writes its integrators into `state`. */
const fly = (state: ControllerState, dtS: number): Motors => {
  const { attitude, position } = state.estimate;
  if (attitude === null || position === null || state.phase === 'wait' || state.phase === 'landed')
    return OFF;
  if (state.phase === 'spool') {
    const idle = LIMITS.spoolThrottle * Math.min(1, state.phaseS / LIMITS.spoolS);
    return [idle, idle, idle, idle];
  }

  const correction = times(GAINS.position, subtract(state.target, position));
  const wanted = bound(add(correction, [0, 0, state.targetMS]), LIMITS.speedMSMax);
  const velocityError = subtract(wanted, state.estimate.velocity);
  const flying = state.home[2] - position[2] > LIMITS.airborneM / 2;
  if (flying) {
    // An integrator that fills while the ground holds the drone would throw it up.
    const grown = add(state.velocityIntegral, scale(times(GAINS.velocityIntegral, velocityError), dtS));
    state.velocityIntegral = bound(grown, LIMITS.velocityIntegralMS2Max);
  }
  const drag: Vector = [0, 0, (state.targetMS * AIRFRAME.dragNPerMS) / AIRFRAME.massKg];
  const push = add(add(times(GAINS.velocity, velocityError), state.velocityIntegral), drag);
  const acceleration = bound(push, LIMITS.accelerationMS2Max);

  // Force wanted of the rotors, in the world; its tilt is bounded by shortening its level part.
  const up = GRAVITY_MS2 - acceleration[2];
  const level = Math.hypot(acceleration[0], acceleration[1]);
  const shorten = level > 0 ? Math.min(1, (up * Math.tan(LIMITS.tiltRadMax)) / level) : 1;
  const force: Vector = [acceleration[0] * shorten, acceleration[1] * shorten, -up];
  const size = Math.hypot(force[0], force[1], force[2]);
  const down: Vector = [-force[0] / size, -force[1] / size, -force[2] / size];

  const rateError = subtract(rateOf(attitude, attitudeOf(down, state.yawRad)), state.estimate.rate);
  if (flying) {
    const grown = add(state.rateIntegral, scale(times(GAINS.rateIntegral, rateError), dtS));
    state.rateIntegral = bound(grown, LIMITS.rateIntegralRadS2Max);
  }
  const turn = add(times(GAINS.rate, rateError), state.rateIntegral);
  const moment = times(AIRFRAME.inertiaKgM2, turn);

  // Only the part of the rotors' force that points along the wanted one holds the drone up.
  const along = rotate(attitude, [0, 0, 1]);
  const part = Math.max(0.5, along[0] * down[0] + along[1] * down[1] + along[2] * down[2]);
  return lead(mix(moment, AIRFRAME.massKg * size * part), state.thrust);
};

/** Body rates that turn `from` into `to`, the short way round. */
const rateOf = (from: Quaternion, to: Quaternion): Vector => {
  const error = multiply(conjugate(from), to);
  const twice = error[0] < 0 ? -2 : 2;
  const max = LIMITS.rateRadSMax;
  const turn = times(GAINS.attitude, [error[1] * twice, error[2] * twice, error[3] * twice]);
  return bound(turn, [max, max, max]);
};
