/** The sensors against their data sheets: Allan deviation of the IMU, GPS in time and place, barometer in the atmosphere. */
import { describe, expect, test } from 'vitest';
import { altitudeM, Barometer } from '#device-sim/barometer.ts';
import { Gps } from '#device-sim/gps.ts';
import { walk } from '#device-sim/noise.ts';
import { PARAMETERS, type SensorParameters, STANDARD_GPS } from '#device-sim/parameters.ts';
import { AT, createState } from '#device-sim/physics.ts';
import { Random } from '#device-sim/random.ts';
import { Sensors } from '#device-sim/sensors.ts';

const SAMPLE_S = 0.004;

/** Allan deviation of samples over clusters of `size`, from the cumulated sum (overlapping). */
const allan = (values: Float64Array, size: number): number => {
  const sums = new Float64Array(values.length + 1);
  for (let i = 0; i < values.length; i += 1) sums[i + 1] = (sums[i] as number) + (values[i] as number);
  let squares = 0;
  const count = values.length - 2 * size + 1;
  for (let i = 0; i < count; i += 1) {
    const difference = (sums[i + 2 * size] as number) - 2 * (sums[i + size] as number) + (sums[i] as number);
    squares += (difference / size) ** 2;
  }
  return Math.sqrt(squares / (2 * count));
};
/** Of the deviation over the two cluster lengths, in a plot of logarithms. */
const slope = (values: Float64Array, from: number, to: number): number =>
  Math.log(allan(values, to) / allan(values, from)) / Math.log(to / from);

const gyro = (change: Partial<SensorParameters>, length: number): Float64Array => {
  const sensors = new Sensors(
    { ...PARAMETERS, sensors: { ...PARAMETERS.sensors, gyroBiasRadS: 0, ...change } },
    new Random(11),
  );
  const state = createState();
  return Float64Array.from({ length }, () => {
    sensors.sample(state);
    return sensors.gyro[0] as number;
  });
};

describe('the gyro', () => {
  const { gyroRadSPerSqrtHz: density } = PARAMETERS.sensors;

  test('white noise: the Allan deviation falls with slope -1/2, from its density', () => {
    const values = gyro({ gyroWalkRadSPerSqrtS: 0 }, 60_000);
    expect(slope(values, 5, 500)).toBeGreaterThan(-0.6);
    expect(slope(values, 5, 500)).toBeLessThan(-0.4);
    // One-sided: N / sqrt(2 tau), at one second.
    expect(allan(values, 250) / (density / Math.SQRT2)).toBeGreaterThan(0.85);
    expect(allan(values, 250) / (density / Math.SQRT2)).toBeLessThan(1.15);
  });

  test('bias walk: the Allan deviation rises with slope +1/2, K sqrt(tau / 3)', () => {
    const density_ = PARAMETERS.sensors.gyroWalkRadSPerSqrtS;
    const bias = walk(new Random(5), density_, 1e6, SAMPLE_S);
    const values = Float64Array.from({ length: 1_000_000 }, () => bias.step());
    expect(slope(values, 50, 5_000)).toBeGreaterThan(0.42);
    expect(slope(values, 50, 5_000)).toBeLessThan(0.58);
    const tauS = 4;
    const expected = density_ * Math.sqrt(tauS / 3);
    expect(allan(values, tauS / SAMPLE_S) / expected).toBeGreaterThan(0.85);
    expect(allan(values, tauS / SAMPLE_S) / expected).toBeLessThan(1.15);
  });

  test('both: first down, then up', () => {
    // A walk a thousand times as strong, so that its rise shows within minutes.
    const values = gyro({ gyroWalkRadSPerSqrtS: 2e-4, gyroWalkS: 1e5 }, 150_000);
    expect(slope(values, 2, 50)).toBeLessThan(-0.35);
    expect(slope(values, 5_000, 25_000)).toBeGreaterThan(0.2);
  });
});

test('a bias walk is bounded: in the long run it has the deviation K sqrt(tau / 2)', () => {
  const bias = walk(new Random(3), 0.006, 30, 0.1);
  let squares = 0;
  for (let i = 0; i < 1_000_000; i += 1) squares += bias.step() ** 2;
  expect(Math.sqrt(squares / 1_000_000) / (0.006 * Math.sqrt(15))).toBeCloseTo(1, 1);
});

describe('the GPS', () => {
  const fly = (seconds: number, seed = 1) => {
    const gps = new Gps(STANDARD_GPS, new Random(seed), SAMPLE_S);
    const { x } = createState(30);
    const fixes: { outUs: number; tUs: number; position: number[]; trueM: number }[] = [];
    for (let tUs = 0; tUs < seconds * 1e6; tUs += SAMPLE_S * 1e6) {
      // North at 10 m/s.
      x[AT.position] = tUs / 1e5;
      x[AT.velocity] = 10;
      if (!gps.sample(tUs, x)) continue;
      fixes.push({ outUs: tUs, tUs: gps.fix.tUs, position: [...gps.fix.position], trueM: gps.fix.tUs / 1e5 });
    }
    return { gps, fixes };
  };

  test('fixes come at the rate, each as old as the latency, of the place of then', () => {
    const { fixes } = fly(20);
    expect(fixes.length).toBeGreaterThanOrEqual(20 * STANDARD_GPS.rateHz - 2);
    expect(fixes.length).toBeLessThanOrEqual(20 * STANDARD_GPS.rateHz + 1);
    for (const { outUs, tUs, position, trueM } of fixes) {
      expect(outUs - tUs).toBeGreaterThanOrEqual(STANDARD_GPS.latencyS * 1e6);
      expect(outUs - tUs).toBeLessThan(STANDARD_GPS.latencyS * 1e6 + 2 * SAMPLE_S * 1e6);
      expect(Math.abs((position[0] as number) - trueM)).toBeLessThan(6 * STANDARD_GPS.horizontalM);
    }
    const gaps = fixes.slice(1).map(({ tUs }, i) => tUs - (fixes[i] as { tUs: number }).tUs);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(1e6 / STANDARD_GPS.rateHz + SAMPLE_S * 1e6);
  });

  test('its accuracy: half of all fixes within the CEP, and the error wanders', () => {
    const cepM = 1.1774 * STANDARD_GPS.horizontalM;
    let within = 0;
    let vertical = 0;
    const seeds = 400;
    for (let seed = 0; seed < seeds; seed += 1) {
      const { error } = fly(0.02, seed).gps;
      if (Math.hypot(error[0] as number, error[1] as number) < cepM) within += 1;
      vertical += (error[2] as number) ** 2;
    }
    expect(within / seeds).toBeGreaterThan(0.43);
    expect(within / seeds).toBeLessThan(0.57);
    expect(Math.sqrt(vertical / seeds) / STANDARD_GPS.verticalM).toBeCloseTo(1, 0);
    // Within a second it hardly moves: averaging does not help.
    const { fixes } = fly(60);
    const errors = fixes.map(({ position, trueM }) => (position[0] as number) - trueM);
    const steps = errors.slice(1).map((error, i) => Math.abs(error - (errors[i] as number)));
    expect(steps.reduce((sum, value) => sum + value, 0) / steps.length).toBeLessThan(
      STANDARD_GPS.horizontalM / 5,
    );
  });

  test('the board hears of a new fix once', () => {
    const sensors = new Sensors(PARAMETERS, new Random(1));
    const state = createState();
    let news = 0;
    for (let i = 0; i < 2_500; i += 1) {
      sensors.sample(state);
      if (sensors.hasNewFix) news += 1;
    }
    expect(Math.abs(news - 10 * PARAMETERS.sensors.gps.rateHz)).toBeLessThanOrEqual(2);
  });
});

describe('the barometer', () => {
  const quiet = { groundPressureHPa: 1013.25, noiseHPa: 0, driftHPa: 0, driftS: 600 };

  test.each([
    // ISO 2533, by geopotential height.
    [0, 1013.25],
    [500, 954.61],
    [1_000, 898.75],
    [2_000, 794.95],
  ])('at %i m the standard atmosphere has %f hPa', (heightM, hPa) => {
    const barometer = new Barometer(quiet, new Random(1), SAMPLE_S);
    barometer.sample(heightM);
    expect(barometer.hPa).toBeCloseTo(hPa, 1);
    expect(altitudeM(hPa)).toBeCloseTo(heightM, -0.5);
    expect(barometer.heightM).toBeCloseTo(heightM, 6);
  });

  test('the height is above the ground, wherever that is', () => {
    const barometer = new Barometer({ ...quiet, groundPressureHPa: 955.8 }, new Random(1), SAMPLE_S);
    barometer.sample(0);
    expect([barometer.hPa, barometer.heightM]).toEqual([955.8, 0]);
    barometer.sample(100);
    expect(barometer.heightM).toBeCloseTo(100, 6);
  });

  test('noise of one Pascal, and a drift that is not there at first and later is', () => {
    const { noiseHPa, driftHPa } = PARAMETERS.sensors.barometer;
    const barometer = new Barometer({ ...PARAMETERS.sensors.barometer, driftS: 60 }, new Random(4), SAMPLE_S);
    const ground = PARAMETERS.sensors.barometer.groundPressureHPa;
    const errors = Float64Array.from({ length: 500_000 }, () => {
      barometer.sample(0);
      return barometer.hPa - ground;
    });
    expect(allan(errors, 1) / noiseHPa).toBeCloseTo(1, 1);
    expect(Math.abs(errors[0] as number)).toBeLessThan(5 * noiseHPa);
    const rms = Math.sqrt(errors.reduce((sum, error) => sum + error * error, 0) / errors.length);
    expect(rms / driftHPa).toBeGreaterThan(0.6);
    expect(rms / driftHPa).toBeLessThan(1.4);
  });
});
