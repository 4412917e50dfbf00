/**
 * A release's way to the fleet, in waves, as a pure machine: `step(rollout, event) -> [rollout, effects]`.
 *
 * Invariants
 * - A device gets the release only in its wave, and a wave begins only after the one before has flown it and been watched.
 * - Silence is no success: a device that has not answered in time is `late`, and counts as one that failed.
 * - It never waits without an end, but for the operator while it is paused; and then it says why.
 * - The target state of a device follows from the rollout alone (`targetOf`), so that it can be told anew at any time.
 *   What was decided is durable (`persist`) before a device hears of it.
 *
 * Times are those of the driver's own clock, which must not jump: it stands still while the hub is down.
 * Not wired into the hub's store and API yet; the fleet in virtual time (test/virtual/) is what runs it so far. Left out:
 * windows, a growing rate, approval.
 */
import { BLAMELESS, type Current } from '#fleet/protocol.ts';

/** How many devices have it when this wave has begun, the earlier waves' among them. */
export type Reach = { readonly count: number } | { readonly percent: number };

export interface Plan {
  /** The devices that are beyond the last reach are a wave of their own. */
  readonly waves: readonly Reach[];
  /** Share of a wave that must fly the release before the next one may begin, 0 to 1. */
  readonly successMin: number;
  /** Share of the answers that may be failures, 0 to 1; judged from `sampleMin` answers on. */
  readonly errorMax: number;
  readonly sampleMin: number;
  /** How long a wave that succeeded is watched. */
  readonly soakMs: number;
  /** A device that is silent for longer after its wave began is late. */
  readonly deviceMsMax: number;
  /** Flight quality. So many drones may have given the rotors back, or been without a command for longer than `gapMsMax`. */
  readonly handbacksMax: number;
  readonly gapMsMax: number;
  readonly gapsMax: number;
  /** What it does by itself when one of these is broken. */
  readonly onTrouble: 'pause' | 'abort';
}

export interface Device {
  readonly status: 'waiting' | 'asked' | 'done' | 'failed' | 'late';
  /** Of the target that asked it. */
  readonly generation: number;
  /** Why it failed. */
  readonly code?: string;
  readonly handedBack?: boolean;
  readonly gapMs?: number;
}

export type WhyCode = 'ERRORS' | 'TOO_FEW' | 'HANDBACKS' | 'GAPS' | 'OPERATOR';
export interface Why {
  readonly code: WhyCode;
  readonly text: string;
}

interface Counts {
  readonly answers: number;
  readonly failures: number;
  readonly handbacks: number;
  readonly gaps: number;
}

interface Common {
  readonly plan: Plan;
  readonly release: string;
  /** What everybody flew before, and goes back to. */
  readonly prior: string | null;
  /** Generation of who waits, and the highest that was given out. */
  readonly baseGeneration: number;
  readonly generation: number;
  /** In the order of the waves. */
  readonly order: readonly string[];
  readonly devices: Readonly<Record<string, Device>>;
  /** Index behind the last device of each wave. */
  readonly ends: readonly number[];
  readonly wave: number;
  /** What the operator knew when it was resumed: not judged again. */
  readonly accepted: Counts;
}
export type Rollout = Common &
  (
    | { readonly phase: 'wave' | 'soaking'; readonly untilMs: number }
    | {
        readonly phase: 'paused';
        readonly why: Why;
        readonly next: 'wave' | 'soaking';
        readonly leftMs: number;
      }
    | { readonly phase: 'aborted'; readonly why: Why }
    | { readonly phase: 'done' }
  );
type Running = Extract<Rollout, { untilMs: number }>;

export type RolloutEvent = { readonly atMs: number } & (
  | { readonly type: 'tick' }
  /** From its current state (`answerOf`). The last word counts: who failed may still succeed, and the reverse. */
  | { readonly type: 'answer'; readonly device: string; readonly answer: Answer }
  /** How a handover went, by the device's own measure. */
  | {
      readonly type: 'flight';
      readonly device: string;
      readonly generation: number;
      readonly handedBack: boolean;
      readonly gapMs: number;
    }
  /** Heard of for the first time: it is in the last wave. */
  | { readonly type: 'joined'; readonly device: string }
  | { readonly type: 'pause' | 'resume' | 'abort' | 'retry' }
);
export type Answer = { readonly generation: number } & (
  | { readonly status: 'done' }
  | { readonly status: 'failed'; readonly code: string }
);
export type RolloutEffect =
  | { readonly do: 'persist' }
  /** These devices have a new target state: `targetOf`. */
  | { readonly do: 'publish'; readonly devices: readonly string[] }
  | { readonly do: 'report'; readonly type: string; readonly text: string };
export type RolloutStep = [Rollout, RolloutEffect[]];

const NOTHING: Counts = { answers: 0, failures: 0, handbacks: 0, gaps: 0 };
const PERSIST: RolloutEffect = { do: 'persist' };
const report = (type: string, text: string): RolloutEffect => ({ do: 'report', type, text });

export interface Begin {
  readonly plan: Plan;
  readonly release: string;
  readonly prior: string | null;
  /** The highest that was ever given out. */
  readonly generation: number;
  readonly devices: readonly string[];
  readonly atMs: number;
}

/** @throws RangeError naming the part of the plan that makes no sense */
export const begin = ({ plan, release, prior, generation, devices, atMs }: Begin): RolloutStep => {
  check(plan);
  const reaches = plan.waves.map((reach) =>
    Math.min(
      devices.length,
      'count' in reach ? reach.count : Math.ceil((devices.length * reach.percent) / 100),
    ),
  );
  // A wave that reaches nobody new is none.
  const ends = [...reaches, devices.length].filter(
    (end, at, all) => at === 0 || end > Math.max(...all.slice(0, at)),
  );
  const waiting: Device = { status: 'waiting', generation };
  const rollout: Rollout = {
    plan,
    release,
    prior,
    baseGeneration: generation,
    generation: generation + 1,
    order: devices,
    devices: Object.fromEntries(devices.map((device) => [device, waiting])),
    ends,
    wave: 0,
    accepted: NOTHING,
    phase: 'wave',
    untilMs: atMs,
  };
  const [first, effects] = opened(rollout, 0, atMs);
  // Who waits is told its own target anew: generations of a fleet rise together.
  return [first, effects.map((one) => (one.do === 'publish' ? { ...one, devices } : one))];
};

const check = (plan: Plan): void => {
  const share = (name: 'successMin' | 'errorMax') => {
    if (!(plan[name] >= 0 && plan[name] <= 1)) throw new RangeError(`${name} must be from 0 to 1`);
  };
  share('successMin');
  share('errorMax');
  for (const name of ['sampleMin', 'soakMs', 'deviceMsMax', 'handbacksMax', 'gapMsMax', 'gapsMax'] as const)
    if (!(plan[name] >= 0)) throw new RangeError(`${name} must be a number from 0`);
  for (const reach of plan.waves) {
    const isSensible =
      'count' in reach
        ? Number.isSafeInteger(reach.count) && reach.count > 0
        : reach.percent > 0 && reach.percent <= 100;
    if (!isSensible) throw new RangeError(`no wave reaches ${JSON.stringify(reach)}`);
  }
};

/** When the rollout wants a `tick`; `Infinity` if it waits for nothing, or for the operator. */
export const deadlineMs = (rollout: Rollout): number =>
  'untilMs' in rollout ? rollout.untilMs : Number.POSITIVE_INFINITY;

/** What a device is to fly; of a device that the rollout does not know, what everybody flew before. */
export const targetOf = (
  rollout: Rollout,
  device: string,
): { generation: number; release: string | null } => {
  const { status, generation } = rollout.devices[device] ?? {
    status: 'waiting',
    generation: rollout.baseGeneration,
  };
  if (status === 'waiting') return { generation, release: rollout.prior };
  if (rollout.phase === 'aborted') return { generation: rollout.generation, release: rollout.prior };
  return { generation, release: rollout.release };
};

/** What a device's current state says about the target that it echoes; `null`: nothing yet. */
export const answerOf = ({ generation, owner, update }: Current, release: string): Answer | null => {
  if (owner?.release === release && update.status !== 'updating') return { generation, status: 'done' };
  if (update.status === 'failed' && update.release === release && !BLAMELESS.includes(update.failure.code))
    return { generation, status: 'failed', code: update.failure.code };
  return null;
};

export const step = (rollout: Rollout, event: RolloutEvent): RolloutStep => {
  const { atMs } = event;
  switch (event.type) {
    case 'tick':
      return atMs < deadlineMs(rollout) ? [rollout, []] : expired(rollout as Running, atMs);
    case 'answer':
      return answered(rollout, event.device, event.answer, atMs);
    case 'flight':
      return flew(rollout, event, atMs);
    case 'joined':
      return joined(rollout, event.device);
    case 'pause':
      return 'untilMs' in rollout
        ? paused(rollout, { code: 'OPERATOR', text: 'paused by the operator' }, atMs)
        : refused(rollout, 'only a running rollout can be paused');
    case 'resume':
      return resumed(rollout, atMs);
    case 'abort':
      return rollout.phase === 'aborted' || rollout.phase === 'done'
        ? refused(rollout, 'it is over; roll out the earlier release to go back to it')
        : aborted(rollout, { code: 'OPERATOR', text: 'aborted by the operator' });
    case 'retry':
      return retried(rollout, atMs);
  }
};

const refused = (rollout: Rollout, why: string): RolloutStep => [rollout, [report('rollout.refused', why)]];

// ---------------------------------------------------------------- waves

const waveOf = ({ order, ends }: Common, wave: number): readonly string[] =>
  order.slice(wave === 0 ? 0 : ends[wave - 1], ends[wave]);

/** Asks all of that wave who were not asked yet. */
const opened = (rollout: Rollout, wave: number, atMs: number): RolloutStep => {
  const { plan, release, ends, order, generation } = rollout;
  const asked = waveOf(rollout, wave).filter((device) => rollout.devices[device]?.status === 'waiting');
  const next: Rollout = {
    ...common(rollout),
    wave,
    devices: withAll(rollout, asked, { status: 'asked', generation }),
    phase: 'wave',
    untilMs: atMs + plan.deviceMsMax,
  };
  const effects: RolloutEffect[] = [
    PERSIST,
    { do: 'publish', devices: asked },
    report(
      'rollout.wave',
      `wave ${wave + 1} of ${ends.length}: ${release} to ${asked.length} of ${order.length}`,
    ),
  ];
  // A fleet without devices: nothing is to wait for.
  return asked.length === 0 ? also([next, effects], (one) => judged(one, atMs)) : [next, effects];
};

const common = (rollout: Rollout): Common => {
  const { plan, release, prior, baseGeneration, generation, order, devices, ends, wave, accepted } = rollout;
  return { plan, release, prior, baseGeneration, generation, order, devices, ends, wave, accepted };
};
const withAll = ({ devices }: Common, which: readonly string[], device: Device): Common['devices'] => ({
  ...devices,
  ...Object.fromEntries(which.map((name) => [name, device])),
});
const also = ([rollout, effects]: RolloutStep, then: (rollout: Rollout) => RolloutStep): RolloutStep => {
  const [next, more] = then(rollout);
  return [next, [...effects, ...more]];
};

const expired = (rollout: Running, atMs: number): RolloutStep => {
  if (rollout.phase === 'wave') {
    const late = rollout.order.filter((device) => rollout.devices[device]?.status === 'asked');
    const devices = { ...rollout.devices };
    for (const device of late)
      devices[device] = { ...(devices[device] as Device), status: 'late', code: 'LATE' };
    return also([{ ...rollout, devices }, [PERSIST]], (one) => judged(one, atMs));
  }
  if (rollout.wave + 1 < rollout.ends.length) return opened(rollout, rollout.wave + 1, atMs);
  return [
    { ...common(rollout), phase: 'done' },
    [PERSIST, report('rollout.done', `${rollout.release} is rolled out: ${told(rollout)}`)],
  ];
};

const told = (rollout: Common): string => {
  const { answers, failures } = countsOf(rollout);
  return `${answers - failures} fly it, ${failures} do not`;
};

// ---------------------------------------------------------------- judging

const countsOf = ({ devices, plan }: Common): Counts => {
  let [answers, failures, handbacks, gaps] = [0, 0, 0, 0];
  for (const { status, handedBack, gapMs } of Object.values(devices)) {
    if (status === 'done' || status === 'failed' || status === 'late') answers++;
    if (status === 'failed' || status === 'late') failures++;
    if (handedBack) handbacks++;
    if (gapMs !== undefined && gapMs > plan.gapMsMax) gaps++;
  }
  return { answers, failures, handbacks, gaps };
};

/** What is broken of what the plan asks for, beyond what the operator has accepted. */
const troubleOf = (rollout: Common): Why | null => {
  const { plan, accepted, release } = rollout;
  const all = countsOf(rollout);
  const answers = all.answers - accepted.answers;
  const failures = all.failures - accepted.failures;
  const handbacks = all.handbacks - accepted.handbacks;
  const gaps = all.gaps - accepted.gaps;
  if (handbacks > plan.handbacksMax)
    return { code: 'HANDBACKS', text: `${handbacks} drones took the rotors back from ${release}` };
  if (gaps > plan.gapsMax)
    return { code: 'GAPS', text: `${gaps} drones were without a command for more than ${plan.gapMsMax} ms` };
  if (answers > 0 && answers >= plan.sampleMin && failures / answers > plan.errorMax) {
    const codes = new Set(Object.values(rollout.devices).flatMap(({ code }) => code ?? []));
    return { code: 'ERRORS', text: `${failures} of ${answers} failed (${[...codes].sort().join(', ')})` };
  }
  return null;
};

/** After each change: trouble, or a wave that has succeeded, or one that cannot any more. */
const judged = (rollout: Rollout, atMs: number): RolloutStep => {
  if (!('untilMs' in rollout)) return [rollout, []];
  const trouble = troubleOf(rollout);
  if (trouble) return troubled(rollout, trouble, atMs);
  if (rollout.phase !== 'wave') return [rollout, []];
  const { plan, devices, wave } = rollout;
  const statuses = waveOf(rollout, wave).map((device) => devices[device]?.status);
  const done = statuses.filter((status) => status === 'done').length;
  if (done >= plan.successMin * statuses.length) {
    return [
      { ...common(rollout), phase: 'soaking', untilMs: atMs + plan.soakMs },
      [
        PERSIST,
        report(
          'rollout.soaking',
          `${done} of ${statuses.length} fly it; watched for ${plan.soakMs / 1000} s`,
        ),
      ],
    ];
  }
  if (statuses.includes('asked')) return [rollout, []];
  const text = `${done} of ${statuses.length} fly it, at least ${plan.successMin * 100} % are asked for`;
  return troubled(rollout, { code: 'TOO_FEW', text }, atMs);
};

const troubled = (rollout: Running, why: Why, atMs: number): RolloutStep =>
  rollout.plan.onTrouble === 'abort' ? aborted(rollout, why) : paused(rollout, why, atMs);

const paused = (rollout: Running, why: Why, atMs: number): RolloutStep => [
  // Who goes on although too few fly it goes on to the next wave.
  {
    ...common(rollout),
    phase: 'paused',
    why,
    next: why.code === 'TOO_FEW' ? 'soaking' : rollout.phase,
    leftMs: why.code === 'TOO_FEW' ? rollout.plan.soakMs : Math.max(0, rollout.untilMs - atMs),
  },
  [PERSIST, report('rollout.paused', why.text)],
];

const aborted = (rollout: Rollout, why: Why): RolloutStep => {
  const { order, devices, prior, generation } = rollout;
  const back = order.filter((device) => devices[device]?.status !== 'waiting');
  return [
    { ...common(rollout), generation: generation + 1, phase: 'aborted', why },
    [
      PERSIST,
      { do: 'publish', devices: back },
      report('rollout.aborted', `${why.text}; back to ${prior ?? 'nothing'}`),
    ],
  ];
};

// ---------------------------------------------------------------- what is heard

const answered = (rollout: Rollout, name: string, answer: Answer, atMs: number): RolloutStep => {
  const device = rollout.devices[name];
  if (device === undefined || device.status === 'waiting' || rollout.phase === 'aborted')
    return [rollout, []];
  // It answers another target than the one it has now.
  if (answer.generation !== device.generation) return [rollout, []];
  const code = answer.status === 'failed' ? answer.code : undefined;
  if (device.status === answer.status && device.code === code) return [rollout, []];
  const { code: _before, ...rest } = device;
  const next: Device = { ...rest, status: answer.status, ...(code === undefined ? {} : { code }) };
  return judged({ ...rollout, devices: { ...rollout.devices, [name]: next } }, atMs);
};

type Flight = Extract<RolloutEvent, { type: 'flight' }>;
const flew = (
  rollout: Rollout,
  { device: name, generation, handedBack, gapMs }: Flight,
  atMs: number,
): RolloutStep => {
  const device = rollout.devices[name];
  if (device === undefined || device.status === 'waiting' || generation !== device.generation)
    return [rollout, []];
  const next: Device = {
    ...device,
    handedBack: handedBack || device.handedBack === true,
    gapMs: Math.max(gapMs, device.gapMs ?? 0),
  };
  // Told once, as an event: unlike an answer it is not said again.
  return also([{ ...rollout, devices: { ...rollout.devices, [name]: next } }, [PERSIST]], (one) =>
    judged(one, atMs),
  );
};

const joined = (rollout: Rollout, name: string): RolloutStep => {
  if (rollout.devices[name] !== undefined) return [rollout, []];
  const { order, ends, wave, phase, generation, baseGeneration } = rollout;
  const last = ends.length - 1;
  const isAsked = phase === 'done' || (phase !== 'aborted' && wave === last);
  const device: Device = isAsked
    ? { status: 'asked', generation }
    : { status: 'waiting', generation: phase === 'aborted' ? generation : baseGeneration };
  return [
    {
      ...rollout,
      order: [...order, name],
      ends: [...ends.slice(0, last), order.length + 1],
      devices: { ...rollout.devices, [name]: device },
    },
    [PERSIST, { do: 'publish', devices: [name] }],
  ];
};

// ---------------------------------------------------------------- what the operator does

const resumed = (rollout: Rollout, atMs: number): RolloutStep => {
  if (rollout.phase !== 'paused') return refused(rollout, 'it is not paused');
  const { next, leftMs } = rollout;
  const going: Rollout = {
    ...common(rollout),
    accepted: countsOf(rollout),
    phase: next,
    untilMs: atMs + leftMs,
  };
  return also([going, [PERSIST, report('rollout.resumed', 'resumed by the operator')]], (one) =>
    judged(one, atMs),
  );
};

/** Who failed or was late is asked again, under a new generation. */
const retried = (rollout: Rollout, atMs: number): RolloutStep => {
  if (rollout.phase === 'aborted') return refused(rollout, 'it was aborted; roll the release out anew');
  const again = rollout.order.filter((name) =>
    ['failed', 'late'].includes(rollout.devices[name]?.status ?? ''),
  );
  if (again.length === 0) return refused(rollout, 'nobody failed');
  const generation = rollout.generation + 1;
  const devices = withAll(rollout, again, { status: 'asked', generation });
  const { handbacks, gaps } = countsOf({ ...rollout, devices });
  return [
    {
      ...common(rollout),
      generation,
      devices,
      accepted: { ...NOTHING, handbacks, gaps },
      phase: 'wave',
      untilMs: atMs + rollout.plan.deviceMsMax,
    },
    [
      PERSIST,
      { do: 'publish', devices: again },
      report('rollout.retried', `${again.length} are asked again`),
    ],
  ];
};
