/**
 * The ways in which an update ends: cancelled before anything passed, committed, given back, or with nobody left.
 *
 * Invariant: each of them settles the update exactly once, and the state it leaves is durable before anyone is told.
 */
import type { Resource } from '#handover/messages.ts';
import type {
  AppId,
  Config,
  Effect,
  Failure,
  Moving,
  Outcome,
  Pair,
  Role,
  Step,
  Waiting,
} from '#handover/state.ts';

export const report = (type: string, text: string, resource?: Resource): Effect =>
  resource === undefined ? { do: 'report', type, text } : { do: 'report', type, text, resource };

export const pairOf = ({ prior, candidate, fenced, failure, speaks, policy, heardMs }: Pair): Pair => ({
  prior,
  candidate,
  fenced,
  failure,
  speaks,
  policy,
  heardMs,
});

/** Only asked of a role that is not fenced, and a missing prior counts as fenced. */
export const idOf = (pair: Pair, role: Role): AppId => {
  const id = pair[role];
  if (id === null) throw new Error(`invariant: there is no ${role}`);
  return id;
};

const settle = (outcome: Outcome): Effect => ({ do: 'settle', outcome });
const dismissed = (state: Pair & { epoch: number }, failure: Failure): Effect[] =>
  state.fenced.candidate
    ? []
    : [
        { do: 'send', to: state.candidate, message: { type: 'REVOKE', epoch: state.epoch, ...failure } },
        { do: 'stop', who: state.candidate },
      ];

/** The candidate holds nothing: it is stopped, and the prior never noticed. */
export const cancel = (state: Waiting, failure: Failure): Step => {
  const owner = state.fenced.prior ? null : state.prior;
  return [
    { phase: 'idle', epoch: state.epoch, owner, speaks: owner === null ? null : state.speaks.prior },
    [{ do: 'persist' }, ...dismissed(state, failure), settle({ type: 'failed', owner, failure })],
  ];
};

/** The prior is gone for good. */
export const retired = ({ epoch, candidate, speaks }: Pair & { epoch: number }): Step => [
  { phase: 'idle', epoch, owner: candidate, speaks: speaks.candidate },
  [{ do: 'persist' }, settle({ type: 'updated', owner: candidate })],
];

export const commit = (state: Pair & { epoch: number }, atMs: number, { limits }: Config): Step => {
  const { epoch, prior, candidate, fenced } = state;
  const owned: Effect = { do: 'send', to: candidate, message: { type: 'COMMIT', epoch, role: 'owner' } };
  if (prior === null || fenced.prior) {
    const [idle, effects] = retired(state);
    return [idle, [...effects, owned]];
  }
  return [
    { ...pairOf(state), phase: 'committed', epoch, deadlineMs: atMs + limits.retireMsMax },
    [
      { do: 'persist' },
      owned,
      { do: 'send', to: prior, message: { type: 'COMMIT', epoch, role: 'retired' } },
      report('handover.committed', 'the candidate is the owner for good, the prior may go'),
    ],
  ];
};

/** The prior has everything again. */
export const returned = (state: Moving): Step => {
  const failure = state.failure ?? { code: 'ABORTED', text: 'the update was taken back' };
  const owner = state.prior;
  return [
    { phase: 'idle', epoch: state.epoch, owner, speaks: state.speaks.prior },
    [{ do: 'persist' }, ...dismissed(state, failure), settle({ type: 'failed', owner, failure })],
  ];
};

/** Both are gone. Told first, durable then: a restarted agent would find nobody to ask. */
export const nobody = (state: Pair & { epoch: number }, failure: Failure): Step => {
  const settled = settle({ type: 'failed', owner: null, failure });
  if (state.prior === null) {
    return [{ phase: 'idle', epoch: state.epoch, owner: null, speaks: null }, [{ do: 'persist' }, settled]];
  }
  return [
    { phase: 'failsafe', epoch: state.epoch, failure },
    [{ do: 'failsafe', failure }, { do: 'persist' }, settled],
  ];
};
