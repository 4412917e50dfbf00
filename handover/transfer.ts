/**
 * Passing resources one at a time from a giver to a taker: forward (prior to candidate) or in a hand-back.
 *
 * Invariants
 * - A resource is granted only in `grant`, and `grant` is reached only after the giver's RELEASED of this resource, or
 *   with the giver confirmed dead.
 * - Rotors pass last while their giver flies, so that nothing waits behind them; first in a hand-back and when the
 *   giver is dead, since everything else can wait for them.
 */
import { idOf, nobody, pairOf, report, returned } from '#handover/ends.ts';
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
  State,
  Step,
  Transfer,
} from '#handover/state.ts';

export const giverOf = (direction: Direction): Role => (direction === 'forward' ? 'prior' : 'candidate');
export const takerOf = (direction: Direction): Role => (direction === 'forward' ? 'candidate' : 'prior');
export const otherThan = (role: Role): Role => (role === 'prior' ? 'candidate' : 'prior');
const rotorsOf = ({ resources }: Config): Resource | undefined => resources.at(-1);

/**
 * Who flies and is watched for it. `null`: nobody is, because the rotors are in hand (which has a deadline of its own),
 * nobody waits to take over, or there is no update.
 */
export const pilotOf = (state: State, config: Config): Role | null => {
  switch (state.phase) {
    case 'ready':
    case 'postponed':
      return state.fenced.prior ? null : 'prior';
    case 'releasing':
    case 'granting': {
      const rotors = rotorsOf(config);
      if (rotors === undefined || state.resource === rotors) return null;
      const role = state.left.includes(rotors) ? giverOf(state.direction) : takerOf(state.direction);
      // At a first start there is no giver; nobody flies yet.
      return state.fenced[role] ? null : role;
    }
    case 'probation':
      return 'candidate';
    case 'idle':
    case 'warming':
    case 'fencing':
    case 'committed':
    case 'failsafe':
      return null;
  }
};

/** Who stands by, or was retired, has nothing to say of the rotors, whatever it sends. */
export const mayFly = (state: State, who: AppId, config: Config): boolean => {
  switch (state.phase) {
    case 'idle':
      return who === state.owner;
    case 'warming':
    case 'ready':
    case 'postponed':
      return who === state.prior;
    case 'releasing':
    case 'granting':
    case 'fencing': {
      const pilot = pilotOf(state, config);
      return pilot === null || who === state[pilot];
    }
    case 'probation':
    case 'committed':
      return who === state.candidate;
    case 'failsafe':
      return false;
  }
};

/** Who is to answer for the resource in hand. */
export const inHandOf = (state: State): Role | null =>
  state.phase === 'releasing'
    ? giverOf(state.direction)
    : state.phase === 'granting'
      ? takerOf(state.direction)
      : null;

// ---------------------------------------------------------------- what passes, in which order

/** In hand and then left: all of `which`, in the order in which they would pass forward, or rotors first. */
const order = (
  which: readonly Resource[],
  rotorsLast: boolean,
  { resources }: Config,
): Pick<Transfer, 'resource' | 'left'> => {
  const chosen = resources.filter((resource) => which.includes(resource));
  const [resource, ...left] = rotorsLast ? chosen : chosen.reverse();
  if (resource === undefined) throw new Error('invariant: nothing is to pass');
  return { resource, left };
};
const passed = ({ resource, left }: Transfer, { resources }: Config): Resource[] =>
  resources.filter((one) => one !== resource && !left.includes(one));

/** Everything to the candidate. At a first start the prior is missing, and nobody flies: nothing is urgent. */
export const forward = (pair: Pair, config: Config): Transfer => ({
  ...pairOf(pair),
  direction: 'forward',
  ...order(config.resources, pair.prior === null || !pair.fenced.prior, config),
});
/** Everything back to the prior. */
export const handback = (pair: Pair, config: Config): Transfer => ({
  ...pairOf(pair),
  direction: 'handback',
  ...order(config.resources, false, config),
});
/** What has passed, and the one in hand, the other way. */
const turned = (state: Transfer, config: Config): Transfer => ({
  ...pairOf(state),
  direction: state.direction === 'forward' ? 'handback' : 'forward',
  ...order([state.resource, ...passed(state, config)], false, config),
});

// ---------------------------------------------------------------- one resource

const releaseMsMax = (resource: Resource, { limits }: Config): number =>
  resource === 'rotors' ? limits.rotorReleaseMsMax : limits.otherReleaseMsMax;

/** Starts to pass one resource: ask the giver for it or, if the giver is dead, grant it. */
export const pass = (transfer: Transfer & { epoch: number }, atMs: number, config: Config): Step => {
  const { direction, resource, left } = transfer;
  const giver = giverOf(direction);
  const epoch = transfer.epoch + 1;
  if (transfer.fenced[giver]) {
    return grant({ ...transfer, epoch }, transfer.prior === null ? 'start' : 'snap', atMs, config, true);
  }
  const waitMs = releaseMsMax(resource, config);
  return [
    { ...pairOf(transfer), phase: 'releasing', epoch, direction, resource, left, deadlineMs: atMs + waitMs },
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

/**
 * @param fresh the epoch is not durable yet: it was not asked for under it. What a fenced giver leaves waits for no disk: each
 *   state in the journal from which that can follow leads a restarted agent to the same grant
 */
const grant = (
  transfer: Transfer & { epoch: number },
  from: 'release' | 'snap' | 'start',
  atMs: number,
  { limits }: Config,
  fresh: boolean,
): Step => {
  const { epoch, direction, resource, left } = transfer;
  // At a first start nobody flies yet, and the link has to come up.
  const waitMs = resource === 'rotors' && from !== 'start' ? limits.rotorGrantMsMax : limits.otherGrantMsMax;
  const message = { type: 'GRANT', epoch, resource, from } as const;
  const taker = takerOf(direction);
  const given: Effect = { do: 'send', to: idOf(transfer, taker), message };
  const persist: Effect[] = fresh ? [{ do: 'persist' }] : [];
  return [
    { ...pairOf(transfer), phase: 'granting', epoch, direction, resource, left, deadlineMs: atMs + waitMs },
    [
      ...(from === 'snap' ? [given, ...persist] : [...persist, given]),
      report('handover.grant', `the ${resource} go to the ${taker}, by ${from}`, resource),
    ],
  ];
};

/** The giver let go. An abort that came meanwhile gives it back at once, under an epoch of its own. */
export const released = (state: In<'releasing'>, atMs: number, config: Config): Step => {
  if (!isTakenBack(state)) return grant(state, 'release', atMs, config, false);
  return grant({ ...turned(state, config), epoch: state.epoch + 1 }, 'release', atMs, config, true);
};

/** The resource in hand has arrived: the next one, or the end of the transfer. */
export const arrived = (state: In<'granting'>, atMs: number, config: Config): Step => {
  const heardMs = state.resource === rotorsOf(config) ? atMs : state.heardMs;
  const there = { ...state, heardMs };
  const taker = takerOf(state.direction);
  const done = report('handover.granted', `${taker} has the ${state.resource}`, state.resource);
  const [next, ...left] = state.left;
  const [after, effects] = isTakenBack(there)
    ? pass({ ...turned(there, config), epoch: state.epoch }, atMs, config)
    : next !== undefined
      ? pass({ ...there, resource: next, left }, atMs, config)
      : state.direction === 'forward'
        ? probation(there, atMs)
        : returned(there);
  // Reports come last: nothing that flies waits for them.
  return [after, [...effects, done]];
};

/** On its way forward although it was aborted, and there is somebody to go back to. */
const isTakenBack = ({ direction, failure, fenced }: Transfer): boolean =>
  direction === 'forward' && failure !== null && !fenced.prior;

/** The candidate owns everything; it is watched, and the prior follows in its shadow in case it has to go on. */
export const probation = (state: Pair & { epoch: number }, atMs: number): Step => [
  {
    ...pairOf(state),
    phase: 'probation',
    epoch: state.epoch,
    heardMs: atMs,
    loop: null,
    deadlineMs: atMs + state.policy.probationMs,
  },
  state.prior === null || state.fenced.prior
    ? [{ do: 'persist' }]
    : [{ do: 'persist' }, { do: 'mirror', from: state.candidate, to: state.prior }],
];

// ---------------------------------------------------------------- faults on the way

/** One side of a transfer failed. It is fenced; then the other side gets what is to pass. */
export const failed = (
  state: Moving,
  role: Role,
  failure: Failure,
  atMs: number,
  { limits }: Config,
): Step => {
  const pending = state.phase === 'fencing' && state.who !== role;
  const effects: Effect[] = [report('handover.fault', `${role}: ${failure.text}`, state.resource)];
  if (!state.fenced[role]) effects.unshift({ do: 'fence', who: idOf(state, role) });
  // Both failed at once: the second is fenced too, and the first's confirmation finds nobody to grant to.
  if (pending) return [role === 'candidate' ? blamed(state, failure) : state, effects];
  return [
    {
      // Without the prior there is no going back: what was aborted goes on.
      ...pairOf(role === 'candidate' ? blamed(state, failure) : { ...state, failure: null }),
      phase: 'fencing',
      epoch: state.epoch,
      direction: state.direction,
      resource: state.resource,
      left: state.left,
      who: role,
      awaitsRelease: state.phase === 'releasing' && role === takerOf(state.direction),
      deadlineMs: atMs + limits.fenceMsMax,
    },
    effects,
  ];
};
const blamed = <S extends Pair>(state: S, failure: Failure): S =>
  state.failure === null ? { ...state, failure } : state;

/** A fence is confirmed: towards whoever is left. */
export const resolve = (state: In<'fencing'>, atMs: number, config: Config): Step => {
  const { who, fenced } = state;
  const other = otherThan(who);
  if (!fenced[who]) return [state, []];
  if (fenced[other]) {
    return nobody(state, state.failure ?? { code: 'BOTH_LOST', text: 'prior and candidate are dead' });
  }
  if (state.awaitsRelease) {
    return [{ ...state, deadlineMs: atMs + releaseMsMax(state.resource, config) }, []];
  }
  const { epoch, direction, resource, left } = state;
  const towards =
    takerOf(direction) === other
      ? { ...pairOf(state), direction, ...order([resource, ...left], false, config) }
      : turned(state, config);
  // While the fence was awaited nobody was listened to; that was no silence.
  return pass({ ...towards, epoch, heardMs: atMs }, atMs, config);
};
