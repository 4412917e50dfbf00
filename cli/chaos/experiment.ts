/**
 * An experiment: which failure, in whom, how often, with what chance, how long each time, until when.
 *
 * Invariant: what passes here is within every bound of limits.ts; an error names the field and what it may be. Pure.
 */
import * as v from 'valibot';
import { ChaosError } from '#cli/chaos/errors.ts';
import { CHAOS } from '#cli/chaos/limits.ts';

export const FAILURES = ['latency', 'loss', 'partition', 'pause', 'kill', 'cpu', 'disk-full'] as const;
export type Failure = (typeof FAILURES)[number];

export const ROLES = ['owner', 'candidate', 'agent', 'hub', 'sim', 'link'] as const;
export type Role = (typeof ROLES)[number];
/** Which bytes of a link: towards the hub, from it, or both. */
export const WAYS = ['both', 'to-hub', 'from-hub'] as const;
export type Way = (typeof WAYS)[number];

/** Whom: all that is given must fit. Without any, everything that is marked fits. */
export interface Criteria {
  readonly service?: string;
  readonly app?: string;
  readonly device?: string;
  readonly release?: string;
  /** An id, its beginning, or a name. */
  readonly container?: string;
  readonly role?: Role;
}
const CRITERIA = ['service', 'app', 'device', 'release', 'container', 'role'] as const;

/** What a failure does, as far as it is a choice. */
export interface Parameters {
  readonly latencyMs: number;
  readonly jitterMs: number;
  readonly lossPercent: number;
  readonly way: Way;
  /** Busy loops. */
  readonly cores: number;
  /** Left free on a disk that is filled. */
  readonly floorBytes: number;
}

export interface Spec {
  readonly failure: Failure;
  readonly criteria: Criteria;
  /** A beat each; whether one injects is chance. */
  readonly frequencyMs: number;
  readonly probability: number;
  /** Of each injection. */
  readonly durationMs: number;
  /** Of the experiment, from its creation. */
  readonly forMs: number;
  /** Of chance: the same seed, beats and targets give the same injections. */
  readonly seed: number;
  readonly parameters: Parameters;
}

/**
 * `service=hover,role=owner` as criteria.
 * @throws ChaosError `INVALID_EXPERIMENT`
 */
export function parseCriteria(text: string): Criteria {
  const criteria: Record<string, string> = {};
  for (const part of text.split(',').map((one) => one.trim())) {
    if (part === '') continue;
    const [, key = '', value = ''] = /^([a-z]+)=(.+)$/.exec(part) ?? [];
    if (!(CRITERIA as readonly string[]).includes(key) || criteria[key] !== undefined) {
      throw new ChaosError(
        'INVALID_EXPERIMENT',
        `criteria: "${part}" is not one; write KEY=VALUE, joined by commas, each once, with a key of ${CRITERIA.join(', ')}`,
      );
    }
    if (key === 'role' && !(ROLES as readonly string[]).includes(value)) {
      throw new ChaosError('INVALID_EXPERIMENT', `criteria: role=${value} is none of ${ROLES.join(', ')}`);
    }
    criteria[key] = value;
  }
  return criteria;
}

export const criteriaText = (criteria: Criteria): string =>
  CRITERIA.flatMap((key) => (criteria[key] === undefined ? [] : [`${key}=${criteria[key]}`])).join(',') ||
  'everything marked';

/**
 * `250ms`, `10s`, `5m`, `1h` in milliseconds.
 * @throws RangeError with the form
 */
export function milliseconds(text: string): number {
  const [, number, unit] = /^(\d{1,7}(?:\.\d{1,3})?)(ms|s|m|h)$/.exec(text) ?? [];
  if (number === undefined) throw new RangeError('expected a time such as 250ms, 10s, 5m or 1h');
  return Math.round(Number(number) * { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }[unit as 'ms']);
}

const between = (min: number, max: number) =>
  v.pipe(
    v.number(`must be a number from ${min} to ${max}`),
    v.minValue(min, `must be a number from ${min} to ${max}`),
    v.maxValue(max, `must be a number from ${min} to ${max}`),
  );
const whole = (min: number, max: number) =>
  v.pipe(between(min, max), v.integer(`must be a whole number from ${min} to ${max}`));
const oneOf = <const T extends readonly string[]>(words: T) =>
  v.picklist(words, `must be one of ${words.join(', ')}`);

const schema = v.strictObject(
  {
    failure: oneOf(FAILURES),
    criteria: v.optional(
      v.pipe(v.string('must be text such as service=hover,role=owner'), v.maxLength(CHAOS.criteriaCharsMax)),
      '',
    ),
    frequencyMs: v.optional(whole(CHAOS.frequencyMsMin, CHAOS.frequencyMsMax), 10_000),
    probability: v.optional(between(0, 1), 0.5),
    durationMs: v.optional(whole(CHAOS.durationMsMin, CHAOS.durationMsMax), CHAOS.durationMsDefault),
    forMs: v.optional(whole(CHAOS.frequencyMsMin, CHAOS.forMsMax), CHAOS.forMsDefault),
    seed: v.optional(whole(0, 0xffff_ffff)),
    latencyMs: v.optional(whole(1, CHAOS.latencyMsMax), 200),
    jitterMs: v.optional(whole(0, CHAOS.latencyMsMax), 0),
    lossPercent: v.optional(between(0.1, 100), 10),
    way: v.optional(oneOf(WAYS), 'both'),
    cores: v.optional(whole(1, CHAOS.coresMax), 1),
    floorBytes: v.optional(whole(0, CHAOS.diskBytesMax), 0),
  },
  'must be an object',
);
export type Asked = v.InferInput<typeof schema>;

/**
 * @param input as the API takes it (docs/chaos.md)
 * @param freshSeed for one that names none
 * @throws ChaosError `INVALID_EXPERIMENT`
 */
export function parseExperiment(input: unknown, freshSeed: number): Spec {
  const result = v.safeParse(schema, input);
  if (!result.success) {
    const [issue] = result.issues;
    const field = v.getDotPath(issue) ?? 'the experiment';
    const known = field in schema.entries;
    const text =
      issue.type !== 'strict_object' || !issue.path
        ? issue.message
        : known
          ? `must be one of ${FAILURES.join(', ')}`
          : 'is not known';
    throw new ChaosError('INVALID_EXPERIMENT', `${field}: ${text}; midair chaos create --help tells all`);
  }
  const { latencyMs, jitterMs, lossPercent, way, cores, floorBytes, criteria, seed, ...rest } = result.output;
  return {
    ...rest,
    criteria: parseCriteria(criteria),
    seed: seed ?? freshSeed,
    parameters: { latencyMs, jitterMs: Math.min(jitterMs, latencyMs), lossPercent, way, cores, floorBytes },
  };
}
