/**
 * A GPS receiver: measures at its rate, says it after its latency.
 *
 * Invariant: a fix is what was measured `latencyS` before it is out, with the error of then; times are those of the
 * caller. The error wanders, as multipath and the ionosphere do: averaging a minute does not remove it.
 */
import { GaussMarkov } from '#device-sim/noise.ts';
import type { GpsParameters } from '#device-sim/parameters.ts';
import { AT } from '#device-sim/physics.ts';
import type { Random } from '#device-sim/random.ts';

export interface GpsFix {
  /** When it was measured. */
  tUs: number;
  /** NED from the start place, m, and m/s. */
  readonly position: Float64Array;
  readonly velocity: Float64Array;
}

const emptyFix = (): GpsFix => ({
  tUs: Number.NEGATIVE_INFINITY,
  position: new Float64Array(3),
  velocity: new Float64Array(3),
});

export class Gps {
  /** Present error of each axis, m. */
  readonly error = new Float64Array(3);
  /** The last one that is out; before the first its time is minus infinity. */
  readonly fix: GpsFix = emptyFix();
  readonly #p: GpsParameters;
  readonly #random: Random;
  readonly #wander: readonly GaussMarkov[];
  /** Measured and not yet out; used round and round. */
  readonly #pending: GpsFix[];
  #oldest = 0;
  #count = 0;
  #dueUs = Number.NEGATIVE_INFINITY;

  /** @param stepS between two calls of `sample` */
  constructor(parameters: GpsParameters, random: Random, stepS: number) {
    this.#p = parameters;
    this.#random = random;
    const { horizontalM, verticalM, wanderS, latencyS, rateHz } = parameters;
    this.#wander = [horizontalM, horizontalM, verticalM].map(
      (sigma) => new GaussMarkov(random, sigma, wanderS, stepS),
    );
    this.#pending = Array.from({ length: Math.ceil(latencyS * rateHz) + 2 }, emptyFix);
  }

  /** @returns whether `fix` is a new one */
  sample(tUs: number, x: Float64Array): boolean {
    for (let axis = 0; axis < 3; axis += 1) this.error[axis] = (this.#wander[axis] as GaussMarkov).step();
    if (tUs >= this.#dueUs && this.#count < this.#pending.length) {
      this.#measure(tUs, x);
      const periodUs = 1e6 / this.#p.rateHz;
      // On its own grid; after a pause, from now on.
      this.#dueUs = this.#dueUs + periodUs > tUs ? this.#dueUs + periodUs : tUs + periodUs;
    }
    let isNew = false;
    while (this.#count > 0) {
      const next = this.#pending[this.#oldest] as GpsFix;
      if (next.tUs + this.#p.latencyS * 1e6 > tUs) break;
      this.fix.tUs = next.tUs;
      this.fix.position.set(next.position);
      this.fix.velocity.set(next.velocity);
      this.#oldest = (this.#oldest + 1) % this.#pending.length;
      this.#count -= 1;
      isNew = true;
    }
    return isNew;
  }

  #measure(tUs: number, x: Float64Array): void {
    const slot = this.#pending[(this.#oldest + this.#count) % this.#pending.length] as GpsFix;
    slot.tUs = tUs;
    for (let axis = 0; axis < 3; axis += 1) {
      slot.position[axis] = (x[AT.position + axis] as number) + (this.error[axis] as number);
      slot.velocity[axis] = (x[AT.velocity + axis] as number) + this.#p.speedMS * this.#random.normal();
    }
    this.#count += 1;
  }
}
