/** The battery against Ohm, its published curve and its own endurance. */
import { describe, expect, test } from 'vitest';
import { AIRFRAME_NAMES, AIRFRAMES } from '#device-sim/airframes.ts';
import { Battery, currentA, openCircuitV } from '#device-sim/battery.ts';
import { PARAMETERS, type Parameters } from '#device-sim/parameters.ts';
import { AT, createState, hoverThrottle, motorGoal, step } from '#device-sim/physics.ts';

const motors = (p: Parameters, throttle: number): Float64Array => {
  const { x } = createState();
  x.fill(motorGoal(throttle, p), AT.motors, AT.motors + 4);
  return x;
};

test('the open-circuit curve of Chen and Rincón-Mora: steep when nearly empty, flat between, up at the end', () => {
  expect(openCircuitV(1)).toBeCloseTo(4.103, 3);
  expect(openCircuitV(0.5)).toBeCloseTo(3.803, 3);
  expect(openCircuitV(0)).toBeCloseTo(2.654, 3);
  const curve = Array.from({ length: 101 }, (_, percent) => openCircuitV(percent / 100));
  expect(curve).toEqual(curve.toSorted((a, b) => a - b));
});

test('the current gives the power at the voltage that is left, and never more than a quarter of U² / R', () => {
  for (const powerW of [0, 1, 80, 300, 900]) {
    const amps = currentA(16, 0.05, powerW);
    expect(amps * (16 - 0.05 * amps)).toBeCloseTo(powerW, 9);
  }
  expect(currentA(16, 0.05, 5_000)).toBeCloseTo(160, 9);
  expect(currentA(16, 0, 80)).toBe(5);
});

describe.each(AIRFRAME_NAMES)('%s', (name) => {
  const p: Parameters = AIRFRAMES[name];

  test('a step of the load drops the voltage by current times resistance, and thrust with its square', () => {
    const battery = new Battery(p);
    const rest = battery.volts;
    battery.drain(motors(p, 0), 1e-3);
    expect([battery.volts, battery.amps]).toEqual([rest, 0]);
    battery.drain(motors(p, hoverThrottle(p)), 1e-3);
    battery.drain(motors(p, hoverThrottle(p)), 1e-3);
    expect(battery.amps).toBeGreaterThan(0);
    expect(rest - battery.volts).toBeCloseTo(battery.amps * p.battery.resistanceOhm, 4);
    // Full and hovering, the published thrust is what is there.
    for (let ms = 0; ms < 20; ms += 1) battery.drain(motors(p, hoverThrottle(p)), 1e-3);
    expect(battery.supply).toBeCloseTo(1, 3);
    const hoverV = battery.volts;
    for (let ms = 0; ms < 20; ms += 1) battery.drain(motors(p, 1), 1e-3);
    expect(battery.volts).toBeLessThan(hoverV);
    expect(battery.supply).toBeCloseTo((battery.volts / hoverV) ** 2, 3);
  });

  test('the charge is the integral of the current, and carries the hover for as long as published', () => {
    const battery = new Battery(p);
    let ampereS = 0;
    let seconds = 0;
    const dtS = 0.05;
    while (battery.percent > 0 && seconds < 2 * p.battery.hoverS) {
      // Who hovers gives more throttle as the battery gives less thrust.
      battery.drain(motors(p, hoverThrottle(p) / battery.supply), dtS);
      ampereS += battery.amps * dtS;
      seconds += dtS;
    }
    expect(ampereS / (p.battery.capacityAh * 3_600)).toBeCloseTo(1, 3);
    expect(seconds / p.battery.hoverS).toBeGreaterThan(0.93);
    expect(seconds / p.battery.hoverS).toBeLessThan(1.07);
  });
});

test('the same throttle climbs with a full battery and sinks with one that is nearly empty', () => {
  const after = (percent: number): number => {
    const battery = new Battery(PARAMETERS);
    battery.percent = percent;
    const state = createState(100);
    const throttle = hoverThrottle(PARAMETERS);
    state.x.set(motors(PARAMETERS, throttle).subarray(AT.motors), AT.motors);
    const air = { wind: new Float64Array(3), supply: 1 };
    for (let ms = 0; ms < 30_000; ms += 1) {
      battery.drain(state.x, 1e-3);
      air.supply = battery.supply;
      step(state, Array<number>(4).fill(throttle * 1.005), 1e-3, PARAMETERS, air);
    }
    return state.x[AT.velocity + 2] as number;
  };
  expect(after(100)).toBeLessThan(0.2);
  expect(after(15)).toBeGreaterThan(1);
});

test('a charge that is set shows at once; the voltage follows in seconds, as no real charge jumps', () => {
  const battery = new Battery(PARAMETERS);
  const rest = battery.volts;
  battery.percent = 20;
  battery.drain(motors(PARAMETERS, 0), 1e-3);
  expect(battery.percent).toBe(20);
  expect(battery.volts).toBeGreaterThan(rest - 0.01);
  for (let ms = 0; ms < 60_000; ms += 1) battery.drain(motors(PARAMETERS, 0), 1e-3);
  expect(battery.volts).toBeCloseTo(4 * openCircuitV(0.2), 2);
  battery.percent = 130;
  expect(battery.percent).toBe(100);
  battery.percent = -5;
  expect(battery.percent).toBe(0);
});
