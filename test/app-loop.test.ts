/** The example app's control loop on its link: what comes in as bytes, what goes out, and the candidate's shadow of it. */
import { describe, expect, it } from 'vitest';
import type { Request } from '#apps/drone/flight/control.ts';
import { HOVER } from '#apps/drone/flight/limits.ts';
import { Loop } from '#apps/drone/flight/loop.ts';
import { STATE_VERSION } from '#apps/drone/flight/state.ts';
import { follow, shadow } from '#apps/drone/flight/warmup.ts';
import { PARAMETERS } from '#device-sim/parameters.ts';
import { createState, step as move } from '#device-sim/physics.ts';
import { Random } from '#device-sim/random.ts';
import { Sensors } from '#device-sim/sensors.ts';
import { type Fields, MAV, Parser, Writer } from '#handover/mavlink/index.ts';
import type { MirrorRecord } from '#handover/mirror.ts';

type Command = Fields<'HIL_ACTUATOR_CONTROLS'>;

/** A board without a clock: each `tick` gives its bytes; commands act on the physics. */
class Board {
  readonly truth = createState();
  readonly #sensors = new Sensors(PARAMETERS, new Random(3));
  readonly #writer = new Writer({ systemId: 1, componentId: MAV.COMP_ID_AUTOPILOT1 });
  readonly #parser = new Parser();
  readonly commands: Command[] = [];
  readonly sequences: number[] = [];
  /** Where the one that flies said it is to be, since the last look. */
  told: Fields<'POSITION_TARGET_LOCAL_NED'>[] = [];
  heartbeats = 0;
  ticks = 0;
  #motors: readonly number[] = [0, 0, 0, 0];
  /** Share of a motor's command that it gives: a tired battery. */
  share = 1;

  tick(): Uint8Array {
    const motors = this.#motors.map((motor) => motor * this.share);
    for (let ms = 0; ms < 4; ms += 1) move(this.truth, motors, 0.001, PARAMETERS);
    const s = this.#sensors;
    s.sample(this.truth);
    const [x, y, z] = s.position as unknown as number[];
    this.ticks += 1;
    const fix = {
      x,
      y,
      z,
      vx: s.velocity[0],
      vy: s.velocity[1],
      vz: s.velocity[2],
    } as Fields<'LOCAL_POSITION_NED'>;
    return Buffer.concat([
      this.#writer.encode('HIGHRES_IMU', this.imu(this.ticks * 4_000)),
      this.#writer.encode('ATTITUDE_QUATERNION', {
        time_boot_ms: this.ticks * 4,
        q1: s.attitude[0] as number,
        q2: s.attitude[1] as number,
        q3: s.attitude[2] as number,
        q4: s.attitude[3] as number,
        rollspeed: 0,
        pitchspeed: 0,
        yawspeed: 0,
      }),
      ...(this.ticks % 5 === 1
        ? [this.#writer.encode('LOCAL_POSITION_NED', { ...fix, time_boot_ms: this.ticks * 4 })]
        : []),
    ]);
  }

  imu(time_usec: number, change: Partial<Fields<'HIGHRES_IMU'>> = {}): Fields<'HIGHRES_IMU'> {
    const { accelerometer: a, gyro: g } = this.#sensors;
    return {
      time_usec,
      xacc: a[0] as number,
      yacc: a[1] as number,
      zacc: a[2] as number,
      xgyro: g[0] as number,
      ygyro: g[1] as number,
      zgyro: g[2] as number,
      xmag: 0,
      ymag: 0,
      zmag: 0,
      abs_pressure: 0,
      diff_pressure: 0,
      pressure_alt: 0,
      temperature: 0,
      fields_updated: 63,
      id: 0,
      ...change,
    };
  }
  /** A frame of the board's with this IMU sample. */
  frame(time_usec: number, change: Partial<Fields<'HIGHRES_IMU'>> = {}): Uint8Array {
    return this.#writer.encode('HIGHRES_IMU', this.imu(time_usec, change));
  }

  take = (bytes: Uint8Array): void => {
    for (const frame of this.#parser.read(bytes)) {
      this.sequences.push(frame.sequence);
      if (frame.name === 'HEARTBEAT') this.heartbeats += 1;
      if (frame.name === 'POSITION_TARGET_LOCAL_NED') this.told.push(frame.fields);
      if (frame.name !== 'HIL_ACTUATOR_CONTROLS') continue;
      this.commands.push(frame.fields);
      this.#motors = frame.fields.controls.slice(0, 4);
    }
  };
}

const owner = (board: Board, epoch = 7): Loop => {
  const loop = new Loop(HOVER);
  loop.resume(null, 255);
  loop.output = { epoch, send: board.take };
  return loop;
};

describe('the loop', () => {
  it('answers each IMU sample once, at once, armed, with its time and the epoch, wherever the bytes are cut', () => {
    const board = new Board();
    const loop = owner(board);
    const random = new Random(5);
    for (let tick = 0; tick < 500; tick += 1) {
      const bytes = board.tick();
      const cut = Math.floor(random.uniform() * bytes.length);
      loop.read(bytes.subarray(0, cut));
      loop.read(bytes.subarray(cut));
      expect(board.commands.length).toBe(tick + 1);
    }
    board.commands.forEach((command, i) => {
      expect(command.time_usec).toBe((i + 1) * 4_000);
      expect(command.flags).toBe(7);
      // Armed as soon as it knows where it is; the board's first position comes behind its first sample.
      expect((command.mode & MAV.MODE_FLAG_SAFETY_ARMED) !== 0).toBe(i > 0);
    });
    expect(board.heartbeats).toBe(2);
    expect(loop.state.phase).toBe('climb');
  });

  it('ignores what it cannot use: noise, senseless numbers, old samples, other senders', () => {
    const board = new Board();
    const loop = owner(board);
    for (let tick = 0; tick < 20; tick += 1) loop.read(board.tick());
    const before = JSON.stringify(loop.state);
    const stranger = new Writer({ systemId: 1, componentId: 42 });
    loop.read(Buffer.from('not a frame at all \xfd\xfd\x00', 'latin1'));
    loop.read(board.frame(84_000, { xgyro: Number.NaN }));
    loop.read(board.frame(84_000, { zacc: Number.POSITIVE_INFINITY }));
    loop.read(board.frame(80_000));
    loop.read(board.frame(4));
    loop.read(stranger.encode('HIGHRES_IMU', board.imu(84_000)));
    expect(board.commands.length).toBe(20);
    expect(JSON.stringify(loop.state)).toBe(before);
    loop.read(board.tick());
    expect(board.commands.length).toBe(21);
  });

  it('goes on in a successor: same state, next sequence number, its own epoch, a half frame completed', () => {
    const [board, twin] = [new Board(), new Board()];
    const first = owner(board, 7);
    const alone = owner(twin, 7);
    for (let tick = 0; tick < 700; tick += 1) {
      first.read(board.tick());
      alone.read(twin.tick());
    }
    const next = board.tick();
    first.read(next.subarray(0, 9));

    const { state, sequence, partial } = first.cursor();
    const second = new Loop(HOVER);
    second.resume(JSON.parse(JSON.stringify(state)), sequence);
    second.output = { epoch: 8, send: board.take };
    second.read(partial);
    second.read(next.subarray(9));
    alone.read(twin.tick());
    for (let tick = 0; tick < 300; tick += 1) {
      second.read(board.tick());
      alone.read(twin.tick());
    }
    expect(board.commands.map(({ controls, time_usec }) => [time_usec, controls])).toEqual(
      twin.commands.map(({ controls, time_usec }) => [time_usec, controls]),
    );
    expect(board.sequences).toEqual(board.sequences.map((_, i) => i % 256));
    expect(board.commands.slice(699, 702).map(({ flags }) => flags)).toEqual([7, 8, 8]);
  });

  it('keeps the last gyro samples for the chart, oldest first', () => {
    const board = new Board();
    const loop = owner(board);
    for (let tick = 0; tick < 100; tick += 1) loop.read(board.tick());
    expect(loop.traceAfter(0).length).toBe(64);
    expect(loop.traceAfter(392_000).map(([us]) => us)).toEqual([396_000, 400_000]);
    expect(loop.traceAfter(400_000)).toEqual([]);
  });
});

describe('the shadow', () => {
  const BOUNDS = { cyclesMin: 250, divergenceMax: 0.1 };

  /** A prior in flight; gives records as the mirror would, until `cycles` have gone by. */
  async function* mirrored(
    board: Board,
    cycles: number,
    change = (motors: number[]): number[] => motors,
    request?: Request,
    loop = owner(board),
  ) {
    const prior = new Writer({ systemId: 1, componentId: MAV.COMP_ID_ONBOARD_COMPUTER });
    for (let tick = 0; tick < 2_000; tick += 1) loop.read(board.tick());
    if (request !== undefined) expect(loop.ask(request)).toBe(undefined);
    board.told = [];
    for (let tick = 0; tick < cycles; tick += 1) {
      const bytes = Buffer.from(board.tick());
      loop.read(bytes);
      const command = board.commands.at(-1) as Command;
      const out = prior.encode('HIL_ACTUATOR_CONTROLS', { ...command, controls: change(command.controls) });
      yield { kind: 'in' as const, bytes };
      yield { kind: 'out' as const, bytes: Buffer.from(out) };
      for (const told of board.told.splice(0)) {
        yield {
          kind: 'out' as const,
          bytes: Buffer.from(prior.encode('POSITION_TARGET_LOCAL_NED', told)),
        };
      }
    }
  }
  const asMirror = (
    records: AsyncGenerator<{ kind: 'in' | 'out'; bytes: Buffer }>,
    available = true,
    payload?: unknown,
  ) => ({ [Symbol.asyncIterator]: () => records, onRecord: () => {}, available, payload }) as never;

  it('flies along on the same samples, writes nothing, and finds itself close to the prior', async () => {
    const board = new Board();
    const loop = new Loop(HOVER);
    const { cycles, divergence } = await shadow(
      loop,
      asMirror(mirrored(board, 300)),
      new AbortController().signal,
      BOUNDS,
    );
    expect(cycles).toBe(BOUNDS.cyclesMin);
    expect(divergence).toBeGreaterThan(0);
    expect(divergence).toBeLessThan(0.03);
    expect(board.commands.every(({ flags }) => flags === 7)).toBe(true);
  });

  it.each<Request>([
    { type: 'goto', northM: 8, eastM: -3, upM: 4, speedMS: 2 },
    { type: 'circle', radiusM: 3, speedMS: 2.5 },
    { type: 'land' },
  ])('follows a prior that is on its way: %j', async (request) => {
    const loop = new Loop(HOVER);
    const moving = mirrored(new Board(), 500, (motors) => motors, request);
    const readiness = await shadow(loop, asMirror(moving), new AbortController().signal, BOUNDS);
    expect(readiness.cycles).toBe(BOUNDS.cyclesMin);
    expect(loop.state.goal).toEqual({ type: 'told' });
  });

  it('goes on from the state of a prior that has learned how tired its battery is; from nothing it would not get there', async () => {
    const { signal } = new AbortController();
    const fly = () => {
      const board = new Board();
      board.share = 0.78;
      const prior = owner(board);
      return { prior, records: mirrored(board, 2_000, undefined, undefined, prior) };
    };
    const blind = fly();
    await expect(shadow(new Loop(HOVER), asMirror(blind.records), signal, BOUNDS)).rejects.toMatchObject({
      code: 'DIVERGED',
    });

    const { prior, records } = fly();
    const first = await records.next();
    expect(first.done).toBe(false);
    const payload = JSON.parse(JSON.stringify({ state: prior.cursor().state, stateVersion: STATE_VERSION }));
    const readiness = await shadow(new Loop(HOVER), asMirror(records, true, payload), signal, BOUNDS);
    expect(readiness.cycles).toBe(BOUNDS.cyclesMin);
    expect(readiness.divergence).toBeLessThan(1e-3);
  });

  it('says that it cannot read the state of the prior before anything is handed over', async () => {
    const { signal } = new AbortController();
    const payload = { state: { phase: 'somewhere' }, stateVersion: STATE_VERSION };
    const records = mirrored(new Board(), 300);
    await expect(
      shadow(new Loop(HOVER), asMirror(records, true, payload), signal, BOUNDS),
    ).rejects.toMatchObject({ code: 'STATE_UNREADABLE' });
  });

  it('sees that a prior does something else', async () => {
    const other = mirrored(new Board(), 2_000, ([a = 0, b = 0, c = 0, d = 0]) => [a + 0.2, b - 0.2, c, d]);
    const diverged = shadow(new Loop(HOVER), asMirror(other), new AbortController().signal, BOUNDS);
    await expect(diverged).rejects.toThrow(
      /up to 0\.1\d+ from the prior's, at cycle \d+, \d+ ms into the shadow; 0\.1\d+ at the end, at most 0\.1 is allowed/,
    );
    await expect(diverged).rejects.toMatchObject({ code: 'DIVERGED' });
  });

  it('ends when the mirror ends, and at once when there is no prior', async () => {
    const { signal } = new AbortController();
    expect(
      (await shadow(new Loop(HOVER), asMirror(mirrored(new Board(), 40)), signal, BOUNDS)).cycles,
    ).toBeLessThanOrEqual(40);
    const none = await shadow(new Loop(HOVER), asMirror(mirrored(new Board(), 0), false), signal, null);
    expect(none).toEqual({ cycles: 0, divergence: 0 });
  });

  it('follows its successor, as fresh as that one, and sends nothing', () => {
    const board = new Board();
    const first = owner(board, 7);
    for (let tick = 0; tick < 1_000; tick += 1) first.read(board.tick());
    // It had read the beginning of a frame: that goes to the successor alone.
    const next = Buffer.from(board.tick());
    first.read(next.subarray(0, 9));
    const { state, sequence, partial } = first.cursor();
    const second = new Loop(HOVER);
    second.resume(JSON.parse(JSON.stringify(state)), sequence);
    second.output = { epoch: 8, send: board.take };
    let record: (one: MirrorRecord) => void = () => {};
    follow(first, { onRecord: (listener: typeof record) => (record = listener) } as never);
    second.read(partial);
    for (const bytes of [next.subarray(9), ...Array.from({ length: 500 }, () => undefined)]) {
      const chunk = bytes ?? Buffer.from(board.tick());
      second.read(chunk);
      record({ kind: 'in', bytes: chunk });
      record({ kind: 'out', bytes: Buffer.from('what the successor writes is none of its business') });
    }
    expect(board.commands.slice(-501).every(({ flags }) => flags === 8)).toBe(true);
    expect(first.state.imuUs).toBe(second.state.imuUs);
    const away = first.state.command.map((motor, i) => Math.abs(motor - (second.state.command[i] ?? 0)));
    expect(Math.max(...away)).toBeLessThan(0.01);
    expect(first.state.phase).toBe(second.state.phase);
  });

  it('stops when it is told to', async () => {
    const abort = new AbortController();
    abort.abort(new Error('revoked'));
    const ended = shadow(new Loop(HOVER), asMirror(mirrored(new Board(), 300)), abort.signal, BOUNDS);
    await expect(ended).rejects.toThrow('revoked');
  });
});
