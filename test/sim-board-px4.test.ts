/** The `px4` board in virtual time, with a scripted companion: what PX4 would let through, and when it takes over. */
import { describe, expect, test } from 'vitest';
import { landCommand } from '#agent/land.ts';
import { TRUTH } from '#device-sim/truth.ts';
import { MAV, SignedLink, Writer } from '#handover/mavlink/index.ts';
import { BoardBench, HOVER_SHARE, START } from '#test/sim-boards-kit.ts';

const OFFBOARD = 0x6_0000;
const HOLD = 0x304_0000;
const DO_SET_MODE = MAV.CMD_DO_SET_MODE;
const ARM = MAV.CMD_COMPONENT_ARM_DISARM;
const offboard = (bench: BoardBench): number | undefined => bench.order(DO_SET_MODE, 1, 6);
const mode = (bench: BoardBench): number => bench.run(1.1).last('HEARTBEAT').custom_mode;

/** In Hold at 2.5 m, by its own take-off. */
const aloft = (options: { seed?: number; key?: Uint8Array } = {}): BoardBench => {
  const bench = new BoardBench('px4', options).run(0.1);
  expect(bench.order(MAV.CMD_NAV_TAKEOFF, 0, 0, 0, 0, 0, 0, Number.NaN)).toBe(MAV.RESULT_ACCEPTED);
  expect(bench.order(ARM, 1)).toBe(MAV.RESULT_ACCEPTED);
  return bench.run(7);
};
const hovering = (bench = aloft()): BoardBench => {
  const place: [number, number, number] = [0, 0, -2.5];
  bench.stream = () => bench.move({ position: place }, bench.bootMs);
  bench.run(1.2);
  expect(offboard(bench)).toBe(MAV.RESULT_ACCEPTED);
  return bench.run(1);
};

test('what it says by itself, at the rates of MAVLINK_MODE_ONBOARD', () => {
  const bench = new BoardBench('px4').run(1);
  const count = (name: string): number => bench.frames.filter((frame) => frame.name === name).length;
  expect(count('HIGHRES_IMU')).toBe(50);
  expect(count('ATTITUDE_QUATERNION')).toBe(50);
  expect(count('LOCAL_POSITION_NED')).toBe(30);
  expect(count('EXTENDED_SYS_STATE')).toBe(5);
  expect(count('SYS_STATUS')).toBe(5);
  expect(bench.last('HEARTBEAT')).toMatchObject({
    autopilot: MAV.AUTOPILOT_PX4,
    base_mode: 29,
    custom_mode: HOLD,
    system_status: MAV.STATE_STANDBY,
  });
  // SET_MESSAGE_INTERVAL: 250 Hz of ATTITUDE_QUATERNION, no HIGHRES_IMU; a message it does not have.
  expect(bench.order(MAV.CMD_SET_MESSAGE_INTERVAL, 31, 4_000)).toBe(MAV.RESULT_ACCEPTED);
  expect(bench.order(MAV.CMD_SET_MESSAGE_INTERVAL, 105, -1)).toBe(MAV.RESULT_ACCEPTED);
  expect(bench.order(MAV.CMD_SET_MESSAGE_INTERVAL, 9_999, 4_000)).toBe(MAV.RESULT_DENIED);
  bench.frames.length = 0;
  bench.run(1);
  expect([count('ATTITUDE_QUATERNION'), count('HIGHRES_IMU')]).toEqual([250, 0]);
});

test('it takes off to MIS_TAKEOFF_ALT by order, says so, and holds', () => {
  const bench = new BoardBench('px4').run(0.1);
  bench.order(MAV.CMD_NAV_TAKEOFF, 0, 0, 0, 0, 0, 0, Number.NaN);
  expect(bench.order(ARM, 1)).toBe(MAV.RESULT_ACCEPTED);
  bench.run(2);
  expect(bench.last('EXTENDED_SYS_STATE').landed_state).toBe(MAV.LANDED_STATE_TAKEOFF);
  bench.run(6);
  expect(Math.abs(bench.heightM - 2.5)).toBeLessThan(0.1);
  expect(bench.speedMS).toBeLessThan(0.15);
  expect(mode(bench)).toBe(HOLD);
  expect(bench.last('HEARTBEAT')).toMatchObject({ base_mode: 157, system_status: MAV.STATE_ACTIVE });
  expect(bench.last('EXTENDED_SYS_STATE').landed_state).toBe(MAV.LANDED_STATE_IN_AIR);
  // Above the sea, from 489.4 m; and a take-off is no descent.
  expect(bench.order(MAV.CMD_NAV_TAKEOFF, 0, 0, 0, 0, 0, 0, 494.4)).toBe(MAV.RESULT_ACCEPTED);
  bench.run(6);
  expect(Math.abs(bench.heightM - 5)).toBeLessThan(0.1);
  expect(bench.order(DO_SET_MODE, 1, 4, 2)).toBe(MAV.RESULT_ACCEPTED);
  bench.run(4);
  expect(Math.abs(bench.heightM - 5)).toBeLessThan(0.1);
});

describe('offboard mode', () => {
  test('in the air it is refused without a stream, below 2 Hz, and before the stream is a second old', () => {
    const bench = aloft();
    const place: [number, number, number] = [0, 0, -2.5];
    expect(offboard(bench)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
    for (let turn = 0; turn < 4; turn += 1) {
      bench.move({ position: place });
      bench.run(0.6);
      bench.move({ position: place });
      expect(offboard(bench)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
      bench.run(0.6);
    }
    bench.stream = () => bench.move({ position: place });
    bench.run(0.9);
    expect(offboard(bench)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
    expect(mode(bench)).toBe(HOLD);
    expect(offboard(bench)).toBe(MAV.RESULT_ACCEPTED);
    expect(mode(bench)).toBe(OFFBOARD);
  });

  test('2.5 Hz are enough to enter and to stay', () => {
    const bench = aloft();
    bench.hz = 2.5;
    bench.stream = () => bench.move({ position: [0, 0, -2.5] });
    bench.run(1.7);
    expect(offboard(bench)).toBe(MAV.RESULT_ACCEPTED);
    bench.run(10);
    expect(bench.is('failsafe')).toBe(false);
    expect(bench.judge()).toMatchObject({ failsafes: 0, missedCycles: 0 });
  });

  test('on the ground the mode may be chosen, but nothing is armed in it without a stream', () => {
    const bench = new BoardBench('px4').run(0.1);
    expect(offboard(bench)).toBe(MAV.RESULT_ACCEPTED);
    expect(bench.order(ARM, 1)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
    bench.stream = () => bench.move({ position: [0, 0, -3] });
    bench.run(1.2);
    expect(bench.order(ARM, 1)).toBe(MAV.RESULT_ACCEPTED);
    bench.run(8);
    expect(Math.abs(bench.heightM - 3)).toBeLessThan(0.15);
  });

  test('the setpoints stop: held for 1.0 s, then Hold, which stops it; who streams on is ignored until it asks anew', () => {
    const bench = hovering();
    bench.hz = 50;
    bench.stream = () => bench.move({ velocity: [4, 0, 0] });
    bench.run(3);
    expect(bench.x[3]).toBeGreaterThan(3);
    bench.stream = undefined;
    const lastUs = bench.truth.values[TRUTH.lastCommandUs] as number;
    while (bench.tUs < lastUs + 992_000) bench.tick();
    expect(bench.is('failsafe')).toBe(false);
    expect(bench.x[3]).toBeGreaterThan(3);
    bench.run(0.012);
    expect(bench.is('failsafe')).toBe(true);
    const atUs = bench.history.failsafes.get(0, 0);
    expect(atUs - lastUs).toBeGreaterThanOrEqual(1_000_000);
    expect(atUs - lastUs).toBeLessThanOrEqual(1_001_000);
    expect(mode(bench)).toBe(HOLD);
    expect(bench.last('HEARTBEAT').system_status).toBe(MAV.STATE_CRITICAL);
    bench.run(6);
    expect(bench.speedMS).toBeLessThan(0.2);
    expect(Math.abs(bench.heightM - 2.5)).toBeLessThan(0.3);

    bench.stream = () => bench.move({ velocity: [4, 0, 0] });
    bench.run(1.5);
    expect(bench.x[3]).toBeLessThan(0.2);
    expect(bench.judge()).toMatchObject({ failsafes: 1 });
    expect(bench.judge().ignored).toBeGreaterThan(60);
    expect(offboard(bench)).toBe(MAV.RESULT_ACCEPTED);
    bench.run(2);
    expect(bench.x[3]).toBeGreaterThan(2);
    expect(bench.is('failsafe')).toBe(false);
  });

  test('a board that slept itself blames nobody', () => {
    const bench = hovering();
    bench.tUs += 1_500_000;
    bench.run(0.5);
    expect(bench.is('failsafe')).toBe(false);
    expect(bench.tiltDeg).toBeLessThan(3);
  });
});

describe('setpoints', () => {
  test('a position six metres off is reached, and kept within 20 cm; the heading with it', () => {
    const bench = hovering();
    bench.stream = () => bench.move({ position: [5, -3, -4], yaw: 1 });
    let farthest = 0;
    bench.run(18, () => {
      farthest = Math.max(farthest, bench.x[0] as number);
    });
    // The published gains overshoot by a twentieth, since the integral has learned the drag.
    expect(farthest).toBeLessThan(5.5);
    [5, -3, -4].forEach((goal, axis) => {
      expect(Math.abs((bench.x[axis] as number) - goal)).toBeLessThan(0.2);
    });
    expect(2 * Math.atan2(bench.x[9] as number, bench.x[6] as number)).toBeCloseTo(1, 1);
  });

  test('a velocity is met, in the world and along the heading', () => {
    const bench = hovering();
    bench.stream = () => bench.move({ velocity: [0, 2, -0.5], yaw: Math.PI / 2 });
    bench.run(12);
    expect(bench.x[4]).toBeCloseTo(2, 0);
    expect(bench.x[5]).toBeCloseTo(-0.5, 1);
    const fields = (velocity: [number, number, number]) => ({
      ...{ time_boot_ms: 0, target_system: 1, target_component: 1, x: 0, y: 0, z: 0, afx: 0, afy: 0, afz: 0 },
      ...{ coordinate_frame: MAV.FRAME_BODY_NED, type_mask: 0xdc7, yaw: 0, yaw_rate: 0 },
      ...{ vx: velocity[0], vy: velocity[1], vz: velocity[2] },
    });
    // Its nose points east: forward is east.
    bench.stream = () => bench.send('SET_POSITION_TARGET_LOCAL_NED', fields([-2, 0, 0]));
    bench.run(12);
    expect(bench.x[4]).toBeCloseTo(-2, 0);
    expect(Math.abs(bench.x[3] as number)).toBeLessThan(0.3);
  });

  test('an attitude is tracked: settled within half a second, without 15 % of overshoot', () => {
    const bench = hovering();
    bench.hz = 50;
    bench.stream = () => bench.attitude([0.2, 0, 0], HOVER_SHARE / Math.cos(0.2));
    const roll = (): number => 2 * Math.atan2(bench.x[7] as number, bench.x[6] as number);
    let most = 0;
    bench.run(0.5, () => {
      most = Math.max(most, roll());
    });
    expect(most).toBeLessThan(0.23);
    bench.run(0.5, () => expect(Math.abs(roll() - 0.2)).toBeLessThan(0.02));
    // And rates alone.
    bench.stream = () =>
      bench.send('SET_ATTITUDE_TARGET', {
        ...{ time_boot_ms: 0, target_system: 1, target_component: 1, q: [0, 0, 0, 0] },
        ...{ type_mask: MAV.ATTITUDE_ATTITUDE_IGNORE, thrust: HOVER_SHARE },
        ...{ body_roll_rate: 0, body_pitch_rate: 0, body_yaw_rate: 0.5 },
      });
    bench.run(1.5);
    expect(bench.x[12]).toBeCloseTo(0.5, 1);
  });

  test('what PX4 does not take is no sign of life: other frames, nothing given, not a number, no thrust', () => {
    const bench = hovering();
    const before = bench.judge().commands;
    const move = {
      ...{ time_boot_ms: 0, target_system: 1, target_component: 1, coordinate_frame: 1, type_mask: 0xdf8 },
      ...{ x: 0, y: 0, z: -2.5, vx: 0, vy: 0, vz: 0, afx: 0, afy: 0, afz: 0, yaw: 0, yaw_rate: 0 },
    };
    const tilt = {
      ...{ time_boot_ms: 0, target_system: 1, target_component: 1, type_mask: 7, q: [1, 0, 0, 0] },
      ...{ body_roll_rate: 0, body_pitch_rate: 0, body_yaw_rate: 0, thrust: 0.5 },
    };
    let turn = 0;
    const wrong: (() => void)[] = [
      () => bench.send('SET_POSITION_TARGET_LOCAL_NED', { ...move, coordinate_frame: 7 }),
      () => bench.send('SET_POSITION_TARGET_LOCAL_NED', { ...move, type_mask: 0xdff }),
      () => bench.send('SET_POSITION_TARGET_LOCAL_NED', { ...move, x: Number.POSITIVE_INFINITY }),
      () => bench.send('SET_ATTITUDE_TARGET', { ...tilt, q: [0, 0, 0, 0] }),
      () => bench.send('SET_ATTITUDE_TARGET', { ...tilt, q: [Number.NaN, 0, 0, 0] }),
      () => bench.send('SET_ATTITUDE_TARGET', { ...tilt, type_mask: 71 }),
      () => bench.send('SET_ATTITUDE_TARGET', { ...tilt, thrust: Number.NaN }),
    ];
    bench.stream = () => wrong[turn++ % wrong.length]?.();
    bench.run(2);
    expect(bench.is('failsafe')).toBe(true);
    expect(bench.judge()).toMatchObject({ commands: before, invalid: 50 });
    // For another system: as if it had not been said.
    bench.stream = () => bench.send('SET_POSITION_TARGET_LOCAL_NED', { ...move, target_system: 9 });
    bench.run(2);
    expect(offboard(bench)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
    expect(bench.judge().invalid).toBe(50);
  });
});

test('orders in the air: disarming and rebooting are refused, a forced disarm drops it', () => {
  const bench = aloft();
  expect(bench.order(ARM, 0)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
  expect(bench.order(MAV.CMD_PREFLIGHT_REBOOT_SHUTDOWN, 1)).toBe(MAV.RESULT_DENIED);
  expect(bench.order(DO_SET_MODE, 1, 3)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
  expect(bench.order(MAV.CMD_DO_SET_MODE, 0, 6)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
  expect(bench.order(9_999)).toBe(MAV.RESULT_UNSUPPORTED);
  bench.run(1);
  expect([bench.is('armed'), bench.is('onGround')]).toEqual([true, false]);
  expect(bench.order(ARM, 0, MAV.ARM_DISARM_FORCE)).toBe(MAV.RESULT_ACCEPTED);
  bench.run(1.5);
  expect([bench.is('armed'), bench.is('onGround'), bench.is('crashed')]).toEqual([false, true, true]);
  expect(bench.order(ARM, 1)).toBe(MAV.RESULT_TEMPORARILY_REJECTED);
});

test('the agent’s own last word, when nobody is left to fly, lands it', () => {
  const bench = hovering();
  bench.stream = undefined;
  bench.board.receive(landCommand(), bench.tUs + 500);
  bench.run(12);
  expect([bench.is('armed'), bench.is('onGround'), bench.is('crashed')]).toEqual([false, true, false]);
});

test('it lands by order, disarms COM_DISARM_LAND later; armed and not flown it disarms after COM_DISARM_PRFLT', () => {
  const bench = aloft();
  expect(bench.order(MAV.CMD_NAV_LAND)).toBe(MAV.RESULT_ACCEPTED);
  bench.run(1);
  expect(bench.last('EXTENDED_SYS_STATE').landed_state).toBe(MAV.LANDED_STATE_LANDING);
  for (let turn = 0; turn < 2_000 && !bench.is('onGround'); turn += 1) bench.tick();
  expect([bench.is('armed'), bench.is('crashed')]).toEqual([true, false]);
  bench.run(1.9);
  expect(bench.is('armed')).toBe(true);
  bench.run(0.2);
  expect(bench.is('armed')).toBe(false);

  const idle = new BoardBench('px4').run(0.1);
  expect(idle.order(ARM, 1)).toBe(MAV.RESULT_ACCEPTED);
  idle.run(9.9);
  expect([idle.is('armed'), idle.is('onGround')]).toEqual([true, true]);
  idle.run(0.3);
  expect(idle.is('armed')).toBe(false);
});

test('it reboots on the ground: silent for three seconds, then as after power-on', () => {
  const bench = new BoardBench('px4').run(20);
  bench.order(MAV.CMD_SET_MESSAGE_INTERVAL, 31, 4_000);
  expect(bench.last('ATTITUDE_QUATERNION').time_boot_ms).toBeGreaterThan(19_000);
  expect(bench.order(MAV.CMD_PREFLIGHT_REBOOT_SHUTDOWN, 1)).toBe(MAV.RESULT_ACCEPTED);
  bench.frames.length = 0;
  bench.run(2.9);
  expect(bench.frames).toEqual([]);
  bench.run(1.1);
  expect(bench.last('ATTITUDE_QUATERNION').time_boot_ms).toBeLessThan(1_100);
  expect(bench.frames.filter(({ name }) => name === 'ATTITUDE_QUATERNION').length).toBeLessThan(60);
});

describe('the judge', () => {
  test('setpoints that say which word of the board they answer: doubled and stale as with motor commands', () => {
    const bench = hovering();
    bench.run(1);
    const from = bench.tUs;
    let turn = 0;
    const place = [0, 0, -2.5] as const;
    bench.stream = () => {
      turn += 1;
      bench.move({ position: place }, bench.bootMs);
      if (turn % 4 === 0) bench.move({ position: place }, bench.bootMs);
      if (turn % 10 === 0) bench.move({ position: place }, bench.bootMs - 500);
    };
    bench.run(2);
    expect(bench.judge(from)).toMatchObject({ commands: 50 + 12 + 5, doubled: 12, stale: 5 });
    expect(bench.judge(from).latencyMsMax).toBeLessThan(2);
  });

  test('setpoints that do not say: only their gaps are judged, and no latency is made up', () => {
    const bench = hovering();
    const from = bench.tUs + 1_000_000;
    bench.stream = () => {
      bench.move({ position: [0, 0, -2.5] }, 0);
      bench.move({ position: [0, 0, -2.5] }, bench.bootMs + 100_000);
    };
    bench.run(3);
    expect(bench.judge(from)).toMatchObject({ doubled: 0, stale: 0, latencyMsMax: null, missedCycles: 0 });
    bench.stream = undefined;
    bench.run(0.9);
    bench.move({ position: [0, 0, -2.5] });
    // 0.9 s at 2 Hz: one cycle is missing.
    expect(bench.judge(from)).toMatchObject({ missedCycles: 1, failsafes: 0 });
  });

  test('a setpoint that does not say between two that do: these are judged by one another', () => {
    const bench = hovering();
    bench.stream = undefined;
    const from = bench.tUs;
    const place = [0, 0, -2.5] as const;
    for (const bootMs of [bench.bootMs, 0, bench.bootMs, 0, bench.bootMs - 100]) {
      bench.move({ position: place }, bootMs);
    }
    expect(bench.judge(from)).toMatchObject({ commands: 5, doubled: 1, stale: 1 });
  });

  test('two companions by other ids: the first is stale once the second took over', () => {
    const bench = hovering();
    const second = new Writer({ systemId: 1, componentId: 192 });
    const from = bench.tUs;
    const first = bench.writer;
    bench.writer = second;
    bench.run(1);
    bench.writer = first;
    bench.run(0.4);
    expect(bench.judge(from)).toMatchObject({ stale: 10, doubled: 0 });
    expect(bench.judge(from).epochs.map(({ epoch }) => epoch)).toEqual([2, 1]);
  });

  test('a signed board does not follow unsigned setpoints, nor recorded ones', () => {
    const key = new Uint8Array(32).fill(7);
    const bench = hovering(aloft({ key }));
    const recorded = Uint8Array.from(
      bench.send('SET_ATTITUDE_TARGET', {
        ...{ time_boot_ms: bench.bootMs, target_system: 1, target_component: 1, type_mask: 7 },
        ...{ q: [1, 0, 0, 0], body_roll_rate: 0, body_pitch_rate: 0, body_yaw_rate: 0, thrust: HOVER_SHARE },
      }),
    );
    bench.run(0.5);
    bench.board.receive(recorded, bench.tUs + 600);
    bench.send('HEARTBEAT', {
      ...{ type: 18, autopilot: 8, base_mode: 0, custom_mode: 0, system_status: 4, mavlink_version: 3 },
    });
    const stranger = new Writer({ systemId: 1, componentId: 191 });
    const other = new Writer({
      systemId: 1,
      componentId: 191,
      signing: new SignedLink({ key: new Uint8Array(32), linkId: 1, lastTimestamp: 0, now: () => START }),
    });
    bench.writer = stranger;
    bench.move({ velocity: [9, 0, 0] });
    bench.writer = other;
    bench.move({ velocity: [9, 0, 0] });
    expect(bench.judge()).toMatchObject({ replayed: 1, unsigned: 1, badSignature: 1, stale: 0 });
    bench.stream = undefined;
    bench.run(1.1);
    expect(bench.is('failsafe')).toBe(true);
  });
});
