/**
 * The control loop: bytes of the rotor link in, one command out for every IMU sample.
 *
 * Invariant: driven by arrivals alone, no timer; a sample is answered at most once, newer ones only, and before `read`
 * returns; whatever the link delivers, nothing is thrown. Owner and shadow run this same class: what is compiled and
 * warm in the shadow is what flies after the grant.
 */
import {
  type Fields,
  type Frame,
  MAV,
  Parser,
  type Refusal,
  type SignedLink,
  Writer,
} from 'midair/handover/mavlink';
import { ask, type ControllerState, dtOf, isPowered, type Request, START, step, told } from './control.ts';
import { type Heard, SILENCE } from './estimator.ts';
import { LIMITS, type Setpoint } from './limits.ts';
import { type Motors, subtract, type Vector } from './vectors.ts';

const SYSTEM_ID = 1;
const DISARMED = MAV.MODE_FLAG_CUSTOM_MODE_ENABLED;
const ARMED = MAV.MODE_FLAG_SAFETY_ARMED | DISARMED;

/** What a successor needs to go on. */
export interface Cursor {
  state: ControllerState;
  /** MAVLink sequence number of the last frame sent. */
  sequence: number;
  /** Bytes of an incoming frame whose rest is still to come. */
  partial: Uint8Array;
  /** Undefined: the link is not signed. */
  signing: SignedLink | undefined;
}

/** Where commands go. */
export interface Output {
  /** Under which it may command; written into every command. */
  readonly epoch: number;
  /** Takes a frame for the board; `answersUs` is the IMU sample that it answers, null for a heartbeat. */
  send(frame: Uint8Array, answersUs: number | null, motors: Motors | null): void;
}
const NOWHERE: Output = { epoch: 0, send: () => {} };

/** Gyro samples kept for the panel's chart; more than a telemetry interval has. */
const TRACE_SAMPLES = 64;

export class Loop {
  /** Nowhere at first, a comparison in shadow, the link as the owner. */
  output = NOWHERE;
  /** A frame of the board's did not pass the signing, for this reason for the first time since the link was taken. */
  onRefused: (refusal: Refusal) => void = () => {};
  readonly #setpoint: Setpoint;
  #parser = new Parser();
  readonly #writer = new Writer({ systemId: SYSTEM_ID, componentId: MAV.COMP_ID_ONBOARD_COMPUTER });
  #state = START;
  #cycles = 0;
  /** Since the last sample. */
  #heard: Heard = { ...SILENCE };
  #landing = false;
  /** Time and gyro of the last samples, a ring of four numbers each. */
  readonly #trace = new Float64Array(4 * TRACE_SAMPLES);
  /** One object for all commands: the codec copies out of it. */
  readonly #command = {
    time_usec: 0,
    controls: [0, 0, 0, 0],
    mode: ARMED as number,
    flags: 0,
  };

  constructor(setpoint: Setpoint) {
    this.#setpoint = setpoint;
  }

  get state(): ControllerState {
    return this.#state;
  }
  get cycles(): number {
    return this.#cycles;
  }

  /** Metres from where it is to be; null until it knows where it is. */
  get offM(): number | null {
    const { target, estimate } = this.#state;
    return estimate.position === null ? null : Math.hypot(...subtract(target.place, estimate.position));
  }

  cursor(): Cursor {
    const state = { ...this.#state, heard: { ...this.#heard } };
    const { sequence, signing } = this.#writer;
    return { state, sequence, partial: this.#parser.partial(), signing };
  }

  /**
   * Goes on where another stopped; the beginning of a frame that it had read comes as the next bytes.
   *
   * @param state    null: from nothing
   * @param sequence of the last frame that was sent on the link, 0..255
   * @param signing  of the link; what is heard is then checked, too
   */
  resume(state: ControllerState | null, sequence: number, signing?: SignedLink): void {
    const onRefused = (refusal: Refusal): void => this.#refused(refusal);
    this.#parser = new Parser({ signing, onRefused });
    this.#writer.sequence = sequence;
    this.#writer.signing = signing;
    this.#state = state ?? START;
    this.#heard = { ...this.#state.heard };
  }

  /** What a pilot asks for, from the next cycle on. @returns undefined, or why it is not followed */
  ask(request: Request): string | undefined {
    const asked = ask(this.#state, request);
    if (typeof asked === 'string') return asked;
    this.#state = asked;
    return undefined;
  }

  /** In the shadow: the setpoint of the one that flies, as it told it on the link. */
  told({ x, y, z, vx, vy, vz, afx, afy, afz, yaw }: Fields<'POSITION_TARGET_LOCAL_NED'>): void {
    if (!Number.isFinite(x + y + z + vx + vy + vz + afx + afy + afz + yaw)) return;
    const target = { place: [x, y, z], velocity: [vx, vy, vz], acceleration: [afx, afy, afz] } as const;
    this.#state = told(this.#state, target, yaw);
  }

  /** The next bytes from the board, cut anywhere. */
  read(chunk: Uint8Array): void {
    for (const frame of this.#parser.read(chunk)) this.#take(frame);
  }

  /** Gyro samples later than `afterUs`, oldest first: [board time in µs, x, y, z in rad/s], at most 64. */
  traceAfter(afterUs: number): number[][] {
    const samples: number[][] = [];
    for (let age = Math.min(this.#cycles, TRACE_SAMPLES); age > 0; age -= 1) {
      const at = 4 * ((this.#cycles - age) % TRACE_SAMPLES);
      if ((this.#trace[at] as number) > afterUs) samples.push([...this.#trace.subarray(at, at + 4)]);
    }
    return samples;
  }

  #refused(refusal: Refusal): void {
    const count = this.#parser.counts[refusal];
    if (count === 1) this.onRefused(refusal);
    // A board whose clock is behind learns the time from what it hears. Without a sample it would hear nothing.
    if (refusal === 'tooOld' && count % LIMITS.heartbeatCycles === 1) this.#heartbeat();
  }

  #take(frame: Frame): void {
    if (frame.componentId !== MAV.COMP_ID_AUTOPILOT1) return;
    switch (frame.name) {
      case 'HIGHRES_IMU':
        this.#cycle(frame.fields);
        return;
      case 'ATTITUDE_QUATERNION': {
        const { q1, q2, q3, q4 } = frame.fields;
        const size = Math.hypot(q1, q2, q3, q4);
        if (size > 0.9 && size < 1.1) this.#heard.attitude = [q1, q2, q3, q4];
        return;
      }
      case 'LOCAL_POSITION_NED': {
        const { x, y, z, vx, vy, vz } = frame.fields;
        if (Number.isFinite(x + y + z + vx + vy + vz))
          this.#heard.fix = { position: [x, y, z], velocity: [vx, vy, vz] };
        return;
      }
      case 'EXTENDED_SYS_STATE':
        this.#heard.landed = frame.fields.landed_state === MAV.LANDED_STATE_ON_GROUND;
        this.#landing = frame.fields.landed_state === MAV.LANDED_STATE_LANDING;
        return;
      default:
        return;
    }
  }

  #cycle(imu: Fields<'HIGHRES_IMU'>): void {
    const imuUs = imu.time_usec;
    const gyro: Vector = [imu.xgyro, imu.ygyro, imu.zgyro];
    const acceleration: Vector = [imu.xacc, imu.yacc, imu.zacc];
    if (imuUs <= this.#state.imuUs) return;
    if (!Number.isFinite(gyro[0] + gyro[1] + gyro[2] + acceleration[0] + acceleration[1] + acceleration[2]))
      return;

    const sample = { ...this.#heard, landing: this.#landing, imuUs, gyro, acceleration };
    this.#heard = { ...SILENCE };
    const [state, motors] = step(this.#state, sample, this.#setpoint, dtOf(this.#state, imuUs));
    this.#state = state;

    const command = this.#command;
    command.time_usec = imuUs;
    command.flags = this.output.epoch;
    // Before it knows where it is, it asks for nothing: in the air a board refuses to disarm, and holds what it had.
    command.mode = isPowered(state.phase) ? ARMED : DISARMED;
    for (let i = 0; i < 4; i += 1) command.controls[i] = motors[i] as number;
    this.output.send(this.#writer.encode('HIL_ACTUATOR_CONTROLS', command), imuUs, motors);

    const at = 4 * (this.#cycles % TRACE_SAMPLES);
    this.#trace[at] = imuUs;
    this.#trace[at + 1] = gyro[0];
    this.#trace[at + 2] = gyro[1];
    this.#trace[at + 3] = gyro[2];
    this.#cycles += 1;
    if (this.#cycles % LIMITS.targetCycles === 0 && isPowered(state.phase)) this.#tellTarget();
    if (this.#cycles % LIMITS.heartbeatCycles === 0) this.#heartbeat();
  }

  /** For whoever flies in the shadow: without it a candidate would not know where this one means to be. */
  #tellTarget(): void {
    const { imuUs, target, yawRad, phase } = this.#state;
    if (phase === 'spool') return;
    const { place, velocity, acceleration } = target;
    const frame = this.#writer.encode('POSITION_TARGET_LOCAL_NED', {
      time_boot_ms: Math.floor(imuUs / 1_000) % 2 ** 32,
      coordinate_frame: MAV.FRAME_LOCAL_NED,
      type_mask: MAV.POSITION_YAW_RATE_IGNORE,
      x: place[0],
      y: place[1],
      z: place[2],
      vx: velocity[0],
      vy: velocity[1],
      vz: velocity[2],
      afx: acceleration[0],
      afy: acceleration[1],
      afz: acceleration[2],
      yaw: yawRad,
      yaw_rate: 0,
    });
    this.output.send(frame, null, null);
  }

  #heartbeat(): void {
    const frame = this.#writer.encode('HEARTBEAT', {
      type: MAV.TYPE_ONBOARD_CONTROLLER,
      autopilot: MAV.AUTOPILOT_INVALID,
      base_mode: 0,
      custom_mode: 0,
      system_status: MAV.STATE_ACTIVE,
      mavlink_version: 3,
    });
    this.output.send(frame, null, null);
  }
}
