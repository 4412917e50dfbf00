/**
 * A board of any kind in virtual time with a scripted companion beside it: it sends setpoints at a rate, gives orders,
 * and remembers what the board said.
 */
import { Board } from '#device-sim/board.ts';
import { type BoardName, CYCLE_US } from '#device-sim/boards/profile.ts';
import { createHistory } from '#device-sim/history.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { PARAMETERS, type Parameters } from '#device-sim/parameters.ts';
import { AT, tiltRad } from '#device-sim/physics.ts';
import { type Summary, summarise } from '#device-sim/summary.ts';
import { TRUTH, Truth } from '#device-sim/truth.ts';
import type { WindOptions } from '#device-sim/wind.ts';
import {
  type Fields,
  type FieldsToSend,
  type Frame,
  MAV,
  type MessageName,
  Parser,
  SignedLink,
  Writer,
} from '#handover/mavlink/index.ts';

export const START = 5_000_000_000;
export const START_TICKS = 36_000_000_000_000;

const ORDER = { target_system: 1, target_component: 1, confirmation: 0 };
export const orderFields = (command: number, params: readonly number[]): FieldsToSend<'COMMAND_LONG'> => {
  const [param1, param2, param3, param4, param5, param6, param7] = [0, 1, 2, 3, 4, 5, 6].map(
    (index) => params[index] ?? 0,
  ) as [number, number, number, number, number, number, number];
  return { ...ORDER, command, param1, param2, param3, param4, param5, param6, param7 };
};

type Three = readonly [number, number, number];
const FREE: Three = [0, 0, 0];

interface Given {
  position?: Three;
  velocity?: Three;
  acceleration?: Three;
  yaw?: number;
  yawRate?: number;
}
/** A setpoint with only what is given; the rest is masked out. */
export const moveFields = (given: Given, bootMs = 0): FieldsToSend<'SET_POSITION_TARGET_LOCAL_NED'> => {
  const { position, velocity, acceleration, yaw, yawRate } = given;
  const [x, y, z] = position ?? FREE;
  const [vx, vy, vz] = velocity ?? FREE;
  const [afx, afy, afz] = acceleration ?? FREE;
  const type_mask =
    (position ? 0 : MAV.POSITION_IGNORE) |
    (velocity ? 0 : MAV.POSITION_VELOCITY_IGNORE) |
    (acceleration ? 0 : MAV.POSITION_ACCELERATION_IGNORE) |
    (yaw === undefined ? MAV.POSITION_YAW_IGNORE : 0) |
    (yawRate === undefined ? MAV.POSITION_YAW_RATE_IGNORE : 0);
  return {
    time_boot_ms: bootMs,
    target_system: 1,
    target_component: 1,
    coordinate_frame: MAV.FRAME_LOCAL_NED,
    type_mask,
    ...{ x, y, z, vx, vy, vz, afx, afy, afz },
    yaw: yaw ?? 0,
    yaw_rate: yawRate ?? 0,
  };
};

/** Roll, pitch, yaw in radians; the body rates are masked out. */
export const attitudeFields = (
  [roll, pitch, yaw]: Three,
  thrust: number,
  bootMs = 0,
): FieldsToSend<'SET_ATTITUDE_TARGET'> => {
  const [cr, cp, cy] = [Math.cos(roll / 2), Math.cos(pitch / 2), Math.cos(yaw / 2)];
  const [sr, sp, sy] = [Math.sin(roll / 2), Math.sin(pitch / 2), Math.sin(yaw / 2)];
  return {
    time_boot_ms: bootMs,
    target_system: 1,
    target_component: 1,
    type_mask: 7,
    q: [
      cr * cp * cy + sr * sp * sy,
      sr * cp * cy - cr * sp * sy,
      cr * sp * cy + sr * cp * sy,
      cr * cp * sy - sr * sp * cy,
    ],
    body_roll_rate: 0,
    body_pitch_rate: 0,
    body_yaw_rate: 0,
    thrust,
  };
};

export const HOVER_SHARE = (PARAMETERS.massKg * PARAMETERS.gravityMS2) / (4 * PARAMETERS.thrustN);

export class BoardBench {
  readonly history = createHistory();
  readonly truth = new Truth();
  readonly board: Board;
  readonly kind: BoardName;
  writer: Writer;
  readonly frames: Frame[] = [];
  readonly parser: Parser;
  tUs = START;
  /** Called each cycle of `hz`: what the companion streams; undefined: nothing. */
  stream: (() => void) | undefined;
  hz = 25;
  #ticks = 0;

  constructor(
    kind: BoardName,
    {
      seed = 1,
      key,
      parameters = PARAMETERS,
      wind,
    }: { seed?: number; key?: Uint8Array; parameters?: Parameters; wind?: WindOptions } = {},
  ) {
    this.kind = kind;
    const { history, truth } = this;
    const signing = key && { key, startTicks: START_TICKS };
    this.board = new Board({ kind, parameters, seed, wind, startUs: START, history, truth, signing });
    const end = key && this.signedLink(key);
    this.writer = new Writer({ systemId: 1, componentId: 191, signing: end });
    this.parser = new Parser({ signing: end });
  }

  signedLink(key: Uint8Array, linkId = 1): SignedLink {
    const now = (): number => START_TICKS + Math.floor((this.tUs - START) / 10);
    return new SignedLink({ key, linkId, lastTimestamp: 0, now });
  }

  get bootMs(): number {
    return Math.floor((this.tUs - START) / 1_000);
  }

  send<N extends MessageName>(name: N, fields: FieldsToSend<N>, writer = this.writer): Uint8Array {
    const bytes = writer.encode(name, fields);
    this.board.receive(bytes, this.tUs + 500);
    return bytes;
  }

  move(given: Given, bootMs?: number): void {
    this.send('SET_POSITION_TARGET_LOCAL_NED', moveFields(given, bootMs));
  }

  attitude(angles: Three, thrust: number, bootMs?: number): void {
    this.send('SET_ATTITUDE_TARGET', attitudeFields(angles, thrust, bootMs));
  }

  /** The result of an order; undefined: no answer within the next cycle. */
  order(command: number, ...params: number[]): number | undefined {
    this.send('COMMAND_LONG', orderFields(command, params));
    const ack = this.tick().find((frame) => frame.name === 'COMMAND_ACK');
    return ack?.fields.command === command ? ack.fields.result : undefined;
  }

  tick(): Frame[] {
    this.tUs += LIMITS.tickUs;
    const frames = this.parser.read(this.board.tick(this.tUs, 0, 0));
    this.frames.push(...frames);
    this.#ticks += 1;
    if (this.#ticks % Math.round(250 / this.hz) === 0) this.stream?.();
    return frames;
  }

  run(seconds: number, each?: () => void): this {
    for (let ticks = Math.round((seconds * 1e6) / LIMITS.tickUs); ticks > 0; ticks -= 1) {
      this.tick();
      each?.();
    }
    return this;
  }

  last<N extends MessageName>(name: N): Fields<N> {
    const frame = this.frames.findLast((each) => each.name === name);
    if (frame === undefined) throw new Error(`the board never said ${name}`);
    return frame.fields as Fields<N>;
  }

  get x(): Float64Array {
    return this.truth.values.subarray(TRUTH.state, TRUTH.state + AT.length);
  }
  get heightM(): number {
    return 0 - (this.x[2] as number);
  }
  get speedMS(): number {
    return Math.hypot(this.x[3] as number, this.x[4] as number, this.x[5] as number);
  }
  get tiltDeg(): number {
    return (tiltRad(this.x) * 180) / Math.PI;
  }
  is(flag: 'armed' | 'onGround' | 'failsafe' | 'crashed'): boolean {
    return this.truth.values[TRUTH[flag]] === 1;
  }
  judge(fromUs = START): Summary {
    return summarise(this.history, fromUs, this.tUs + 3_999, CYCLE_US[this.kind]);
  }
}
