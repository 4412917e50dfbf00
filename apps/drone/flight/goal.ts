/**
 * Where the drone is to go, and the reference that leads it there: a point that moves as a drone can.
 *
 * Invariant: pure; the reference's place and velocity never jump, whatever is asked and when, so that a new goal in the
 * middle of another is as smooth as the first.
 */
import { LIMITS } from './limits.ts';
import { add, length, scale, subtract, type Vector, ZERO } from './vectors.ts';

/** m and m/s, NED, in the board's own frame. */
export type Goal =
  | { readonly type: 'to'; readonly place: Vector; readonly speedMS: number }
  /** Clockwise, seen from above, at the reference's height. */
  | { readonly type: 'circle'; readonly centre: Vector; readonly radiusM: number; readonly speedMS: number }
  /** Down, until the ground is there. */
  | { readonly type: 'land' }
  /** Another version's reference, as it was last told: goes on as it went. */
  | { readonly type: 'told' };

export interface Reference {
  readonly place: Vector;
  readonly velocity: Vector;
  readonly acceleration: Vector;
}

export const standing = (place: Vector): Reference => ({ place, velocity: ZERO, acceleration: ZERO });

/** @returns the reference `dtS` later */
export const lead = (now: Reference, goal: Goal, dtS: number): Reference => {
  if (goal.type === 'told') {
    const velocity = add(now.velocity, scale(now.acceleration, dtS));
    return { ...now, place: add(now.place, scale(velocity, dtS)), velocity };
  }
  if (goal.type === 'to' && arrives(now, goal.place)) return standing(goal.place);
  const [wanted, accelerationMS2Max] = wish(now, goal, dtS);
  const change = shorten(subtract(wanted, now.velocity), accelerationMS2Max * dtS);
  const velocity = add(now.velocity, change);
  // On the way from place to place it is small, and as a step it would be felt; on a circle it is what turns.
  const acceleration = goal.type === 'circle' ? scale(change, 1 / dtS) : ZERO;
  return { place: add(now.place, scale(velocity, dtS)), velocity, acceleration };
};

export const arrived = (now: Reference, goal: Goal): boolean =>
  goal.type === 'to' && length(subtract(goal.place, now.place)) === 0;

/** The place that it can stop at, braking from now on. */
export const stopping = ({ place, velocity }: Reference): Vector =>
  add(place, scale(velocity, length(velocity) / (2 * BRAKE_MS2)));

const BRAKE_MS2 = 0.8 * LIMITS.easeMS2;

const shorten = (a: Vector, max: number): Vector => (length(a) > max ? scale(a, max / length(a)) : a);

const arrives = ({ place, velocity }: Reference, at: Vector): boolean =>
  length(subtract(at, place)) < 0.005 && length(velocity) < 0.1;

/** Velocity wanted now, and how fast it may be changed to. */
const wish = (now: Reference, goal: Exclude<Goal, { type: 'told' }>, dtS: number): [Vector, number] => {
  switch (goal.type) {
    case 'to': {
      const way = subtract(goal.place, now.place);
      const rest = length(way);
      if (rest === 0) return [ZERO, LIMITS.easeMS2];
      // Straight there: what the height allows bounds the whole.
      const climbs = (LIMITS.climbMS * rest) / Math.max(Math.abs(way[2]), 1e-6);
      const speed = Math.min(goal.speedMS, climbs, Math.sqrt(2 * BRAKE_MS2 * rest));
      return [scale(way, speed / rest), LIMITS.easeMS2];
    }
    case 'circle': {
      const out = subtract(now.place, goal.centre);
      const level = Math.hypot(out[0], out[1]);
      const [north, east] = level > 1e-6 ? [out[0] / level, out[1] / level] : [1, 0];
      // Faster little by little, and back onto the circle if it is off it.
      const speed = Math.min(goal.speedMS, length(now.velocity) + LIMITS.easeMS2 * dtS);
      const inward = level - goal.radiusM;
      return [[-east * speed - north * inward, north * speed - east * inward, 0], LIMITS.turnMS2Max];
    }
    case 'land':
      return [[0, 0, LIMITS.landMS], LIMITS.easeMS2];
  }
};
