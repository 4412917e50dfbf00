/**
 * How often a board sends what, and what a companion asked for instead (MAV_CMD_SET_MESSAGE_INTERVAL).
 *
 * Invariant: counted in the board's ticks, so the same ticks send the same messages; a rate that does not divide the
 * tick's is met on average, and none is above it.
 */
import { LIMITS } from '#device-sim/limits.ts';
import { LAYOUTS } from '#handover/mavlink/index.ts';

const TICK_HZ = 1e6 / LIMITS.tickUs;

/** In the order in which a tick sends them. */
export const STREAMED = [
  'HIGHRES_IMU',
  'ATTITUDE_QUATERNION',
  'LOCAL_POSITION_NED',
  'EXTENDED_SYS_STATE',
  'HEARTBEAT',
  'SYS_STATUS',
] as const;
export type Streamed = (typeof STREAMED)[number];
export type Rates = Readonly<Record<Streamed, number>>;

export class Streams {
  readonly #defaults: Rates;
  #hz: Record<Streamed, number>;

  /** @param defaults Hz; 0: only when asked for */
  constructor(defaults: Rates) {
    this.#defaults = defaults;
    this.#hz = { ...defaults };
  }

  due(name: Streamed, tick: number): boolean {
    const hz = this.#hz[name];
    if (hz <= 0) return false;
    // Also of tick 0, since the floor of what is below 0 is -1.
    return Math.floor((tick * hz) / TICK_HZ) > Math.floor(((tick - 1) * hz) / TICK_HZ);
  }

  /**
   * @param messageId  MAVLink's
   * @param intervalUs 0: the default; below 0: not at all
   * @returns false: no message that is sent here
   */
  set(messageId: number, intervalUs: number): boolean {
    const name = STREAMED.find((each) => LAYOUTS[each].id === messageId);
    if (name === undefined || !Number.isFinite(intervalUs)) return false;
    const asked = intervalUs < 0 ? 0 : Math.min(TICK_HZ, 1e6 / Math.max(1, intervalUs));
    this.#hz[name] = intervalUs === 0 ? this.#defaults[name] : asked;
    return true;
  }
}
