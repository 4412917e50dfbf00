/**
 * The door for a controller state that another version wrote.
 *
 * Invariant: what passes has the shape of {@link ControllerState} and only finite, bounded numbers; a successor that
 * cannot read it says so before it has touched the rotors. Raise `STATE_VERSION` with every change of the shape.
 */
import * as v from 'valibot';
import type { ControllerState } from './control.ts';
import { LIMITS } from './limits.ts';

export const STATE_VERSION = 2;

const number = v.pipe(
  v.number(),
  v.finite(),
  v.minValue(-LIMITS.stateValueMax),
  v.maxValue(LIMITS.stateValueMax),
);
const vector = v.strictTuple([number, number, number]);
const four = v.strictTuple([number, number, number, number]);
const timeUs = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const schema = v.object({
  phase: v.picklist(['wait', 'stand', 'spool', 'climb', 'hover', 'land', 'landed']),
  phaseS: number,
  imuUs: timeUs,
  estimate: v.object({
    attitude: v.nullable(four),
    rate: vector,
    position: v.nullable(vector),
    velocity: vector,
  }),
  home: vector,
  goal: v.nullable(
    v.variant('type', [
      v.strictObject({ type: v.literal('to'), place: vector, speedMS: number }),
      v.strictObject({ type: v.literal('circle'), centre: vector, radiusM: number, speedMS: number }),
      v.strictObject({ type: v.literal('land') }),
      v.strictObject({ type: v.literal('told') }),
    ]),
  ),
  target: v.strictObject({ place: vector, velocity: vector, acceleration: vector }),
  yawRad: number,
  groundS: number,
  velocityIntegral: vector,
  rateIntegral: vector,
  thrust: four,
  command: four,
  heard: v.object({
    attitude: v.nullable(four),
    fix: v.nullable(v.object({ position: vector, velocity: vector })),
    landed: v.nullable(v.boolean()),
  }),
});

export class StateError extends Error {
  override readonly name = 'StateError';
  readonly code = 'STATE_UNREADABLE';
}

/** @throws StateError `STATE_UNREADABLE` */
export const parseState = (state: unknown, version: number = STATE_VERSION): ControllerState => {
  if (version !== STATE_VERSION) throw new StateError(`STATE_UNREADABLE: of version ${version}`);
  const result = v.safeParse(schema, state);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new StateError(`STATE_UNREADABLE: ${v.getDotPath(issue) ?? 'state'}: ${issue.message}`);
};
