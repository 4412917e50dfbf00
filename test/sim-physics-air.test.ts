/** Moving air: drag against it, and turbulence with the variance and the spectrum of MIL-F-8785C. */
import { describe, expect, test } from 'vitest';
import { Surroundings } from '#device-sim/air.ts';
import { PARAMETERS } from '#device-sim/parameters.ts';
import { AT, createState, hoverThrottle, type State, specificForce, step } from '#device-sim/physics.ts';
import { Random } from '#device-sim/random.ts';
import { CALM, DrydenAxis, type DrydenField, drydenField, Wind, type WindOptions } from '#device-sim/wind.ts';

const KNOT_MS = 1852 / 3600;
const FOOT_M = 0.3048;

const hovering = (): State => {
  const state = createState(100);
  state.x.fill(hoverThrottle(PARAMETERS), AT.motors, AT.motors + 4);
  return state;
};
const HOVER = Array<number>(4).fill(hoverThrottle(PARAMETERS));

test('a drone that holds its throttles is carried along: it takes on the speed of the air, exponentially', () => {
  const state = hovering();
  const air = { wind: Float64Array.of(3, -4, 0.5), supply: 1 };
  const tauS = PARAMETERS.massKg / PARAMETERS.dragNPerMS;
  for (let ms = 0; ms < tauS * 1_000; ms += 1) step(state, HOVER, 1e-3, PARAMETERS, air);
  const share = 1 - Math.exp(-1);
  [3, -4, 0.5].forEach((wind, axis) => {
    expect(state.x[AT.velocity + axis]).toBeCloseTo(wind * share, 8);
  });
});

test('who moves with the air feels no drag, who stands in it does', () => {
  const air = { wind: Float64Array.of(5, 0, 0), supply: 1 };
  const force = new Float64Array(3);
  const state = hovering();
  specificForce(state, PARAMETERS, force, air);
  expect(force[0]).toBeCloseTo((5 * PARAMETERS.dragNPerMS) / PARAMETERS.massKg, 12);
  state.x[AT.velocity] = 5;
  specificForce(state, PARAMETERS, force, air);
  expect(force[0]).toBeCloseTo(0, 12);
  expect(force[2]).toBeCloseTo(-PARAMETERS.gravityMS2, 12);
});

test('on the ground the wind moves nothing', () => {
  const state = createState();
  const air = new Surroundings(PARAMETERS, 1, { speedMS: 20, fromDeg: 0, turbulence: 'severe', gustMS: 5 });
  for (let ms = 0; ms < 2_000; ms += 1) {
    step(state, [0, 0, 0, 0], 1e-3, PARAMETERS, air);
    air.step(state, 1e-3);
  }
  expect([...state.x.subarray(0, 6)]).toEqual([0, 0, 0, 0, 0, 0]);
});

describe('the wind', () => {
  const blow = (options: Partial<WindOptions>, seconds: number, seed = 1, dtS = 0.004): number[][] => {
    const wind = new Wind({ ...CALM, ...options }, seed);
    return Array.from({ length: Math.round(seconds / dtS) }, () => {
      wind.step(dtS, 20);
      return [...wind.now];
    });
  };

  test.each([
    [0, [-5, 0]],
    [90, [0, -5]],
    [180, [5, 0]],
    [270, [0, 5]],
  ])('from %i degrees: as a weather report says it', (fromDeg, [north, east]) => {
    const [now] = blow({ speedMS: 5, fromDeg }, 0.004) as [number[]];
    expect(now[0]).toBeCloseTo(north as number, 12);
    expect(now[1]).toBeCloseTo(east as number, 12);
    expect(now[2]).toBe(0);
  });

  test('who flies against it meets the field faster: it changes sooner', () => {
    const changes = (north: number): number => {
      const wind = new Wind({ speedMS: 5, fromDeg: 0, turbulence: 'moderate', gustMS: 0 }, 9);
      let [sum, before] = [0, 0];
      for (let i = 0; i < 100_000; i += 1) {
        wind.step(0.02, 20, north, 0);
        sum += ((wind.now[1] as number) - before) ** 2;
        before = wind.now[1] as number;
      }
      return sum;
    };
    // Increments over short times go with the path: at 20 m/s against 5 m/s it is five times as long.
    expect(changes(20) / changes(0)).toBeGreaterThan(4);
    expect(changes(20) / changes(0)).toBeLessThan(6);
  });

  test('the seed decides it, and nothing else', () => {
    const options = { speedMS: 5, turbulence: 'moderate', gustMS: 2 } as const;
    expect(blow(options, 2, 7)).toEqual(blow(options, 2, 7));
    expect(blow(options, 2, 7)).not.toEqual(blow(options, 2, 8));
  });

  test('gusts: 1 - cosine in three seconds to the height that is asked for, some three a minute', () => {
    const along = blow({ speedMS: 4, fromDeg: 180, gustMS: 3 }, 600).map(([north]) => (north as number) - 4);
    expect(along.reduce((most, value) => Math.max(most, value), 0)).toBeCloseTo(3, 3);
    expect(along.every((value) => value >= 0)).toBe(true);
    const begun = along.filter((value, i) => value > 0 && (along[i - 1] ?? 0) === 0).length;
    expect(begun).toBeGreaterThan(12);
    expect(begun).toBeLessThan(45);
    const calm = along.filter((value) => value === 0).length / along.length;
    expect(calm).toBeGreaterThan(0.5);
  });
});

describe('Dryden turbulence', () => {
  const field = (heightM: number, turbulence: 'light' | 'moderate' | 'severe'): DrydenField => {
    const out: DrydenField = { horizontalM: 0, verticalM: 0, horizontalMS: 0, verticalMS: 0 };
    drydenField(heightM, turbulence, out);
    return out;
  };

  test('scale lengths and intensities of MIL-F-8785C below 1,000 ft', () => {
    // At 100 ft: 0.177 + 0.0823 = 0.2593; L = 100 / 0.2593^1.2 = 505.4 ft; sigma_w = 0.1 W20, sigma_u by 0.2593^0.4.
    const at100 = field(100 * FOOT_M, 'moderate');
    expect(at100.verticalM / FOOT_M).toBeCloseTo(100, 6);
    expect(at100.horizontalM / FOOT_M).toBeCloseTo(505.3, 0);
    expect(at100.verticalMS / KNOT_MS).toBeCloseTo(3, 6);
    expect(at100.horizontalMS / KNOT_MS).toBeCloseTo(3 / 0.2593 ** 0.4, 6);
    // At its upper end both lengths and all intensities are one.
    const top = field(1_000 * FOOT_M, 'severe');
    expect(top.horizontalM / top.verticalM).toBeCloseTo(1, 3);
    expect(top.horizontalMS / top.verticalMS).toBeCloseTo(1, 3);
    expect(field(0, 'light').verticalM / FOOT_M).toBeCloseTo(10, 6);
  });

  const run = (kind: 'along' | 'across', h: number, length: number, seed = 3): Float64Array => {
    const axis = new DrydenAxis(kind, new Random(seed));
    return Float64Array.from({ length }, () => axis.step(h));
  };

  test.each(['along', 'across'] as const)('%s: unit variance, whatever the step', (kind) => {
    for (const h of [0.003, 0.03, 0.3]) {
      // 6,000 lengths: the variance is known to some 2 %.
      const values = run(kind, h, Math.min(600_000, Math.round(6_000 / h)));
      const variance = values.reduce((sum, value) => sum + value * value, 0) / values.length;
      expect(variance).toBeGreaterThan(0.88);
      expect(variance).toBeLessThan(1.12);
    }
  });

  /** Mean power over many windows at the angular frequency w (per L / V), two-sided. */
  const spectrum = (values: Float64Array, h: number, w: number): number => {
    const window = 4_000;
    const count = Math.floor(values.length / window);
    let power = 0;
    for (let part = 0; part < count; part += 1) {
      let [re, im, weight] = [0, 0, 0];
      for (let i = 0; i < window; i += 1) {
        const taper = 1 - Math.cos((2 * Math.PI * i) / window);
        const value = taper * (values[part * window + i] as number);
        re += value * Math.cos(w * i * h);
        im += value * Math.sin(w * i * h);
        weight += taper * taper;
      }
      power += ((re * re + im * im) * h) / weight;
    }
    return power / count;
  };

  test.each([
    // One-sided over the spatial frequency: sigma^2 2 L / pi / (1 + (L W)^2), and sigma^2 L / pi (1 + 3 ..) / (1 + ..)^2.
    ['along', (w: number) => 2 / (1 + w * w)],
    ['across', (w: number) => (1 + 3 * w * w) / (1 + w * w) ** 2],
  ] as const)('%s: the spectrum of MIL-F-8785C over two decades', (kind, expected) => {
    const h = 0.05;
    const values = run(kind, h, 400_000);
    for (const w of [0.1, 0.3, 1, 3, 10]) {
      expect(spectrum(values, h, w) / expected(w)).toBeGreaterThan(0.75);
      expect(spectrum(values, h, w) / expected(w)).toBeLessThan(1.3);
    }
  });

  test('the axes do not know of each other, and stand across each other', () => {
    const wind = new Wind({ speedMS: 8, fromDeg: 200, turbulence: 'severe', gustMS: 0 }, 5);
    const { horizontalMS, verticalMS } = field(20, 'severe');
    const sums = { along: 0, across: 0, down: 0, cross: 0 };
    const [north, east] = [Math.cos((20 * Math.PI) / 180), Math.sin((20 * Math.PI) / 180)];
    const count = 300_000;
    for (let i = 0; i < count; i += 1) {
      wind.step(0.1, 20);
      const [n, e, d] = wind.now as unknown as [number, number, number];
      const along = n * north + e * east - 8;
      const across = e * north - n * east;
      sums.along += along * along;
      sums.across += across * across;
      sums.down += d * d;
      sums.cross += along * across;
    }
    expect(Math.sqrt(sums.along / count) / horizontalMS).toBeCloseTo(1, 1);
    expect(Math.sqrt(sums.across / count) / horizontalMS).toBeCloseTo(1, 1);
    expect(Math.sqrt(sums.down / count) / verticalMS).toBeCloseTo(1, 1);
    expect(Math.abs(sums.cross) / Math.sqrt(sums.along * sums.across)).toBeLessThan(0.1);
  });
});
