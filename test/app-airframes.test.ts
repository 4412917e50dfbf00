/** The example app on every airframe, in wind and with its battery running down: its gains are made for PX4's SIH. */
import { expect, test } from 'vitest';
import { type ControllerState, dtOf, type Sample, START, step } from '#apps/drone/flight/control.ts';
import { HOVER } from '#apps/drone/flight/limits.ts';
import type { Motors, Vector } from '#apps/drone/flight/vectors.ts';
import { Surroundings } from '#device-sim/air.ts';
import { AIRFRAMES, type AirframeName } from '#device-sim/airframes.ts';
import { AT, createState, step as move, tiltRad } from '#device-sim/physics.ts';
import { Random } from '#device-sim/random.ts';
import { Sensors } from '#device-sim/sensors.ts';
import { CALM, type WindOptions } from '#device-sim/wind.ts';

const three = (values: ArrayLike<number>): Vector => [
  values[0] as number,
  values[1] as number,
  values[2] as number,
];

interface Seen {
  /** Farthest from the hover's place, and steepest, in the last 20 s. */
  worstM: number;
  tiltDeg: number;
  landed: boolean;
}

/** @param batteryAt20S percent that the battery is set to after 20 s */
const fly = (name: AirframeName, wind: WindOptions, seconds: number, batteryAt20S?: number): Seen => {
  const p = AIRFRAMES[name];
  const truth = createState();
  const sensors = new Sensors(p, new Random(1));
  const air = new Surroundings(p, 1, wind);
  let controller: ControllerState = START;
  let attitude: Sample['attitude'] = null;
  let command: Motors = [0, 0, 0, 0];
  const seen: Seen = { worstM: 0, tiltDeg: 0, landed: false };
  for (let cycle = 0; cycle < seconds * 250; cycle += 1) {
    if (cycle === 20 * 250 && batteryAt20S !== undefined) air.battery.percent = batteryAt20S;
    sensors.sample(truth, air);
    const sample: Sample = {
      imuUs: 1_000_000 + 4_000 * cycle,
      gyro: three(sensors.gyro),
      acceleration: three(sensors.accelerometer),
      attitude,
      fix: cycle % 5 === 0 ? { position: three(sensors.position), velocity: three(sensors.velocity) } : null,
      landed: cycle % 50 === 0 ? truth.onGround : null,
    };
    attitude = [...sensors.attitude] as unknown as Sample['attitude'];
    const [next, motors] = step(controller, sample, HOVER, dtOf(controller, sample.imuUs));
    controller = next;
    for (let ms = 0; ms < 4; ms += 1) {
      move(truth, command, 1e-3, p, air);
      air.step(truth, 1e-3);
      if (ms === 1) command = motors;
    }
    if (cycle < (seconds - 20) * 250) continue;
    const [n, e, d] = three(truth.x.subarray(AT.position));
    seen.worstM = Math.max(seen.worstM, Math.hypot(n, e, d + HOVER.altitudeM));
    seen.tiltDeg = Math.max(seen.tiltDeg, (tiltRad(truth.x) * 180) / Math.PI);
  }
  seen.landed = truth.onGround;
  return seen;
};

test('PX4 SIH, the default: still, as before there was a battery or air', () => {
  const { worstM, tiltDeg } = fly('sih', CALM, 40);
  expect(worstM).toBeLessThan(0.06);
  expect(tiltDeg).toBeLessThan(0.5);
});

test.each([
  ['x500', 0.06],
  ['crazyflie', 0.06],
  // A third of the hover's throttle is more than its velocity integral may take away: it hovers somewhat higher.
  ['hummingbird', 0.25],
] as const)('%s hovers within %f m, with the gains of another airframe', (name, boundM) => {
  const { worstM, tiltDeg } = fly(name, CALM, 40);
  expect(worstM).toBeLessThan(boundM);
  expect(tiltDeg).toBeLessThan(0.5);
});

test('x500 holds its place in 8 m/s with moderate turbulence', () => {
  const { worstM, tiltDeg } = fly('x500', { speedMS: 8, fromDeg: 0, turbulence: 'moderate', gustMS: 0 }, 40);
  expect(worstM).toBeLessThan(0.6);
  expect(tiltDeg).toBeGreaterThan(4);
});

test('a battery that is down to a tenth is flown on; an empty one lets it down', () => {
  const weak = fly('sih', CALM, 60, 10);
  expect([weak.landed, weak.worstM < 0.1]).toEqual([false, true]);
  expect(fly('sih', CALM, 60, 1).landed).toBe(true);
});
