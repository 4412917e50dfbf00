/**
 * The `px4` kind: a companion streams setpoints in offboard mode; the board flies them, and holds when they stop.
 *
 * Sources, all of PX4-Autopilot: src/modules/commander (Commander.cpp: orders and their results; UserModeIntention.cpp:
 * which change of mode is let through; HealthAndArmingChecks/checks/offboardCheck.cpp and failsafe/failsafe.cpp: loss),
 * src/modules/commander/px4_custom_mode.h, src/modules/mavlink (mavlink_receiver.cpp: setpoints; mavlink_main.cpp,
 * MAVLINK_MODE_ONBOARD: rates; streams/HEARTBEAT.hpp). PARAMETERS has PX4's names.
 *
 * Invariants: nobody is followed outside offboard mode; offboard mode needs a stream of setpoints to be entered in the
 * air or armed in, and ends COM_OF_LOSS_T after the last one; then the board holds until a new mode is ordered.
 */
import { Cascade, type Gains, type Move } from '#device-sim/boards/cascade.ts';
import { isMine, Senders } from '#device-sim/boards/companion.ts';
import { Hold } from '#device-sim/boards/hold.ts';
import { answer, type Order, orderOf, setInterval } from '#device-sim/boards/order.ts';
import type { Heartbeat, Profile } from '#device-sim/boards/profile.ts';
import {
  clamp,
  normalise,
  type Quaternion,
  turned,
  type Vector,
  verticalIn,
  yawOf,
} from '#device-sim/boards/rotation.ts';
import { Streams } from '#device-sim/boards/streams.ts';
import type { Vehicle } from '#device-sim/vehicle.ts';
import { type Fields, type Frame, MAV } from '#handover/mavlink/index.ts';

const S = 1e6;
const DEG = Math.PI / 180;

/** Defaults, but where a comment says otherwise. */
const PARAMETERS = {
  COM_OF_LOSS_T: 1.0,
  /** Hold. The default, 0, is Position mode: it needs sticks, and there are none (COM_RC_IN_MODE 4). */
  COM_OBL_RC_ACT: 5,
  COM_DISARM_LAND: 2.0,
  COM_DISARM_PRFLT: 10.0,
  COM_SPOOLUP_TIME: 1.0,
  MIS_TAKEOFF_ALT: 2.5,
  MPC_TKO_SPEED: 1.5,
  MPC_LAND_SPEED: 0.7,
  /** SIH_LOC_H0: the ground's height above the sea, which the altitude of a take-off counts from. */
  SIH_LOC_H0: 489.4,
} as const;

/** "A continuous 2 Hz proof of life", "for more than a second" (docs.px4.io, Offboard Mode). */
const STREAM = { gapUsMax: 0.5 * S, lengthUs: 1 * S } as const;

const GAINS: Gains = {
  position: { xy: 0.95, z: 1 }, // MPC_XY_P, MPC_Z_P
  velocity: { xy: 1.8, z: 4 }, // MPC_XY_VEL_P_ACC, MPC_Z_VEL_P_ACC
  velocityIntegral: { xy: 0.4, z: 2 }, // MPC_XY_VEL_I_ACC, MPC_Z_VEL_I_ACC
  speedMS: { xy: 12, up: 3, down: 1.5 }, // MPC_XY_VEL_MAX, MPC_Z_VEL_MAX_UP, MPC_Z_VEL_MAX_DN
  brakeMS2: { xy: Number.POSITIVE_INFINITY, z: Number.POSITIVE_INFINITY },
  tiltRadMax: 45 * DEG, // MPC_TILTMAX_AIR
  attitude: { tilt: 6.5, yaw: 2.8 }, // MC_ROLL_P, MC_PITCH_P, MC_YAW_P
  rateRadSMax: [220 * DEG, 220 * DEG, 200 * DEG], // MC_ROLLRATE_MAX, MC_PITCHRATE_MAX, MC_YAWRATE_MAX
};

/** Main and sub mode (px4_custom_mode.h). */
const MODES = { takeoff: [4, 2], hold: [4, 3], land: [4, 6], offboard: [6, 0] } as const;
type Mode = keyof typeof MODES;

const IDLE = 0.05;
/** A take-off is done this near to its height. */
const ARRIVED_M = 0.2;
/** On the ground a setpoint that asks for less of a climb is none: the motors idle. */
const CLIMB_MS = 0.1;

type Setpoint =
  | { readonly kind: 'move'; readonly move: Move }
  | { readonly kind: 'attitude'; readonly q: Quaternion; readonly yawRate: number; readonly thrust: number }
  | { readonly kind: 'rates'; readonly rates: Vector; readonly thrust: number };

export class Px4 implements Profile {
  readonly flies = true;
  readonly streams = new Streams({
    HIGHRES_IMU: 50,
    ATTITUDE_QUATERNION: 50,
    LOCAL_POSITION_NED: 30,
    EXTENDED_SYS_STATE: 5,
    HEARTBEAT: 1,
    SYS_STATUS: 5,
  });
  readonly #vehicle: Vehicle;
  readonly #cascade: Cascade;
  readonly #senders = new Senders();
  readonly #hold = new Hold();
  #mode: Mode = 'hold';
  #setpoint: Setpoint | undefined;
  /** Of the last setpoint, and of the first of the stream that it belongs to. */
  #heardUs = Number.NEGATIVE_INFINITY;
  #streamUs = 0;
  #takeoffZ = 0;
  #armedUs = 0;
  #flown = false;
  #groundUs = 0;

  constructor(vehicle: Vehicle) {
    this.#vehicle = vehicle;
    this.#cascade = new Cascade(vehicle.parameters, GAINS, vehicle.throttles);
  }

  hear(frame: Frame, tUs: number): void {
    if (frame.name === 'SET_ATTITUDE_TARGET') {
      if (isMine(frame.fields.target_system, frame.fields.target_component)) {
        this.#heard(attitudeIn(frame.fields), frame.fields.time_boot_ms, frame, tUs);
      }
    } else if (frame.name === 'SET_POSITION_TARGET_LOCAL_NED') {
      if (isMine(frame.fields.target_system, frame.fields.target_component)) {
        this.#heard(this.#moveIn(frame.fields), frame.fields.time_boot_ms, frame, tUs);
      }
    } else {
      const order = orderOf(frame);
      if (order !== undefined) answer(this.#vehicle, frame, order, this.#obey(order, tUs));
    }
  }

  step(tUs: number): void {
    const vehicle = this.#vehicle;
    if (!vehicle.armed) return;
    if (!vehicle.state.onGround) this.#flown = true;
    const lost = vehicle.silentUs(tUs) >= PARAMETERS.COM_OF_LOSS_T * S;
    if (this.#mode === 'offboard' && lost) {
      if (vehicle.state.onGround) vehicle.judge.pause();
      else vehicle.judge.failsafe(tUs);
      this.#enter('hold', tUs);
      vehicle.failsafe = true;
    }
    if (!vehicle.state.onGround) return;
    const since = this.#flown ? this.#groundUs : this.#armedUs;
    const limit = this.#flown ? PARAMETERS.COM_DISARM_LAND : PARAMETERS.COM_DISARM_PRFLT;
    if (!this.#wantsUp() && tUs - since >= limit * S) this.#disarm();
  }

  fly(tUs: number): void {
    const { sensors, state } = this.#vehicle;
    const spooling = tUs - this.#armedUs < PARAMETERS.COM_SPOOLUP_TIME * S && !this.#flown;
    if (spooling || (state.onGround && !this.#wantsUp())) {
      this.#cascade.idle(sensors, IDLE);
      return;
    }
    switch (this.#mode) {
      case 'hold':
        this.#cascade.move(sensors, this.#hold.target(sensors));
        return;
      case 'land':
        this.#cascade.move(sensors, this.#hold.target(sensors, PARAMETERS.MPC_LAND_SPEED));
        return;
      case 'takeoff': {
        const rest = this.#takeoffZ - (sensors.position[2] as number);
        const climb = clamp(GAINS.position.z * rest, -PARAMETERS.MPC_TKO_SPEED, PARAMETERS.MPC_LAND_SPEED);
        this.#cascade.move(sensors, this.#hold.target(sensors, climb === 0 ? 1e-6 : climb));
        if (Math.abs(rest) < ARRIVED_M) {
          this.#enter('hold', tUs);
          this.#hold.start(this.#takeoffZ);
        }
        return;
      }
      case 'offboard':
        this.#follow(this.#setpoint);
        return;
    }
  }

  landed(tUs: number): void {
    this.#groundUs = tUs;
  }

  heartbeat(): Heartbeat {
    const { armed, failsafe, crashed } = this.#vehicle;
    const [main, sub] = MODES[this.#mode];
    const normal = armed ? MAV.STATE_ACTIVE : MAV.STATE_STANDBY;
    return {
      autopilot: MAV.AUTOPILOT_PX4,
      base_mode:
        MAV.MODE_FLAG_CUSTOM_MODE_ENABLED |
        MAV.MODE_FLAG_AUTO_ENABLED |
        MAV.MODE_FLAG_GUIDED_ENABLED |
        MAV.MODE_FLAG_STABILIZE_ENABLED |
        (armed ? MAV.MODE_FLAG_SAFETY_ARMED : 0),
      custom_mode: main * 0x1_0000 + sub * 0x100_0000,
      system_status: failsafe || crashed ? MAV.STATE_CRITICAL : normal,
    };
  }

  landedState(): number {
    if (this.#vehicle.state.onGround) return MAV.LANDED_STATE_ON_GROUND;
    if (this.#mode === 'land') return MAV.LANDED_STATE_LANDING;
    return this.#mode === 'takeoff' ? MAV.LANDED_STATE_TAKEOFF : MAV.LANDED_STATE_IN_AIR;
  }

  #heard(setpoint: Setpoint | undefined, bootMs: number, frame: Frame, tUs: number): void {
    const vehicle = this.#vehicle;
    const arrival = this.#senders.arrival(tUs, vehicle.bootUs, bootMs, frame.systemId, frame.componentId);
    if (setpoint === undefined) {
      vehicle.judge.refuse(arrival, 'invalid');
      return;
    }
    if (tUs - this.#heardUs > STREAM.gapUsMax) this.#streamUs = tUs;
    this.#heardUs = tUs;
    if (this.#mode !== 'offboard') {
      // Before offboard mode a stream is asked for, and is no command; after a loss it is one that comes too late.
      if (vehicle.failsafe || vehicle.crashed) vehicle.judge.refuse(arrival, 'ignored');
      return;
    }
    this.#setpoint = setpoint;
    if (vehicle.armed) vehicle.judge.record(arrival);
    vehicle.followed(tUs, arrival.epoch);
  }

  #hasStream(tUs: number): boolean {
    return tUs - this.#heardUs <= STREAM.gapUsMax && tUs - this.#streamUs >= STREAM.lengthUs;
  }

  #obey(order: Order, tUs: number): number {
    const vehicle = this.#vehicle;
    const { params } = order;
    switch (order.command) {
      case MAV.CMD_COMPONENT_ARM_DISARM:
        if (params[0] === 1) return this.#arm(tUs);
        if (params[0] !== 0) return MAV.RESULT_UNSUPPORTED;
        if (vehicle.armed && !vehicle.state.onGround && params[1] !== MAV.ARM_DISARM_FORCE) {
          return MAV.RESULT_TEMPORARILY_REJECTED;
        }
        this.#disarm();
        return MAV.RESULT_ACCEPTED;
      case MAV.CMD_DO_SET_MODE:
        return this.#change(params[0], params[1], params[2], tUs);
      case MAV.CMD_NAV_TAKEOFF:
        this.#takeOff(takeoffHeight(params[6]), tUs);
        return MAV.RESULT_ACCEPTED;
      case MAV.CMD_NAV_LAND:
        this.#enter('land', tUs);
        return MAV.RESULT_ACCEPTED;
      case MAV.CMD_PREFLIGHT_REBOOT_SHUTDOWN:
        if (params[0] === 0) return MAV.RESULT_ACCEPTED;
        if (params[0] !== 1 || vehicle.armed) return MAV.RESULT_DENIED;
        vehicle.rebooting = true;
        return MAV.RESULT_ACCEPTED;
      case MAV.CMD_SET_MESSAGE_INTERVAL:
        return setInterval(this.streams, order, MAV.RESULT_DENIED);
      default:
        return MAV.RESULT_UNSUPPORTED;
    }
  }

  /** Modes for sticks and missions are refused: there are neither. */
  #change(base: number, main: number, sub: number, tUs: number): number {
    const mode = (Object.keys(MODES) as Mode[]).find(
      (each) => MODES[each][0] === main && (MODES[each][1] === sub || each === 'offboard'),
    );
    const custom = (base & MAV.MODE_FLAG_CUSTOM_MODE_ENABLED) !== 0;
    if (!custom || mode === undefined) return MAV.RESULT_TEMPORARILY_REJECTED;
    // Disarmed any mode may be chosen: then arming is refused (UserModeIntention::change).
    if (mode === 'offboard' && this.#vehicle.armed && !this.#hasStream(tUs)) {
      return MAV.RESULT_TEMPORARILY_REJECTED;
    }
    if (mode === 'takeoff') this.#takeOff(PARAMETERS.MIS_TAKEOFF_ALT, tUs);
    else this.#enter(mode, tUs);
    return MAV.RESULT_ACCEPTED;
  }

  /** One that is higher already stays there. */
  #takeOff(heightM: number, tUs: number): void {
    const { sensors, state } = this.#vehicle;
    this.#takeoffZ = state.onGround ? -heightM : Math.min(-heightM, sensors.position[2] as number);
    this.#enter('takeoff', tUs);
  }

  #enter(mode: Mode, tUs: number): void {
    const vehicle = this.#vehicle;
    if (this.#mode === 'offboard' && mode !== 'offboard') vehicle.judge.pause();
    if (mode !== this.#mode) this.#hold.start();
    this.#mode = mode;
    this.#setpoint = undefined;
    vehicle.failsafe = false;
    // The stream that let it in is the sign of life, until the next setpoint.
    if (mode === 'offboard') vehicle.followed(tUs, vehicle.epoch);
  }

  #arm(tUs: number): number {
    const vehicle = this.#vehicle;
    if (vehicle.armed) return MAV.RESULT_ACCEPTED;
    const ready = this.#mode === 'offboard' ? this.#hasStream(tUs) : this.#mode !== 'land';
    if (vehicle.crashed || !ready) return MAV.RESULT_TEMPORARILY_REJECTED;
    vehicle.armed = true;
    vehicle.followed(tUs, vehicle.epoch);
    this.#armedUs = tUs;
    this.#flown = false;
    this.#cascade.idle(vehicle.sensors, 0);
    return MAV.RESULT_ACCEPTED;
  }

  #disarm(): void {
    this.#vehicle.disarm();
    if (this.#mode !== 'offboard') this.#mode = 'hold';
  }

  #wantsUp(): boolean {
    if (this.#mode === 'takeoff') return true;
    const setpoint = this.#setpoint;
    if (this.#mode !== 'offboard' || setpoint === undefined) return false;
    if (setpoint.kind !== 'move') return setpoint.thrust > IDLE;
    const { position, velocity, acceleration } = setpoint.move;
    const rest = position[2] - (this.#vehicle.sensors.position[2] as number);
    return GAINS.position.z * rest < -CLIMB_MS || velocity[2] < -CLIMB_MS || acceleration[2] < -CLIMB_MS;
  }

  #follow(setpoint: Setpoint | undefined): void {
    const { sensors } = this.#vehicle;
    if (setpoint === undefined) this.#cascade.move(sensors, this.#hold.target(sensors));
    else if (setpoint.kind === 'move') this.#cascade.move(sensors, setpoint.move);
    else if (setpoint.kind === 'rates') this.#cascade.rates(sensors, setpoint.rates, setpoint.thrust);
    else {
      const { q, yawRate, thrust } = setpoint;
      // The heading's rate is about the world's vertical (yaw_sp_move_rate).
      const ahead = verticalIn(sensors.attitude as unknown as Quaternion).map((part) => part * yawRate);
      this.#cascade.attitude(sensors, q, ahead as unknown as Vector, thrust);
    }
  }

  /** Each axis by itself; in MAV_FRAME_BODY_NED velocities and accelerations turn with the heading. */
  #moveIn(fields: Fields<'SET_POSITION_TARGET_LOCAL_NED'>): Setpoint | undefined {
    const { coordinate_frame: frame, type_mask: mask } = fields;
    const axes = (x: number, y: number, z: number, firstBit: number): [number, number, number] =>
      [x, y, z].map((value, axis) => ((mask & (firstBit << axis)) === 0 ? value : Number.NaN)) as [
        number,
        number,
        number,
      ];
    const position = axes(fields.x, fields.y, fields.z, 1);
    let velocity: Vector = axes(fields.vx, fields.vy, fields.vz, 8);
    let acceleration: Vector = axes(fields.afx, fields.afy, fields.afz, 64);
    if (frame === MAV.FRAME_BODY_NED) {
      if (position.some(Number.isFinite)) return undefined;
      const heading = yawOf(this.#vehicle.sensors.attitude as unknown as Quaternion);
      velocity = turned(velocity, heading);
      acceleration = turned(acceleration, heading);
    } else if (frame !== MAV.FRAME_LOCAL_NED) return undefined;
    const given = [...position, ...velocity, ...acceleration];
    if (!given.some(Number.isFinite) || given.some((value) => Math.abs(value) === Number.POSITIVE_INFINITY)) {
      return undefined;
    }
    if ((mask & MAV.POSITION_FORCE_SET) !== 0 && acceleration.some(Number.isFinite)) return undefined;
    const yawRad = (mask & MAV.POSITION_YAW_IGNORE) === 0 ? fields.yaw : Number.NaN;
    const yawRateRadS = (mask & MAV.POSITION_YAW_RATE_IGNORE) === 0 ? fields.yaw_rate : Number.NaN;
    return { kind: 'move', move: { position, velocity, acceleration, yawRad, yawRateRadS } };
  }
}

/** With a heading: an attitude, its body rates but for the yaw's passed over; without one: rates. Thrust 0 to 1. */
const attitudeIn = (fields: Fields<'SET_ATTITUDE_TARGET'>): Setpoint | undefined => {
  const { type_mask: mask, q, thrust } = fields;
  if ((mask & MAV.ATTITUDE_THROTTLE_IGNORE) !== 0 || !Number.isFinite(thrust)) return undefined;
  const rates: Vector = [fields.body_roll_rate, fields.body_pitch_rate, fields.body_yaw_rate];
  if ((mask & MAV.ATTITUDE_ATTITUDE_IGNORE) !== 0) {
    const ignored = MAV.ATTITUDE_ROLL_RATE_IGNORE | MAV.ATTITUDE_PITCH_RATE_IGNORE;
    if ((mask & ignored) !== 0 || !rates.every(Number.isFinite)) return undefined;
    return { kind: 'rates', rates, thrust: clamp(thrust, 0, 1) };
  }
  const attitude = q as unknown as Quaternion;
  if (!(Math.abs(Math.hypot(...attitude) - 1) < 0.1)) return undefined;
  const hasYawRate = (mask & MAV.ATTITUDE_YAW_RATE_IGNORE) === 0 && Number.isFinite(rates[2]);
  return {
    kind: 'attitude',
    q: normalise(attitude),
    yawRate: hasYawRate ? rates[2] : 0,
    thrust: clamp(thrust, 0, 1),
  };
};

/** Above the ground; param7 is above the sea, and none is MIS_TAKEOFF_ALT. */
const takeoffHeight = (altitudeM: number): number =>
  Number.isFinite(altitudeM) && altitudeM > PARAMETERS.SIH_LOC_H0
    ? altitudeM - PARAMETERS.SIH_LOC_H0
    : PARAMETERS.MIS_TAKEOFF_ALT;
