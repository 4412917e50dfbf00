/** Three numbers, four numbers, and the little algebra that a flight needs. Nothing here keeps state. */
export type Vector = readonly [number, number, number];
/** w, x, y, z: body to world. */
export type Quaternion = readonly [number, number, number, number];
export type Motors = readonly [number, number, number, number];

export const ZERO: Vector = [0, 0, 0];
export const clamp = (value: number, low: number, high: number): number =>
  Math.max(low, Math.min(value, high));

export const add = (a: Vector, b: Vector): Vector => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
export const subtract = (a: Vector, b: Vector): Vector => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
export const scale = (a: Vector, by: number): Vector => [a[0] * by, a[1] * by, a[2] * by];
/** Element by element. */
export const times = (a: Vector, b: Vector): Vector => [a[0] * b[0], a[1] * b[1], a[2] * b[2]];
export const bound = (a: Vector, max: Vector): Vector => [
  clamp(a[0], -max[0], max[0]),
  clamp(a[1], -max[1], max[1]),
  clamp(a[2], -max[2], max[2]),
];
export const length = (a: Vector): number => Math.hypot(a[0], a[1], a[2]);
export const cross = (a: Vector, b: Vector): Vector => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];

export const multiply = (a: Quaternion, b: Quaternion): Quaternion => [
  a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
  a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
  a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
  a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
];
export const conjugate = (q: Quaternion): Quaternion => [q[0], -q[1], -q[2], -q[3]];
export const normalise = (q: Quaternion): Quaternion => {
  const size = Math.hypot(q[0], q[1], q[2], q[3]);
  return size > 1e-9 ? [q[0] / size, q[1] / size, q[2] / size, q[3] / size] : [1, 0, 0, 0];
};
/** Body to world. */
export const rotate = (q: Quaternion, v: Vector): Vector => {
  const axis: Vector = [q[1], q[2], q[3]];
  const twice = scale(cross(axis, v), 2);
  return add(add(v, scale(twice, q[0])), cross(axis, twice));
};
/** One step of rotation at `rate` (rad/s, body). */
export const integrate = (q: Quaternion, rate: Vector, dtS: number): Quaternion =>
  normalise(multiply(q, [1, (rate[0] * dtS) / 2, (rate[1] * dtS) / 2, (rate[2] * dtS) / 2]));

export const yawOf = (q: Quaternion): number =>
  Math.atan2(2 * (q[0] * q[3] + q[1] * q[2]), 1 - 2 * (q[2] * q[2] + q[3] * q[3]));
/** Roll, pitch, yaw in degrees. */
export const eulerDeg = (q: Quaternion): Vector => {
  const degrees = 180 / Math.PI;
  const roll = Math.atan2(2 * (q[0] * q[1] + q[2] * q[3]), 1 - 2 * (q[1] * q[1] + q[2] * q[2]));
  const pitch = Math.asin(clamp(2 * (q[0] * q[2] - q[3] * q[1]), -1, 1));
  return [roll * degrees, pitch * degrees, yawOf(q) * degrees];
};

/** The attitude whose body z (down) is `down` (unit, world) and whose nose points along `yawRad` as far as that allows. */
export const attitudeOf = (down: Vector, yawRad: number): Quaternion => {
  const sideways = cross(down, [Math.cos(yawRad), Math.sin(yawRad), 0]);
  const right = scale(sideways, 1 / Math.max(length(sideways), 1e-9));
  const nose = cross(right, down);
  const trace = nose[0] + right[1] + down[2];
  // Tilt is bounded far below 90 degrees, so w is the largest part unless the yaw is near 180 degrees.
  if (trace > 0) {
    const w = Math.sqrt(1 + trace) / 2;
    return normalise([
      w,
      (right[2] - down[1]) / (4 * w),
      (down[0] - nose[2]) / (4 * w),
      (nose[1] - right[0]) / (4 * w),
    ]);
  }
  const z = Math.sqrt(Math.max(0, 1 - nose[0] - right[1] + down[2])) / 2;
  return normalise([
    (nose[1] - right[0]) / (4 * z),
    (down[0] + nose[2]) / (4 * z),
    (right[2] + down[1]) / (4 * z),
    z,
  ]);
};
