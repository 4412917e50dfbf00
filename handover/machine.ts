/**
 * The handover of one device, as a pure machine: `step(state, event, config) -> [state, effects]`.
 *
 * Invariants
 * - At any instant at most one app may act on a resource: whoever is granted it was granted after the other
 *   released it, or after the other was confirmed dead.
 * - No deadline ever counts as success. A deadline fences the silent one.
 * - The epoch rises, and is durable, before every grant (`persist` stands before the `send`).
 *
 * The agent, the exploration in the tests and the simulation run this one function. A transfer passes one
 * resource at a time from a giver to a taker: forward (prior to candidate) in the order of RESOURCES, in a
 * hand-back (candidate to prior) in the reverse. Whatever goes wrong, the faulty one is fenced and the
 * transfer goes on, or turns round, towards the other; if both are fenced nobody flies it: failsafe.
 */
import type { Limits } from '#handover/limits.ts';
import type { AgentMessage, AppMessage, Resource } from '#handover/messages.ts';

/** The identity of a running app: its container's id. */
export type AppId = string;
export type Role = 'prior' | 'candidate';
export type Direction = 'forward' | 'handback';
export interface Failure {
  readonly code: string;
  readonly text: string;
}
interface Pair {
  /** `null`: a first start, nobody owns anything yet. */
  readonly prior: AppId | null;
  readonly candidate: AppId;
  /** Confirmed dead; never granted anything again. */
  readonly fenced: Readonly<Record<Role, boolean>>;
  /** Why the candidate is not to have it; `null` while all is well. */
  readonly failure: Failure | null;
}
interface Transfer extends Pair {
  readonly direction: Direction;
  /** The one in hand. Those before it in RESOURCES are the candidate's, those after it the prior's. */
  readonly resource: Resource;
}

export type State = { readonly epoch: number } & (
  | { readonly phase: 'idle'; readonly owner: AppId | null }
  | ({ readonly phase: 'warming' | 'ready'; readonly deadlineMs: number } & Pair)
  | ({ readonly phase: 'releasing' | 'granting'; readonly deadlineMs: number } & Transfer)
  | ({
      readonly phase: 'fencing';
      readonly who: Role;
      /** Still to come before the resource may be granted: the giver's RELEASED, asked before the fault. */
      readonly awaitsRelease: boolean;
      readonly deadlineMs: number;
    } & Transfer)
  | ({ readonly phase: 'probation'; readonly deadlineMs: number; readonly heardMs: number } & Pair)
  | ({ readonly phase: 'committed'; readonly deadlineMs: number } & Pair)
  | { readonly phase: 'failsafe'; readonly failure: Failure }
);

export type Event = { readonly atMs: number } & (
  | { readonly type: 'boot' }
  | { readonly type: 'tick' }
  /** A candidate's container was started. */
  | { readonly type: 'update'; readonly candidate: AppId }
  | { readonly type: 'message'; readonly from: AppId; readonly message: AppMessage }
  /** Its connection closed; the process may live. */
  | { readonly type: 'gone'; readonly who: AppId }
  /** Confirmed dead: by a fence that was asked for, or by itself. */
  | { readonly type: 'dead'; readonly who: AppId }
  | { readonly type: 'abort'; readonly failure: Failure }
);

type Without<M, K extends PropertyKey> = M extends unknown ? Omit<M, K> : never;
export type Outcome =
  | { readonly type: 'updated'; readonly owner: AppId }
  | { readonly type: 'failed'; readonly owner: AppId | null; readonly failure: Failure };
export type Effect =
  /** Make the state that this step returned durable before any later effect. */
  | { readonly do: 'persist' }
  /** Descriptors, and a grant's payload, are attached by whoever executes this. */
  | {
      readonly do: 'send';
      readonly to: AppId;
      readonly message: Without<AgentMessage, 'fds' | 'payload' | 'more'>;
    }
  /** Make sure that it can no longer act, then say `dead`. */
  | { readonly do: 'fence'; readonly who: AppId }
  /** It may end by itself first; then as `fence`. */
  | { readonly do: 'stop'; readonly who: AppId }
  | { readonly do: 'mirror'; readonly from: AppId; readonly to: AppId }
  | { readonly do: 'failsafe'; readonly failure: Failure }
  | { readonly do: 'report'; readonly type: string; readonly text: string; readonly resource?: Resource }
  | { readonly do: 'settle'; readonly outcome: Outcome };

export interface Config {
  readonly limits: Limits;
  /** Those that this device has, in the order of RESOURCES, rotors last. */
  readonly resources: readonly Resource[];
}
type Step = [State, Effect[]];
type In<P extends State['phase']> = Extract<State, { phase: P }>;
type Moving = In<'releasing' | 'granting' | 'fencing'>;

export const initial: State = { phase: 'idle', epoch: 0, owner: null };

/** When the state wants a `tick`; `Infinity` if it waits for nothing. */
export const deadlineMs = (state: State, { limits }: Config): number => {
  if (state.phase === 'probation') return Math.min(state.deadlineMs, state.heardMs + limits.snapSilenceMsMax);
  return 'deadlineMs' in state ? state.deadlineMs : Number.POSITIVE_INFINITY;
};

export const step = (state: State, event: Event, config: Config): Step => {
  switch (event.type) {
    case 'boot':
      return boot(state, event.atMs, config);
    case 'tick':
      return event.atMs < deadlineMs(state, config) ? [state, []] : expired(state, event.atMs, config);
    case 'update':
      return update(state, event.candidate, event.atMs, config);
    case 'message':
      return heard(state, event.from, event.message, event.atMs, config);
    case 'gone':
      return gone(state, event.who, event.atMs, config);
    case 'dead':
      return dead(state, event.who, event.atMs, config);
    case 'abort':
      return abort(state, event.failure, event.atMs, config);
  }
};

// ---------------------------------------------------------------- start and end of an update

const report = (type: string, text: string, resource?: Resource): Effect =>
  resource === undefined ? { do: 'report', type, text } : { do: 'report', type, text, resource };

const update = (state: State, candidate: AppId, atMs: number, { limits }: Config): Step => {
  if (state.phase !== 'idle' && state.phase !== 'failsafe') {
    return [state, [report('update.refused', 'an update is under way')]];
  }
  const prior = state.phase === 'idle' ? state.owner : null;
  return [
    {
      phase: 'warming',
      epoch: state.epoch,
      prior,
      candidate,
      fenced: { prior: prior === null, candidate: false },
      failure: null,
      deadlineMs: atMs + limits.warmMsMax,
    },
    [{ do: 'persist' }],
  ];
};

/** The candidate holds nothing: it is stopped, and the prior never noticed. */
const cancel = (state: In<'warming' | 'ready'>, failure: Failure): Step => {
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

const commit = (state: Pair & { epoch: number }, atMs: number, { limits }: Config): Step => {
  const { epoch, prior, candidate, fenced } = state;
  const owned: Effect = { do: 'send', to: candidate, message: { type: 'COMMIT', epoch, role: 'owner' } };
  const settled: Effect = { do: 'settle', outcome: { type: 'updated', owner: candidate } };
  if (prior === null || fenced.prior) {
    return [{ phase: 'idle', epoch, owner: candidate }, [{ do: 'persist' }, owned, settled]];
  }
  return [
    { ...pairOf(state), phase: 'committed', epoch, deadlineMs: atMs + limits.retireMsMax },
    [
      { do: 'persist' },
      owned,
      { do: 'send', to: prior, message: { type: 'COMMIT', epoch, role: 'retired' } },
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

const nobody = (state: Pair & { epoch: number }, failure: Failure): Step => {
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

const pairOf = ({ prior, candidate, fenced, failure }: Pair): Pair => ({ prior, candidate, fenced, failure });
const giverOf = (direction: Direction): Role => (direction === 'forward' ? 'prior' : 'candidate');
const takerOf = (direction: Direction): Role => (direction === 'forward' ? 'candidate' : 'prior');
/** Only asked of a role that is not fenced, and a missing prior counts as fenced. */
const idOf = (pair: Pair, role: Role): AppId => {
  const id = pair[role];
  if (id === null) throw new Error(`invariant: there is no ${role}`);
  return id;
};

const releaseMsMax = (resource: Resource, { limits }: Config): number =>
  resource === 'rotors' ? limits.rotorReleaseMsMax : limits.otherReleaseMsMax;

/** Starts to pass one resource: ask the giver for it or, if the giver is dead, grant it. */
const pass = (transfer: Transfer & { epoch: number }, atMs: number, config: Config): Step => {
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

const grant = (
  transfer: Transfer & { epoch: number },
  from: 'release' | 'snap' | 'start',
  atMs: number,
  { limits }: Config,
): Step => {
  const { epoch, direction, resource } = transfer;
  const waitMs = resource === 'rotors' ? limits.rotorGrantMsMax : limits.otherGrantMsMax;
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
const arrived = (state: Moving, atMs: number, config: Config): Step => {
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
const failed = (state: Moving, role: Role, failure: Failure, atMs: number, { limits }: Config): Step => {
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
const resolve = (state: In<'fencing'>, atMs: number, config: Config): Step => {
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

// ---------------------------------------------------------------- events

const roleOf = (state: State, who: AppId): Role | undefined => {
  if (!('candidate' in state)) return undefined;
  return who === state.candidate ? 'candidate' : who === state.prior ? 'prior' : undefined;
};
const isMoving = (state: State): state is Moving =>
  state.phase === 'releasing' || state.phase === 'granting' || state.phase === 'fencing';
/** As if the last resource were in hand: all of them are to go back. */
const fromProbation = (state: In<'probation'>, config: Config): Transfer & { epoch: number } => {
  const resource = config.resources.at(-1);
  if (resource === undefined) throw new Error('invariant: a device has at least one resource');
  return { ...pairOf(state), epoch: state.epoch, direction: 'handback', resource };
};

const stale = (state: State, message: AppMessage): Step => [
  state,
  [report('handover.stale', `${message.type} of epoch ${message.epoch} refused, now ${state.epoch}`)],
];

const heard = (state: State, from: AppId, message: AppMessage, atMs: number, config: Config): Step => {
  const role = roleOf(state, from);
  switch (message.type) {
    case 'HELLO':
      return hello(state, from, role, message.epoch);
    case 'SNAP':
      return state.phase === 'probation' && role === 'candidate'
        ? [{ ...state, heardMs: atMs }, []]
        : [state, []];
    case 'READY':
      return ready(state, role, message, atMs, config);
    case 'RELEASED': {
      if (message.more) return [state, []];
      if (!isMoving(state) || message.epoch !== state.epoch || message.resource !== state.resource) {
        return stale(state, message);
      }
      if (role !== giverOf(state.direction)) return stale(state, message);
      if (state.phase === 'releasing') return grant(state, 'release', atMs, config);
      if (state.phase === 'fencing') return resolve({ ...state, awaitsRelease: false }, atMs, config);
      return stale(state, message);
    }
    case 'GRANTED': {
      const expected = state.phase === 'granting' && role === takerOf(state.direction);
      if (!expected || message.epoch !== state.epoch || message.resource !== state.resource) {
        return stale(state, message);
      }
      return arrived(state, atMs, config);
    }
    case 'FAULT':
      if (role === undefined) return [state, [report('app.fault', `${message.code}: ${message.text}`)]];
      return trouble(state, role, { code: message.code, text: message.text }, atMs, config);
    case 'RETIRE':
      return state.phase === 'committed' && role === 'prior'
        ? [state, [{ do: 'stop', who: from }]]
        : stale(state, message);
  }
};

const hello = (state: State, from: AppId, role: Role | undefined, epoch: number): Step => {
  const offer = (as: 'owner' | 'candidate'): Effect => ({
    do: 'send',
    to: from,
    message: { type: 'OFFER', epoch: state.epoch, role: as },
  });
  if (state.phase === 'idle' && state.owner === from) {
    // After a lost journal the owner knows better: the epoch never goes back.
    return epoch > state.epoch
      ? [{ ...state, epoch }, [{ do: 'persist' }, offer('owner')]]
      : [state, [offer('owner')]];
  }
  if (role === 'prior' || (role === 'candidate' && state.phase !== 'warming'))
    return [state, [offer('owner')]];
  if (state.phase === 'warming' && role === 'candidate') {
    const mirror: Effect[] =
      state.prior === null || state.fenced.prior ? [] : [{ do: 'mirror', from: state.prior, to: from }];
    return [state, [offer('candidate'), ...mirror, report('handover.warming', 'the candidate warms up')]];
  }
  const failure = { code: 'UNKNOWN_APP', text: 'no update of this app is under way' };
  return [
    state,
    [
      { do: 'send', to: from, message: { type: 'REVOKE', epoch: state.epoch, ...failure } },
      report('app.unknown', `${from.slice(0, 12)} is neither owner nor candidate`),
    ],
  ];
};

const ready = (
  state: State,
  role: Role | undefined,
  message: Extract<AppMessage, { type: 'READY' }>,
  atMs: number,
  config: Config,
): Step => {
  if (role !== 'candidate' || message.epoch !== state.epoch) return stale(state, message);
  if (state.phase === 'warming') {
    return [
      { ...state, phase: 'ready', deadlineMs: atMs + config.limits.prepareMsMax },
      [
        { do: 'send', to: state.candidate, message: { type: 'PREPARE', epoch: state.epoch } },
        report(
          'handover.ready',
          `candidate is warm: ${message.cycles} cycles, divergence ${message.divergence}`,
        ),
      ],
    ];
  }
  const [resource] = config.resources;
  if (state.phase !== 'ready' || resource === undefined) return stale(state, message);
  return pass({ ...state, direction: 'forward', resource }, atMs, config);
};

const gone = (state: State, who: AppId, atMs: number, config: Config): Step => {
  const role = roleOf(state, who);
  // The owner flies on without us and connects again; so does a prior that has not been asked for anything.
  if (role === undefined || (role === 'prior' && (state.phase === 'warming' || state.phase === 'ready'))) {
    return [state, []];
  }
  if (state.phase === 'committed') return [state, []];
  return trouble(state, role, { code: 'CONNECTION_CLOSED', text: 'closed its connection' }, atMs, config);
};

/** A side that may still run has failed. */
const trouble = (state: State, role: Role, failure: Failure, atMs: number, config: Config): Step => {
  switch (state.phase) {
    case 'idle':
    case 'failsafe':
    case 'committed':
      return [state, [report('app.fault', `${failure.code}: ${failure.text}`)]];
    case 'warming':
    case 'ready':
      return role === 'candidate'
        ? cancel(state, failure)
        : [state, [report('app.fault', `${failure.code}: ${failure.text}`)]];
    case 'releasing':
    case 'granting':
    case 'fencing':
      if (state.fenced[role] || (state.phase === 'fencing' && state.who === role)) return [state, []];
      if (state.phase === 'granting' && role === giverOf(state.direction)) {
        return [state, [{ do: 'fence', who: idOf(state, role) }]];
      }
      return failed(state, role, failure, atMs, config);
    case 'probation':
      if (role === 'prior') {
        return state.fenced.prior || state.prior === null
          ? [state, []]
          : [state, [{ do: 'fence', who: state.prior }]];
      }
      return failed(
        { ...fromProbation(state, config), phase: 'granting', deadlineMs: atMs },
        role,
        failure,
        atMs,
        config,
      );
  }
};

const dead = (state: State, who: AppId, atMs: number, config: Config): Step => {
  const role = roleOf(state, who);
  if (role === undefined || !('fenced' in state)) {
    if (state.phase !== 'idle' || state.owner !== who) return [state, []];
    const failure = { code: 'OWNER_DIED', text: 'the owner died and there was no candidate' };
    return [
      { phase: 'failsafe', epoch: state.epoch, failure },
      [{ do: 'failsafe', failure }, { do: 'persist' }],
    ];
  }
  // Told twice: by the engine and by its closed connection.
  if (state.fenced[role]) return [state, []];
  const fenced = { ...state.fenced, [role]: true };
  const failure = { code: 'DIED', text: 'its process ended' };
  switch (state.phase) {
    case 'warming':
    case 'ready':
      if (role === 'candidate') return cancel({ ...state, fenced }, failure);
      return priorDied({ ...state, fenced }, atMs, config);
    case 'releasing':
    case 'granting': {
      // It has given already: the taker is not disturbed.
      if (state.phase === 'granting' && role === giverOf(state.direction)) {
        return [{ ...state, fenced }, [{ do: 'persist' }]];
      }
      const [after, effects] = failed({ ...state, fenced }, role, failure, atMs, config);
      if (after.phase !== 'fencing') return [after, effects];
      const [resolved, more] = resolve(after, atMs, config);
      return [resolved, [...more, ...effects]];
    }
    case 'fencing':
      return resolve({ ...state, fenced }, atMs, config);
    case 'probation': {
      if (role === 'prior') return [{ ...state, fenced }, [{ do: 'persist' }]];
      return dead(
        { ...fromProbation(state, config), phase: 'granting', deadlineMs: atMs },
        who,
        atMs,
        config,
      );
    }
    case 'committed': {
      if (role === 'prior') return commit({ ...state, fenced }, atMs, config);
      // The prior was told to go but still lives: better than nobody.
      return dead(
        {
          ...fromProbation({ ...state, phase: 'probation', heardMs: atMs }, config),
          phase: 'granting',
          deadlineMs: atMs,
        },
        who,
        atMs,
        config,
      );
    }
  }
};

/** V1 died while V2 warms up: V2 gets everything if it is ready; else the controller's own failsafe acts. */
const priorDied = (state: In<'warming' | 'ready'>, atMs: number, config: Config): Step => {
  const [resource] = config.resources;
  if (state.phase === 'ready' && resource !== undefined) {
    return pass({ ...state, direction: 'forward', resource }, atMs, config);
  }
  const failure = { code: 'OWNER_DIED', text: 'the prior died before the candidate was ready' };
  return [state, [{ do: 'failsafe', failure }, { do: 'persist' }, report('app.died', failure.text)]];
};

const silent = (what: string): Failure => ({ code: 'TIMEOUT', text: `did not ${what} in time` });

const expired = (state: State, atMs: number, config: Config): Step => {
  switch (state.phase) {
    case 'idle':
    case 'failsafe':
      return [state, []];
    case 'warming':
      return cancel(state, silent('get ready'));
    case 'ready':
      return cancel(state, silent('answer PREPARE'));
    case 'releasing':
      return failed(state, giverOf(state.direction), silent(`release the ${state.resource}`), atMs, config);
    case 'granting':
      return failed(state, takerOf(state.direction), silent(`take the ${state.resource}`), atMs, config);
    case 'fencing': {
      if (state.fenced[state.who] && state.awaitsRelease) {
        // The one that failed is dead and the other does not answer: it is fenced as well.
        const giver = giverOf(state.direction);
        return failed(
          { ...state, phase: 'releasing' },
          giver,
          silent(`release the ${state.resource}`),
          atMs,
          config,
        );
      }
      // Nothing may be granted while a holder might act. The controller's failsafe takes over.
      return nobody(state, { code: 'FENCE_FAILED', text: `${state.who} could not be confirmed dead` });
    }
    case 'probation':
      return atMs >= state.heardMs + config.limits.snapSilenceMsMax
        ? trouble(state, 'candidate', silent('send its heartbeat'), atMs, config)
        : commit(state, atMs, config);
    case 'committed':
      return [
        { ...state, deadlineMs: atMs + config.limits.fenceMsMax },
        [{ do: 'fence', who: idOf(state, 'prior') }],
      ];
  }
};

const abort = (state: State, failure: Failure, atMs: number, config: Config): Step => {
  switch (state.phase) {
    case 'warming':
    case 'ready':
      return cancel(state, failure);
    case 'probation':
      return state.fenced.prior
        ? [state, [report('abort.refused', 'the prior is gone: there is nobody to go back to')]]
        : pass({ ...fromProbation(state, config), failure }, atMs, config);
    case 'releasing':
    case 'granting':
    case 'fencing':
    case 'committed':
    case 'idle':
    case 'failsafe':
      return [state, [report('abort.refused', `nothing can be aborted in ${state.phase}`)]];
  }
};

/**
 * After the agent's own death, once the apps have had `reconnectMsMax` to connect again. What was asked may
 * have been answered unheard, so a transfer is never resumed:
 * the candidate is fenced and the prior is granted everything anew; if the prior is dead, the reverse.
 */
const boot = (state: State, atMs: number, config: Config): Step => {
  const { limits } = config;
  const failure = { code: 'AGENT_RESTARTED', text: 'the agent was restarted during the handover' };
  switch (state.phase) {
    case 'idle':
    case 'failsafe':
      return [state, []];
    case 'warming':
    case 'ready':
      return cancel(state, failure);
    case 'releasing':
    case 'granting':
    case 'fencing': {
      const role = state.fenced.prior ? 'prior' : 'candidate';
      if (state.prior === null)
        return failed({ ...state, phase: 'granting' }, 'candidate', failure, atMs, config);
      const [after, effects] = failed({ ...state, phase: 'granting' }, role, failure, atMs, config);
      if (after.phase !== 'fencing') return [after, effects];
      const [resolved, more] = resolve(after, atMs, config);
      return [resolved, [...effects, ...more]];
    }
    case 'probation':
      return [{ ...state, heardMs: atMs, deadlineMs: atMs + limits.probationMs }, []];
    case 'committed':
      return commit(state, atMs, config);
  }
};
