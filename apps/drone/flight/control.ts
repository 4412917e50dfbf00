/**
 * The flight: position, velocity, attitude and rate loops, one above the other, and the small mission around them.
 *
 * Invariant: `step` is pure, and {@link ControllerState} is all it remembers: plain JSON. A successor that is given the
 * state of its prior goes on exactly where that one stopped, bit by bit; that is what makes a handover bumpless.
 */
import { type Estimate, estimate, type Heard, NOTHING_KNOWN, type Sample, SILENCE } from './estimator.ts';
import { arrived, type Goal, lead as leadOn, type Reference, standing, stopping } from './goal.ts';
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

/**
 * `wait` until attitude and position are known; `stand` until it is asked to take off; `hover`: it flies, also from place
 * to place; `landed`, or on its way down, by someone else: stays down until a pilot asks for the take-off.
 */
export type Phase = 'wait' | 'stand' | 'spool' | 'climb' | 'hover' | 'land' | 'landed';

/** What a pilot may ask for; m from the place of the take-off. */
export type Request =
  | { readonly type: 'takeoff'; readonly upM: number }
  | {
      readonly type: 'goto';
      readonly northM: number;
      readonly eastM: number;
      readonly upM: number;
      readonly speedMS: number;
    }
  /** Around a place to the north, clockwise, at the height that it has. */
  | { readonly type: 'circle'; readonly radiusM: number; readonly speedMS: number }
  /** Stops where it can. */
  | { readonly type: 'hover' }
  | { readonly type: 'land' };

export interface ControllerState {
  phase: Phase;
  /** Seconds in this phase. */
  phaseS: number;
  /** The last sample's time; 0 before the first. */
  imuUs: number;
  estimate: Estimate;
  /** Place of the take-off; heights are measured from it. */
  home: Vector;
  /** Where it goes; null on the ground. */
  goal: Goal | null;
  /** The eased setpoint: where to be now, and how that moves; m NED. And heading. */
  target: Reference;
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
  goal: null,
  target: standing(ZERO),
  yawRad: 0,
  groundS: 0,
  velocityIntegral: ZERO,
  rateIntegral: ZERO,
  thrust: OFF,
  command: OFF,
  heard: SILENCE,
};

/** Whether the motors turn, so that the board is to be armed. */
export const isPowered = (phase: Phase): boolean =>
  phase !== 'wait' && phase !== 'stand' && phase !== 'landed';

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

/**
 * A pilot's request, between two cycles.
 *
 * @returns the state that follows it, or why it cannot be followed
 */
export const ask = (state: ControllerState, request: Request): ControllerState | string => {
  const { phase, home, target } = state;
  const place = (northM: number, eastM: number, upM: number): Vector => [
    home[0] + northM,
    home[1] + eastM,
    home[2] - upM,
  ];
  if (request.type === 'takeoff') {
    if (phase !== 'stand' && phase !== 'landed') return `it does not stand on the ground (${phase})`;
    if (phase === 'landed' && heightOf(state) > LIMITS.airborneM) return 'it is being landed';
    const [north, east] = target.place;
    const goal: Goal = { type: 'to', place: [north, east, home[2] - request.upM], speedMS: LIMITS.climbMS };
    return { ...state, goal, phase: 'spool', phaseS: 0 };
  }
  if (phase !== 'climb' && phase !== 'hover' && phase !== 'land') return `it does not fly (${phase})`;
  // Until then the board says that it stands on the ground, which means something else in flight.
  if (phase === 'climb' && heightOf(state) < LIMITS.airborneM) return 'it is only just taking off';
  switch (request.type) {
    case 'goto': {
      const { northM, eastM, upM, speedMS } = request;
      return { ...state, phase: 'hover', goal: { type: 'to', place: place(northM, eastM, upM), speedMS } };
    }
    case 'circle': {
      const { radiusM, speedMS } = request;
      const turnMS2 = speedMS ** 2 / radiusM;
      if (turnMS2 > LIMITS.turnMS2Max) {
        return `${speedMS} m/s around ${radiusM} m asks for ${turnMS2.toFixed(1)} m/s², at most ${LIMITS.turnMS2Max}`;
      }
      const centre = add(target.place, [radiusM, 0, 0]);
      return { ...state, phase: 'hover', goal: { type: 'circle', centre, radiusM, speedMS } };
    }
    case 'hover':
      return {
        ...state,
        phase: 'hover',
        goal: { type: 'to', place: stopping(target), speedMS: LIMITS.cruiseMSMax },
      };
    case 'land':
      return { ...state, phase: 'land', goal: { type: 'land' } };
  }
};

const heightOf = ({ home, estimate: { position } }: ControllerState): number =>
  position === null ? 0 : home[2] - position[2];

/** In the shadow: where the one that flies says that it is to be, so that this one means to be there, too. */
export const told = (state: ControllerState, target: Reference, yawRad: number): ControllerState => {
  if (state.estimate.position === null || state.phase === 'wait') return state;
  const flies = state.phase === 'climb' || state.phase === 'hover' || state.phase === 'land';
  const thrust = flies ? state.thrust : HOVERING;
  return { ...state, phase: 'hover', goal: { type: 'told' }, target, yawRad, thrust };
};

/** Moves the phase and the eased setpoint; `state` is the caller's own fresh copy. */
const mission = (
  state: ControllerState,
  sample: Sample,
  setpoint: Setpoint,
  dtS: number,
): ControllerState => {
  const { attitude, position } = state.estimate;
  const enter = (phase: Phase, goal: Goal | null = state.goal) => {
    state.phase = phase;
    state.phaseS = 0;
    state.goal = goal;
  };
  const rise = (): Goal => {
    const [north, east, down] = state.target.place;
    const height = setpoint.altitudeM === null ? down : state.home[2] - setpoint.altitudeM;
    return { type: 'to', place: [north, east, height], speedMS: LIMITS.climbMS };
  };
  state.phaseS += dtS;
  const isOwn = state.phase === 'land' || state.phase === 'landed';
  // It missed our commands, or those of whoever flew before; what is next is for a person to say.
  if (sample.landing === true && !isOwn) enter('landed', null);
  switch (state.phase) {
    case 'wait':
      if (attitude === null || position === null) return state;
      state.target = standing(position);
      state.yawRad = yawOf(attitude);
      if (-position[2] > LIMITS.airborneM) {
        // No state, but in the air: the board's origin is the best guess of home.
        state.home = [position[0], position[1], 0];
        state.thrust = HOVERING;
        enter('climb', rise());
      } else {
        state.home = position;
        if (setpoint.altitudeM === null) enter('stand');
        else enter('spool', rise());
      }
      return state;
    case 'stand':
    case 'landed':
      if (position !== null) state.target = standing(position);
      return state;
    case 'spool':
      if (state.phaseS >= LIMITS.spoolS) enter('climb');
      return state;
    case 'climb':
    case 'hover':
    case 'land': {
      if (state.goal !== null) state.target = leadOn(state.target, state.goal, dtS);
      if (state.phase === 'climb') {
        if (state.goal === null || arrived(state.target, state.goal)) enter('hover');
        return state;
      }
      if (sample.landed === false) state.groundS = 0;
      else if (sample.landed === true || state.groundS > 0) state.groundS += dtS;
      if (state.groundS < LIMITS.landedS) return state;
      state.groundS = 0;
      // Asked to land it may be asked to take off again; landed by someone else it stays down.
      enter(state.phase === 'land' ? 'stand' : 'landed', null);
      return state;
    }
  }
};

/** The loops; writes its integrators into `state`. */
const fly = (state: ControllerState, dtS: number): Motors => {
  const { attitude, position } = state.estimate;
  if (attitude === null || position === null || !isPowered(state.phase)) return OFF;
  if (state.phase === 'spool') {
    const idle = LIMITS.spoolThrottle * Math.min(1, state.phaseS / LIMITS.spoolS);
    return [idle, idle, idle, idle];
  }

  const { target } = state;
  const correction = times(GAINS.position, subtract(target.place, position));
  const wanted = add(bound(correction, LIMITS.speedMSMax), target.velocity);
  const velocityError = subtract(wanted, state.estimate.velocity);
  const flying = heightOf(state) > LIMITS.airborneM / 2;
  if (flying) {
    // An integrator that fills while the ground holds the drone would throw it up.
    const grown = add(state.velocityIntegral, scale(times(GAINS.velocityIntegral, velocityError), dtS));
    state.velocityIntegral = bound(grown, LIMITS.velocityIntegralMS2Max);
  }
  const drag = scale(target.velocity, AIRFRAME.dragNPerMS / AIRFRAME.massKg);
  const ahead = add(target.acceleration, drag);
  const push = add(add(times(GAINS.velocity, velocityError), state.velocityIntegral), ahead);
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
