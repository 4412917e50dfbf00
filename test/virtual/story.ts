/**
 * What one seed is about: how many drones, which releases and how they behave, what goes wrong and when.
 *
 * Invariant: everything is drawn here, from the seed, before anything happens; except where a fault strikes (`at: point`),
 * which counts what the drone does.
 */
import { Random } from '#device-sim/random.ts';
import type { Weather } from '#device-sim/virtual/network.ts';
import type { Plan as RolloutPlan } from '#fleet/rollout.ts';

export type Behaviour =
  | 'good'
  | 'crashes-warming'
  | 'never-ready'
  | 'diverges'
  | 'crashes-in-probation'
  | 'hangs-in-probation'
  | 'off-setpoint'
  | 'slow-loop'
  | 'crashes-later';
export const MISBEHAVIOURS: readonly Behaviour[] = [
  'crashes-warming',
  'never-ready',
  'diverges',
  'crashes-in-probation',
  'hangs-in-probation',
  'off-setpoint',
  'slow-loop',
  'crashes-later',
];

export type FaultKind =
  | 'app-kill'
  | 'app-hang'
  /** A holder that does not come to an end with its step, while its app flies on. */
  | 'app-stuck'
  | 'agent-kill'
  | 'agent-hang'
  | 'power-cut'
  | 'partition'
  | 'slow-disk'
  | 'disk-error'
  | 'disk-full'
  | 'clock-jump'
  | 'fence-stuck'
  /** A peer that says again what it has said. */
  | 'echo';
export interface Fault {
  readonly kind: FaultKind;
  /** When: a time, or the count of points that the drone has passed (effects, disk operations, lines) since the first update. */
  readonly at: { readonly us: number } | { readonly point: number };
  readonly lastsUs: number;
  /** 0 to 1: which app, how slow, how far. */
  readonly draw: number;
}
export interface HubFault {
  readonly kind: 'kill' | 'power-cut' | 'slow-disk' | 'disk-error';
  readonly at: { readonly us: number } | { readonly point: number };
  readonly lastsUs: number;
  readonly draw: number;
}

export interface Rollout {
  readonly release: string;
  readonly plan: RolloutPlan;
  /** After this long the operator aborts it, whatever it does. */
  readonly abortUs: number | null;
}

export interface Story {
  readonly seed: number;
  readonly drones: number;
  /** Nothing flies at first: the first rollout starts the first release. */
  readonly isFirstStart: boolean;
  readonly rollouts: readonly Rollout[];
  /** By release: how it behaves, and on which share of the drones. */
  readonly releases: Readonly<Record<string, { readonly behaviour: Behaviour; readonly share: number }>>;
  readonly weather: Weather;
  /** From here on nothing new goes wrong. */
  readonly calmUs: number;
  /** By drone. */
  readonly faults: readonly (readonly Fault[])[];
  readonly hubFaults: readonly HubFault[];
}

const SECOND_US = 1_000_000;
/** Half of the draws below a tenth of the highest. */
const spread = (random: Random, low: number, high: number): number =>
  Math.round(low * (high / low) ** random.uniform());
const pick = <T>(random: Random, from: readonly T[]): T => from[random.uint32() % from.length] as T;

/** Each with how often it is drawn. */
const KINDS: readonly (readonly [FaultKind, number])[] = [
  ['app-kill', 4],
  ['app-hang', 4],
  ['app-stuck', 3],
  ['agent-kill', 4],
  ['agent-hang', 1],
  ['power-cut', 2],
  ['partition', 2],
  ['slow-disk', 2],
  ['disk-error', 1],
  ['disk-full', 1],
  ['clock-jump', 1],
  ['fence-stuck', 1],
  ['echo', 2],
];
const WEIGHTED = KINDS.flatMap(([kind, weight]) => Array<FaultKind>(weight).fill(kind));

export const planOf = (random: Random): RolloutPlan => ({
  waves: pick(random, [[{ count: 1 }, { percent: 50 }], [{ percent: 10 }], [{ count: 2 }], []]),
  successMin: pick(random, [0.5, 0.8, 1]),
  errorMax: pick(random, [0.1, 0.3, 0.5]),
  sampleMin: 1 + (random.uint32() % 4),
  soakMs: pick(random, [1_000, 10_000, 30_000]),
  deviceMsMax: pick(random, [60_000, 120_000]),
  handbacksMax: random.uint32() % 3,
  gapMsMax: 200,
  gapsMax: random.uint32() % 3,
  onTrouble: pick(random, ['pause', 'abort']),
});

/** @param beside an earlier one: half of the faults come in pairs, since one alone is what most things survive */
const faultOf = (random: Random, calmUs: number, beside: Fault | undefined): Fault => {
  const near = beside && 'point' in beside.at && random.uniform() < 0.5 ? beside.at.point : null;
  const isPoint = near !== null || random.uniform() < 0.75;
  const point = near === null ? random.uint32() % 160 : near + 1 + (random.uint32() % 40);
  return {
    kind: pick(random, WEIGHTED),
    at: isPoint ? { point } : { us: Math.floor(random.uniform() * calmUs) },
    lastsUs: spread(random, 30_000, 60 * SECOND_US),
    draw: random.uniform(),
  };
};

/** Of one drone. */
const faultsOf = (random: Random, calmUs: number, count: number): Fault[] => {
  const faults: Fault[] = [];
  while (faults.length < count) faults.push(faultOf(random, calmUs, faults.at(-1)));
  return faults;
};

const hubFaultOf = (random: Random, calmUs: number): HubFault => ({
  kind: pick(random, ['kill', 'kill', 'power-cut', 'power-cut', 'slow-disk', 'disk-error']),
  at:
    random.uniform() < 0.6 ? { point: random.uint32() % 40 } : { us: Math.floor(random.uniform() * calmUs) },
  lastsUs: spread(random, SECOND_US, 30 * SECOND_US),
  draw: random.uniform(),
});

export interface StoryOptions {
  /** Instead of what the seed says. */
  readonly drones?: number | undefined;
  /** Every drone has its four faults, some have a bad release: what takes two faults to show is found sooner. */
  readonly harsh?: boolean | undefined;
}

export const storyOf = (seed: number, { drones, harsh = false }: StoryOptions = {}): Story => {
  const random = new Random(seed, 1);
  const count = drones ?? 2 + (random.uint32() % 7);
  const calmUs = (60 + (random.uint32() % 120)) * SECOND_US;
  // A quarter of the seeds with one fault a drone at most: what is promised for one fault is held there.
  const faultsMax = pick(random, harsh ? [4] : [0, 1, 1, 2, 4]);
  const badShare = pick(random, harsh ? [0.5] : [0, 0, 0, 0.3, 1]);
  const isStormy = random.uniform() < 0.5;
  const releases: Story['releases'] = {
    v1: { behaviour: 'good', share: 1 },
    v2: { behaviour: badShare === 0 ? 'good' : pick(random, MISBEHAVIOURS), share: badShare },
    v3: { behaviour: 'good', share: 1 },
  };
  const isFirstStart = random.uniform() < 0.1;
  const names = isFirstStart ? ['v1', 'v2'] : ['v2', 'v3'];
  return {
    seed,
    drones: count,
    isFirstStart,
    releases,
    rollouts: names.map((release) => ({
      release,
      plan: planOf(random),
      abortUs: random.uniform() < 0.15 ? spread(random, SECOND_US, 60 * SECOND_US) : null,
    })),
    weather: isStormy
      ? {
          lost: random.uniform() * 0.3,
          doubled: random.uniform() * 0.3,
          latencyUsMin: 5_000,
          latencyUsMax: spread(random, 50_000, 3 * SECOND_US),
        }
      : { lost: 0, doubled: 0, latencyUsMin: 5_000, latencyUsMax: 40_000 },
    calmUs,
    faults: Array.from({ length: count }, () =>
      faultsOf(random, calmUs, harsh ? faultsMax : random.uint32() % (faultsMax + 1)),
    ),
    hubFaults: Array.from({ length: random.uint32() % 3 }, () => hubFaultOf(random, calmUs)),
  };
};

/** Three waves and the rest, with room for a busy fleet. */
export const CALM_PLAN: RolloutPlan = {
  waves: [{ percent: 1 }, { percent: 10 }, { percent: 50 }],
  successMin: 0.95,
  errorMax: 0.02,
  sampleMin: 5,
  soakMs: 10_000,
  deviceMsMax: 120_000,
  handbacksMax: 2,
  gapMsMax: 200,
  gapsMax: 2,
  onTrouble: 'abort',
};

/** Nothing goes wrong but the release: for scale, and for what a wave is worth. */
export const calmStory = (
  seed: number,
  drones: number,
  plan: RolloutPlan,
  behaviour: Behaviour = 'good',
): Story => ({
  seed,
  drones,
  isFirstStart: false,
  releases: { v1: { behaviour: 'good', share: 1 }, v2: { behaviour, share: 1 } },
  rollouts: [{ release: 'v2', plan, abortUs: null }],
  weather: { lost: 0, doubled: 0, latencyUsMin: 5_000, latencyUsMax: 40_000 },
  calmUs: 0,
  faults: [],
  hubFaults: [],
});
