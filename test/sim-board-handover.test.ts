/**
 * A handover under the px4 and ardupilot boards: a scripted companion that flies by SET_ATTITUDE_TARGET passes the link on
 * through the SDK's own SerialLink and the real `serialport`, over a pty; the board is in virtual time.
 *
 * What is carried over at a grant, and what is not: docs/flight-controller-boards.md, "How an app would fly them".
 */
import { describe, expect, test } from 'vitest';
import { Board } from '#device-sim/board.ts';
import { type BoardName, CYCLE_US } from '#device-sim/boards/profile.ts';
import { createHistory } from '#device-sim/history.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { PARAMETERS } from '#device-sim/parameters.ts';
import { AT } from '#device-sim/physics.ts';
import { type Summary, summarise } from '#device-sim/summary.ts';
import { TRUTH, Truth } from '#device-sim/truth.ts';
import { type Fields, type Frame, MAV, Parser, Writer } from '#handover/mavlink/index.ts';
import { AGAIN, native, READABLE } from '#handover/native.ts';
import { type RotorsPayload, SerialLink } from '#handover/serial.ts';
import { cleanUp, until } from '#test/handover-kit.ts';
import { attitudeFields, HOVER_SHARE, orderFields } from '#test/sim-boards-kit.ts';

type Kind = Exclude<BoardName, 'direct'>;
const START = 5_000_000_000;
const GOAL = [1.5, -1, -3] as const;
const G = PARAMETERS.gravityMS2;

/** The board at the far end of a pty, already in the air and in the mode in which it follows a companion. */
class Air {
  readonly kind: Kind;
  readonly history = createHistory();
  readonly truth = new Truth();
  readonly board: Board;
  readonly slave: number;
  readonly sequences: number[] = [];
  setpoints = 0;
  tUs = START;
  readonly #master: number;
  readonly #heard = new Parser();
  readonly #said = new Parser();

  constructor(kind: Kind) {
    this.kind = kind;
    const { history, truth } = this;
    this.board = new Board({ kind, parameters: PARAMETERS, seed: 3, startUs: START, history, truth });
    const { master, slave } = native.openPty();
    this.#master = master;
    this.slave = slave;
    const bytes = Buffer.alloc(4_096);
    const watcher = native.watch(master, READABLE, () => {
      const length = native.read(master, bytes, 0, bytes.length);
      if (length === AGAIN) return;
      const chunk = bytes.subarray(0, length);
      for (const frame of this.#heard.read(chunk)) {
        this.sequences.push(frame.sequence);
        if (frame.name === 'SET_ATTITUDE_TARGET') this.setpoints += 1;
      }
      this.board.receive(chunk, this.tUs + 1_000);
    });
    cleanUp(() => {
      watcher.close();
      native.close(master);
      native.close(slave);
    });
    this.#takeOff();
  }

  /** By orders of a ground station's, before anybody is at the tty. */
  #takeOff(): void {
    const station = new Writer({ systemId: 255, componentId: 190 });
    const order = (command: number, ...params: number[]): void => {
      this.board.receive(station.encode('COMMAND_LONG', orderFields(command, params)), this.tUs);
      this.#tick();
    };
    this.#tick();
    if (this.kind === 'ardupilot') order(MAV.CMD_DO_SET_MODE, 1, 4);
    else order(MAV.CMD_NAV_TAKEOFF, 0, 0, 0, 0, 0, 0, Number.NaN);
    order(MAV.CMD_COMPONENT_ARM_DISARM, 1);
    if (this.kind === 'ardupilot') order(MAV.CMD_NAV_TAKEOFF, 0, 0, 0, 0, 0, 0, 2.5);
    order(MAV.CMD_SET_MESSAGE_INTERVAL, 31, 20_000);
    order(MAV.CMD_SET_MESSAGE_INTERVAL, 32, 20_000);
    for (let tick = 0; tick < 1_750; tick += 1) this.#tick();
  }

  #tick(): Uint8Array {
    this.tUs += LIMITS.tickUs;
    return this.board.tick(this.tUs, 0, 0);
  }

  /** Each word of the board's attitude is answered before the next, if anybody is there. */
  async fly(seconds: number, answered = true): Promise<void> {
    for (let ticks = (seconds * 1e6) / LIMITS.tickUs; ticks > 0; ticks -= 1) {
      const before = this.setpoints;
      const bytes = this.#tick();
      if (bytes.length === 0) continue;
      if (native.write(this.#master, bytes, 0, bytes.length) !== bytes.length)
        throw new Error('the pty is full');
      const asks = this.#said.read(bytes).some(({ name }) => name === 'ATTITUDE_QUATERNION');
      if (asks && answered) await until('an answer', () => this.setpoints > before);
    }
  }

  order(command: number, ...params: number[]): void {
    const station = new Writer({ systemId: 255, componentId: 190 });
    this.board.receive(station.encode('COMMAND_LONG', orderFields(command, params)), this.tUs + 2_000);
  }

  get failsafe(): boolean {
    return this.truth.values[TRUTH.failsafe] === 1;
  }
  get x(): Float64Array {
    return this.truth.values.subarray(TRUTH.state, TRUTH.state + AT.length);
  }
  judge(fromUs: number): Summary {
    return summarise(this.history, fromUs, this.tUs + LIMITS.tickUs - 1, CYCLE_US[this.kind]);
  }
}

/** An app of some version: position and velocity loops, an attitude for each word of the board. */
class App {
  readonly link: SerialLink;
  readonly #kind: Kind;
  readonly #writer = new Writer({ systemId: 1, componentId: 191 });
  #parser = new Parser();
  #fix: Fields<'LOCAL_POSITION_NED'> | undefined;
  #integral = [0, 0, 0];

  constructor(kind: Kind) {
    this.#kind = kind;
    this.link = new SerialLink({
      onData: (bytes) => this.#read(bytes),
      state: () => ({
        link: { seq: this.#writer.sequence },
        partial: this.#parser.partial(),
        // What a successor needs beside the link's own: its integrators, and where it was.
        state: { integral: [...this.#integral], fix: this.#fix ?? null } as never,
        stateVersion: 1,
      }),
      resume: (payload) => {
        this.#parser = new Parser();
        if (payload === null) return;
        this.#writer.sequence = payload.link.seq as number;
        this.#integral = [...(payload.state.integral as number[])];
        this.#fix = (payload.state.fix as never) ?? undefined;
      },
    });
    cleanUp(() => this.link.drop());
  }

  grant(
    air: Air,
    payload: RotorsPayload | null,
    from: 'start' | 'release' | 'snap',
    epoch: number,
  ): Promise<void> {
    const descriptors = new Map([['rotors', native.duplicate(air.slave)]]);
    // What goes over the socket is JSON.
    const sent = JSON.parse(JSON.stringify(payload)) as RotorsPayload | null;
    return this.link.grant({ from, payload: sent, descriptors, epoch });
  }

  #read(bytes: Uint8Array): void {
    for (const frame of this.#parser.read(bytes)) this.#take(frame);
  }

  #take(frame: Frame): void {
    if (frame.name === 'LOCAL_POSITION_NED') this.#fix = frame.fields;
    if (frame.name !== 'ATTITUDE_QUATERNION') return;
    const { time_boot_ms: bootMs } = frame.fields;
    const fix = this.#fix;
    const [angles, climb] = fix === undefined ? ([[0, 0, 0], 0] as const) : this.#steer(fix);
    const thrust =
      this.#kind === 'px4'
        ? (HOVER_SHARE * (G + climb)) / G
        : 0.5 + Math.max(-0.5, Math.min(0.5, climb / 10));
    this.link.write(this.#writer.encode('SET_ATTITUDE_TARGET', attitudeFields(angles, thrust, bootMs)));
  }

  #steer({ x, y, z, vx, vy, vz }: Fields<'LOCAL_POSITION_NED'>): readonly [[number, number, number], number] {
    const wanted = [x, y, z].map((place, axis) => {
      const speed = 0.8 * ((GOAL[axis] as number) - place);
      const error = Math.max(-1.5, Math.min(1.5, speed)) - ([vx, vy, vz][axis] as number);
      this.#integral[axis] = (this.#integral[axis] as number) + 0.4 * error * 0.02;
      return 1.8 * error + (this.#integral[axis] as number);
    });
    return [
      [Math.atan2(wanted[1] as number, G), -Math.atan2(wanted[0] as number, G), 0],
      -(wanted[2] as number),
    ];
  }
}

/** V1 flies: under px4 it streamed for over a second before offboard mode was ordered. */
const flying = async (air: Air): Promise<App> => {
  const app = new App(air.kind);
  const granted = app.grant(air, null, 'start', 1);
  await air.fly(1.5);
  await granted;
  if (air.kind === 'px4') air.order(MAV.CMD_DO_SET_MODE, 1, 6);
  await air.fly(6);
  expect(Math.hypot(...GOAL.map((goal, axis) => goal - (air.x[axis] as number)))).toBeLessThan(0.5);
  return app;
};

/** Attitude and place of the flight that follows, at their worst. */
const worst = async (air: Air, seconds: number): Promise<{ tiltDeg: number; offM: number }> => {
  const fromUs = air.tUs;
  let offM = 0;
  for (let part = 0; part < seconds * 10; part += 1) {
    await air.fly(0.1);
    offM = Math.max(offM, Math.hypot(...GOAL.map((goal, axis) => goal - (air.x[axis] as number))));
  }
  return { tiltDeg: air.judge(fromUs).attitudeDegMax ?? 90, offM };
};

describe.each(['px4', 'ardupilot'] as const)('%s', (kind) => {
  test('V1 releases, V2 is granted, and back: no word unanswered, nothing stale or doubled, the flight is not felt', async () => {
    const air = new Air(kind);
    const v1 = await flying(air);
    const quiet = await worst(air, 1);
    const fromUs = air.tUs;
    const v2 = new App(kind);
    let [giver, taker] = [v1, v2];
    for (let epoch = 2; epoch < 6; epoch += 1) {
      // A word that comes during the release is answered by the giver, or left to the taker.
      const releasing = giver.link.release(50);
      const answered = air.fly(0.02);
      const { payload } = await releasing;
      giver.link.drop();
      const granted = taker.grant(air, payload, 'release', epoch);
      await answered;
      await Promise.all([granted, air.fly(0.3)]);
      [giver, taker] = [taker, giver];
    }
    expect(air.judge(fromUs)).toMatchObject({ failsafes: 0, stale: 0, doubled: 0, invalid: 0, ignored: 0 });
    expect(air.judge(fromUs).gapMsMax).toBeLessThanOrEqual(24);
    expect(air.sequences).toEqual(air.sequences.map((_, at) => at % 256));
    const after = await worst(air, 1);
    expect(after.tiltDeg).toBeLessThan(quiet.tiltDeg + 0.5);
    expect(after.offM).toBeLessThan(quiet.offM + 0.05);
  });

  test('V1 dies: V2 takes over from its last heartbeat within the board’s patience, and nothing is felt by the board', async () => {
    const patienceS = kind === 'px4' ? 0.8 : 2.7;
    const air = new Air(kind);
    const v1 = await flying(air);
    const snap = v1.link.snapshot();
    await air.fly(0.1);
    const fromUs = air.tUs;
    v1.link.drop();
    await air.fly(patienceS, false);
    const v2 = new App(kind);
    // It finds what the kernel kept meanwhile, answers all of it, and is then in the present.
    const granted = v2.grant(air, snap, 'snap', 2);
    await granted;
    await air.fly(1);
    expect([air.failsafe, air.judge(fromUs).failsafes]).toEqual([false, 0]);
    expect(air.judge(fromUs).gapMsMax).toBeGreaterThan(1_000 * patienceS - 25);
    expect((await worst(air, 4)).tiltDeg).toBeLessThan(12);
    expect(Math.hypot(...GOAL.map((goal, axis) => goal - (air.x[axis] as number)))).toBeLessThan(0.5);
  });

  test('V1 dies and nobody comes: the board takes over by itself, later than a motor-level board would', async () => {
    const air = new Air(kind);
    const v1 = await flying(air);
    v1.link.drop();
    await air.fly(kind === 'px4' ? 0.9 : 2.9, false);
    expect(air.failsafe).toBe(false);
    await air.fly(0.2, false);
    expect(air.failsafe).toBe(true);
  });
});
