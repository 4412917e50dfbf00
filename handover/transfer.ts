/**
 * Passing resources one at a time from a giver to a taker, and the ways in which an update ends.
 *
 * Invariant: a resource is granted only in `grant`, and `grant` is reached only after the giver's RELEASED of
 * this epoch, or with the giver confirmed dead.
 */
import type { Resource } from '#handover/messages.ts';
import type {
  AppId,
  Config,
  Direction,
  Effect,
  Failure,
  In,
  Moving,
  Pair,
  Role,
  Step,
  Transfer,
} from '#handover/state.ts';

// ---------------------------------------------------------------- start and end of an update

export const report = (type: string, text: string, resource?: Resource): Effect =>
  resource === undefined ? { do: 'report', type, text } : { do: 'report', type, text, resource };

/** The candidate holds nothing: it is stopped, and the prior never noticed. */
export const cancel = (state: In<'warming' | 'ready'>, failure: Failure): Step => {
  const owner = state.fenced.prior ? null : state.prior;
  return [
    { phase: 'idle', epoch: state.epoch, owner },
    [
      { do: 'persist' },
      { do: 'send', to: state.candidate, message: { type: 'REVOKE', epoch: state.epoch, ...failure } },
      { do: 'stop', who: state.candidate },
      { do: 'settle', outcome: { type: 'failed', owner, failure } },
    ],
  ];
};

/** The prior is gone for good. */
export const retired = ({ epoch, candidate }: Pair & { epoch: number }): Step => [
  { phase: 'idle', epoch, owner: candidate },
  [{ do: 'persist' }, { do: 'settle', outcome: { type: 'updated', owner: candidate } }],
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

const returned = (state: Moving): Step => {
  const failure = state.failure ?? { code: 'ABORTED', text: 'the update was taken back' };
  const revoke: Effect[] = state.fenced.candidate
    ? []
    : [
        { do: 'send', to: state.candidate, message: { type: 'REVOKE', epoch: state.epoch, ...failure } },
        { do: 'stop', who: state.candidate },
      ];
  return [
    { phase: 'idle', epoch: state.epoch, owner: state.prior },
    [
      { do: 'persist' },
      ...revoke,
      { do: 'settle', outcome: { type: 'failed', owner: state.prior, failure } },
    ],
  ];
};

export const nobody = (state: Pair & { epoch: number }, failure: Failure): Step => {
  const settled: Effect = { do: 'settle', outcome: { type: 'failed', owner: null, failure } };
  if (state.prior === null) {
    return [{ phase: 'idle', epoch: state.epoch, owner: null }, [{ do: 'persist' }, settled]];
  }
  return [
    { phase: 'failsafe', epoch: state.epoch, failure },
    [{ do: 'failsafe', failure }, { do: 'persist' }, settled],
  ];
};

// ---------------------------------------------------------------- the transfer

export const pairOf = ({ prior, candidate, fenced, failure }: Pair): Pair => ({
  prior,
  candidate,
  fenced,
  failure,
});
export const giverOf = (direction: Direction): Role => (direction === 'forward' ? 'prior' : 'candidate');
export const takerOf = (direction: Direction): Role => (direction === 'forward' ? 'candidate' : 'prior');
/** Only asked of a role that is not fenced, and a missing prior counts as fenced. */
export const idOf = (pair: Pair, role: Role): AppId => {
  const id = pair[role];
  if (id === null) throw new Error(`invariant: there is no ${role}`);
  return id;
};

const releaseMsMax = (resource: Resource, { limits }: Config): number =>
  resource === 'rotors' ? limits.rotorReleaseMsMax : limits.otherReleaseMsMax;

/** Starts to pass one resource: ask the giver for it or, if the giver is dead, grant it. */
export const pass = (transfer: Transfer & { epoch: number }, atMs: number, config: Config): Step => {
  const { direction, resource } = transfer;
  const giver = giverOf(direction);
  const epoch = transfer.epoch + 1;
  if (transfer.fenced[giver]) {
    const [state, effects] = grant(
      { ...transfer, epoch },
      transfer.prior === null ? 'start' : 'snap',
      atMs,
      config,
    );
    return [state, [{ do: 'persist' }, ...effects]];
  }
  const waitMs = releaseMsMax(resource, config);
  return [
    { ...pairOf(transfer), phase: 'releasing', epoch, direction, resource, deadlineMs: atMs + waitMs },
    [
      { do: 'persist' },
      {
        do: 'send',
        to: idOf(transfer, giver),
        message: { type: 'RELEASE', epoch, resource, deadlineMs: waitMs },
      },
      report('handover.release', `${giver} is asked for the ${resource}`, resource),
    ],
  ];
};

export const grant = (
  transfer: Transfer & { epoch: number },
  from: 'release' | 'snap' | 'start',
  atMs: number,
  { limits }: Config,
): Step => {
  const { epoch, direction, resource } = transfer;
  // At a first start nobody flies yet, and the link has to come up.
  const waitMs = resource === 'rotors' && from !== 'start' ? limits.rotorGrantMsMax : limits.otherGrantMsMax;
  return [
    { ...pairOf(transfer), phase: 'granting', epoch, direction, resource, deadlineMs: atMs + waitMs },
    [
      {
        do: 'send',
        to: idOf(transfer, takerOf(direction)),
        message: { type: 'GRANT', epoch, resource, from },
      },
    ],
  ];
};

/** The resource in hand has arrived: the next one, or the end of the transfer. */
export const arrived = (state: Moving, atMs: number, config: Config): Step => {
  const at = config.resources.indexOf(state.resource);
  const next = config.resources[state.direction === 'forward' ? at + 1 : at - 1];
  const done = report(
    'handover.granted',
    `${takerOf(state.direction)} has the ${state.resource}`,
    state.resource,
  );
  const [after, effects] =
    next !== undefined
      ? pass({ ...state, resource: next }, atMs, config)
      : state.direction === 'forward'
        ? probation(state, atMs, config)
        : returned(state);
  // Reports come last: nothing that flies waits for them.
  return [after, [...effects, done]];
};

const probation = (state: Moving, atMs: number, { limits }: Config): Step => [
  {
    ...pairOf(state),
    phase: 'probation',
    epoch: state.epoch,
    heardMs: atMs,
    deadlineMs: atMs + limits.probationMs,
  },
  [{ do: 'persist' }],
];

/** One side of a transfer failed. It is fenced; then the other side gets the resource in hand. */
export const failed = (
  state: Moving,
  role: Role,
  failure: Failure,
  atMs: number,
  { limits }: Config,
): Step => {
  const blamed = role === 'candidate' && state.failure === null ? { ...state, failure } : state;
  const pending = state.phase === 'fencing' && state.who !== role;
  const effects: Effect[] = [report('handover.fault', `${role}: ${failure.text}`, state.resource)];
  if (!state.fenced[role]) effects.unshift({ do: 'fence', who: idOf(state, role) });
  if (pending) {
    // Both failed at once: the second is fenced too, and the first's confirmation finds nobody to grant to.
    return [blamed, effects];
  }
  return [
    {
      ...pairOf(blamed),
      phase: 'fencing',
      epoch: state.epoch,
      direction: state.direction,
      resource: state.resource,
      who: role,
      awaitsRelease: state.phase === 'releasing' && role === takerOf(state.direction),
      deadlineMs: atMs + limits.fenceMsMax,
    },
    effects,
  ];
};

/** A fence is confirmed: towards whoever is left. */
export const resolve = (state: In<'fencing'>, atMs: number, config: Config): Step => {
  const { who, fenced } = state;
  const other: Role = who === 'prior' ? 'candidate' : 'prior';
  if (!fenced[who]) return [state, []];
  if (fenced[other]) {
    return nobody(state, state.failure ?? { code: 'BOTH_LOST', text: 'prior and candidate are dead' });
  }
  if (state.awaitsRelease) {
    const waitMs = releaseMsMax(state.resource, config);
    return [{ ...state, deadlineMs: atMs + waitMs }, []];
  }
  return pass({ ...state, direction: other === 'candidate' ? 'forward' : 'handback' }, atMs, config);
};
