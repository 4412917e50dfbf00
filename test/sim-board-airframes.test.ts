/** The inner loops of the px4 and ardupilot boards on every published airframe, in wind: their gains follow from the motors. */
import { describe, expect, test } from 'vitest';
import { AIRFRAMES } from '#device-sim/airframes.ts';
import { hoverThrottle } from '#device-sim/physics.ts';
import { MAV } from '#handover/mavlink/index.ts';
import { BoardBench } from '#test/sim-boards-kit.ts';

const GOAL = [3, -2, -3] as const;
/** SIH's drag is ten times that of the others: in 5 m/s it leans by 27 degrees, and ArduPilot's limit is 30. */
const wind = { speedMS: 3, fromDeg: 270, turbulence: 'light', gustMS: 0 } as const;

describe.each(Object.entries(AIRFRAMES))('%s', (_, parameters) => {
  test.each(['px4', 'ardupilot'] as const)('%s: takes off, goes, stays, leans as it is told', (kind) => {
    const bench = new BoardBench(kind, { parameters, wind }).run(0.1);
    if (kind === 'ardupilot') bench.order(MAV.CMD_DO_SET_MODE, 1, 4);
    else bench.order(MAV.CMD_NAV_TAKEOFF, 0, 0, 0, 0, 0, 0, Number.NaN);
    expect(bench.order(MAV.CMD_COMPONENT_ARM_DISARM, 1)).toBe(MAV.RESULT_ACCEPTED);
    if (kind === 'ardupilot') bench.order(MAV.CMD_NAV_TAKEOFF, 0, 0, 0, 0, 0, 0, 2.5);
    bench.run(8);
    expect(Math.abs(bench.heightM - 2.5)).toBeLessThan(0.2);

    bench.hz = 50;
    bench.stream = () => bench.move({ position: GOAL, yaw: 0 }, bench.bootMs);
    bench.run(1.2);
    if (kind === 'px4') expect(bench.order(MAV.CMD_DO_SET_MODE, 1, 6)).toBe(MAV.RESULT_ACCEPTED);
    bench.run(14);
    const fromUs = bench.tUs;
    let offM = 0;
    bench.run(4, () => {
      offM = Math.max(offM, Math.hypot(...GOAL.map((goal, axis) => goal - (bench.x[axis] as number))));
    });
    expect(offM).toBeLessThan(0.5);
    expect(bench.judge(fromUs).attitudeDegMax).toBeLessThan(30);

    const thrust = kind === 'px4' ? hoverThrottle(parameters) : 0.5;
    bench.stream = () => bench.attitude([0.15, 0, 0], thrust, bench.bootMs);
    bench.run(1);
    bench.run(0.5, () => {
      const roll = 2 * Math.atan2(bench.x[7] as number, bench.x[6] as number);
      expect(Math.abs(roll - 0.15)).toBeLessThan(0.04);
    });
    expect([bench.is('crashed'), bench.is('failsafe')]).toEqual([false, false]);
  });
});
