/**
 * The handover of one device, as a pure machine: `step(state, event, config) -> [state, effects]`.
 *
 * Invariants
 * - At any instant at most one app may act on a resource: whoever is granted it was granted after the other
 *   released it, or after the other was confirmed dead.
 * - No deadline ever counts as success. A deadline fences the silent one.
 * - The epoch rises before every grant, and is durable before what was asked for is granted. What a fenced giver leaves is granted
 *   at once, and is durable then: without that entry the one before leads a restarted agent to the same grant (`boot`).
 *
 * The agent, the exploration in the tests and the simulation run this one function. A transfer (transfer.ts) passes one
 * resource at a time from a giver to a taker. Whatever goes wrong (faults.ts), the faulty one is fenced and the
 * transfer goes on, or turns round, towards the other; if both are fenced nobody flies it: failsafe (ends.ts).
 */

import { cancel, commit, idOf, nobody, pairOf, report } from '#handover/ends.ts';
import { dead, gone, roleOf, trouble } from '#handover/faults.ts';
import { heard } from '#handover/heard.ts';
import type { AppId, Config, Event, Failure, In, Policy, State, Step } from '#handover/state.ts';
import {
  failed,
  forward,
  giverOf,
  handback,
  otherThan,
  pass,
  pilotOf,
  probation,
  resolve,
  takerOf,
} from '#handover/transfer.ts';

/** When the state wants a `tick`; `Infinity` if it waits for nothing. */
export const deadlineMs = (state: State, config: Config): number =>
  'deadlineMs' in state ? Math.min(state.deadlineMs, silentMs(state, config)) : Number.POSITIVE_INFINITY;

/**
 * The state after its `persist`, which took so long: who is asked by the effects behind it has the whole of its time from
 * then. A disk that takes 100 ms, as cards and cheap flash do, is no silence of an app.
 */
export const delayed = (state: State, byMs: number): State =>
  'deadlineMs' in state ? { ...state, deadlineMs: state.deadlineMs + byMs } : state;

/** When who flies counts as silent. With nobody to take over it is borne longer: what follows is a landing. */
const silentMs = (state: State, config: Config): number => {
  const pilot = pilotOf(state, config);
  if (pilot === null || !('policy' in state)) return Number.POSITIVE_INFINITY;
  const alone = state.fenced[otherThan(pilot)];
  return state.heardMs + (alone ? config.limits.aloneSilenceMsMax : state.policy.heartbeatMsMax);
};

/** For `boot`: the apps of a state that can act no more. Only a fence freezes, and it is for the apps of an update. */
export const goneFrom = (
  state: State,
  isRunning: (id: AppId) => boolean,
  isFrozen: (id: AppId) => boolean,
): AppId[] => {
  const isUpdate = 'candidate' in state;
  const named = isUpdate ? [state.prior, state.candidate] : state.phase === 'idle' ? [state.owner] : [];
  return named.filter((id) => id !== null).filter((id) => !isRunning(id) || (isUpdate && isFrozen(id)));
};

export const step = (state: State, event: Event, config: Config): Step => {
  const { atMs } = event;
  switch (event.type) {
    case 'boot':
      return boot(state, event.gone, atMs, config);
    case 'tick':
      return atMs < deadlineMs(state, config) ? [state, []] : expired(state, atMs, config);
    case 'update':
      return update(state, event.candidate, event.policy, atMs, config);
    case 'message':
      return heard(state, event.from, event.message, atMs, config);
    case 'gone':
      return gone(state, event.who, atMs, config);
    case 'dead':
      return dead(state, event.who, atMs, config);
    case 'trouble': {
      const role = roleOf(state, event.who);
      return role === undefined ? [state, []] : trouble(state, role, event.failure, true, atMs, config);
    }
    case 'lock':
      return locked(state, event.taken, atMs, config);
    case 'abort':
      return abort(state, event.failure, atMs, config);
  }
};

const update = (state: State, candidate: AppId, policy: Policy, atMs: number, { limits }: Config): Step => {
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
      speaks: { prior: state.phase === 'idle' ? state.speaks : null, candidate: null },
      policy,
      heardMs: atMs,
      deadlineMs: atMs + limits.warmMsMax,
    },
    [{ do: 'persist' }],
  ];
};

/** The app's own refusal to be updated now is asked for last, when nothing else is in the way. */
const locked = (state: State, taken: boolean, atMs: number, config: Config): Step => {
  if (state.phase !== 'ready') return [state, []];
  const { lockRetryMs, lockMsMax } = config.limits;
  if (taken || state.fenced.prior)
    return pass({ ...forward(state, config), epoch: state.epoch }, atMs, config);
  const untilMs = state.untilMs ?? atMs + lockMsMax;
  return [
    { ...pairOf(state), phase: 'postponed', epoch: state.epoch, untilMs, deadlineMs: atMs + lockRetryMs },
    state.untilMs === undefined
      ? [report('update.postponed', 'what flies holds its update lock; the candidate stands by')]
      : [],
  ];
};

const silent = (what: string): Failure => ({ code: 'TIMEOUT', text: `did not ${what} in time` });

const expired = (state: State, atMs: number, config: Config): Step => {
  const pilot = pilotOf(state, config);
  if (pilot !== null && atMs >= silentMs(state, config)) {
    return trouble(state, pilot, silent('send its heartbeat'), false, atMs, config);
  }
  switch (state.phase) {
    case 'idle':
    case 'failsafe':
      return [state, []];
    case 'warming':
      return cancel(state, silent('get ready'));
    case 'ready':
      return cancel(state, silent('answer PREPARE'));
    case 'postponed': {
      if (atMs >= state.untilMs) {
        return cancel(state, { code: 'LOCKED', text: 'what flies did not give up its update lock in time' });
      }
      const { epoch, candidate, untilMs, heardMs } = state;
      return [
        {
          ...pairOf(state),
          phase: 'ready',
          epoch,
          untilMs,
          heardMs,
          deadlineMs: atMs + config.limits.prepareMsMax,
        },
        [{ do: 'send', to: candidate, message: { type: 'PREPARE', epoch } }],
      ];
    }
    case 'releasing':
      return failed(state, giverOf(state.direction), silent(`release the ${state.resource}`), atMs, config);
    case 'granting':
      return failed(state, takerOf(state.direction), silent(`take the ${state.resource}`), atMs, config);
    case 'fencing': {
      if (state.fenced[state.who] && state.awaitsRelease) {
        // The one that failed is dead and the other does not answer: it is fenced as well.
        return failed(
          { ...state, phase: 'releasing' },
          giverOf(state.direction),
          silent(`release the ${state.resource}`),
          atMs,
          config,
        );
      }
      // Nothing may be granted while a holder might act. The controller's failsafe takes over.
      return nobody(state, { code: 'FENCE_FAILED', text: `${state.who} could not be confirmed dead` });
    }
    case 'probation':
      return commit(state, atMs, config);
    case 'committed':
      return [
        { ...state, deadlineMs: atMs + config.limits.fenceMsMax },
        [{ do: 'fence', who: idOf(state, 'prior') }],
      ];
  }
};

/** At any moment before the commit: what is on its way arrives first, then everything goes back. */
const abort = (state: State, failure: Failure, atMs: number, config: Config): Step => {
  const refused = (why: string): Step => [state, [report('abort.refused', why)]];
  const noWayBack = 'the prior is gone: there is nobody to go back to';
  switch (state.phase) {
    case 'warming':
    case 'ready':
    case 'postponed':
      return cancel(state, failure);
    case 'releasing':
    case 'granting':
    case 'fencing':
      if (state.direction === 'handback' || state.failure !== null) return [state, []];
      if (state.fenced.prior || (state.phase === 'fencing' && state.who === 'prior'))
        return refused(noWayBack);
      return [{ ...state, failure }, [report('handover.aborting', `${failure.text}; everything goes back`)]];
    case 'probation':
      return state.fenced.prior
        ? refused(noWayBack)
        : pass({ ...handback({ ...state, failure }, config), epoch: state.epoch }, atMs, config);
    case 'committed':
      return refused('the update is committed; choose the earlier release to go back to it');
    case 'idle':
    case 'failsafe':
      return refused('no update is under way');
  }
};

/**
 * After the agent's own death, once the apps have had `reconnectMsMax` to connect again. What was asked may
 * have been answered unheard, so a transfer is never resumed:
 * the candidate is fenced and the prior is granted everything anew; if the prior is dead, the reverse.
 *
 * A grant of what a fenced giver left may have been sent without being in the journal: its epoch is not used again, and
 * `gone` tells what the journal does not.
 */
const boot = (before: State, gone: readonly AppId[], atMs: number, config: Config): Step => {
  if (before.phase === 'idle' || before.phase === 'failsafe') return [before, []];
  const state = { ...before, epoch: before.epoch + 1 };
  const [after, effects] = reconcile(state, gone, atMs, config);
  const isDurable = after.phase === 'failsafe' || effects[0]?.do === 'persist';
  return [after, isDurable ? effects : [{ do: 'persist' }, ...effects]];
};

const reconcile = (
  state: Exclude<State, In<'idle' | 'failsafe'>>,
  gone: readonly AppId[],
  atMs: number,
  config: Config,
): Step => {
  const failure = { code: 'AGENT_RESTARTED', text: 'the agent was restarted during the handover' };
  const lost = gone.filter((who) => who === state.candidate || who === state.prior);
  const [first] = lost;
  switch (state.phase) {
    case 'warming':
      return cancel(state, failure);
    case 'ready':
    case 'postponed':
      return first === undefined ? cancel(state, failure) : dead(state, first, atMs, config);
    case 'releasing':
    case 'granting':
    case 'fencing': {
      const fenced = { ...state.fenced };
      for (const who of lost) fenced[who === state.candidate ? 'candidate' : 'prior'] = true;
      const role = fenced.prior && state.prior !== null ? 'prior' : 'candidate';
      const [after, effects] = failed(asGranting({ ...state, fenced }), role, failure, atMs, config);
      if (after.phase !== 'fencing') return [after, effects];
      const [resolved, more] = resolve(after, atMs, config);
      return [resolved, [...effects, ...more]];
    }
    case 'probation': {
      const begun = probation(state, atMs);
      return first === undefined ? begun : dead(begun[0], first, atMs, config);
    }
    case 'committed':
      return first === undefined ? commit(state, atMs, config) : dead(state, first, atMs, config);
  }
};

const asGranting = (state: In<'releasing' | 'granting' | 'fencing'>): In<'granting'> => ({
  ...pairOf(state),
  phase: 'granting',
  epoch: state.epoch,
  direction: state.direction,
  resource: state.resource,
  left: state.left,
  deadlineMs: state.deadlineMs,
});
