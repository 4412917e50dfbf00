import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PARAMETERS, type Parameters } from '#device-sim/parameters.ts';
import {
  AT,
  createState,
  eulerDeg,
  type State,
  specificForce,
  step,
  tiltRad,
  toBody,
} from '#device-sim/physics.ts';
import { Random } from '#device-sim/random.ts';
import { Sensors } from '#device-sim/sensors.ts';

const NO_DRAG: Parameters = { ...PARAMETERS, dragNPerMS: 0, angularDragNmPerRadS: 0 };
const OFF = [0, 0, 0, 0];
const G = PARAMETERS.gravityMS2;
const HOVER = (PARAMETERS.massKg * G) / (4 * PARAMETERS.thrustN);

const fly = (state: State, seconds: number, throttles: number[], p = PARAMETERS, dtS = 1e-3): State => {
  for (let steps = Math.round(seconds / dtS); steps > 0; steps -= 1) step(state, throttles, dtS, p);
  return state;
};
const spinning = (throttle: number): State => {
  const state = createState(100);
  state.x.fill(throttle, AT.motors, AT.motors + 4);
  return state;
};
const at = (state: State, index: number): number => state.x[index] as number;

test('free fall without air: half g t squared, and the accelerometer feels nothing', () => {
  const state = fly(createState(100), 2, OFF, NO_DRAG);
  expect(at(state, 2)).toBeCloseTo(-100 + (G / 2) * 4, 9);
  expect(at(state, 5)).toBeCloseTo(2 * G, 9);
  const force = new Float64Array(3);
  specificForce(state, NO_DRAG, force);
  expect(Math.hypot(...force)).toBeLessThan(1e-12);
});

test('falling in air ends at the terminal velocity m g / k, along the exponential', () => {
  const tau = PARAMETERS.massKg / PARAMETERS.dragNPerMS;
  const state = fly(createState(1_000), tau, OFF);
  expect(at(state, 5)).toBeCloseTo(G * tau * (1 - Math.exp(-1)), 8);
  expect(at(fly(state, 30, OFF), 5)).toBeCloseTo((PARAMETERS.massKg * G) / PARAMETERS.dragNPerMS, 8);
});

test('hover: a thrust equal to the weight keeps the height; one percent more climbs', () => {
  const state = fly(spinning(HOVER), 10, Array(4).fill(HOVER));
  expect(at(state, 2)).toBeCloseTo(-100, 9);
  expect(tiltRad(state.x)).toBe(0);
  const force = new Float64Array(3);
  specificForce(state, PARAMETERS, force);
  expect(force[2]).toBeCloseTo(-G, 12);
  expect(at(fly(spinning(HOVER), 1, Array(4).fill(HOVER * 1.01)), 2)).toBeLessThan(-100.01);
});

test('a motor step reaches 63.2 % after its time constant and 98.2 % after four', () => {
  const state = fly(createState(), PARAMETERS.motorTauS, [1, 0, 0, 0]);
  expect(at(state, AT.motors)).toBeCloseTo(1 - Math.exp(-1), 8);
  expect(at(fly(state, 3 * PARAMETERS.motorTauS, [1, 0, 0, 0]), AT.motors)).toBeCloseTo(1 - Math.exp(-4), 8);
  expect(at(state, AT.motors + 1)).toBe(0);
});

test.each([
  ['the left pair more: rolls right', [0, 1, 1, 0], 0],
  ['the front pair more: pitches up', [1, 0, 1, 0], 1],
  ['the counter-clockwise pair more: yaws right', [1, 1, 0, 0], 2],
])('%s, and nothing else', (_, mix, axis) => {
  const state = fly(
    spinning(HOVER),
    0.2,
    mix.map((more) => HOVER + (more - 0.5) * 0.02),
  );
  const rates = [...state.x.subarray(AT.rates, AT.rates + 3)];
  expect(rates[axis]).toBeGreaterThan(0.01);
  expect(rates.filter((rate, index) => index !== axis && Math.abs(rate) > 1e-12)).toEqual([]);
  const euler = eulerDeg(at(state, 6), at(state, 7), at(state, 8), at(state, 9));
  expect(euler[axis]).toBeGreaterThan(0.05);
});

test('pitching down drives north, rolling right drives east', () => {
  const state = spinning(HOVER);
  state.x.set([Math.cos(0.05), Math.sin(0.05), -Math.sin(0.05), 0], AT.attitude);
  fly(state, 1, Array(4).fill(HOVER));
  expect(at(state, 0)).toBeGreaterThan(0.2);
  expect(at(state, 1)).toBeGreaterThan(0.2);
});

test('a torque-free tumble keeps angular momentum (in the world) and energy', () => {
  const [ix, iy, iz] = PARAMETERS.inertiaKgM2;
  // Not symmetric, so that the axes exchange momentum.
  const p: Parameters = { ...NO_DRAG, inertiaKgM2: [ix, 2 * iy, iz] };
  const state = createState(1_000);
  state.x.set([3, -5, 4], AT.rates);
  const conserved = (): number[] => {
    const w = state.x.subarray(AT.rates, AT.rates + 3);
    const l = p.inertiaKgM2.map((inertia, axis) => inertia * (w[axis] as number));
    const conjugate = Float64Array.from(state.x);
    for (let i = 7; i < 10; i += 1) conjugate[i] = -(conjugate[i] as number);
    const world = new Float64Array(3);
    toBody(conjugate, l[0] as number, l[1] as number, l[2] as number, world);
    const energy = l.reduce((sum, momentum, axis) => sum + 0.5 * momentum * (w[axis] as number), 0);
    return [...world, energy];
  };
  const before = conserved();
  fly(state, 10, OFF, p);
  conserved().forEach((value, index) => {
    expect(Math.abs(value - (before[index] as number))).toBeLessThan(1e-8);
  });
  expect(state.x.subarray(AT.rates, AT.rates + 3)).not.toEqual(Float64Array.of(3, -5, 4));
});

test('the intermediate axis: a spin about it flips over and back, by the theory; about the others it stays', () => {
  const p: Parameters = { ...NO_DRAG, inertiaKgM2: [0.02, 0.025, 0.03] };
  const [i1, i2, i3] = p.inertiaKgM2;
  const rate = 6;
  const nudge = 1e-4;
  const spin = (axis: number, seconds: number): { state: State; least: number } => {
    const state = createState(1e5);
    state.x.set([nudge, nudge, nudge], AT.rates);
    state.x[AT.rates + axis] = rate;
    let least = rate;
    for (let ms = 0; ms < seconds * 1_000; ms += 1) {
      step(state, OFF, 1e-3, p);
      least = Math.min(least, at(state, AT.rates + axis));
    }
    return { state, least };
  };
  for (const axis of [0, 2]) expect(spin(axis, 20).least / rate).toBeGreaterThan(1 - 1e-6);
  // Linearised about the middle axis: the other two grow as cosh and sinh of w sqrt((I2 - I1)(I3 - I2) / (I1 I3)) t.
  const growth = rate * Math.sqrt(((i2 - i1) * (i3 - i2)) / (i1 * i3));
  const early = 3 / growth;
  const { state } = spin(1, early);
  const coupling = ((i2 - i3) / i1) * rate;
  const w1 = nudge * Math.cosh(growth * early) + (coupling / growth) * nudge * Math.sinh(growth * early);
  expect(at(state, AT.rates) / w1).toBeCloseTo(1, 2);
  // Dzhanibekov: wholly reversed at the flip.
  expect(spin(1, 20).least / rate).toBeCloseTo(-1, 3);
});

test('halving the step converges with the fourth order', () => {
  const end = (dtS: number): Float64Array => {
    const state = spinning(HOVER);
    state.x.set([1, -2, 0.5], AT.rates);
    return fly(state, 1, [0.7, 0.3, 0.5, 0.6], PARAMETERS, dtS).x;
  };
  const exact = end(1e-4);
  const error = (dtS: number): number =>
    Math.hypot(...end(dtS).map((value, i) => value - (exact[i] as number)));
  const order = Math.log2(error(0.02) / error(0.01));
  expect(order).toBeGreaterThan(3.5);
  expect(order).toBeLessThan(4.8);
  expect(error(1e-3)).toBeLessThan(1e-7);
});

test('the ground carries: at rest the accelerometer says one g up, half throttle does not lift', () => {
  const state = fly(createState(), 1, Array(4).fill(HOVER * 0.9));
  expect(state.onGround).toBe(true);
  expect([...state.x.subarray(0, 6)]).toEqual([0, 0, 0, 0, 0, 0]);
  const force = new Float64Array(3);
  specificForce(state, PARAMETERS, force);
  expect([...force]).toEqual([0, 0, -G]);
  fly(state, 0.5, Array(4).fill(0.7));
  expect(state.onGround).toBe(false);
  expect(at(state, 2)).toBeLessThan(-0.05);
});

test('a drop is stopped by the ground, which notes how hard it was', () => {
  const state = fly(createState(1), 2, OFF, NO_DRAG);
  expect(state.onGround).toBe(true);
  expect(at(state, 2)).toBe(0);
  expect(state.touchdownMS).toBeGreaterThan(Math.sqrt(2 * G) - 0.02);
  expect(state.touchdownMS).toBeLessThan(Math.sqrt(2 * G) + 0.02);
});

test('property: whatever the throttles, the state stays finite, above ground and a unit quaternion', () => {
  const throttles = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 4, maxLength: 4 });
  fc.assert(
    fc.property(fc.array(throttles, { minLength: 1, maxLength: 20 }), (plan) => {
      const state = createState();
      for (const each of plan) {
        fly(state, 0.2, each);
        expect(state.x.every(Number.isFinite)).toBe(true);
        expect(at(state, 2)).toBeLessThanOrEqual(0);
        expect(Math.hypot(...state.x.subarray(6, 10))).toBeCloseTo(1, 12);
        expect(state.x.subarray(13).every((motor) => motor >= 0 && motor <= 1)).toBe(true);
      }
    }),
    { seed: 2, numRuns: 50 },
  );
});

test('sensor noise has its density, the bias is constant, and the seed decides both', () => {
  const p = PARAMETERS.sensors;
  const run = (seed: number, length = 20_000): { mean: number; sigma: number; first: number } => {
    const sensors = new Sensors(PARAMETERS, new Random(seed));
    const state = createState();
    const values = Array.from({ length }, () => {
      sensors.sample(state);
      return sensors.gyro[0] as number;
    });
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
    return { mean, sigma: Math.sqrt(variance), first: values[0] as number };
  };
  const one = run(1);
  expect(one.sigma / (p.gyroRadSPerSqrtHz * Math.sqrt(125))).toBeCloseTo(1, 1);
  expect(run(1)).toEqual(one);
  expect(run(2).first).not.toBe(one.first);
  const biases = Array.from({ length: 30 }, (_, seed) => run(seed, 1_000).mean);
  const spread = Math.sqrt(biases.reduce((sum, bias) => sum + bias ** 2, 0) / biases.length);
  expect(spread / p.gyroBiasRadS).toBeGreaterThan(0.7);
  expect(spread / p.gyroBiasRadS).toBeLessThan(1.3);
});

test('the estimated attitude and position stay close to the truth', () => {
  const sensors = new Sensors(PARAMETERS, new Random(3));
  const state = createState(5);
  state.x.set([Math.cos(0.2), Math.sin(0.2), 0, 0], AT.attitude);
  for (let count = 0; count < 5_000; count += 1) {
    sensors.sample(state);
    const dot = sensors.attitude.reduce((sum, value, i) => sum + value * at(state, AT.attitude + i), 0);
    expect(2 * Math.acos(Math.min(1, dot))).toBeLessThan(8 * PARAMETERS.sensors.attitudeErrorRad);
    expect(Math.abs((sensors.position[2] as number) + 5)).toBeLessThan(6 * PARAMETERS.sensors.gps.verticalM);
  }
});

test('normal deviates: mean 0, deviation 1, no more tails than they should have', () => {
  const random = new Random(7);
  const values = Array.from({ length: 50_000 }, () => random.normal());
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  expect(Math.abs(mean)).toBeLessThan(0.02);
  expect(values.reduce((sum, value) => sum + value ** 2, 0) / values.length).toBeCloseTo(1, 1);
  const beyondTwo = values.filter((value) => Math.abs(value) > 2).length / values.length;
  expect(beyondTwo).toBeGreaterThan(0.04);
  expect(beyondTwo).toBeLessThan(0.051);
});
