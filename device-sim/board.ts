/**
 * The flight-controller board: bytes and times in, bytes out; owns the physics.
 *
 * Invariants: no clock and no descriptor inside. Simulated time follows the times that are passed in, in steps of
 * 1 ms. The last command is held; 200 ms after it the board levels and descends by itself and listens to nobody until
 * it is down. It follows every valid command whoever sent it, as a real board would: keeping a second sender away is
 * the handover's duty, and the judge tells whether it was done. With a signing key valid means signed, too.
 */
import { Battery } from '#device-sim/battery.ts';
import { failsafeThrottles } from '#device-sim/failsafe.ts';
import type { History, Ring } from '#device-sim/history.ts';
import { Judge } from '#device-sim/judge.ts';
import { LIMITS } from '#device-sim/limits.ts';
import type { Parameters } from '#device-sim/parameters.ts';
import { AT, createState, type State, step, tiltRad } from '#device-sim/physics.ts';
import { Random } from '#device-sim/random.ts';
import { Sensors } from '#device-sim/sensors.ts';
import { Telemetry } from '#device-sim/telemetry.ts';
import { TRUTH, type Truth } from '#device-sim/truth.ts';
import { type Fields, type Frame, MAV, Parser, type Refusal, SignedLink } from '#handover/mavlink/index.ts';

export interface BoardOptions {
  readonly parameters: Parameters;
  /** 32-bit unsigned. */
  readonly seed: number;
  /** CLOCK_MONOTONIC at power-on, us. */
  readonly startUs: number;
  readonly history: History;
  readonly truth: Truth;
  /** Frames are signed and have to be; the time at power-on, in 10 us since 2015-01-01 UTC. */
  readonly signing?: { readonly key: Uint8Array; readonly startTicks: number } | undefined;
}

const STEP_S = LIMITS.stepUs / 1e6;
const DEG = 180 / Math.PI;
/** Of the port; its one companion is on it. */
const BOARD_LINK_ID = 0;

export class Board {
  readonly startUs: number;
  readonly #p: Parameters;
  readonly #truth: Truth;
  readonly #judge: Judge;
  readonly #flight: Ring;
  readonly #state: State = createState();
  readonly #sensors: Sensors;
  readonly #telemetry: Telemetry;
  readonly #signing: SignedLink | undefined;
  readonly #parser: Parser;
  readonly #battery: Battery;
  readonly #throttles = new Float64Array(4);
  #armed = false;
  #failsafe = false;
  #crashed = false;
  #epoch = 0;
  /** Simulated up to here. */
  #physicsUs: number;
  /** Last time that the board ran at all, and how long it slept since the last command: nobody else's fault. */
  #aliveUs: number;
  #blindUs = 0;
  #lastCommandUs = 0;
  #newestImuUs = 0;
  #jumpedUs = 0;
  #ticks = 0;
  #skippedTicks = 0;
  #lateTicks = 0;
  #lateUsMax = 0;

  constructor({ parameters, seed, startUs, history, truth, signing }: BoardOptions) {
    this.#p = parameters;
    this.#truth = truth;
    this.#judge = new Judge(history);
    this.#flight = history.flight;
    this.#sensors = new Sensors(parameters, new Random(seed));
    if (signing !== undefined) {
      const now = (): number => signing.startTicks + Math.floor((this.#aliveUs - startUs) / 10);
      this.#signing = new SignedLink({ key: signing.key, linkId: BOARD_LINK_ID, lastTimestamp: 0, now });
    }
    const onRefused = (refusal: Refusal, frame: Frame): void => this.#refused(refusal, frame);
    this.#parser = new Parser({ signing: this.#signing, onRefused });
    this.#telemetry = new Telemetry(startUs, this.#signing);
    this.#battery = new Battery(parameters);
    this.startUs = startUs;
    this.#physicsUs = startUs;
    this.#aliveUs = startUs;
    this.#publish();
  }

  /** Arrival of the last command that was followed, us; 0 before the first. */
  get lastCommandUs(): number {
    return this.#lastCommandUs;
  }

  /** @param percent 0 to 100 */
  setBattery(percent: number): void {
    this.#battery.percent = percent;
  }

  /** Bytes from the companion, which became readable at `nowUs`. */
  receive(bytes: Uint8Array, nowUs: number): void {
    this.#advance(nowUs);
    for (const frame of this.#parser.read(bytes)) {
      if (frame.name === 'HIL_ACTUATOR_CONTROLS') this.#command(frame.fields, nowUs);
      else if (frame.name === 'COMMAND_LONG') this.#order(frame.fields, frame.systemId, frame.componentId);
    }
  }

  /**
   * One cycle.
   *
   * @param lateUs       after the time that this tick was due
   * @param skippedTicks due before this one and not run
   * @returns the frames to send, valid until the next call
   */
  tick(nowUs: number, lateUs: number, skippedTicks: number): Uint8Array {
    this.#advance(nowUs);
    this.#skippedTicks += skippedTicks;
    if (lateUs > LIMITS.lateTickUs) this.#lateTicks += 1;
    this.#lateUsMax = Math.max(this.#lateUsMax, lateUs);

    const { x } = this.#state;
    this.#sensors.sample(this.#state);
    this.#newestImuUs = this.#physicsUs;
    const tilt = tiltRad(x) * DEG;
    const rates = x.subarray(AT.rates, AT.rates + 3);
    this.#judge.sample(nowUs, rates, tilt, x[AT.position + 2] as number, lateUs, skippedTicks);
    const { gyro, accelerometer } = this.#sensors;
    const pose = x.subarray(AT.position, AT.attitude + 4);
    const [throttles, { percent }] = [this.#throttles, this.#battery];
    this.#flight.push(nowUs, this.#physicsUs, ...gyro, ...accelerometer, ...pose, ...throttles, percent);
    this.#publish();
    const bytes = this.#telemetry.frames(this.#ticks, this.#physicsUs, this.#sensors, {
      armed: this.#armed,
      onGround: this.#state.onGround,
      failsafe: this.#failsafe,
      crashed: this.#crashed,
      battery: this.#battery,
    });
    this.#ticks += 1;
    return bytes;
  }

  #command(fields: Fields<'HIL_ACTUATOR_CONTROLS'>, nowUs: number): void {
    const arrival = { tUs: nowUs, epoch: fields.flags, imuUs: fields.time_usec };
    if (this.#failsafe || this.#crashed) {
      this.#judge.refuse(arrival, 'ignored');
      return;
    }
    const arms = (fields.mode & MAV.MODE_FLAG_SAFETY_ARMED) !== 0;
    const finite = fields.controls.every(Number.isFinite);
    // Motors off is an order for the ground; and nobody can answer a sample that was not taken yet.
    if (!finite || fields.time_usec > this.#newestImuUs || (!arms && !this.#state.onGround)) {
      this.#judge.refuse(arrival, 'invalid');
      return;
    }
    if (!arms) {
      this.#disarm();
      return;
    }
    this.#armed = true;
    this.#judge.record(arrival);
    this.#epoch = fields.flags;
    this.#lastCommandUs = nowUs;
    this.#blindUs = 0;
    for (let motor = 0; motor < 4; motor += 1) {
      this.#throttles[motor] = Math.min(1, Math.max(0, fields.controls[motor] as number));
    }
  }

  /** What else than a command it would have been does not matter, nor what it says of itself. */
  #refused(refusal: Refusal, frame: Frame): void {
    const isCommand = frame.name === 'HIL_ACTUATOR_CONTROLS';
    const [epoch, imuUs] = isCommand ? [frame.fields.flags, frame.fields.time_usec] : [0, 0];
    this.#judge.refuse({ tUs: this.#aliveUs, epoch, imuUs }, refusal);
  }

  /** Only disarming is known as an order; arming comes with the first command. */
  #order(fields: Fields<'COMMAND_LONG'>, systemId: number, componentId: number): void {
    const known = fields.command === MAV.CMD_COMPONENT_ARM_DISARM && fields.param1 === 0;
    const allowed = known && (this.#state.onGround || !this.#armed);
    if (allowed && this.#armed) this.#disarm();
    const refused = known ? MAV.RESULT_DENIED : MAV.RESULT_UNSUPPORTED;
    const result = allowed ? MAV.RESULT_ACCEPTED : refused;
    this.#telemetry.answer(fields.command, result, systemId, componentId);
  }

  #advance(nowUs: number): void {
    const asleepUs = nowUs - this.#aliveUs - LIMITS.tickUs;
    if (asleepUs > LIMITS.tickUs) {
      this.#blindUs += asleepUs;
      this.#judge.late(asleepUs);
    }
    this.#aliveUs = Math.max(this.#aliveUs, nowUs);
    const jumpUs = nowUs - this.#physicsUs - LIMITS.catchUpUs;
    if (jumpUs > 0) {
      this.#physicsUs += jumpUs;
      this.#jumpedUs += jumpUs;
    }
    while (this.#physicsUs + LIMITS.stepUs <= nowUs) this.#step();
  }

  #step(): void {
    const silentUs = this.#physicsUs - this.#lastCommandUs - this.#blindUs;
    if (this.#armed && !this.#failsafe && silentUs >= LIMITS.failsafeUs) {
      if (this.#state.onGround) {
        this.#disarm();
      } else {
        this.#failsafe = true;
        this.#judge.failsafe(this.#physicsUs);
      }
    }
    if (this.#failsafe) failsafeThrottles(this.#state.x, this.#p, this.#throttles);
    const flew = !this.#state.onGround;
    step(this.#state, this.#throttles, STEP_S, this.#p);
    this.#physicsUs += LIMITS.stepUs;
    this.#battery.drain(this.#throttles, STEP_S);
    if (flew && this.#state.onGround) this.#land();
  }

  #land(): void {
    const { touchdownMS, touchdownTiltRad } = this.#state;
    if (touchdownMS > LIMITS.touchdownMSMax || touchdownTiltRad * DEG > LIMITS.touchdownTiltDegMax) {
      this.#crashed = true;
    }
    if (this.#failsafe || this.#crashed) this.#disarm();
  }

  #disarm(): void {
    this.#armed = false;
    this.#failsafe = false;
    this.#throttles.fill(0);
    this.#judge.pause();
  }

  #publish(): void {
    const { values } = this.#truth;
    const { counts } = this.#parser;
    this.#truth.begin();
    values[TRUTH.tUs] = this.#physicsUs;
    values.set(this.#state.x, TRUTH.state);
    values.set(this.#throttles, TRUTH.throttles);
    values[TRUTH.armed] = Number(this.#armed);
    values[TRUTH.onGround] = Number(this.#state.onGround);
    values[TRUTH.failsafe] = Number(this.#failsafe);
    values[TRUTH.crashed] = Number(this.#crashed);
    values[TRUTH.batteryPercent] = this.#battery.percent;
    values[TRUTH.epoch] = this.#epoch;
    values[TRUTH.lastCommandUs] = this.#lastCommandUs;
    values[TRUTH.ticks] = this.#ticks;
    values[TRUTH.skippedTicks] = this.#skippedTicks;
    values[TRUTH.lateTicks] = this.#lateTicks;
    values[TRUTH.lateUsMax] = this.#lateUsMax;
    values[TRUTH.jumpedUs] = this.#jumpedUs;
    values[TRUTH.commandsLost] = counts.lost;
    values[TRUTH.garbageBytes] = counts.garbageBytes;
    values[TRUTH.badChecksums] = counts.badChecksums;
    values[TRUTH.signed] = Number(this.#signing !== undefined);
    values[TRUTH.streams] = this.#signing?.streamCount ?? 0;
    this.#truth.end();
  }
}
