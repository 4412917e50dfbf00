import { expect, test } from 'vitest';
import { type Observed, plan } from '#agent/planner.ts';
import { policyOf } from '#agent/policy.ts';
import type { Release } from '#fleet/protocol.ts';

const digest = (n: number) => `sha256:${String(n).repeat(64)}`;
const release = (n: number): Release => ({
  id: `v${n}`,
  app: 'hover',
  commit: 'c0ffee',
  createdAtMs: 0,
  services: {
    main: {
      labels: {},
      image: { id: digest(n), config: { digest: digest(n), bytes: 1 }, layers: [], deltas: [] },
    },
  },
});
const container = (n: number, id = `c${n}`) => ({ id, release: `v${n}`, imageId: digest(n), running: true });
const calm: Observed = {
  target: null,
  containers: [],
  images: [],
  handover: { phase: 'idle', epoch: 3, owner: null, speaks: null },
  failed: null,
  good: null,
};
const target = (n: number, generation = n) => ({ fleet: 'f', generation, release: release(n) });
const flying = (n: number): Observed => ({
  ...calm,
  target: target(n),
  containers: [container(n)],
  images: [digest(n)],
  handover: { phase: 'idle', epoch: 3, owner: `c${n}`, speaks: null },
  good: release(n),
});
const failure = { code: 'DIED', text: 'its process ended' };

/** v1 hands over to v`n`. */
const moving = (
  n: number,
  phase: 'warming' | 'releasing' = 'warming',
  failed: typeof failure | null = null,
): Observed => ({
  ...flying(1),
  target: target(n),
  containers: [container(1), container(n)],
  handover: {
    epoch: 3,
    prior: 'c1',
    candidate: `c${n}`,
    fenced: { prior: false, candidate: false },
    failure: failed,
    speaks: { prior: null, candidate: null },
    policy: policyOf({}),
    heardMs: 0,
    deadlineMs: 1,
    ...(phase === 'warming'
      ? { phase }
      : { phase, direction: 'forward', resource: 'camera', left: ['rotors'] }),
  },
});

test.each<[string, Observed, object]>([
  ['waits for a first target', calm, { do: 'wait', for: 'target' }],
  ['installs what is missing', { ...calm, target: target(1) }, { do: 'install', release: release(1) }],
  [
    'starts what is there',
    { ...calm, target: target(1), images: [digest(1)] },
    { do: 'start', release: release(1) },
  ],
  ['leaves alone what flies', flying(1), { do: 'nothing' }],
  [
    'installs an update beside it',
    { ...flying(1), target: target(2) },
    { do: 'install', release: release(2) },
  ],
  [
    'starts an update beside it',
    { ...flying(1), target: target(2), images: [digest(1), digest(2)] },
    { do: 'start', release: release(2) },
  ],
  ['never acts during a handover', moving(2), { do: 'wait', for: 'handover' }],
  [
    'sends a candidate away that is not wanted any more',
    { ...moving(2), target: target(3) },
    { do: 'abort', failure: { code: 'SUPERSEDED', text: 'v3 is wanted instead of v2' } },
  ],
  [
    'lets a transfer end before the next update',
    { ...moving(2, 'releasing'), target: target(3) },
    { do: 'wait', for: 'handover' },
  ],
  [
    'turns a transfer round to what flew before',
    { ...moving(2, 'releasing'), target: target(1, 4) },
    { do: 'abort', failure: { code: 'SUPERSEDED', text: 'v1 is wanted instead of v2' } },
  ],
  [
    'turns it round once',
    { ...moving(2, 'releasing', failure), target: target(1, 4) },
    { do: 'wait', for: 'handover' },
  ],
  [
    'clears what is neither owner nor candidate',
    { ...flying(1), containers: [container(1), container(2)] },
    { do: 'remove', container: container(2) },
  ],
  [
    'does not try a failed release again',
    { ...flying(1), target: target(2), failed: { generation: 2, release: 'v2', failure } },
    { do: 'nothing' },
  ],
  [
    'tries it again when the fleet says so anew',
    {
      ...flying(1),
      target: target(2, 3),
      images: [digest(2)],
      failed: { generation: 2, release: 'v2', failure },
    },
    { do: 'start', release: release(2) },
  ],
  [
    'goes back to the last good release when nobody is left',
    {
      ...flying(1),
      target: target(2),
      containers: [],
      handover: { phase: 'failsafe', epoch: 5, failure },
      failed: { generation: 2, release: 'v2', failure },
    },
    { do: 'start', release: release(1) },
  ],
  [
    'keeps flying when the fleet wants nothing',
    { ...flying(1), target: { fleet: 'f', generation: 9, release: null } },
    { do: 'nothing' },
  ],
  [
    'updates a rebuilt release of the same name',
    { ...flying(1), containers: [{ ...container(1), imageId: digest(9) }] },
    { do: 'start', release: release(1) },
  ],
])('%s', (_name, observed, expected) => {
  expect(plan(observed)).toEqual(expected);
});
