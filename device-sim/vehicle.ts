/**
 * The aircraft as its board has it: what every kind of board knows and does in the same way.
 *
 * Invariant: a profile (boards/profile.ts) decides, this remembers. Time is an input; nothing here moves by itself.
 */
import type { Judge } from '#device-sim/judge.ts';
import type { Parameters } from '#device-sim/parameters.ts';
import type { State } from '#device-sim/physics.ts';
import type { Sensors } from '#device-sim/sensors.ts';

/** An order's answer, sent with the next tick. */
export interface Answer {
  readonly command: number;
  readonly result: number;
  readonly target_system: number;
  readonly target_component: number;
}

/** A sender of many orders waits for none: only the last few answers are kept. */
const ANSWERS_MAX = 4;

export class Vehicle {
  readonly parameters: Parameters;
  readonly state: State;
  readonly sensors: Sensors;
  readonly judge: Judge;
  /** Of the four motors, 0 to 1. */
  readonly throttles = new Float64Array(4);
  armed = false;
  /** The board flies by itself, since nobody commanded. */
  failsafe = false;
  crashed = false;
  /** The sender of the last command that was followed. */
  epoch = 0;
  /** Arrival of the last command that was followed, us; 0 before the first. */
  lastCommandUs = 0;
  /** How long the board itself slept since then: nobody else's fault. */
  blindUs = 0;
  /** Time of the newest sample, us; and of the power-on or the reboot from which `time_boot_ms` counts. */
  newestImuUs = 0;
  bootUs: number;
  /** Set by a profile that was ordered to: the board then starts anew. */
  rebooting = false;
  readonly #answers: Answer[] = [];

  constructor(parts: {
    parameters: Parameters;
    state: State;
    sensors: Sensors;
    judge: Judge;
    startUs: number;
  }) {
    this.parameters = parts.parameters;
    this.state = parts.state;
    this.sensors = parts.sensors;
    this.judge = parts.judge;
    this.bootUs = parts.startUs;
  }

  /** A command came, and is followed. */
  followed(tUs: number, epoch: number): void {
    this.epoch = epoch;
    this.lastCommandUs = tUs;
    this.blindUs = 0;
  }

  /** Since the last command, us; what the board slept does not count. */
  silentUs(tUs: number): number {
    return tUs - this.lastCommandUs - this.blindUs;
  }

  disarm(): void {
    this.armed = false;
    this.failsafe = false;
    this.throttles.fill(0);
    this.judge.pause();
  }

  answer(answer: Answer): void {
    if (this.#answers.length >= ANSWERS_MAX) this.#answers.shift();
    this.#answers.push(answer);
  }

  nextAnswer(): Answer | undefined {
    return this.#answers.shift();
  }
}
