/**
 * The `ardupilot` kind: ArduCopter in GUIDED. A companion says where to, how fast, or which attitude; what it said last
 * stands, until GUID_TIMEOUT: then a velocity becomes zero and an attitude level with no climb, and it waits for more.
 *
 * Sources, all of ardupilot: ArduCopter/mode_guided.cpp (submodes, what each does when nothing comes),
 * ArduCopter/GCS_MAVLink_Copter.cpp (which fields and frames are taken; an invalid setpoint stops the drone; landed state,
 * take-off), ArduCopter/mode.h (mode numbers), ArduCopter/AP_Arming_Copter.cpp and libraries/GCS_MAVLink/GCS_Common.cpp
 * (arming, disarming, reboot and their results), libraries/GCS_MAVLink/GCS_Signing.cpp (16 streams; handover/mavlink/
 * signing.ts has the rule). PARAMETERS has ArduPilot's names.
 *
 * Invariants: nobody is followed outside GUIDED; nothing but a take-off order or an attitude that climbs lifts it from
 * the ground; in the air neither a disarm nor a reboot is obeyed, unless forced.
 */
import { Cascade, type Gains, type Move } from '#device-sim/boards/cascade.ts';
import { isMine, Senders } from '#device-sim/boards/companion.ts';
import { FREELY, Hold } from '#device-sim/boards/hold.ts';
import { answer, type Order, orderOf, setInterval } from '#device-sim/boards/order.ts';
import type { Heartbeat, Profile } from '#device-sim/boards/profile.ts';
import {
  clamp,
  normalise,
  ofYaw,
  type Quaternion,
  turned,
  type Vector,
  yawOf,
  ZERO,
} from '#device-sim/boards/rotation.ts';
import { Streams } from '#device-sim/boards/streams.ts';
import { LIMITS } from '#device-sim/limits.ts';
import type { Vehicle } from '#device-sim/vehicle.ts';
import { type Fields, type Frame, MAV } from '#handover/mavlink/index.ts';

const S = 1e6;
const DEG = Math.PI / 180;

/** Defaults, but where a comment says otherwise. GUID_OPTIONS is 0: the thrust of an attitude is a climb rate. */
const PARAMETERS = {
  GUID_TIMEOUT: 3.0,
  DISARM_DELAY: 10,
  /** m/s; ArduPilot's own are in cm/s. */
  WPNAV_SPEED_UP: 2.5,
  WPNAV_SPEED_DN: 1.5,
  LAND_SPEED: 0.5,
  LAND_ALT_LOW: 10,
} as const;

const GAINS: Gains = {
  position: { xy: 1, z: 1 }, // PSC_POSXY_P, PSC_POSZ_P
  velocity: { xy: 2, z: 5 }, // PSC_VELXY_P, PSC_VELZ_P
  velocityIntegral: { xy: 1, z: 2 }, // PSC_VELXY_I; the height's is in ArduPilot's acceleration loop
  speedMS: { xy: 10, up: PARAMETERS.WPNAV_SPEED_UP, down: PARAMETERS.WPNAV_SPEED_DN }, // WPNAV_SPEED
  brakeMS2: { xy: 2.5, z: 1 }, // WPNAV_ACCEL, WPNAV_ACCEL_Z
  tiltRadMax: 30 * DEG, // ANGLE_MAX
  // ATC_ANG_RLL_P, ATC_ANG_PIT_P; ATC_ANG_YAW_P is 4.5, more than this airframe's yaw torque can follow.
  attitude: { tilt: 4.5, yaw: 2.8 },
  rateRadSMax: [360 * DEG, 360 * DEG, 200 * DEG],
};

/** ArduCopter/mode.h. The others need sticks or a mission: there are neither. */
const MODES = { stabilize: 0, guided: 4, land: 9 } as const;
type Mode = keyof typeof MODES;

/** param2 of an arming order that skips the checks; param6 of a reboot that is obeyed in any state. */
const FORCE_ARM = 2_989;
const FORCE_REBOOT = 20_190_226;
/** MOT_SPIN_ARM. */
const IDLE = 0.1;
const TAKEOFF_DONE_M = 0.2;
const DT_S = LIMITS.tickUs / 1e6;

/** SubMode of ModeGuided. `stop` is VelAccel with a zero velocity, which is how GUIDED begins. */
type Target =
  | { readonly kind: 'stop' }
  | { readonly kind: 'takeoff'; readonly z: number }
  | { readonly kind: 'pos'; readonly move: Move }
  | { readonly kind: 'velaccel'; readonly move: Move }
  | { readonly kind: 'posvelaccel'; readonly move: Move }
  | {
      readonly kind: 'angle';
      readonly q: Quaternion | null;
      readonly rates: Vector;
      readonly climbMS: number;
    };
const STOP: Target = { kind: 'stop' };

export class ArduPilot implements Profile {
  readonly flies = true;
  /** A serial port's SRn_ rates are 0 until somebody asks; here as a companion that asked for 4 Hz of all. */
  readonly streams = new Streams({
    HIGHRES_IMU: 0,
    ATTITUDE_QUATERNION: 4,
    LOCAL_POSITION_NED: 4,
    EXTENDED_SYS_STATE: 4,
    HEARTBEAT: 1,
    SYS_STATUS: 4,
  });
  readonly #vehicle: Vehicle;
  readonly #cascade: Cascade;
  readonly #senders = new Senders();
  readonly #hold = new Hold();
  #mode: Mode = 'stabilize';
  #target: Target = STOP;
  /** Where an attitude's climb rate has moved the height to, m NED. */
  #heightZ = Number.NaN;
  #armedUs = 0;
  #groundUs = 0;

  constructor(vehicle: Vehicle) {
    this.#vehicle = vehicle;
    this.#cascade = new Cascade(vehicle.parameters, GAINS, vehicle.throttles);
  }

  hear(frame: Frame, tUs: number): void {
    if (frame.name === 'SET_ATTITUDE_TARGET') {
      if (isMine(frame.fields.target_system, frame.fields.target_component)) {
        this.#heard(angleIn(frame.fields), frame.fields.time_boot_ms, frame, tUs);
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
    if (this.#mode === 'guided' && vehicle.silentUs(tUs) > PARAMETERS.GUID_TIMEOUT * S) this.#expire(tUs);
    const idleUs = tUs - Math.max(this.#groundUs, this.#armedUs);
    if (vehicle.state.onGround && !this.#wantsUp() && idleUs >= PARAMETERS.DISARM_DELAY * S) {
      vehicle.disarm();
    }
  }

  fly(): void {
    const { sensors, state } = this.#vehicle;
    if (state.onGround && !this.#wantsUp()) {
      this.#heightZ = Number.NaN;
      this.#cascade.idle(sensors, IDLE);
    } else if (this.#mode === 'land') {
      const high = -(sensors.position[2] as number) > PARAMETERS.LAND_ALT_LOW;
      const speed = high ? PARAMETERS.WPNAV_SPEED_DN : PARAMETERS.LAND_SPEED;
      this.#cascade.move(sensors, this.#hold.target(sensors, speed));
    } else this.#guide(this.#target);
  }

  landed(tUs: number): void {
    this.#groundUs = tUs;
    if (this.#mode === 'land') this.#vehicle.disarm();
  }

  heartbeat(): Heartbeat {
    const { armed, crashed, state } = this.#vehicle;
    const normal = state.onGround ? MAV.STATE_STANDBY : MAV.STATE_ACTIVE;
    return {
      autopilot: MAV.AUTOPILOT_ARDUPILOTMEGA,
      base_mode:
        MAV.MODE_FLAG_CUSTOM_MODE_ENABLED |
        MAV.MODE_FLAG_STABILIZE_ENABLED |
        MAV.MODE_FLAG_MANUAL_INPUT_ENABLED |
        (this.#mode === 'guided' ? MAV.MODE_FLAG_GUIDED_ENABLED : 0) |
        (armed ? MAV.MODE_FLAG_SAFETY_ARMED : 0),
      custom_mode: MODES[this.#mode],
      system_status: crashed ? MAV.STATE_CRITICAL : normal,
    };
  }

  landedState(): number {
    if (this.#vehicle.state.onGround) return MAV.LANDED_STATE_ON_GROUND;
    if (this.#mode === 'land') return MAV.LANDED_STATE_LANDING;
    return this.#isTakingOff() ? MAV.LANDED_STATE_TAKEOFF : MAV.LANDED_STATE_IN_AIR;
  }

  #heard(target: Target | undefined, bootMs: number, frame: Frame, tUs: number): void {
    const vehicle = this.#vehicle;
    const arrival = this.#senders.arrival(tUs, vehicle.bootUs, bootMs, frame.systemId, frame.componentId);
    if (this.#mode !== 'guided') {
      if (vehicle.armed || vehicle.crashed) vehicle.judge.refuse(arrival, 'ignored');
      return;
    }
    if (target === undefined) {
      // Its sender may have gone mad: the drone stops (mode_guided.init).
      this.#aim(STOP);
      vehicle.judge.refuse(arrival, 'invalid');
      return;
    }
    if (vehicle.armed) vehicle.judge.record(arrival);
    vehicle.followed(tUs, arrival.epoch);
    vehicle.failsafe = false;
    this.#aim(target);
  }

  #aim(target: Target): void {
    if (target.kind !== this.#target.kind) {
      this.#hold.start();
      this.#heightZ = Number.NaN;
    }
    this.#target = target;
  }

  /** What was said last stands no more. A position does: it is where the drone stops anyway. */
  #expire(tUs: number): void {
    const vehicle = this.#vehicle;
    const target = this.#target;
    if (target.kind === 'velaccel') this.#aim(STOP);
    else if (target.kind === 'posvelaccel') {
      this.#aim({ kind: 'pos', move: { ...target.move, velocity: FREELY, acceleration: FREELY } });
    } else if (target.kind === 'angle' && !vehicle.failsafe) {
      const q = ofYaw(yawOf(target.q ?? (vehicle.sensors.attitude as unknown as Quaternion)));
      this.#target = { kind: 'angle', q, rates: ZERO, climbMS: 0 };
    } else return;
    vehicle.failsafe = true;
    if (vehicle.state.onGround) vehicle.judge.pause();
    else vehicle.judge.failsafe(tUs);
  }

  #obey(order: Order, tUs: number): number {
    const vehicle = this.#vehicle;
    const { params } = order;
    switch (order.command) {
      case MAV.CMD_COMPONENT_ARM_DISARM:
        if (params[0] === 1) return this.#arm(params[1] === FORCE_ARM, tUs);
        if (params[0] !== 0) return MAV.RESULT_UNSUPPORTED;
        if (vehicle.armed && !vehicle.state.onGround && params[1] !== MAV.ARM_DISARM_FORCE) {
          return MAV.RESULT_FAILED;
        }
        vehicle.disarm();
        return MAV.RESULT_ACCEPTED;
      case MAV.CMD_DO_SET_MODE: {
        const mode = (Object.keys(MODES) as Mode[]).find((each) => MODES[each] === params[1]);
        if ((params[0] & MAV.MODE_FLAG_CUSTOM_MODE_ENABLED) === 0) return MAV.RESULT_DENIED;
        // Stabilize is where it starts, and in the air it would need sticks.
        if (mode === undefined || (mode === 'stabilize' && vehicle.armed)) return MAV.RESULT_FAILED;
        this.#enter(mode, tUs);
        return MAV.RESULT_ACCEPTED;
      }
      case MAV.CMD_NAV_TAKEOFF: {
        const able = this.#mode === 'guided' && vehicle.armed && vehicle.state.onGround;
        if (!able || !(params[6] > 0)) return MAV.RESULT_FAILED;
        vehicle.followed(tUs, vehicle.epoch);
        this.#aim({ kind: 'takeoff', z: -params[6] });
        return MAV.RESULT_ACCEPTED;
      }
      case MAV.CMD_NAV_LAND:
        this.#enter('land', tUs);
        return MAV.RESULT_ACCEPTED;
      case MAV.CMD_PREFLIGHT_REBOOT_SHUTDOWN:
        if (vehicle.armed && params[5] !== FORCE_REBOOT) return MAV.RESULT_FAILED;
        if (params[0] !== 1 && params[0] !== 3) return MAV.RESULT_UNSUPPORTED;
        vehicle.disarm();
        vehicle.rebooting = true;
        return MAV.RESULT_ACCEPTED;
      case MAV.CMD_SET_MESSAGE_INTERVAL:
        return setInterval(this.streams, order, MAV.RESULT_FAILED);
      default:
        return MAV.RESULT_UNSUPPORTED;
    }
  }

  #enter(mode: Mode, tUs: number): void {
    const vehicle = this.#vehicle;
    if (mode === this.#mode) return;
    this.#mode = mode;
    this.#hold.start();
    this.#target = STOP;
    vehicle.failsafe = false;
    vehicle.judge.pause();
    vehicle.followed(tUs, vehicle.epoch);
    if (mode === 'land' && vehicle.armed && vehicle.state.onGround) vehicle.disarm();
  }

  #arm(forced: boolean, tUs: number): number {
    const vehicle = this.#vehicle;
    if (vehicle.armed) return MAV.RESULT_ACCEPTED;
    if (vehicle.crashed || this.#mode === 'land') return MAV.RESULT_FAILED;
    // Without a receiver's signal the checks let it be armed in GUIDED alone.
    if (this.#mode !== 'guided' && !forced) return MAV.RESULT_FAILED;
    vehicle.armed = true;
    this.#armedUs = tUs;
    vehicle.followed(tUs, vehicle.epoch);
    this.#target = STOP;
    return MAV.RESULT_ACCEPTED;
  }

  #isTakingOff(): boolean {
    const target = this.#target;
    if (this.#mode !== 'guided' || target.kind !== 'takeoff') return false;
    return (this.#vehicle.sensors.position[2] as number) - target.z > TAKEOFF_DONE_M;
  }

  #wantsUp(): boolean {
    if (this.#mode !== 'guided') return false;
    return this.#isTakingOff() || (this.#target.kind === 'angle' && this.#target.climbMS > 0);
  }

  #guide(target: Target): void {
    const { sensors } = this.#vehicle;
    switch (target.kind) {
      case 'stop':
        this.#cascade.move(sensors, this.#hold.target(sensors));
        return;
      case 'takeoff': {
        const move = this.#hold.target(sensors);
        const [x, y] = move.position;
        this.#cascade.move(sensors, { ...move, position: [x, y, target.z] });
        return;
      }
      case 'pos':
      case 'velaccel':
      case 'posvelaccel':
        this.#cascade.move(sensors, target.move);
        return;
      case 'angle': {
        if (Number.isNaN(this.#heightZ)) this.#heightZ = sensors.position[2] as number;
        this.#heightZ -= target.climbMS * DT_S;
        const q = target.q ?? (sensors.attitude as unknown as Quaternion);
        this.#cascade.attitudeAtHeight(sensors, q, target.rates, this.#heightZ, -target.climbMS);
        return;
      }
    }
  }

  /** All three axes of a kind, or none. Undefined: not valid. */
  #moveIn(fields: Fields<'SET_POSITION_TARGET_LOCAL_NED'>): Target | undefined {
    const { coordinate_frame: frame, type_mask: mask } = fields;
    const { attitude, position: here } = this.#vehicle.sensors;
    const body = frame === MAV.FRAME_BODY_NED || frame === MAV.FRAME_BODY_OFFSET_NED;
    const offset = body || frame === MAV.FRAME_LOCAL_OFFSET_NED;
    if (!offset && frame !== MAV.FRAME_LOCAL_NED) return undefined;
    const given = (bits: number): boolean => (mask & bits) === 0;
    const hasAcceleration = given(MAV.POSITION_ACCELERATION_IGNORE);
    if (!given(MAV.POSITION_FORCE_SET) && hasAcceleration) return undefined;
    const heading = yawOf(attitude as unknown as Quaternion);
    const along = (vector: Vector): Vector => (body ? turned(vector, heading) : vector);
    let position = along([fields.x, fields.y, fields.z]);
    if (offset) position = position.map((part, axis) => part + (here[axis] as number)) as unknown as Vector;
    const velocity = along([fields.vx, fields.vy, fields.vz]);
    const acceleration = hasAcceleration ? along([fields.afx, fields.afy, fields.afz]) : FREELY;
    const [hasPosition, hasVelocity] = [given(MAV.POSITION_IGNORE), given(MAV.POSITION_VELOCITY_IGNORE)];
    const yawRad = given(MAV.POSITION_YAW_IGNORE) ? fields.yaw + (body ? heading : 0) : Number.NaN;
    const yawRateRadS = given(MAV.POSITION_YAW_RATE_IGNORE) ? fields.yaw_rate : Number.NaN;
    const nose = { yawRad, yawRateRadS };
    const finite = (vector: Vector): boolean => vector.every(Number.isFinite);
    if ((hasPosition && !finite(position)) || (hasVelocity && !finite(velocity))) return undefined;
    if (hasAcceleration && !finite(acceleration)) return undefined;
    if (hasPosition && hasVelocity)
      return { kind: 'posvelaccel', move: { position, velocity, acceleration, ...nose } };
    if (hasVelocity) return { kind: 'velaccel', move: { position: FREELY, velocity, acceleration, ...nose } };
    if (hasPosition && !hasAcceleration)
      return { kind: 'pos', move: { position, velocity: FREELY, acceleration: FREELY, ...nose } };
    // Accel alone: the velocity is free, so that nothing but the acceleration counts.
    if (hasAcceleration && !hasPosition)
      return { kind: 'velaccel', move: { position: FREELY, velocity: FREELY, acceleration, ...nose } };
    return undefined;
  }
}

/** All rates or none; the attitude's length within 0.1 % of one; the thrust as a climb rate around 0.5. */
const angleIn = (fields: Fields<'SET_ATTITUDE_TARGET'>): Target | undefined => {
  const { type_mask: mask, thrust } = fields;
  if ((mask & MAV.ATTITUDE_THROTTLE_IGNORE) !== 0 || !Number.isFinite(thrust)) return undefined;
  const ignoredRates = mask & 7;
  if (ignoredRates !== 0 && ignoredRates !== 7) return undefined;
  const given: Vector = [fields.body_roll_rate, fields.body_pitch_rate, fields.body_yaw_rate];
  const rates = ignoredRates === 0 ? given : ZERO;
  if (!rates.every(Number.isFinite)) return undefined;
  const attitude = fields.q as unknown as Quaternion;
  const hasAttitude = (mask & MAV.ATTITUDE_ATTITUDE_IGNORE) === 0;
  if (hasAttitude && !(Math.abs(Math.hypot(...attitude) - 1) < 1e-3)) return undefined;
  const share = (clamp(thrust, 0, 1) - 0.5) * 2;
  const climbMS = share * (share > 0 ? PARAMETERS.WPNAV_SPEED_UP : PARAMETERS.WPNAV_SPEED_DN);
  return { kind: 'angle', q: hasAttitude ? normalise(attitude) : null, rates, climbMS };
};
