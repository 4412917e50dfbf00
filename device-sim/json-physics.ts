/**
 * ArduPilot's JSON physics interface, as bytes: a packet of servo outputs comes in, a line of JSON goes out.
 *
 * Invariants: no clock and no socket. Time moves only by ArduPilot's frames (lockstep): one frame, one step of its
 * length. A frame that was answered already is answered again with the same bytes and moves nothing; a count that goes
 * back is a restarted ArduPilot, and the drone stands on the ground again. Specified by ArduPilot
 * libraries/SITL/examples/JSON/readme.md and SIM_JSON.h.
 */
import { Surroundings } from '#device-sim/air.ts';
import type { Parameters } from '#device-sim/parameters.ts';
import { AT, createState, eulerDeg, type State, specificForce, step } from '#device-sim/physics.ts';
import type { WindOptions } from '#device-sim/wind.ts';

/** `struct servo_packet`: magic, frame_rate, frame_count, pwm; little-endian, since no big-endian machine runs SITL. */
const CHANNELS_BY_MAGIC: Readonly<Record<number, number>> = { 18458: 16, 29569: 32 };
const HEADER_BYTES = 8;

export interface ServoPacket {
  /** Hz: the step that the physics shall take. */
  readonly frameRate: number;
  readonly frameCount: number;
  /** us, 16 or 32 of them; 0: no output. */
  readonly pwm: readonly number[];
}

/** @returns the packet, or what is wrong with it */
export const parseServos = (bytes: Uint8Array): ServoPacket | string => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER_BYTES) return `${bytes.length} bytes are too few`;
  const magic = view.getUint16(0, true);
  const channels = CHANNELS_BY_MAGIC[magic];
  if (channels === undefined) return `magic ${magic} is neither 18458 (16 channels) nor 29569 (32 channels)`;
  const length = HEADER_BYTES + 2 * channels;
  if (bytes.length !== length) return `${bytes.length} bytes, where ${channels} channels take ${length}`;
  const frameRate = view.getUint16(2, true);
  if (frameRate === 0) return 'frame rate 0';
  const pwm = Array.from({ length: channels }, (_, at) => view.getUint16(HEADER_BYTES + 2 * at, true));
  return { frameRate, frameCount: view.getUint32(4, true), pwm };
};

/**
 * Which of our motors (physics.ts) each of ArduPilot's first four outputs drives, by the frame type's name there
 * (SIM_Frame.cpp, quad_*_motors). Its plain X has our order, which is PX4's: 1 front right and 2 rear left turn
 * counter-clockwise, 3 front left and 4 rear right clockwise. The others number the same rotors differently.
 */
export const MOTOR_ORDERS = {
  x: [0, 1, 2, 3],
  bfx: [3, 0, 1, 2],
  djix: [0, 2, 1, 3],
  cwx: [0, 3, 1, 2],
} as const;
export type MotorOrder = keyof typeof MOTOR_ORDERS;
export const MOTOR_ORDER_NAMES = Object.keys(MOTOR_ORDERS) as MotorOrder[];

/** MOT_PWM_MIN and MOT_PWM_MAX. */
const PWM_US = { min: 1_000, max: 2_000 } as const;
/** MOT_THST_EXPO: how far thrust goes with the square of the output. The default, so that a stock ArduPilot flies linear. */
const THRUST_EXPO = 0.65;

/** Share of full thrust that an output of ArduPilot's asks for. */
export const throttleOf = (pwmUs: number): number => {
  const output = Math.min(1, Math.max(0, (pwmUs - PWM_US.min) / (PWM_US.max - PWM_US.min)));
  return (1 - THRUST_EXPO) * output + THRUST_EXPO * output * output;
};

/** Longest step of one frame: ArduPilot does not believe 0.1 s. And the longest of the physics within it. */
const FRAME_S_MAX = 0.05;
const STEP_S_MAX = 1e-3;

export interface JsonPhysicsOptions {
  readonly parameters: Parameters;
  readonly seed: number;
  readonly wind?: WindOptions | undefined;
  readonly motors?: MotorOrder | undefined;
}

export interface Reply {
  readonly line: string;
  /** `start`: the first frame, or a restarted ArduPilot's. `lost`: frames are missing before this one. */
  readonly event: 'start' | 'step' | 'repeat' | 'lost';
}

export class JsonPhysics {
  readonly #options: JsonPhysicsOptions;
  readonly #order: readonly number[];
  readonly #throttles = new Float64Array(4);
  readonly #force = new Float64Array(3);
  #state: State = createState();
  #surroundings: Surroundings;
  #timeS = 0;
  #frameCount = -1;
  #line = '';

  constructor(options: JsonPhysicsOptions) {
    this.#options = options;
    this.#order = MOTOR_ORDERS[options.motors ?? 'x'];
    this.#surroundings = new Surroundings(options.parameters, options.seed, options.wind);
  }

  /** Of the drone, for a look from outside. */
  get state(): State {
    return this.#state;
  }

  take({ frameRate, frameCount, pwm }: ServoPacket): Reply {
    if (frameCount === this.#frameCount) return { line: this.#line, event: 'repeat' };
    const first = this.#frameCount < 0 || frameCount < this.#frameCount;
    const lost = !first && frameCount > this.#frameCount + 1;
    if (first) this.#reset();
    this.#frameCount = frameCount;
    this.#order.forEach((motor, output) => {
      this.#throttles[motor] = throttleOf(pwm[output] as number);
    });
    this.#advance(Math.min(FRAME_S_MAX, 1 / frameRate));
    this.#line = this.#describe();
    if (first) return { line: this.#line, event: 'start' };
    return { line: this.#line, event: lost ? 'lost' : 'step' };
  }

  #reset(): void {
    const { parameters, seed, wind } = this.#options;
    this.#state = createState();
    this.#surroundings = new Surroundings(parameters, seed, wind);
    this.#timeS = 0;
  }

  #advance(frameS: number): void {
    const steps = Math.ceil(frameS / STEP_S_MAX - 1e-9);
    const dtS = frameS / steps;
    for (let count = 0; count < steps; count += 1) {
      step(this.#state, this.#throttles, dtS, this.#options.parameters, this.#surroundings);
      this.#surroundings.step(this.#state, dtS);
    }
    this.#timeS += frameS;
  }

  /** What the readme demands, with a newline before and behind. The reader searches names as text: `velocity` comes first. */
  #describe(): string {
    const { x } = this.#state;
    const { battery, wind } = this.#surroundings;
    specificForce(this.#state, this.#options.parameters, this.#force, this.#surroundings);
    const vector = (from: number, length = 3): number[] => Array.from(x.subarray(from, from + length));
    const [w, i, j, k] = vector(AT.attitude, 4) as [number, number, number, number];
    const report = {
      timestamp: this.#timeS,
      imu: { gyro: vector(AT.rates), accel_body: Array.from(this.#force) },
      position: vector(AT.position),
      // Older versions read the angles alone, newer ones prefer the quaternion.
      attitude: eulerDeg(w, i, j, k).map((degrees) => (degrees * Math.PI) / 180),
      quaternion: [w, i, j, k],
      velocity: vector(AT.velocity),
      velocity_wind: Array.from(wind),
      battery: { voltage: battery.volts, current: battery.amps },
    };
    return `\n${JSON.stringify(report)}\n`;
  }
}
