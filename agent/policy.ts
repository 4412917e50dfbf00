/**
 * What a release asks of its own update, by labels on its image; each has a default.
 *
 * Invariant: a label that says nothing sensible refuses the release before anything of it is fetched.
 */
import * as v from 'valibot';
import { AgentError } from '#agent/errors.ts';
import { LIMITS } from '#handover/limits.ts';
import type { Policy } from '#handover/state.ts';

type Labels = Readonly<Record<string, string>>;

const amount = (low: number, high: number) =>
  v.pipe(
    v.string(),
    v.regex(/^\d+(\.\d+)?$/, 'not a number'),
    v.transform(Number),
    v.minValue(low, `below ${low}`),
    v.maxValue(high, `above ${high}`),
  );
const whole = (low: number, high: number) => v.pipe(amount(low, high), v.integer('not a whole number'));

/** By label: what it may be. */
const schemas = {
  /** Cycles in the prior's shadow before it may take over. */
  'io.midair.shadow.cycles': whole(0, 1_000_000),
  /** How far its output may be from the prior's, in each of them; the app's own unit. */
  'io.midair.shadow.divergence': amount(0, 1e9),
  /** Silence of who flies after which it is fenced, while another could take over. Below three heartbeats none would live. */
  'io.midair.heartbeat-ms': amount(3 * LIMITS.watchedSnapIntervalMs, LIMITS.aloneSilenceMsMax),
  'io.midair.probation-ms': whole(0, LIMITS.durationMsMax),
  /** Control cycles a second that it must keep up in probation. */
  'io.midair.probation.loop-hz': amount(0, 100_000),
  /** How far it may be from its setpoint in probation; the app's own unit. */
  'io.midair.probation.error': amount(0, 1e9),
} as const;
type Name = keyof typeof schemas;

/** @throws AgentError `BAD_LABEL`, naming the label and what is wrong with it */
export const policyOf = (labels: Labels): Policy => {
  const read = <D>(name: Name, otherwise: D): number | D => {
    const text = labels[name];
    if (text === undefined) return otherwise;
    const result = v.safeParse(schemas[name], text);
    if (result.success) return result.output;
    throw new AgentError('BAD_LABEL', `label ${name}=${JSON.stringify(text)}: ${result.issues[0].message}`);
  };
  return {
    shadowCyclesMin: read('io.midair.shadow.cycles', LIMITS.shadowCyclesMin),
    divergenceMax: read('io.midair.shadow.divergence', LIMITS.divergenceMax),
    heartbeatMsMax: read('io.midair.heartbeat-ms', LIMITS.heartbeatMsMax),
    probationMs: read('io.midair.probation-ms', LIMITS.probationMs),
    loopHzMin: read('io.midair.probation.loop-hz', 0),
    errorMax: read('io.midair.probation.error', null),
  };
};
