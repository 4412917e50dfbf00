/** Each published airframe against what its own figures say, and parameters that no drone can have. */
import { describe, expect, test } from 'vitest';
import { Surroundings } from '#device-sim/air.ts';
import { AIRFRAME_NAMES, AIRFRAMES } from '#device-sim/airframes.ts';
import { checkParameters } from '#device-sim/check-parameters.ts';
import { heldCommandTable } from '#device-sim/held-command.ts';
import { parseOptions, parseWind } from '#device-sim/options.ts';
import { PARAMETERS, type Parameters, STANDARD_GPS } from '#device-sim/parameters.ts';
import {
  AT,
  createState,
  hoverThrottle,
  motorGoal,
  type State,
  shareOf,
  step,
  tiltRad,
} from '#device-sim/physics.ts';

const fly = (
  state: State,
  seconds: number,
  throttles: readonly number[],
  p: Parameters,
  dtS = 1e-3,
): State => {
  for (let steps = Math.round(seconds / dtS); steps > 0; steps -= 1) step(state, throttles, dtS, p);
  return state;
};
const at = (state: State, index: number): number => state.x[index] as number;
const spinning = (p: Parameters, throttle: number): State => {
  const state = createState(1_000);
  state.x.fill(motorGoal(throttle, p), AT.motors, AT.motors + 4);
  return state;
};
const all = (throttle: number): number[] => Array(4).fill(throttle);

describe.each(AIRFRAME_NAMES)('%s', (name) => {
  const p: Parameters = AIRFRAMES[name];
  const weightN = p.massKg * p.gravityMS2;

  test('can exist', () => {
    expect(checkParameters(p)).toEqual([]);
  });

  test('hovers at its weight, level; one percent more climbs, one less sinks', () => {
    const hover = hoverThrottle(p);
    expect(4 * hover * p.thrustN).toBeCloseTo(weightN, 12);
    const state = fly(spinning(p, hover), 5, all(hover), p);
    expect(at(state, 2)).toBeCloseTo(-1_000, 8);
    expect(tiltRad(state.x)).toBe(0);
    expect(at(fly(spinning(p, hover), 1, all(hover * 1.01), p), 2)).toBeLessThan(-1_000.02);
    expect(at(fly(spinning(p, hover), 1, all(hover * 0.99), p), 2)).toBeGreaterThan(-999.98);
  });

  test('its motors reach 63.2 % of a step after their time constant, upwards and downwards', () => {
    const full = fly(createState(1_000), p.motorTauS, [1, 0, 0, 0], p, p.motorTauS / 50);
    expect(at(full, AT.motors)).toBeCloseTo(1 - Math.exp(-1), 7);
    expect(at(full, AT.motors + 1)).toBe(0);
    const off = fly(spinning(p, 1), p.motorTauDownS, all(0), p, p.motorTauDownS / 50);
    expect(at(off, AT.motors)).toBeCloseTo(Math.exp(-1), 7);
    // Thrust is its square where the state is a speed.
    const power = p.motorState === 'speed' ? 2 : 1;
    expect(shareOf(at(off, AT.motors), p)).toBeCloseTo(Math.exp(-power), 7);
  });

  test('falls at last with the speed where drag carries the weight', () => {
    const tauS = p.massKg / p.dragNPerMS;
    const state = createState(1e6);
    const body = fly(state, tauS, all(0), p, tauS / 1_000);
    expect(at(body, 5)).toBeCloseTo((weightN / p.dragNPerMS) * (1 - Math.exp(-1)), 6);
    expect(at(fly(body, 20 * tauS, all(0), p, tauS / 100), 5)).toBeCloseTo(weightN / p.dragNPerMS, 5);
  });

  test('turns faster about an axis the less inertia it has there, by the moment of its arms', () => {
    const hover = hoverThrottle(p);
    const some = 0.01;
    const after = 1e-4;
    // From motors that have their speed already, so that the moment is there at once.
    for (const [axis, mix, moment] of [
      [0, [-1, 1, 1, -1], p.armM.roll * p.thrustN],
      [1, [1, -1, 1, -1], p.armM.pitch * p.thrustN],
      [2, [1, 1, -1, -1], p.torqueNm],
    ] as const) {
      const state = createState(1_000);
      const throttles = mix.map((sign) => hover * (1 + sign * some));
      throttles.forEach((throttle, motor) => {
        state.x[AT.motors + motor] = motorGoal(throttle, p);
      });
      fly(state, after, throttles, p, after / 10);
      const expected = (4 * moment * hover * some * after) / p.inertiaKgM2[axis];
      expect(at(state, AT.rates + axis) / expected).toBeCloseTo(1, 3);
    }
  });
});

test.each([
  // Gazebo's x500 carries 2.06 kg on 34 N; a Crazyflie lifts 65 g (Förster); a Hummingbird more than three times itself.
  ['sih', 2.04],
  ['x500', 1.69],
  ['crazyflie', 2.4],
  ['hummingbird', 3.42],
] as const)('%s lifts %f times its weight', (name, ratio) => {
  expect(1 / hoverThrottle(AIRFRAMES[name])).toBeCloseTo(ratio, 1);
});

describe('impossible parameters are named', () => {
  const wrong = (change: Partial<Parameters>): string[] => checkParameters({ ...PARAMETERS, ...change });
  const { battery, sensors } = PARAMETERS;
  test.each<[string, Partial<Parameters>, string]>([
    ['no mass', { massKg: 0 }, 'massKg: 0 must be above 0'],
    ['negative mass', { massKg: -1 }, 'massKg: -1 must be above 0'],
    ['not a number', { thrustN: Number.NaN }, 'thrustN: NaN must be above 0'],
    ['endless thrust', { thrustN: Number.POSITIVE_INFINITY }, 'thrustN: Infinity must be above 0'],
    ['a text', { dragNPerMS: '1' as unknown as number }, 'dragNPerMS: 1 must be at least 0'],
    ['negative drag', { dragNPerMS: -0.1 }, 'dragNPerMS: -0.1 must be at least 0'],
    ['no inertia', { inertiaKgM2: [0.02, 0, 0.03] }, 'inertiaKgM2.y: 0 must be above 0'],
    [
      'inertia of no body',
      { inertiaKgM2: [0.01, 0.01, 0.03] },
      'inertiaKgM2.z: 0.03 is above the sum of the other two, 0.02: no body has that',
    ],
    ['no arms', { armM: { roll: 0, pitch: 0.2 } }, 'armM.roll: 0 must be above 0'],
    [
      'too heavy',
      { massKg: 3 },
      'thrustN: four motors lift 20.000 N, the weight is 29.420 N: it cannot leave the ground',
    ],
    ['half a cell', { battery: { ...battery, cells: 2.5 } }, 'battery.cells: 2.5 must be a whole number'],
    [
      'a battery that cannot give the hover',
      { battery: { ...battery, resistanceOhm: 1 } },
      'battery.resistanceOhm: 1 lets it give 54.8 W, hover takes 88.8 W',
    ],
    [
      'a GPS without a rate',
      { sensors: { ...sensors, gps: { ...STANDARD_GPS, rateHz: 0 } } },
      'sensors.gps.rateHz: 0 must be above 0',
    ],
  ])('%s', (_, change, message) => {
    expect(wrong(change)).toEqual([message]);
  });

  test('all of them at once', () => {
    expect(wrong({ massKg: -1, torqueNm: -1, armM: { roll: -1, pitch: -1 } })).toHaveLength(4);
  });

  test('and nothing is made of them', () => {
    expect(() => new Surroundings({ ...PARAMETERS, massKg: -1 }, 1)).toThrow(
      'IMPOSSIBLE_PARAMETERS: massKg: -1',
    );
  });
});

describe('options', () => {
  test('an unknown airframe: the error lists them', () => {
    expect(() => parseOptions({ dir: 'x', airframe: 'nimbus' })).toThrow(
      'INVALID_OPTIONS: airframe must be one of sih, x500, crazyflie, hummingbird',
    );
    expect(parseOptions({ dir: 'x' })).toMatchObject({
      airframe: 'sih',
      wind: { speedMS: 0, turbulence: 'none' },
    });
  });

  test.each([
    ['5', { speedMS: 5, fromDeg: 0, turbulence: 'none', gustMS: 0 }],
    ['5,270', { speedMS: 5, fromDeg: 270, turbulence: 'none', gustMS: 0 }],
    ['0, 0, severe', { speedMS: 0, fromDeg: 0, turbulence: 'severe', gustMS: 0 }],
    ['5.5,270,light,3', { speedMS: 5.5, fromDeg: 270, turbulence: 'light', gustMS: 3 }],
  ])('wind %s', (text, wind) => {
    expect(parseWind(text)).toEqual(wind);
    expect(parseOptions({ dir: 'x', wind }).wind).toEqual(wind);
  });

  test.each([
    ['', 'speed "" is not a number'],
    ['-1', 'speed "-1" is not a number from 0 to 100'],
    ['5,361', 'direction "361" is not a number from 0 to 360'],
    ['5,0,strong', 'turbulence "strong" is not one of none, light, moderate, severe'],
    ['5,0,light,x', 'gust "x" is not a number'],
    ['1,2,none,3,4', '5 parts'],
  ])('wind "%s": %s', (text, message) => {
    expect(() => parseWind(text)).toThrow(message);
  });
});

describe('held commands and cut motors', () => {
  test('cut: the height lost is that of a body whose thrust dies away', () => {
    const p: Parameters = { ...PARAMETERS, dragNPerMS: 0 };
    const g = p.gravityMS2;
    const tau = p.motorTauDownS;
    for (const { tS, cut } of heldCommandTable(p)) {
      // z'' = g - g e^(-t / tau), twice integrated.
      const lostM = g * ((tS * tS) / 2 - tau * tS + tau * tau * (1 - Math.exp(-tS / tau)));
      expect(cut.lostM).toBeCloseTo(lostM, 9);
      expect(cut.tiltDeg).toBe(0);
    }
  });

  test('turning: the tilt is the moment through motor and inertia, three times integrated', () => {
    const p: Parameters = { ...PARAMETERS, dragNPerMS: 0, angularDragNmPerRadS: 0 };
    const tau = p.motorTauS;
    const alpha = (4 * p.armM.roll * p.thrustN * hoverThrottle(p) * 0.1) / p.inertiaKgM2[0];
    const [row] = heldCommandTable(p, [0.2]);
    const tS = 0.2;
    const tiltRad_ = alpha * ((tS * tS) / 2 - tau * tS + tau * tau * (1 - Math.exp(-tS / tau)));
    expect(row?.turning.tiltDeg).toBeCloseTo((tiltRad_ * 180) / Math.PI, 6);
  });

  test.each(AIRFRAME_NAMES)('%s: 100 ms are harmless, 500 ms of a turn tumble it', (name) => {
    const rows = heldCommandTable(AIRFRAMES[name], [0.1, 0.2, 0.5]);
    const [short, limit, long] = rows as [(typeof rows)[0], (typeof rows)[0], (typeof rows)[0]];
    for (const { trimmed, turning } of [short]) {
      expect(trimmed.tiltDeg).toBeLessThan(1);
      expect(turning.tiltDeg).toBeLessThan(6);
      expect(turning.lostM).toBeLessThan(0.01);
    }
    // The board's failsafe comes here, and can still right it.
    expect(limit.turning.tiltDeg).toBeLessThan(35);
    expect(long.turning.tiltDeg).toBeGreaterThan(35);
    for (const row of rows) expect(row.cut.lostM).toBeLessThan(0.5 * 9.80665 * row.tS ** 2);
  });
});
