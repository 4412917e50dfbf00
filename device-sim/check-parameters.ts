/**
 * Whether a quadrotor with such parameters can exist, and fly.
 *
 * Invariant: pure; every complaint begins with the parameter's name and says what it must be. Empty: nothing is wrong.
 */
import { SimError } from '#device-sim/options.ts';
import type { Parameters } from '#device-sim/parameters.ts';

/** Names of what is to be above 0; "may be 0" has its own list. */
const POSITIVE = [
  'massKg',
  'thrustN',
  'motorTauS',
  'motorTauDownS',
  'gravityMS2',
  'battery.cells',
  'battery.capacityAh',
  'battery.hoverS',
  'sensors.wanderS',
  'sensors.gyroWalkS',
  'sensors.accelerometerWalkS',
  'sensors.gps.rateHz',
  'sensors.gps.wanderS',
  'sensors.barometer.groundPressureHPa',
  'sensors.barometer.driftS',
] as const;
const NOT_NEGATIVE = [
  'torqueNm',
  'dragNPerMS',
  'angularDragNmPerRadS',
  'battery.resistanceOhm',
  'sensors.gyroRadSPerSqrtHz',
  'sensors.accelerometerMS2PerSqrtHz',
  'sensors.gyroBiasRadS',
  'sensors.accelerometerBiasMS2',
  'sensors.gyroWalkRadSPerSqrtS',
  'sensors.accelerometerWalkMS2PerSqrtS',
  'sensors.attitudeErrorRad',
  'sensors.velocityNoiseMS',
  'sensors.magnetometerNoiseGauss',
  'sensors.gps.latencyS',
  'sensors.gps.horizontalM',
  'sensors.gps.verticalM',
  'sensors.gps.speedMS',
  'sensors.barometer.noiseHPa',
  'sensors.barometer.driftHPa',
] as const;
/** Cells of a lithium polymer battery between full and empty, V. */
const CELL_V = 3.7;

const figure = (p: Parameters, path: string): unknown =>
  path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], p);

export const checkParameters = (p: Parameters): string[] => {
  const wrong: string[] = [];
  const number = (name: string, value: unknown, least: 'above' | 'atLeast'): void => {
    const finite = typeof value === 'number' && Number.isFinite(value);
    const fits = finite && (least === 'above' ? value > 0 : value >= 0);
    if (!fits)
      wrong.push(`${name}: ${String(value)} must be ${least === 'above' ? 'above 0' : 'at least 0'}`);
  };
  for (const name of POSITIVE) number(name, figure(p, name), 'above');
  for (const name of NOT_NEGATIVE) number(name, figure(p, name), 'atLeast');
  const axes = ['x', 'y', 'z'] as const;
  axes.forEach((axis, at) => {
    number(`inertiaKgM2.${axis}`, p.inertiaKgM2[at], 'above');
  });
  number('armM.roll', p.armM.roll, 'above');
  number('armM.pitch', p.armM.pitch, 'above');
  // What follows compares values that are known to be numbers.
  if (wrong.length > 0) return wrong;

  axes.forEach((axis, at) => {
    const own = p.inertiaKgM2[at] as number;
    const others = p.inertiaKgM2
      .filter((_, other) => other !== at)
      .reduce((sum, inertia) => sum + inertia, 0);
    // A body's masses give each pair of axes at least what they give the third.
    if (own > others * (1 + 1e-9)) {
      wrong.push(
        `inertiaKgM2.${axis}: ${own} is above the sum of the other two, ${others}: no body has that`,
      );
    }
  });
  const weight = p.massKg * p.gravityMS2;
  if (4 * p.thrustN <= weight) {
    const all = (4 * p.thrustN).toFixed(3);
    wrong.push(
      `thrustN: four motors lift ${all} N, the weight is ${weight.toFixed(3)} N: it cannot leave the ground`,
    );
  }
  if (!Number.isInteger(p.battery.cells))
    wrong.push(`battery.cells: ${p.battery.cells} must be a whole number`);
  // More than a quarter of U^2 / R no battery gives, whatever the load.
  const { cells, capacityAh, resistanceOhm, hoverS } = p.battery;
  const hoverW = (capacityAh * 3_600 * cells * CELL_V) / hoverS;
  const giveW = resistanceOhm === 0 ? Number.POSITIVE_INFINITY : (cells * CELL_V) ** 2 / (4 * resistanceOhm);
  if (hoverW >= giveW) {
    wrong.push(
      `battery.resistanceOhm: ${resistanceOhm} lets it give ${giveW.toFixed(1)} W, hover takes ${hoverW.toFixed(1)} W`,
    );
  }
  return wrong;
};

/** @throws SimError `IMPOSSIBLE_PARAMETERS`, naming each */
export const assertPossible = (p: Parameters): void => {
  const wrong = checkParameters(p);
  if (wrong.length > 0) throw new SimError('IMPOSSIBLE_PARAMETERS', wrong.join('; '));
};
