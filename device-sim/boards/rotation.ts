/** Quaternions (w, x, y, z; body to world) and vectors, as tuples. Pure. */
export type Quaternion = readonly [w: number, x: number, y: number, z: number];
export type Vector = readonly [number, number, number];

export const ZERO: Vector = [0, 0, 0];

export const clamp = (value: number, low: number, high: number): number =>
  Math.min(high, Math.max(low, value));

export const multiply = (a: Quaternion, b: Quaternion): Quaternion => [
  a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
  a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
  a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
  a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
];

export const conjugate = ([w, x, y, z]: Quaternion): Quaternion => [w, -x, -y, -z];

/** The same rotation, its first part not negative: the short way round. */
export const canonical = (q: Quaternion): Quaternion => (q[0] < 0 ? [-q[0], -q[1], -q[2], -q[3]] : q);

export const normalise = (q: Quaternion): Quaternion => {
  const norm = Math.hypot(q[0], q[1], q[2], q[3]);
  return [q[0] / norm, q[1] / norm, q[2] / norm, q[3] / norm];
};

export const ofAxis = (axis: Vector, angleRad: number): Quaternion => {
  const sine = Math.sin(angleRad / 2);
  return [Math.cos(angleRad / 2), axis[0] * sine, axis[1] * sine, axis[2] * sine];
};

export const ofYaw = (yawRad: number): Quaternion => ofAxis([0, 0, 1], yawRad);

export const yawOf = ([w, x, y, z]: Quaternion): number =>
  Math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z));

/** The body's own z (down when level) in the world. */
export const downOf = ([w, x, y, z]: Quaternion): Vector => [
  2 * (x * z + w * y),
  2 * (y * z - w * x),
  1 - 2 * (x * x + y * y),
];

/** The world's z in the body: what turns the drone round the vertical, as body rates. */
export const verticalIn = ([w, x, y, z]: Quaternion): Vector => [
  2 * (x * z - w * y),
  2 * (y * z + w * x),
  1 - 2 * (x * x + y * y),
];

export const cross = (a: Vector, b: Vector): Vector => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];

export const dot = (a: Vector, b: Vector): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** The shortest rotation that turns one unit vector into the other; any of them when they are opposite. */
export const between = (from: Vector, to: Vector): Quaternion => {
  const cosine = dot(from, to);
  if (cosine < -1 + 1e-9) {
    const other: Vector = Math.abs(from[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
    const axis = cross(from, other);
    return normalise([0, ...axis]);
  }
  return normalise([1 + cosine, ...cross(from, to)]);
};

/** The body's own x (nose) in the world. */
const noseOf = ([w, x, y, z]: Quaternion): Vector => [
  1 - 2 * (y * y + z * z),
  2 * (x * y + w * z),
  2 * (x * z - w * y),
];

/** The attitude whose z is `down`, its nose in the vertical plane of `yawRad`. */
export const attitudeOf = (down: Vector, yawRad: number): Quaternion => {
  const tilted = between([0, 0, 1], down);
  const [nose, ahead] = [noseOf(tilted), cross([-Math.sin(yawRad), Math.cos(yawRad), 0], down)];
  return multiply(tilted, ofYaw(Math.atan2(dot(cross(nose, ahead), down), dot(nose, ahead))));
};

/** A vector that is given along a heading, in the world; NaN stays. */
export const turned = ([x, y, z]: Vector, headingRad: number): Vector => {
  const [cosine, sine] = [Math.cos(headingRad), Math.sin(headingRad)];
  return [cosine * x - sine * y, sine * x + cosine * y, z];
};
