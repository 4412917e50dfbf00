import { describe, expect, test } from 'vitest';
import { AIRFRAME_NAMES, AIRFRAMES } from '#device-sim/airframes.ts';
import { openCircuitV } from '#device-sim/battery.ts';
import { Board, type BoardOptions } from '#device-sim/board.ts';
import { createHistory } from '#device-sim/history.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { PARAMETERS } from '#device-sim/parameters.ts';
import { AT, hoverThrottle, tiltRad } from '#device-sim/physics.ts';
import { summarise } from '#device-sim/summary.ts';
import { TRUTH, Truth } from '#device-sim/truth.ts';
import { type Fields, type Frame, MAV, Parser, SignedLink, Writer } from '#handover/mavlink/index.ts';
import { Pilot } from '#test/sim-kit.ts';

const START = 5_000_000_000;
const START_TICKS = 36_000_000_000_000;
const KEY = new Uint8Array(32).fill(5);
const HOVER = (PARAMETERS.massKg * PARAMETERS.gravityMS2) / (4 * PARAMETERS.thrustN);

/** A board in virtual time, with the reference pilot beside it. */
class Bench {
  readonly history = createHistory();
  readonly truth = new Truth();
  readonly pilot = new Pilot();
  readonly writer: Writer;
  readonly board: Board;
  readonly frames: Frame[] = [];
  readonly #parser: Parser;
  tUs = START;
  epoch = 1;
  flying = true;

  /** @param key of the board's, if it has one; the pilot signs with `pilotKey` */
  constructor(
    seed = 1,
    key?: Uint8Array,
    pilotKey = key,
    { parameters = PARAMETERS, wind }: Partial<Pick<BoardOptions, 'parameters' | 'wind'>> = {},
  ) {
    const { history, truth } = this;
    const signing = key && { key, startTicks: START_TICKS };
    this.board = new Board({ parameters, seed, wind, startUs: START, history, truth, signing });
    const now = (): number => START_TICKS + (this.tUs - START) / 10;
    const end = pilotKey && new SignedLink({ key: pilotKey, linkId: 1, lastTimestamp: 0, now });
    this.writer = new Writer({ systemId: 1, componentId: 191, signing: end });
    this.#parser = new Parser({ signing: end });
  }

  command(fields: Partial<Fields<'HIL_ACTUATOR_CONTROLS'>> = {}, delayUs = 1_000): void {
    const bytes = this.writer.encode('HIL_ACTUATOR_CONTROLS', {
      time_usec: this.pilot.answersUs,
      controls: this.pilot.throttles,
      mode: 0x81,
      flags: this.epoch,
      ...fields,
    });
    this.board.receive(bytes, this.tUs + delayUs);
  }

  tick(lateUs = 0, skipped = 0): Frame[] {
    this.tUs += LIMITS.tickUs * (1 + skipped);
    const frames = this.#parser.read(this.board.tick(this.tUs + lateUs, lateUs, skipped));
    this.frames.push(...frames);
    for (const frame of frames) if (this.pilot.hear(frame) && this.flying) this.command();
    return frames;
  }

  run(seconds: number): this {
    for (let ticks = Math.round((seconds * 1e6) / LIMITS.tickUs); ticks > 0; ticks -= 1) this.tick();
    return this;
  }

  get x(): Float64Array {
    return this.truth.values.subarray(TRUTH.state, TRUTH.state + AT.length);
  }

  get heightM(): number {
    return 0 - (this.x[2] as number);
  }

  is(flag: 'armed' | 'onGround' | 'failsafe' | 'crashed'): boolean {
    return this.truth.values[TRUTH[flag]] === 1;
  }

  judge(fromUs = START) {
    return summarise(this.history, fromUs, this.tUs + 3_999);
  }
}

test('the frames of one second, by their rates; samples carry the clock, 4 ms apart', () => {
  const bench = new Bench();
  bench.flying = false;
  bench.run(1);
  const count = (name: string): number => bench.frames.filter((frame) => frame.name === name).length;
  expect(count('HIGHRES_IMU')).toBe(250);
  expect(count('ATTITUDE_QUATERNION')).toBe(250);
  expect(count('LOCAL_POSITION_NED')).toBe(50);
  expect(count('EXTENDED_SYS_STATE')).toBe(5);
  expect(count('HEARTBEAT')).toBe(1);
  expect(count('SYS_STATUS')).toBe(1);
  const times = bench.frames.flatMap((frame) =>
    frame.name === 'HIGHRES_IMU' ? [frame.fields.time_usec] : [],
  );
  expect(times).toEqual(Array.from({ length: 250 }, (_, i) => START + (i + 1) * 4_000));
});

test('before the first command it stands on the ground, disarmed', () => {
  const bench = new Bench();
  bench.flying = false;
  bench.run(5);
  expect([bench.is('armed'), bench.is('onGround'), bench.heightM]).toEqual([false, true, 0]);
  expect(bench.frames.find((frame) => frame.name === 'EXTENDED_SYS_STATE')?.fields).toMatchObject({
    landed_state: MAV.LANDED_STATE_ON_GROUND,
  });
});

test('the reference pilot takes off to 2 m and hovers, level and steady', () => {
  const bench = new Bench().run(10);
  expect(bench.is('armed')).toBe(true);
  const from = bench.tUs;
  bench.run(20);
  const summary = bench.judge(from);
  expect(summary.altitudeMMedian).toBeGreaterThan(1.9);
  expect(summary.altitudeMMedian).toBeLessThan(2.1);
  expect(summary.altitudeErrorMMax).toBeLessThan(0.05);
  expect(summary.attitudeDegRms).toBeLessThan(0.3);
  expect(summary.attitudeDegMax).toBeLessThan(1);
  expect(summary).toMatchObject({ missedCycles: 0, doubled: 0, stale: 0, gapMsMax: 4, failsafes: 0 });
  expect(bench.truth.values[TRUTH.batteryPercent]).toBeGreaterThan(97);
  expect(bench.truth.values[TRUTH.batteryPercent]).toBeLessThan(98.5);
});

test('it flies to a place five metres away, and back', () => {
  const bench = new Bench().run(8);
  bench.pilot.goal = [5, -5, -3];
  bench.run(12);
  [5, -5, -3].forEach((goal, axis) => {
    expect(Math.abs((bench.x[axis] as number) - goal)).toBeLessThan(0.15);
  });
  bench.pilot.goal = [0, 0, -2];
  bench.run(12);
  expect(Math.hypot(bench.x[0] as number, bench.x[1] as number)).toBeLessThan(0.15);
});

test('the same seed flies the same flight, another one another', () => {
  const end = (seed: number): number[] => Array.from(new Bench(seed).run(6).x);
  expect(end(4)).toEqual(end(4));
  expect(end(4)).not.toEqual(end(5));
});

test('no command: the last one is held for 200 ms, then the failsafe takes over, levels and lands', () => {
  const bench = new Bench().run(8);
  bench.command(
    { time_usec: bench.pilot.answersUs, controls: [HOVER + 0.05, HOVER, HOVER, HOVER + 0.05] },
    1_500,
  );
  bench.flying = false;
  const lastUs = bench.tUs + 1_500;
  const float32 = (value: number): number => Math.fround(value);
  while (bench.tUs < lastUs + 194_000) {
    bench.tick();
    expect(bench.is('failsafe')).toBe(false);
    const held = Array.from(bench.truth.values.subarray(TRUTH.throttles, TRUTH.throttles + 4));
    expect(held).toEqual([HOVER + 0.05, HOVER, HOVER, HOVER + 0.05].map(float32));
  }
  expect(tiltRad(bench.x)).toBeGreaterThan(0.03);
  bench.tick();
  bench.tick();
  bench.tick();
  expect(bench.is('failsafe')).toBe(true);
  const atUs = bench.history.failsafes.get(0, 0);
  expect(atUs - lastUs).toBeGreaterThanOrEqual(200_000);
  expect(atUs - lastUs).toBeLessThan(201_000 + LIMITS.stepUs);

  // It listens to nobody until it is down.
  bench.command();
  expect(bench.judge()).toMatchObject({ failsafes: 1, ignored: 1 });
  bench.run(1);
  expect(tiltRad(bench.x)).toBeLessThan(0.02);
  const sinking = bench.x[5] as number;
  expect(sinking).toBeGreaterThan(0.4);
  expect(sinking).toBeLessThan(1);
  expect(bench.frames.findLast((frame) => frame.name === 'EXTENDED_SYS_STATE')?.fields).toMatchObject({
    landed_state: MAV.LANDED_STATE_LANDING,
  });
  bench.run(10);
  expect([bench.is('onGround'), bench.is('armed'), bench.is('failsafe'), bench.is('crashed')]).toEqual([
    true,
    false,
    false,
    false,
  ]);

  bench.flying = true;
  bench.run(8);
  expect(bench.heightM).toBeGreaterThan(1.5);
});

test('the failsafe rights a tumbling drone that is high enough', () => {
  const bench = new Bench();
  bench.pilot.goal = [0, 0, -30];
  bench.run(45);
  bench.flying = false;
  bench.command({ controls: [1, 0, 0, 1] });
  let worst = 0;
  for (let ticks = 0; ticks < 500; ticks += 1) {
    bench.tick();
    worst = Math.max(worst, tiltRad(bench.x));
  }
  expect(worst).toBeGreaterThan(1.5);
  expect(tiltRad(bench.x)).toBeLessThan(0.1);
  bench.run(60);
  expect([bench.is('onGround'), bench.is('crashed')]).toEqual([true, false]);
});

test('a gap of 190 ms is survived, and counted as 47 missed cycles', () => {
  const bench = new Bench().run(8);
  const from = bench.tUs + 2_000;
  bench.flying = false;
  for (let ticks = 0; ticks < 47; ticks += 1) bench.tick();
  bench.flying = true;
  bench.run(1);
  expect(bench.judge(from)).toMatchObject({ failsafes: 0, missedCycles: 47, gapMsMax: 192 });
  expect(bench.is('failsafe')).toBe(false);
});

test('doubled and stale commands are followed as by any board, and counted exactly', () => {
  const bench = new Bench().run(4);
  bench.epoch = 2;
  bench.tick();
  const from = bench.tUs;
  for (let i = 0; i < 50; i += 1) {
    bench.tick();
    if (i % 5 === 0) bench.command({}, 1_100);
    if (i % 10 === 0) bench.command({ flags: 1, time_usec: bench.pilot.answersUs }, 1_200);
    if (i % 25 === 0) bench.command({ time_usec: bench.pilot.answersUs - 4_000 }, 1_300);
  }
  const throttles = [0.4, 0.41, 0.42, 0.43];
  bench.command({ flags: 1, controls: throttles }, 1_400);
  bench.tick();
  expect(bench.judge(from + 2_000)).toMatchObject({ doubled: 10, stale: 5 + 2 + 1, missedCycles: 0 });
});

test('commands that no board can follow are refused: not finite, from the future, disarming in the air', () => {
  const bench = new Bench().run(6);
  const before = bench.judge().commands;
  bench.command({ controls: [Number.NaN, 0, 0, 0] });
  bench.command({ time_usec: bench.tUs + 50_000 });
  bench.command({ mode: 0 });
  expect(bench.judge()).toMatchObject({ invalid: 3, commands: before });
  bench.run(2);
  expect(bench.is('armed')).toBe(true);
  expect(bench.heightM).toBeGreaterThan(1.5);
  expect(bench.judge()).toMatchObject({ stale: 0, doubled: 0 });

  // Beyond 0 to 1 a motor has no more to give.
  bench.command({ controls: [7, -3, 0.5, 0.5] }, 2_000);
  bench.flying = false;
  bench.tick();
  expect(Array.from(bench.truth.values.subarray(TRUTH.throttles, TRUTH.throttles + 2))).toEqual([1, 0]);
});

test('silence on the ground disarms, and is no failsafe', () => {
  const bench = new Bench();
  bench.tick();
  bench.flying = false;
  bench.command({ controls: [0.1, 0.1, 0.1, 0.1] });
  bench.tick();
  expect(bench.is('armed')).toBe(true);
  bench.run(0.5);
  expect(bench.is('armed')).toBe(false);
  expect(bench.judge()).toMatchObject({ failsafes: 0, missedCycles: 0 });
});

test('disarming by order: on the ground it is accepted, in the air denied; other orders are not known', () => {
  const bench = new Bench();
  const order = (command: number, param1: number): number | undefined => {
    const rest = { param2: 0, param3: 0, param4: 0, param5: 0, param6: 0, param7: 0 };
    const target = { target_system: 1, target_component: 1, confirmation: 0 };
    bench.board.receive(
      bench.writer.encode('COMMAND_LONG', { ...target, command, param1, ...rest }),
      bench.tUs,
    );
    const ack = bench.tick().find((frame) => frame.name === 'COMMAND_ACK');
    return ack?.name === 'COMMAND_ACK' ? ack.fields.result : undefined;
  };
  bench.tick();
  bench.command({ controls: [0.1, 0.1, 0.1, 0.1] });
  bench.flying = false;
  expect(order(400, 0)).toBe(MAV.RESULT_ACCEPTED);
  bench.tick();
  expect(bench.is('armed')).toBe(false);
  bench.flying = true;
  bench.run(4);
  expect(order(400, 0)).toBe(MAV.RESULT_DENIED);
  expect(order(22, 0)).toBe(MAV.RESULT_UNSUPPORTED);
  bench.run(1);
  expect(bench.is('armed')).toBe(true);
});

test('motors off at 30 m: a crash, after which it stays down', () => {
  const bench = new Bench();
  bench.pilot.goal = [0, 0, -30];
  bench.run(45);
  bench.flying = false;
  for (let ticks = 0; ticks < 1_250 && !bench.is('crashed'); ticks += 1) {
    bench.tick();
    bench.command({ controls: [0, 0, 0, 0] });
  }
  expect([bench.is('crashed'), bench.is('armed'), bench.heightM]).toEqual([true, false, 0]);
  const before = bench.judge().ignored;
  bench.flying = true;
  bench.run(2);
  expect(bench.heightM).toBe(0);
  expect(bench.judge().ignored).toBeGreaterThan(before + 400);
});

test('garbage on the tty: the flight goes on, what was skipped is counted', () => {
  const bench = new Bench().run(8);
  const from = bench.tUs;
  const noise = Uint8Array.from({ length: 37 }, (_, i) => (i * 73 + 19) & 0xff);
  for (let i = 0; i < 250; i += 1) {
    bench.board.receive(noise, bench.tUs + 100);
    bench.tick();
  }
  const summary = bench.judge(from + 2_000);
  expect(summary.attitudeDegMax).toBeLessThan(1);
  expect(summary.missedCycles).toBeLessThan(5);
  expect(bench.truth.values[TRUTH.garbageBytes]).toBeGreaterThan(200 * noise.length);
});

test('a board that slept itself blames nobody: no failsafe, its lateness on the record', () => {
  const bench = new Bench().run(8);
  const from = bench.tUs + 2_000;
  // 400 ms without running; the commands of that time wait in the pty and are read first.
  const silentMs = 400;
  bench.tUs += silentMs * 1_000;
  bench.command({ time_usec: bench.pilot.answersUs }, 0);
  bench.tick(1_000);
  bench.run(1);
  const summary = bench.judge(from);
  expect(summary.failsafes).toBe(0);
  expect(summary.gapMsMax).toBeGreaterThan(400);
  expect(summary.missedCycles).toBe(100);
  expect(summary.missedCyclesBoardLate).toBeGreaterThanOrEqual(99);
  expect(bench.is('armed')).toBe(true);
});

test('a tick that comes late is counted, and so are those that did not happen', () => {
  const bench = new Bench().run(1);
  const from = bench.tUs;
  bench.tick(2_500, 3);
  expect(bench.judge(from + 1)).toMatchObject({ boardLateMsMax: 2.5, lateTicks: 1, skippedTicks: 3 });
});

test('after a minute of suspension the excess is not flown', () => {
  const bench = new Bench().run(8);
  bench.tUs += 60_000_000;
  bench.tick();
  expect(bench.truth.values[TRUTH.jumpedUs]).toBeGreaterThan(58_000_000);
  bench.run(3);
  expect([bench.is('armed'), bench.is('crashed'), bench.is('failsafe')]).toEqual([true, false, false]);
  expect(bench.heightM).toBeGreaterThan(1);
});

test('an empty battery is reported; setting it shows in the next status, its voltage within a minute', () => {
  const bench = new Bench();
  bench.flying = false;
  bench.board.setBattery(14);
  const status = (): Fields<'SYS_STATUS'> => {
    const frame = bench.frames.findLast(({ name }) => name === 'SYS_STATUS');
    return frame?.fields as Fields<'SYS_STATUS'>;
  };
  bench.run(1);
  expect(status()).toMatchObject({ battery_remaining: 14, current_battery: 0 });
  expect(status().voltage_battery).toBeGreaterThan(16_000);
  bench.run(60);
  const restingMv = PARAMETERS.battery.cells * openCircuitV(0.14) * 1_000;
  expect(Math.abs(status().voltage_battery - restingMv)).toBeLessThan(10);
});

test('a battery that runs down in the air: voltage and current are told, and the flight goes on', () => {
  const bench = new Bench().run(10);
  const { values } = bench.truth;
  const [volts, amps] = [values[TRUTH.batteryV] as number, values[TRUTH.batteryA] as number];
  // 88 W for a kilogram.
  expect(volts * amps).toBeGreaterThan(80);
  expect(volts * amps).toBeLessThan(96);
  const from = bench.tUs;
  bench.board.setBattery(20);
  bench.run(30);
  expect(values[TRUTH.batteryV]).toBeLessThan(volts - 1);
  expect(bench.judge(from).altitudeErrorMMax).toBeLessThan(0.3);
  expect(bench.is('failsafe')).toBe(false);
});

test('in light turbulence on 1.5 m/s of wind it stays within two metres of its place', () => {
  // SIH's drag is that of a barn door: 1 N per m/s on a kilogram.
  const bench = new Bench(1, undefined, undefined, {
    wind: { speedMS: 1.5, fromDeg: 270, turbulence: 'light', gustMS: 0 },
  }).run(20);
  const wind = bench.truth.values.subarray(TRUTH.wind, TRUTH.wind + 3);
  expect(Math.hypot(...wind)).toBeGreaterThan(0.5);
  let worst = 0;
  for (let ticks = 0; ticks < 5_000; ticks += 1) {
    bench.tick();
    worst = Math.max(worst, Math.hypot(bench.x[0] as number, bench.x[1] as number, bench.heightM - 2));
  }
  expect(worst).toBeGreaterThan(0.02);
  expect(worst).toBeLessThan(2);
  expect(bench.judge()).toMatchObject({ failsafes: 0, missedCycles: 0 });
});

test.each(AIRFRAME_NAMES)('%s: the board comes up, and its failsafe brings it down upright', (name) => {
  const parameters = AIRFRAMES[name];
  const bench = new Bench(1, undefined, undefined, { parameters });
  bench.flying = false;
  const throttle = 1.2 * hoverThrottle(parameters);
  for (let ticks = 0; ticks < 500; ticks += 1) {
    bench.tick();
    bench.command({ controls: [throttle, throttle, throttle, throttle] });
  }
  expect(bench.heightM).toBeGreaterThan(1);
  bench.run(60);
  expect([bench.is('onGround'), bench.is('crashed'), bench.judge().failsafes]).toEqual([true, false, 1]);
});

describe('a board with a signing key', () => {
  const reasons = ({
    unsigned,
    badSignature,
    replayed,
    tooOld,
    tooManyStreams,
  }: ReturnType<Bench['judge']>) => ({
    unsigned,
    badSignature,
    replayed,
    tooOld,
    tooManyStreams,
  });
  const NONE = { unsigned: 0, badSignature: 0, replayed: 0, tooOld: 0, tooManyStreams: 0 };
  const land = { target_system: 1, target_component: 1, confirmation: 0, param2: 0, param3: 0, param4: 0 };
  const disarm = { ...land, command: 400, param1: 0, param5: 0, param6: 0, param7: 0 };

  test('flies as without, and its own frames are signed', () => {
    const bench = new Bench(1, KEY).run(10);
    expect(bench.heightM).toBeGreaterThan(1.9);
    expect(reasons(bench.judge())).toEqual(NONE);
    expect(bench.judge()).toMatchObject({ missedCycles: 0, failsafes: 0 });
    expect([bench.truth.values[TRUTH.signed], bench.truth.values[TRUTH.streams]]).toEqual([1, 1]);
    expect(Array.from(bench.x)).toEqual(Array.from(new Bench(1).run(10).x));
  });

  test.each([
    ['unsigned', undefined],
    ['badSignature', new Uint8Array(32)],
  ] as const)('%s: does not follow, and counts every frame', (reason, pilotKey) => {
    const bench = new Bench(1, KEY);
    const other = new Writer({
      systemId: 1,
      componentId: 191,
      signing:
        pilotKey && new SignedLink({ key: pilotKey, linkId: 1, lastTimestamp: 0, now: () => START_TICKS }),
    });
    bench.flying = false;
    for (let tick = 0; tick < 10; tick += 1) {
      bench.tick();
      const command = { time_usec: bench.tUs, controls: [1, 1, 1, 1], mode: 0x81, flags: 1 };
      bench.board.receive(other.encode('HIL_ACTUATOR_CONTROLS', command), bench.tUs + 1_000);
    }
    bench.board.receive(other.encode('COMMAND_LONG', disarm), bench.tUs + 1_000);
    bench.tick();
    expect(reasons(bench.judge())).toEqual({ ...NONE, [reason]: 11 });
    expect(bench.judge()).toMatchObject({ commands: 0, invalid: 0, epochs: [] });
    expect([bench.is('armed'), bench.is('onGround')]).toEqual([false, true]);
    expect(bench.truth.values[TRUTH.streams]).toBe(0);
    expect(bench.frames.filter(({ name }) => name === 'COMMAND_ACK')).toEqual([]);
  });

  test('an order that was recorded on the ground does not disarm it in another flight', () => {
    const bench = new Bench(1, KEY).run(1);
    const order = Uint8Array.from(bench.writer.encode('COMMAND_LONG', disarm));
    bench.board.receive(order, bench.tUs + 1_000);
    expect(reasons(bench.judge())).toEqual(NONE);
    bench.run(3);
    bench.board.receive(order, bench.tUs + 1_000);
    expect(reasons(bench.judge())).toEqual({ ...NONE, replayed: 1 });
    expect(bench.judge()).toMatchObject({ stale: 0, doubled: 0 });
  });

  test('silence of those who sign is silence, whatever others say', () => {
    const bench = new Bench(1, KEY).run(8);
    bench.flying = false;
    const stranger = new Writer({ systemId: 1, componentId: 191 });
    for (let tick = 0; tick < 60; tick += 1) {
      bench.tick();
      const command = { time_usec: bench.tUs, controls: bench.pilot.throttles, mode: 0x81, flags: 1 };
      bench.board.receive(stranger.encode('HIL_ACTUATOR_CONTROLS', command), bench.tUs + 1_000);
    }
    expect(bench.judge()).toMatchObject({ failsafes: 1, unsigned: 60 });
  });
});
