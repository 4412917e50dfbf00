/**
 * Where the drone is and how it moves: the IMU carries the estimate from sample to sample, the board's attitude
 * (each cycle) and position (50 Hz) correct it.
 *
 * Invariant: pure, and the whole memory is in {@link Estimate}: plain numbers, so that it survives JSON bit by bit.
 */
import { GAINS, GRAVITY_MS2, LIMITS } from './limits.ts';
import {
  add,
  integrate,
  length,
  type Quaternion,
  rotate,
  scale,
  subtract,
  type Vector,
  ZERO,
} from './vectors.ts';

/** What the board says between two IMU samples; null: nothing new. */
export interface Heard {
  attitude: Quaternion | null;
  /** m and m/s, NED. */
  fix: { position: Vector; velocity: Vector } | null;
  /** Whether it stands on the ground. */
  landed: boolean | null;
}
export const SILENCE: Heard = { attitude: null, fix: null, landed: null };

/** One IMU sample and what the board said since the one before. */
export interface Sample extends Heard {
  /** The board says that it lands: it does so by itself when it missed the commands. Of now, so it is handed to nobody. */
  landing?: boolean;
  /** The board's time of the IMU sample; the command that answers it carries it back. */
  imuUs: number;
  /** rad/s, body. */
  gyro: Vector;
  /** Specific force, m/s², body: at rest [0, 0, -9.8]. */
  acceleration: Vector;
}

export interface Estimate {
  attitude: Quaternion | null;
  /** Filtered, rad/s, body. */
  rate: Vector;
  position: Vector | null;
  velocity: Vector;
}

export const NOTHING_KNOWN: Estimate = { attitude: null, rate: ZERO, position: null, velocity: ZERO };

const GYRO_RC_S = 1 / (2 * Math.PI * GAINS.gyroCutoffHz);

export const estimate = (before: Estimate, sample: Sample, dtS: number): Estimate => {
  const share = dtS / (dtS + GYRO_RC_S);
  const rate = add(before.rate, scale(subtract(sample.gyro, before.rate), share));

  // The board's attitude belongs to the sample before this one: it comes after its IMU message.
  const last = sample.attitude ?? before.attitude;
  const attitude = last === null ? null : integrate(last, sample.gyro, dtS);

  let { position, velocity } = before;
  if (attitude !== null && position !== null) {
    const acceleration = add(rotate(attitude, sample.acceleration), [0, 0, GRAVITY_MS2]);
    position = add(position, add(scale(velocity, dtS), scale(acceleration, (dtS * dtS) / 2)));
    velocity = add(velocity, scale(acceleration, dtS));
  }
  if (sample.fix !== null) {
    const error = position === null ? ZERO : subtract(sample.fix.position, position);
    if (position === null || length(error) > LIMITS.positionJumpM) {
      position = sample.fix.position;
      velocity = sample.fix.velocity;
    } else {
      position = add(position, scale(error, GAINS.positionCorrection));
      velocity = add(velocity, scale(subtract(sample.fix.velocity, velocity), GAINS.velocityCorrection));
    }
  }
  return { attitude, rate, position, velocity };
};
