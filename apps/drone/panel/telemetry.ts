/** What the panel is told of the flight, 25 times a second: the state of now, and every gyro sample since the last time. */

import type { Loop } from '../flight/loop.ts';
import { eulerDeg } from '../flight/vectors.ts';

/** Digits that can be seen; the rest would double the bytes. */
const round = (value: number): number => Math.round(value * 1e5) / 1e5;

export class Telemetry {
  readonly #release: string;
  readonly #loop: Loop;
  #sentUs = 0;

  constructor(release: string, loop: Loop) {
    this.#release = release;
    this.#loop = loop;
  }

  /** Says to nobody what has happened so far. */
  rehearse(): void {
    JSON.stringify(this.next());
  }

  /** The next message, or null if nothing has happened since the last one. */
  next(): object | null {
    const { state, output } = this.#loop;
    const { attitude, position, velocity, rate } = state.estimate;
    if (attitude === null || position === null || state.imuUs <= this.#sentUs) return null;
    const trace = this.#loop.traceAfter(this.#sentUs);
    this.#sentUs = state.imuUs;
    const [north, east, down] = position;
    return {
      tUs: state.imuUs,
      release: this.#release,
      epoch: output.epoch,
      phase: state.phase,
      gyro: rate.map(round),
      attitudeDeg: eulerDeg(attitude).map(round),
      position: [north - state.home[0], east - state.home[1], down - state.home[2]].map(round),
      velocity: velocity.map(round),
      goalM: round(state.home[2] - state.target.place[2]),
      rotors: state.command.map(round),
      trace: trace.map(([us, x = 0, y = 0, z = 0]) => [us, round(x), round(y), round(z)]),
    };
  }
}
