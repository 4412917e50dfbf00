/** The `ardupilot` board in virtual time, with a scripted companion: GUIDED, its timeout, and what it refuses in the air. */
import { describe, expect, test } from 'vitest';
import { landCommand } from '#agent/land.ts';
import { TRUTH } from '#device-sim/truth.ts';
import { MAV, SignedLink, Writer } from '#handover/mavlink/index.ts';
import { attitudeFields, BoardBench, START_TICKS } from '#test/sim-boards-kit.ts';

const { CMD_DO_SET_MODE: DO_SET_MODE, CMD_COMPONENT_ARM_DISARM: ARM, CMD_NAV_TAKEOFF: TAKEOFF } = MAV;
const REBOOT = MAV.CMD_PREFLIGHT_REBOOT_SHUTDOWN;
const GUIDED = 4;
const LAND = 9;

const aloft = (options: { seed?: number; key?: Uint8Array } = {}): BoardBench => {
  const bench = new BoardBench('ardupilot', options).run(0.1);
  expect(bench.order(DO_SET_MODE, 1, GUIDED)).toBe(MAV.RESULT_ACCEPTED);
  expect(bench.order(ARM, 1)).toBe(MAV.RESULT_ACCEPTED);
  expect(bench.order(TAKEOFF, 0, 0, 0, 0, 0, 0, 3)).toBe(MAV.RESULT_ACCEPTED);
  return bench.run(7);
};
const silentSince = (bench: BoardBench): number =>
  bench.tUs - (bench.truth.values[TRUTH.lastCommandUs] as number);
/** Until the last command is so old. */
const silence = (bench: BoardBench, ms: number): void => {
  bench.stream = undefined;
  while (silentSince(bench) + 4_000 <= ms * 1_000) bench.tick();
};

test('what it says by itself: 1 Hz of heartbeats, 4 Hz of what a companion asked for, more when it is asked', () => {
  const bench = new BoardBench('ardupilot').run(2);
  const count = (name: string): number => bench.frames.filter((frame) => frame.name === name).length;
  expect(['HEARTBEAT', 'SYS_STATUS', 'EXTENDED_SYS_STATE', 'HIGHRES_IMU'].map(count)).toEqual([2, 8, 8, 0]);
  expect(bench.last('HEARTBEAT')).toMatchObject({
    autopilot: MAV.AUTOPILOT_ARDUPILOTMEGA,
    base_mode: 81,
    custom_mode: 0,
    system_status: MAV.STATE_STANDBY,
  });
  expect(bench.order(MAV.CMD_SET_MESSAGE_INTERVAL, 32, 20_000)).toBe(MAV.RESULT_ACCEPTED);
  expect(bench.order(MAV.CMD_SET_MESSAGE_INTERVAL, 1, 0)).toBe(MAV.RESULT_ACCEPTED);
  expect(bench.order(MAV.CMD_SET_MESSAGE_INTERVAL, 30, 20_000)).toBe(MAV.RESULT_FAILED);
  bench.frames.length = 0;
  bench.run(1);
  expect([count('LOCAL_POSITION_NED'), count('SYS_STATUS')]).toEqual([50, 4]);
});

test('armed in GUIDED only; no take-off in another mode, disarmed, or to nowhere; then it climbs and stays', () => {
  const bench = new BoardBench('ardupilot').run(0.1);
  expect(bench.order(ARM, 1)).toBe(MAV.RESULT_FAILED);
  expect(bench.order(TAKEOFF, 0, 0, 0, 0, 0, 0, 3)).toBe(MAV.RESULT_FAILED);
  expect(bench.order(DO_SET_MODE, 0, GUIDED)).toBe(MAV.RESULT_DENIED);
  expect(bench.order(DO_SET_MODE, 1, 5)).toBe(MAV.RESULT_FAILED);
  expect(bench.order(DO_SET_MODE, 1, GUIDED)).toBe(MAV.RESULT_ACCEPTED);
  expect(bench.order(TAKEOFF, 0, 0, 0, 0, 0, 0, 3)).toBe(MAV.RESULT_FAILED);
  expect(bench.order(ARM, 1)).toBe(MAV.RESULT_ACCEPTED);
  expect(bench.order(TAKEOFF, 0, 0, 0, 0, 0, 0, 0)).toBe(MAV.RESULT_FAILED);
  // A position lifts nothing from the ground.
  bench.move({ position: [0, 0, -5] });
  bench.run(2);
  expect([bench.is('onGround'), bench.is('armed')]).toEqual([true, true]);

  expect(bench.order(TAKEOFF, 0, 0, 0, 0, 0, 0, 3)).toBe(MAV.RESULT_ACCEPTED);
  bench.run(1);
  expect(bench.last('EXTENDED_SYS_STATE').landed_state).toBe(MAV.LANDED_STATE_TAKEOFF);
  bench.run(8);
  expect(Math.abs(bench.heightM - 3)).toBeLessThan(0.15);
  expect(bench.last('EXTENDED_SYS_STATE').landed_state).toBe(MAV.LANDED_STATE_IN_AIR);
  expect(bench.last('HEARTBEAT')).toMatchObject({
    base_mode: 217,
    custom_mode: GUIDED,
    system_status: MAV.STATE_ACTIVE,
  });
});

describe('GUID_TIMEOUT', () => {
  test('an attitude is held for 3.0 s after the last one, then level, its height kept; the next one is followed', () => {
    const bench = aloft();
    bench.hz = 50;
    bench.stream = () => bench.attitude([0.15, 0, 0], 0.5);
    bench.run(1);
    silence(bench, 2_995);
    expect(bench.is('failsafe')).toBe(false);
    expect(bench.tiltDeg).toBeGreaterThan(8);
    const height = bench.heightM;
    bench.run(0.012);
    expect(bench.is('failsafe')).toBe(true);
    bench.run(1);
    expect(bench.tiltDeg).toBeLessThan(1);
    expect(Math.abs(bench.heightM - height)).toBeLessThan(0.1);
    expect(bench.judge()).toMatchObject({ failsafes: 1 });

    bench.stream = () => bench.attitude([-0.15, 0, 0], 0.5);
    bench.run(1);
    expect([bench.is('failsafe'), bench.tiltDeg > 8]).toEqual([false, true]);
    expect(bench.judge().ignored).toBe(0);
  });

  test('a climb ends with it', () => {
    const bench = aloft();
    bench.stream = () => bench.attitude([0, 0, 0], 0.7);
    bench.run(1);
    expect(bench.x[5]).toBeCloseTo(-1, 0);
    silence(bench, 3_010);
    bench.run(2);
    expect(Math.abs(bench.x[5] as number)).toBeLessThan(0.1);
  });

  test('a velocity becomes zero after 3.0 s', () => {
    const bench = aloft();
    bench.stream = () => bench.move({ velocity: [3, 0, 0] });
    bench.run(4);
    silence(bench, 2_990);
    expect(bench.x[3]).toBeGreaterThan(2.5);
    bench.run(5);
    expect(bench.speedMS).toBeLessThan(0.2);
    expect(bench.judge()).toMatchObject({ failsafes: 1 });
  });

  test('a position needs to be said once', () => {
    const bench = aloft();
    bench.move({ position: [6, 4, -5] });
    bench.run(12);
    [6, 4, -5].forEach((goal, axis) => {
      expect(Math.abs((bench.x[axis] as number) - goal)).toBeLessThan(0.3);
    });
    expect(bench.judge()).toMatchObject({ failsafes: 0, commands: 1 });
    expect(bench.is('failsafe')).toBe(false);
  });
});

test('frames: an offset from where it is, and along its nose', () => {
  const bench = aloft();
  bench.move({ position: [0, 0, -3], yaw: Math.PI / 2 });
  bench.run(6);
  const from = [bench.x[0] as number, bench.x[1] as number];
  const fields = (frame: number, x: number) => ({
    ...{ time_boot_ms: 0, target_system: 1, target_component: 1, coordinate_frame: frame, type_mask: 0xdf8 },
    ...{ x, y: 0, z: 0, vx: 0, vy: 0, vz: 0, afx: 0, afy: 0, afz: 0, yaw: 0, yaw_rate: 0 },
  });
  bench.send('SET_POSITION_TARGET_LOCAL_NED', fields(MAV.FRAME_LOCAL_OFFSET_NED, 3));
  bench.run(10);
  expect((bench.x[0] as number) - (from[0] as number)).toBeCloseTo(3, 0);
  bench.send('SET_POSITION_TARGET_LOCAL_NED', fields(MAV.FRAME_BODY_OFFSET_NED, 3));
  bench.run(10);
  // Its nose points east.
  expect((bench.x[1] as number) - (from[1] as number)).toBeCloseTo(3, 0);
});

test('a setpoint that is not valid stops the drone', () => {
  const bench = aloft();
  bench.hz = 10;
  bench.stream = () => bench.move({ velocity: [3, 0, 0] });
  bench.run(4);
  const fields = {
    ...{ time_boot_ms: 0, target_system: 1, target_component: 1, coordinate_frame: 1, type_mask: 0xdc7 },
    ...{ x: 0, y: 0, z: 0, vx: Number.NaN, vy: 0, vz: 0, afx: 0, afy: 0, afz: 0, yaw: 0, yaw_rate: 0 },
  };
  bench.stream = () => bench.send('SET_POSITION_TARGET_LOCAL_NED', fields);
  bench.run(4);
  expect(bench.speedMS).toBeLessThan(0.2);
  const climb = attitudeFields([0, 0, 0], 0.9);
  // No unit quaternion; some of the rates; no thrust.
  const wrong = [
    { ...climb, q: [0.9, 0, 0, 0] },
    { ...climb, type_mask: 1 },
    { ...climb, type_mask: 71 },
    { ...climb, thrust: Number.NaN },
  ];
  let turn = 0;
  bench.stream = () => bench.send('SET_ATTITUDE_TARGET', wrong[turn++ % 4] ?? climb);
  bench.run(2);
  expect(Math.abs(bench.x[5] as number)).toBeLessThan(0.2);
  expect(bench.judge()).toMatchObject({ invalid: 60, failsafes: 0 });
});

describe('in the air', () => {
  test('a disarm and a reboot are refused; a forced disarm drops it, and it stays down', () => {
    const bench = aloft();
    expect(bench.order(ARM, 0)).toBe(MAV.RESULT_FAILED);
    expect(bench.order(REBOOT, 1)).toBe(MAV.RESULT_FAILED);
    expect(bench.order(REBOOT, 3)).toBe(MAV.RESULT_FAILED);
    bench.run(1);
    expect([bench.is('armed'), bench.is('onGround')]).toEqual([true, false]);
    expect(bench.order(ARM, 0, MAV.ARM_DISARM_FORCE)).toBe(MAV.RESULT_ACCEPTED);
    bench.run(2);
    expect([bench.is('armed'), bench.is('onGround'), bench.is('crashed')]).toEqual([false, true, true]);
    expect(bench.order(ARM, 1)).toBe(MAV.RESULT_FAILED);
  });

  test('a forced reboot is obeyed: it falls', () => {
    const bench = aloft();
    expect(bench.order(REBOOT, 1, 0, 0, 0, 0, 20_190_226)).toBe(MAV.RESULT_ACCEPTED);
    bench.run(1.5);
    expect([bench.is('armed'), bench.is('onGround')]).toEqual([false, true]);
  });

  test('LAND by order or as a mode: setpoints are then ignored, and it disarms on the ground', () => {
    const bench = aloft();
    bench.stream = () => bench.move({ velocity: [3, 0, 0] });
    bench.run(1);
    expect(bench.order(MAV.CMD_NAV_LAND)).toBe(MAV.RESULT_ACCEPTED);
    bench.run(2);
    expect(bench.last('HEARTBEAT').custom_mode).toBe(LAND);
    expect(bench.last('EXTENDED_SYS_STATE').landed_state).toBe(MAV.LANDED_STATE_LANDING);
    expect(bench.judge().ignored).toBeGreaterThan(45);
    bench.run(8);
    expect([bench.is('armed'), bench.is('onGround'), bench.is('crashed')]).toEqual([false, true, false]);
    // Back in GUIDED it can be flown again.
    bench.stream = undefined;
    expect(bench.order(DO_SET_MODE, 1, GUIDED)).toBe(MAV.RESULT_ACCEPTED);
    expect(bench.order(ARM, 1)).toBe(MAV.RESULT_ACCEPTED);
    expect(bench.order(TAKEOFF, 0, 0, 0, 0, 0, 0, 2)).toBe(MAV.RESULT_ACCEPTED);
    bench.run(5);
    expect(bench.heightM).toBeGreaterThan(1.5);
  });
});

test('the agent’s own last word, when nobody is left to fly, lands it: on a signed link, too', () => {
  const key = new Uint8Array(32).fill(7);
  const bench = aloft({ key });
  bench.stream = () => bench.attitude([0.1, 0, 0], 0.5);
  bench.run(1);
  bench.stream = undefined;
  const lastTimestamp = START_TICKS + 100 * bench.bootMs + 1_000;
  const land = landCommand({ key: Buffer.from(key).toString('base64'), linkId: 1, lastTimestamp });
  bench.board.receive(land, bench.tUs + 500);
  bench.run(10);
  expect([bench.is('armed'), bench.is('onGround'), bench.is('crashed')]).toEqual([false, true, false]);
});

test('orders as COMMAND_INT are orders, too', () => {
  const bench = new BoardBench('ardupilot').run(0.1);
  const order = (command: number, param1: number, param2: number, z = 0): void => {
    bench.send('COMMAND_INT', {
      ...{ target_system: 1, target_component: 1, frame: MAV.FRAME_GLOBAL_RELATIVE_ALT, command },
      ...{ current: 0, autocontinue: 0, param1, param2, param3: 0, param4: 0, x: 0, y: 0, z },
    });
    bench.tick();
  };
  order(DO_SET_MODE, 1, GUIDED);
  order(ARM, 1, 0);
  order(TAKEOFF, 0, 0, 2);
  expect(bench.last('COMMAND_ACK')).toMatchObject({ command: TAKEOFF, result: MAV.RESULT_ACCEPTED });
  bench.run(5);
  expect(bench.heightM).toBeGreaterThan(1.5);
});

test('armed and left on the ground it disarms after DISARM_DELAY', () => {
  const bench = new BoardBench('ardupilot').run(0.1);
  bench.order(DO_SET_MODE, 1, GUIDED);
  bench.order(ARM, 1);
  bench.run(9.9);
  expect(bench.is('armed')).toBe(true);
  bench.run(0.2);
  expect(bench.is('armed')).toBe(false);
  expect(bench.judge()).toMatchObject({ failsafes: 0 });
});

describe('signed', () => {
  const key = new Uint8Array(32).fill(7);
  const signer = (bench: BoardBench, linkId: number): Writer =>
    new Writer({ systemId: 1, componentId: 191, signing: bench.signedLink(key, linkId) });

  test('a recorded disarm, sent again, is refused; so is a recorded setpoint', () => {
    const bench = aloft({ key });
    const recorded = Uint8Array.from(
      bench.send('SET_ATTITUDE_TARGET', attitudeFields([0.3, 0, 0], 0.5, bench.bootMs)),
    );
    bench.stream = () => bench.attitude([0, 0, 0], 0.5);
    bench.run(2);
    for (let turn = 0; turn < 5; turn += 1) bench.board.receive(recorded, bench.tUs + 700);
    bench.run(0.5);
    expect(bench.tiltDeg).toBeLessThan(1);
    expect(bench.judge()).toMatchObject({ replayed: 5, failsafes: 0, stale: 0 });
  });

  test('sixteen streams are kept, one more is not heard; nor is one that is a minute behind', () => {
    const bench = aloft({ key });
    for (let linkId = 2; linkId < 17; linkId += 1) {
      bench.send('SET_ATTITUDE_TARGET', attitudeFields([0, 0, 0], 0.5), signer(bench, linkId));
    }
    expect(bench.truth.values[TRUTH.streams]).toBeLessThanOrEqual(16);
    bench.send('SET_ATTITUDE_TARGET', attitudeFields([0, 0, 0], 0.5), signer(bench, 17));
    bench.tick();
    expect(bench.judge()).toMatchObject({ tooManyStreams: 1, replayed: 0 });
    expect(bench.truth.values[TRUTH.streams]).toBe(16);

    const other = aloft({ key });
    const late = new SignedLink({ key, linkId: 9, lastTimestamp: 0, now: () => START_TICKS - 7_000_000 });
    const writer = new Writer({ systemId: 1, componentId: 191, signing: late });
    other.send('SET_ATTITUDE_TARGET', attitudeFields([0, 0, 0], 0.5), writer);
    expect(other.judge()).toMatchObject({ tooOld: 1 });
  });

  test('after a reboot its time goes on: what was recorded over a minute before is refused', () => {
    const bench = new BoardBench('ardupilot', { key }).run(1);
    const recorded = Uint8Array.from(
      bench.send('COMMAND_LONG', {
        ...{ target_system: 1, target_component: 1, confirmation: 0, command: ARM, param1: 0, param2: 0 },
        ...{ param3: 0, param4: 0, param5: 0, param6: 0, param7: 0 },
      }),
    );
    bench.run(70);
    expect(bench.order(REBOOT, 1)).toBe(MAV.RESULT_ACCEPTED);
    bench.run(5);
    bench.board.receive(recorded, bench.tUs + 500);
    expect(bench.judge()).toMatchObject({ tooOld: 1, replayed: 0 });
  });
});
