/**
 * What the board flies by itself when nobody commands: level, and slowly down.
 *
 * Invariant: uses only what a real board has without its companion (attitude, rates, vertical speed), and needs no
 * memory, so it can start in any attitude.
 */
import type { Parameters } from '#device-sim/parameters.ts';
import { AT, PITCH, ROLL, toBody, YAW } from '#device-sim/physics.ts';

const DESCENT_MS = 0.7;
const CLIMB_GAIN = 3;
/** Attitude as a second-order system, well below the motors' 20 rad/s. */
const NATURAL_RAD_S = 6;
const DAMPING = 1;
const YAW_GAIN = 3;

const down = new Float64Array(3);

/** @param out throttles of the four motors, 0 to 1 */
export const failsafeThrottles = (x: Float64Array, p: Parameters, out: Float64Array): void => {
  toBody(x, 0, 0, 1, down);
  const upright = down[2] as number;
  const [ix, iy, iz] = p.inertiaKgM2;
  const stiff = NATURAL_RAD_S ** 2;
  const damp = 2 * DAMPING * NATURAL_RAD_S;
  const rollNm = ix * (-stiff * (down[1] as number) - damp * (x[AT.rates] as number));
  const pitchNm = iy * (stiff * (down[0] as number) - damp * (x[AT.rates + 1] as number));
  const yawNm = -iz * YAW_GAIN * (x[AT.rates + 2] as number);

  const acceleration = CLIMB_GAIN * (DESCENT_MS - (x[AT.velocity + 2] as number));
  // On its back: no thrust towards the ground until it is turned.
  const thrustN = upright > 0.3 ? (p.massKg * Math.max(0, p.gravityMS2 - acceleration)) / upright : 0;
  // When the sum does not fit, turning comes before climbing.
  const base = Math.min(0.85, Math.max(0.15, thrustN / (4 * p.thrustN)));
  for (let motor = 0; motor < 4; motor += 1) {
    const roll = ((ROLL[motor] as number) * rollNm) / (4 * p.armM.roll * p.thrustN);
    const pitch = ((PITCH[motor] as number) * pitchNm) / (4 * p.armM.pitch * p.thrustN);
    const yaw = ((YAW[motor] as number) * yawNm) / (4 * p.torqueNm);
    out[motor] = Math.min(1, Math.max(0, base + roll + pitch + yaw));
  }
};
