/**
 * The flight-controller board: bytes and times in, bytes out; owns the physics.
 *
 * Invariants: no clock and no descriptor inside. Simulated time follows the times that are passed in, in steps of
 * 1 ms. What kind of board it is, its profile says (boards/): which commands it follows, what it flies by itself, when
 * its failsafe acts. With a signing key only what is signed is heard.
 */
import { Surroundings } from '#device-sim/air.ts';
import { createProfile } from '#device-sim/boards/index.ts';
import type { BoardName, Profile } from '#device-sim/boards/profile.ts';
import type { History, Ring } from '#device-sim/history.ts';
import { Judge } from '#device-sim/judge.ts';
import { LIMITS } from '#device-sim/limits.ts';
import type { Parameters } from '#device-sim/parameters.ts';
import { AT, createState, type State, step, tiltRad } from '#device-sim/physics.ts';
import { Random } from '#device-sim/random.ts';
import { Sensors } from '#device-sim/sensors.ts';
import { Telemetry } from '#device-sim/telemetry.ts';
import { TRUTH, type Truth } from '#device-sim/truth.ts';
import { Vehicle } from '#device-sim/vehicle.ts';
import type { WindOptions } from '#device-sim/wind.ts';
import { type Frame, Parser, type Refusal, SignedLink } from '#handover/mavlink/index.ts';

export interface BoardOptions {
  /** `direct` by default. */
  readonly kind?: BoardName;
  readonly parameters: Parameters;
  /** 32-bit unsigned. */
  readonly seed: number;
  /** Still air by default. */
  readonly wind?: WindOptions | undefined;
  /** CLOCK_MONOTONIC at power-on, us. */
  readonly startUs: number;
  readonly history: History;
  readonly truth: Truth;
  /** Frames are signed and have to be; the time at power-on, in 10 us since 2015-01-01 UTC. */
  readonly signing?: { readonly key: Uint8Array; readonly startTicks: number } | undefined;
}

const STEP_S = LIMITS.stepUs / 1e6;
const STEPS_PER_TICK = LIMITS.tickUs / LIMITS.stepUs;
const NOTHING = new Uint8Array(0);
const DEG = 180 / Math.PI;
/** Of the port; its one companion is on it. */
const BOARD_LINK_ID = 0;

export class Board {
  readonly startUs: number;
  readonly #p: Parameters;
  readonly #kind: BoardName;
  readonly #truth: Truth;
  readonly #judge: Judge;
  readonly #flight: Ring;
  readonly #state: State = createState();
  readonly #sensors: Sensors;
  readonly #vehicle: Vehicle;
  readonly #ticksNow: () => number;
  readonly #key: Uint8Array | undefined;
  readonly #surroundings: Surroundings;
  #profile: Profile;
  #telemetry: Telemetry;
  #signing: SignedLink | undefined;
  #parser: Parser;
  /** Simulated up to here. */
  #physicsUs: number;
  /** Last time that the board ran at all. */
  #aliveUs: number;
  #lastHeardUs = 0;
  /** After an order to reboot: deaf and mute until then. */
  #bootedUs = 0;
  #jumpedUs = 0;
  #ticks = 0;
  #bootTicks = 0;
  #stepsFlown = 0;
  #skippedTicks = 0;
  #lateTicks = 0;
  #lateUsMax = 0;

  constructor({ kind = 'direct', parameters, seed, wind, startUs, history, truth, signing }: BoardOptions) {
    this.#kind = kind;
    this.#p = parameters;
    this.#truth = truth;
    this.#judge = new Judge(history);
    this.#flight = history.flight;
    this.#sensors = new Sensors(parameters, new Random(seed));
    this.#surroundings = new Surroundings(parameters, seed, wind);
    this.#vehicle = new Vehicle({
      parameters,
      state: this.#state,
      sensors: this.#sensors,
      judge: this.#judge,
      startUs,
    });
    this.#key = signing?.key;
    this.#ticksNow = () => (signing?.startTicks ?? 0) + Math.floor((this.#aliveUs - startUs) / 10);
    this.startUs = startUs;
    this.#physicsUs = startUs;
    this.#aliveUs = startUs;
    this.#signing = this.#sign(0);
    this.#parser = this.#parse();
    this.#telemetry = new Telemetry(startUs, this.#signing);
    this.#profile = createProfile(kind, this.#vehicle);
    this.#publish();
  }

  /** Arrival of the last command that was followed, us; 0 before the first. */
  get lastCommandUs(): number {
    return this.#vehicle.lastCommandUs;
  }

  /** Whether somebody is taken to read what is sent, since it was heard lately. */
  hasCompanion(nowUs: number): boolean {
    if (!this.#profile.flies) return nowUs - this.#vehicle.lastCommandUs <= LIMITS.unreadUs;
    return nowUs - this.#lastHeardUs <= LIMITS.companionUs;
  }

  /** @param percent 0 to 100 */
  setBattery(percent: number): void {
    this.#surroundings.battery.percent = percent;
  }

  /** Bytes from the companion, which became readable at `nowUs`. */
  receive(bytes: Uint8Array, nowUs: number): void {
    this.#advance(nowUs);
    if (nowUs < this.#bootedUs) return;
    for (const frame of this.#parser.read(bytes)) {
      this.#lastHeardUs = nowUs;
      this.#profile.hear(frame, nowUs);
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
    if (!this.#profile.flies) this.#sample();
    const tilt = tiltRad(x) * DEG;
    const rates = x.subarray(AT.rates, AT.rates + 3);
    this.#judge.sample(nowUs, rates, tilt, x[AT.position + 2] as number, lateUs, skippedTicks);
    const { gyro, accelerometer } = this.#sensors;
    const pose = x.subarray(AT.position, AT.attitude + 4);
    const [{ throttles }, { percent }] = [this.#vehicle, this.#surroundings.battery];
    this.#flight.push(
      nowUs,
      this.#vehicle.newestImuUs,
      ...gyro,
      ...accelerometer,
      ...pose,
      ...throttles,
      percent,
    );
    this.#publish();
    this.#ticks += 1;
    if (nowUs < this.#bootedUs) return NOTHING;
    const { newestImuUs } = this.#vehicle;
    const bytes = this.#telemetry.frames(
      this.#bootTicks,
      newestImuUs,
      this.#vehicle,
      this.#profile,
      this.#surroundings.battery,
    );
    this.#bootTicks += 1;
    // Only now: the order was answered.
    if (this.#vehicle.rebooting) this.#reboot(nowUs);
    return bytes;
  }

  #sample(): void {
    this.#sensors.sample(this.#state, this.#surroundings);
    this.#vehicle.newestImuUs = this.#physicsUs;
  }

  /** What else than a command it would have been does not matter, nor what it says of itself. */
  #refused(refusal: Refusal, frame: Frame): void {
    const isCommand = frame.name === 'HIL_ACTUATOR_CONTROLS';
    const [epoch, imuUs] = isCommand ? [frame.fields.flags, frame.fields.time_usec] : [0, 0];
    this.#judge.refuse({ tUs: this.#aliveUs, epoch, imuUs }, refusal);
  }

  #sign(lastTimestamp: number): SignedLink | undefined {
    const key = this.#key;
    return key && new SignedLink({ key, linkId: BOARD_LINK_ID, lastTimestamp, now: this.#ticksNow });
  }

  #parse(): Parser {
    const onRefused = (refusal: Refusal, frame: Frame): void => this.#refused(refusal, frame);
    return new Parser({ signing: this.#signing, onRefused });
  }

  /** All that was in memory is gone; the signing's time is stored, as ArduPilot does. */
  #reboot(nowUs: number): void {
    this.#vehicle.rebooting = false;
    this.#bootedUs = nowUs + LIMITS.rebootUs;
    this.#bootTicks = 0;
    this.#vehicle.bootUs = this.#bootedUs;
    this.#signing = this.#sign(this.#signing?.lastTimestamp ?? 0);
    this.#parser = this.#parse();
    this.#telemetry = new Telemetry(this.#bootedUs, this.#signing);
    this.#profile = createProfile(this.#kind, this.#vehicle);
  }

  #advance(nowUs: number): void {
    const asleepUs = nowUs - this.#aliveUs - LIMITS.tickUs;
    if (asleepUs > LIMITS.tickUs) {
      this.#vehicle.blindUs += asleepUs;
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
    const { throttles } = this.#vehicle;
    this.#profile.step(this.#physicsUs);
    const flew = !this.#state.onGround;
    step(this.#state, throttles, STEP_S, this.#p, this.#surroundings);
    this.#surroundings.step(this.#state, STEP_S);
    this.#physicsUs += LIMITS.stepUs;
    if (flew && this.#state.onGround) this.#land();
    if (!this.#profile.flies) return;
    // Not in `tick`: a board that sleeps in real time must not hold its motors still in the simulated one.
    this.#stepsFlown += 1;
    if (this.#stepsFlown % STEPS_PER_TICK !== 0) return;
    this.#sample();
    if (this.#vehicle.armed) this.#profile.fly(this.#physicsUs);
  }

  #land(): void {
    const { touchdownMS, touchdownTiltRad } = this.#state;
    if (touchdownMS > LIMITS.touchdownMSMax || touchdownTiltRad * DEG > LIMITS.touchdownTiltDegMax) {
      this.#vehicle.crashed = true;
    }
    if (this.#vehicle.crashed) this.#vehicle.disarm();
    else this.#profile.landed(this.#physicsUs);
  }

  #publish(): void {
    const { values } = this.#truth;
    const vehicle = this.#vehicle;
    const { counts } = this.#parser;
    this.#truth.begin();
    values[TRUTH.tUs] = this.#physicsUs;
    values.set(this.#state.x, TRUTH.state);
    values.set(vehicle.throttles, TRUTH.throttles);
    values[TRUTH.armed] = Number(vehicle.armed);
    values[TRUTH.onGround] = Number(this.#state.onGround);
    values[TRUTH.failsafe] = Number(vehicle.failsafe);
    values[TRUTH.crashed] = Number(vehicle.crashed);
    const { battery, wind } = this.#surroundings;
    values[TRUTH.batteryPercent] = battery.percent;
    values[TRUTH.batteryV] = battery.volts;
    values[TRUTH.batteryA] = battery.amps;
    values.set(wind, TRUTH.wind);
    values[TRUTH.epoch] = vehicle.epoch;
    values[TRUTH.lastCommandUs] = vehicle.lastCommandUs;
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
