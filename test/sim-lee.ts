/**
 * The geometric controller of T. Lee, M. Leok and N. H. McClamroch, "Geometric tracking control of a quadrotor UAV on
 * SE(3)", IEEE CDC 2010, equations 15 and 16, for tests: the theory says how its flights must look.
 *
 * Its frames are ours (NED, the third body axis down). The desired rate comes from the last two desired attitudes; its
 * derivative is left out.
 */
import type { Parameters } from '#device-sim/parameters.ts';
import { AT, PITCH, ROLL, YAW } from '#device-sim/physics.ts';

type Vector = readonly [number, number, number];
/** Three columns. */
type Matrix = readonly [Vector, Vector, Vector];

export interface LeeGains {
  readonly kx: number;
  readonly kv: number;
  readonly kR: number;
  readonly kOmega: number;
}

const dot = (a: Vector, b: Vector): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a: Vector, b: Vector): Vector => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];
const scale = (a: Vector, by: number): Vector => [a[0] * by, a[1] * by, a[2] * by];
const unit = (a: Vector): Vector => scale(a, 1 / Math.hypot(...a));
/** A^T B, column by column. */
const transposeTimes = (a: Matrix, b: Matrix): Matrix =>
  [0, 1, 2].map((column) => a.map((row) => dot(row, b[column] as Vector))) as unknown as Matrix;
/** The inverse of the hat map, of the skew part. */
const vee = (m: Matrix): Vector => [
  (m[1][2] - m[2][1]) / 2,
  (m[2][0] - m[0][2]) / 2,
  (m[0][1] - m[1][0]) / 2,
];

const rotationOf = (w: number, x: number, y: number, z: number): Matrix => [
  [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
  [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
  [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
];

export class LeePilot {
  goal: Vector;
  readonly throttles = new Float64Array(4);
  readonly #p: Parameters;
  readonly #gains: LeeGains;
  #desired: Matrix | undefined;

  constructor(parameters: Parameters, gains: LeeGains, goal: Vector) {
    this.#p = parameters;
    this.#gains = gains;
    this.goal = goal;
  }

  /** @param x as `AT` lays it out; @param dtS since the last call */
  fly(x: ArrayLike<number>, dtS: number): Float64Array {
    const at = (from: number): Vector => [x[from] as number, x[from + 1] as number, x[from + 2] as number];
    const { kx, kv } = this.#gains;
    const { massKg: m, gravityMS2: g } = this.#p;
    const position = at(AT.position);
    const velocity = at(AT.velocity);
    const a = position.map((value, axis) => {
      const error = value - (this.goal[axis] as number);
      return -kx * error - kv * (velocity[axis] as number) - (axis === 2 ? m * g : 0);
    }) as unknown as Vector;
    const rotation = rotationOf(x[6] as number, x[7] as number, x[8] as number, x[9] as number);
    const thrustN = -dot(a, rotation[2]);
    const b3 = scale(unit(a), -1);
    const b2 = unit(cross(b3, [1, 0, 0]));
    const desired: Matrix = [cross(b2, b3), b2, b3];
    const turned =
      this.#desired === undefined ? ([0, 0, 0] as const) : vee(transposeTimes(this.#desired, desired));
    this.#desired = desired;
    this.#allocate(thrustN, this.moment(rotation, desired, scale(turned, 1 / dtS), at(AT.rates)));
    return this.throttles;
  }

  /** @returns equation 16 without its feed-forward of the desired acceleration */
  moment(rotation: Matrix, desired: Matrix, desiredRate: Vector, rate: Vector): Vector {
    const { kR, kOmega } = this.#gains;
    const error = transposeTimes(desired, rotation);
    const eR = vee(error);
    const back = transposeTimes(rotation, desired);
    const wanted = [0, 1, 2].map((row) =>
      back.reduce((sum, column, at) => sum + (column[row] as number) * (desiredRate[at] as number), 0),
    );
    const [ix, iy, iz] = this.#p.inertiaKgM2;
    const gyroscopic = cross(rate, [ix * rate[0], iy * rate[1], iz * rate[2]]);
    return [0, 1, 2].map(
      (axis) =>
        -kR * (eR[axis] as number) -
        kOmega * ((rate[axis] as number) - (wanted[axis] as number)) +
        (gyroscopic[axis] as number),
    ) as unknown as Vector;
  }

  /** The paper's rotors may push downwards, ours not: where the thrust is too little to turn with, turning comes first. */
  #allocate(thrustN: number, [roll, pitch, yaw]: Vector): void {
    const { armM, thrustN: full, torqueNm } = this.#p;
    const parts = ROLL.map(
      (side, motor) =>
        (side * roll) / (4 * armM.roll * full) +
        ((PITCH[motor] as number) * pitch) / (4 * armM.pitch * full) +
        ((YAW[motor] as number) * yaw) / (4 * torqueNm),
    );
    const base = Math.max(thrustN / (4 * full), -Math.min(...parts));
    parts.forEach((part, motor) => {
      this.throttles[motor] = Math.min(1, Math.max(0, base + part));
    });
  }
}
