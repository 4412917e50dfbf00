/**
 * What a kind of board is: the messages that it follows, what it flies by itself, and what it says of itself.
 *
 * Invariant: a profile has no clock. It is given frames that passed the signing with the time of their arrival, and every
 * step of the simulated time; all that it commands is in `vehicle.throttles`.
 */
import type { Streams } from '#device-sim/boards/streams.ts';
import type { Fields, Frame } from '#handover/mavlink/index.ts';

export const BOARDS = ['direct', 'px4', 'ardupilot'] as const;
export type BoardName = (typeof BOARDS)[number];

export type Heartbeat = Pick<
  Fields<'HEARTBEAT'>,
  'autopilot' | 'base_mode' | 'custom_mode' | 'system_status'
>;

export interface Profile {
  readonly streams: Streams;
  /** Whether it closes the inner loops itself, from an estimate every 4 ms of simulated time: `fly` is then called. */
  readonly flies: boolean;
  hear(frame: Frame, tUs: number): void;
  /** Before each step of the physics. */
  step(tUs: number): void;
  /** A new estimate is in `vehicle.sensors`. */
  fly(tUs: number): void;
  /** It touched the ground. */
  landed(tUs: number): void;
  heartbeat(): Heartbeat;
  /** MAV_LANDED_STATE. */
  landedState(): number;
}

/** Of the gap between two commands, as the judge counts missed cycles: how often each kind wants to be told, us. */
export const CYCLE_US: Readonly<Record<BoardName, number>> = {
  /** Every sample is answered. */
  direct: 4_000,
  /** The "proof of life" of offboard mode: 2 Hz (docs.px4.io, Offboard Mode). */
  px4: 500_000,
  /** "Re-sent every second" (ardupilot.org/dev, Copter Commands in Guided Mode). */
  ardupilot: 1_000_000,
};
