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

import type { AppMessage } from '#handover/messages.ts';
import type {
  AppId,
  Config,
  Effect,
  Event,
  Failure,
  In,
  Moving,
  Role,
  State,
  Step,
  Transfer,
} from '#handover/state.ts';
import {
  arrived,
  cancel,
  commit,
  failed,
  giverOf,
  grant,
  idOf,
  nobody,
  pairOf,
  pass,
  report,
  resolve,
  retired,
  takerOf,
} from '#handover/transfer.ts';

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
      return hello(state, from, role, message);
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

const hello = (
  state: State,
  from: AppId,
  role: Role | undefined,
  { epoch, holds }: Extract<AppMessage, { type: 'HELLO' }>,
): Step => {
  const offer = (as: 'owner' | 'candidate'): Effect => ({
    do: 'send',
    to: from,
    message: { type: 'OFFER', epoch: state.epoch, role: as },
  });
  // After a lost journal the owner knows better: who holds the rotors flies, and the epoch never goes back.
  const flies = state.phase === 'idle' && (state.owner ?? (holds.includes('rotors') ? from : null)) === from;
  if (flies) {
    return epoch > state.epoch || state.owner === null
      ? [{ ...state, owner: from, epoch: Math.max(epoch, state.epoch) }, [{ do: 'persist' }, offer('owner')]]
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
      if (role === 'prior') return retired(state);
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
