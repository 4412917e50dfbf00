/**
 * An airframe by its name, or of one's own: a JSON file that changes figures of a published one.
 *
 * `{"base": "x500", "massKg": 2.4, "battery": {"capacityAh": 4}, "gps": "standard"}`. Invariant: what comes out can fly,
 * or every figure that says otherwise is named; a name that is not known is named, too.
 */
import { readFileSync } from 'node:fs';
import * as v from 'valibot';
import { AIRFRAME_NAMES, AIRFRAMES, type AirframeName } from '#device-sim/airframes.ts';
import { checkParameters } from '#device-sim/check-parameters.ts';
import { SimError } from '#device-sim/options.ts';
import { type Parameters, STANDARD_GPS } from '#device-sim/parameters.ts';

const figure = v.optional(v.number('must be a number'));
const schema = v.strictObject({
  base: v.optional(v.picklist(AIRFRAME_NAMES, `must be one of ${AIRFRAME_NAMES.join(', ')}`), 'sih'),
  massKg: figure,
  inertiaKgM2: v.optional(
    v.tuple(
      [v.number('must be a number'), v.number('must be a number'), v.number('must be a number')],
      'must be three numbers',
    ),
  ),
  armM: v.optional(
    v.strictObject({ roll: v.number('must be a number'), pitch: v.number('must be a number') }),
  ),
  thrustN: figure,
  torqueNm: figure,
  motorState: v.optional(v.picklist(['thrust', 'speed'], 'must be thrust or speed')),
  motorTauS: figure,
  motorTauDownS: figure,
  dragNPerMS: figure,
  angularDragNmPerRadS: figure,
  battery: v.optional(
    v.strictObject({ cells: figure, capacityAh: figure, resistanceOhm: figure, hoverS: figure }),
  ),
  gps: v.optional(v.picklist(['rtk', 'standard'], 'must be rtk or standard'), 'rtk'),
});

/** What was not said is left out, so that it does not cover what the base says. */
const said = <T extends object>(change: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined)) as never;

/**
 * @param name of a published airframe, or the path of a file that ends in `.json`
 * @throws SimError `INVALID_OPTIONS`, `IMPOSSIBLE_PARAMETERS`
 */
export const airframeOf = (name: string): Parameters => {
  if (AIRFRAME_NAMES.includes(name as AirframeName)) return AIRFRAMES[name as AirframeName];
  const fail = (what: string, cause?: unknown): never => {
    throw new SimError('INVALID_OPTIONS', `airframe ${name}: ${what}`, { cause });
  };
  const read = (): unknown => {
    try {
      return JSON.parse(readFileSync(name, 'utf8'));
    } catch (cause) {
      return fail((cause as Error).message, cause);
    }
  };
  const parsed = v.safeParse(schema, read());
  if (!parsed.success) {
    const issue = parsed.issues[0];
    return fail(`${v.getDotPath(issue) ?? 'the file'} ${issue.message}`);
  }
  const { base: baseName, battery = {}, gps, ...change } = parsed.output;
  const base = AIRFRAMES[baseName];
  const parameters: Parameters = {
    ...base,
    ...said(change),
    battery: { ...base.battery, ...said(battery) },
    sensors: { ...base.sensors, ...(gps === 'standard' ? { gps: STANDARD_GPS } : {}) },
  };
  const wrong = checkParameters(parameters);
  if (wrong.length > 0) throw new SimError('IMPOSSIBLE_PARAMETERS', `airframe ${name}: ${wrong.join('; ')}`);
  return parameters;
};
