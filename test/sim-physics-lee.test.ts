/**
 * A published controller with its published gains on its published vehicle (test/sim-lee.ts), against what its theory
 * says: with these gains its loops are second order, and their rise, overshoot and settling are known in closed form.
 */
import { describe, expect, test } from 'vitest';
import { PARAMETERS, type Parameters } from '#device-sim/parameters.ts';
import { AT, createState, hoverThrottle, type State, step, tiltRad } from '#device-sim/physics.ts';
import { LeePilot } from '#test/sim-lee.ts';

/** Section V of the paper: m, J, d and c_tau; its motors answer at once. */
const P: Parameters = {
  ...PARAMETERS,
  massKg: 4.34,
  inertiaKgM2: [0.082, 0.0845, 0.1377],
  armM: { roll: 0.315 * Math.SQRT1_2, pitch: 0.315 * Math.SQRT1_2 },
  thrustN: 100,
  torqueNm: 100 * 8.004e-4,
  motorTauS: 5e-4,
  motorTauDownS: 5e-4,
  dragNPerMS: 0,
  angularDragNmPerRadS: 0,
};
const GAINS = { kx: 16 * P.massKg, kv: 5.6 * P.massKg, kR: 8.81, kOmega: 2.54 };
const DT_S = 5e-4;

const aloft = (): State => {
  const state = createState(100);
  state.x.fill(hoverThrottle(P), AT.motors, AT.motors + 4);
  return state;
};
/** Flies to `goal` and notes one figure a step. */
const fly = (
  state: State,
  goal: [number, number, number],
  seconds: number,
  figure: (x: Float64Array) => number,
): number[] => {
  const pilot = new LeePilot(P, GAINS, goal);
  return Array.from({ length: Math.round(seconds / DT_S) }, () => {
    step(state, pilot.fly(state.x, DT_S), DT_S, P);
    return figure(state.x);
  });
};
const at = (values: readonly number[], seconds: number): number =>
  values[Math.round(seconds / DT_S) - 1] as number;

describe('a step of one metre upwards', () => {
  const height = fly(aloft(), [0, 0, -101], 4, (x) => -100 - (x[2] as number));
  const natural = Math.sqrt(GAINS.kx / P.massKg);
  const damping = GAINS.kv / P.massKg / (2 * natural);
  const damped = natural * Math.sqrt(1 - damping ** 2);

  test('has the natural frequency 4 rad/s and the damping 0.7 of its gains', () => {
    expect([natural, damping]).toEqual([4, expect.closeTo(0.7, 12)]);
  });

  test('follows the second order: 1 - e^(-z w t) (cos + ..), within a millimetre and a half', () => {
    for (const tS of [0.1, 0.3, 0.5, 1, 1.5, 2, 3]) {
      const envelope = Math.exp(-damping * natural * tS);
      const phase = damped * tS;
      const expected = -1 + envelope * (Math.cos(phase) + ((damping * natural) / damped) * Math.sin(phase));
      expect(Math.abs(-at(height, tS) - expected)).toBeLessThan(1.5e-3);
    }
  });

  test('overshoots by 4.6 % at 1.1 s', () => {
    const most = height.reduce((best, value, i) => (value > (height[best] as number) ? i : best), 0);
    const overshoot = Math.exp((-Math.PI * damping) / Math.sqrt(1 - damping ** 2));
    expect(overshoot).toBeCloseTo(0.046, 3);
    expect(height[most] as number).toBeCloseTo(1 + overshoot, 2);
    expect((most + 1) * DT_S).toBeCloseTo(Math.PI / damped, 1);
  });

  test('rises from 10 to 90 % in 0.53 s and settles within 2 % by 1.5 s', () => {
    const first = (level: number): number => (height.findIndex((value) => value >= level) + 1) * DT_S;
    // Of a second-order system with damping 0.7: 2.13 / w.
    expect(first(0.9) - first(0.1)).toBeCloseTo(2.13 / natural, 1);
    const outside = height.findLastIndex((value) => Math.abs(value - 1) > 0.02);
    expect((outside + 1) * DT_S).toBeLessThan(1.55);
    expect((outside + 1) * DT_S).toBeGreaterThan(1.2);
  });
});

test('a roll of 10 degrees dies out as its two real poles say', () => {
  const state = aloft();
  const phi = (10 * Math.PI) / 180;
  state.x.set([Math.cos(phi / 2), Math.sin(phi / 2), 0, 0], AT.attitude);
  const pilot = new LeePilot(P, GAINS, [0, 0, -100]);
  // The attitude loop alone: level is wanted, wherever it drifts to.
  const angle = Array.from({ length: 2_000 }, () => {
    const x = Float64Array.from(state.x);
    x.set([0, 0, -100, 0, 0, 0]);
    step(state, pilot.fly(x, DT_S), DT_S, P);
    return tiltRad(state.x);
  });
  // J p'' + kOmega p' + kR p = 0, whose damping is 1.49.
  const [j] = P.inertiaKgM2;
  const middle = GAINS.kOmega / (2 * j);
  const spread = Math.sqrt(middle ** 2 - GAINS.kR / j);
  for (const tS of [0.05, 0.1, 0.2, 0.4]) {
    const expected =
      phi * Math.exp(-middle * tS) * (Math.cosh(spread * tS) + (middle / spread) * Math.sinh(spread * tS));
    expect(at(angle, tS) / expected).toBeGreaterThan(0.97);
    expect(at(angle, tS) / expected).toBeLessThan(1.03);
  }
});

test('a small step sideways follows the linearised loops, attitude within position', () => {
  const stepM = 0.05;
  const state = aloft();
  const flown = fly(state, [stepM, 0, -100], 4, (x) => x[0] as number);
  // a = g tilt; tilt follows the desired one through J, kR, kOmega; the desired one is what kx and kv ask for.
  const [, j] = P.inertiaKgM2;
  const g = P.gravityMS2;
  let [x, v, tilt, rate] = [0, 0, 0, 0];
  const fine = 20;
  flown.forEach((value, i) => {
    for (let part = 0; part < fine; part += 1) {
      const a = g * tilt;
      const wanted = (-16 * (x - stepM) - 5.6 * v) / g;
      const wantedRate = (-16 * v - 5.6 * a) / g;
      const dtS = DT_S / fine;
      rate += ((-GAINS.kR * (tilt - wanted) - GAINS.kOmega * (rate - wantedRate)) / j) * dtS;
      tilt += rate * dtS;
      v += a * dtS;
      x += v * dtS;
    }
    if (i % 100 === 99) expect(Math.abs(value - x)).toBeLessThan(0.02 * stepM);
  });
  expect(flown.at(-1)).toBeCloseTo(stepM, 4);
  expect(Math.abs((state.x[2] as number) + 100)).toBeLessThan(1e-3);
});

test('recovers from upside down, as in the second example of the paper', () => {
  const state = aloft();
  // R(0) there is a roll by 178.2 degrees.
  const roll = Math.acos(-0.9995);
  state.x.set([Math.cos(roll / 2), Math.sin(roll / 2), 0, 0], AT.attitude);
  const tilt = fly(state, [0, 0, -100], 8, tiltRad);
  expect(tilt[0]).toBeGreaterThan(3.1);
  // Near the top its error is small, and grows by e in 1 / 3.1 s: it falls first, since our rotors cannot push downwards.
  expect(at(tilt, 4)).toBeLessThan(0.6);
  expect(at(tilt, 8)).toBeLessThan(0.02);
  expect(Math.hypot(state.x[0] as number, state.x[1] as number, (state.x[2] as number) + 100)).toBeLessThan(
    0.05,
  );
});
