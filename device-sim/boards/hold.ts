/** Stops, then stays: brakes until it is slow, and holds the place where it then is. */
import type { Move } from '#device-sim/boards/cascade.ts';
import type { Vector } from '#device-sim/boards/rotation.ts';
import type { Sensors } from '#device-sim/sensors.ts';

/** Slower than this it stands. */
const SLOW_MS = 0.3;
const FREE = Number.NaN;
export const FREELY: Vector = [FREE, FREE, FREE];

export class Hold {
  #place: [number, number, number] = [FREE, FREE, FREE];

  /** From here on a new place. @param zM the height of it, if that is known already */
  start(zM = FREE): void {
    this.#place = [FREE, FREE, zM];
  }

  /** @param downMS moves down (or up) at this speed instead of holding its height */
  target({ position, velocity }: Sensors, downMS = 0): Move {
    const level = Math.hypot(velocity[0] as number, velocity[1] as number);
    if (Number.isNaN(this.#place[0]) && level < SLOW_MS) {
      this.#place[0] = position[0] as number;
      this.#place[1] = position[1] as number;
    }
    if (downMS !== 0) this.#place[2] = FREE;
    else if (Number.isNaN(this.#place[2]) && Math.abs(velocity[2] as number) < SLOW_MS) {
      this.#place[2] = position[2] as number;
    }
    return {
      position: this.#place,
      velocity: [0, 0, downMS],
      acceleration: FREELY,
      yawRad: FREE,
      yawRateRadS: FREE,
    };
  }
}
