/**
 * What goes wrong with an app: it is in trouble, its connection closes, it dies. Each is answered by phase.
 *
 * Invariant: an app that may still run is never followed by a grant to the other; first it is fenced, or it gives.
 */
import { cancel, idOf, nobody, report, retired } from '#handover/ends.ts';
import type {
  AppId,
  Config,
  Effect,
  Failure,
  In,
  Moving,
  Role,
  State,
  Step,
  Waiting,
} from '#handover/state.ts';
import { failed, forward, giverOf, handback, pass, pilotOf, resolve } from '#handover/transfer.ts';

export const roleOf = (state: State, who: AppId): Role | undefined => {
  if (!('candidate' in state)) return undefined;
  return who === state.candidate ? 'candidate' : who === state.prior ? 'prior' : undefined;
};

/**
 * A side that may still run has failed.
 * @param canGive it is heard and can give back what it has; else it is fenced
 */
export const trouble = (
  state: State,
  role: Role,
  failure: Failure,
  canGive: boolean,
  atMs: number,
  config: Config,
): Step => {
  const told: Effect[] = [report('app.fault', `${failure.code}: ${failure.text}`)];
  switch (state.phase) {
    case 'idle':
    case 'failsafe':
    case 'committed':
      return [state, told];
    case 'warming':
      return role === 'candidate' ? cancel(state, failure) : [state, told];
    case 'ready':
    case 'postponed':
      if (role === 'candidate') return cancel(state, failure);
      return canGive || state.fenced.prior ? [state, told] : takeOver(state, failure, atMs, config);
    case 'releasing':
    case 'granting':
    case 'fencing':
      if (state.fenced[role] || (state.phase === 'fencing' && state.who === role)) return [state, []];
      if (hasGivenRotors(state, role, config)) return [state, [{ do: 'fence', who: idOf(state, role) }]];
      return failed(state, role, failure, atMs, config);
    case 'probation': {
      if (role === 'prior')
        return state.fenced.prior ? [state, []] : [state, [{ do: 'fence', who: idOf(state, role) }]];
      const back = { ...handback(state, config), epoch: state.epoch };
      return canGive && !state.fenced.prior
        ? pass({ ...back, failure }, atMs, config)
        : failed({ ...back, phase: 'granting', deadlineMs: atMs }, role, failure, atMs, config);
    }
  }
};

/** The prior is silent, and the candidate stands by. */
const takeOver = (state: Waiting, failure: Failure, atMs: number, config: Config): Step =>
  failed(
    { ...forward(state, config), epoch: state.epoch, phase: 'granting', deadlineMs: atMs },
    'prior',
    failure,
    atMs,
    config,
  );

/** A giver whose rotors are on their way or there: its end is no reason to disturb who takes them. */
const hasGivenRotors = (state: Moving, role: Role, config: Config): boolean =>
  state.phase === 'granting' && role === giverOf(state.direction) && pilotOf(state, config) !== role;

export const gone = (state: State, who: AppId, atMs: number, config: Config): Step => {
  const role = roleOf(state, who);
  // The owner flies on without us and connects again; so does a prior that has not been asked for anything.
  if (role === undefined || state.phase === 'committed') return [state, []];
  if (
    role === 'prior' &&
    (state.phase === 'warming' || state.phase === 'ready' || state.phase === 'postponed')
  ) {
    return [state, []];
  }
  return trouble(
    state,
    role,
    { code: 'CONNECTION_CLOSED', text: 'closed its connection' },
    false,
    atMs,
    config,
  );
};

/** Confirmed: it can act no more. */
export const dead = (state: State, who: AppId, atMs: number, config: Config): Step => {
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
    case 'postponed':
      return role === 'candidate'
        ? cancel({ ...state, fenced }, failure)
        : priorDied({ ...state, fenced }, atMs, config);
    case 'releasing':
    case 'granting': {
      if (hasGivenRotors(state, role, config)) return [{ ...state, fenced }, [{ do: 'persist' }]];
      const [after, effects] = failed({ ...state, fenced }, role, failure, atMs, config);
      if (after.phase !== 'fencing') return [after, effects];
      const [resolved, more] = resolve(after, atMs, config);
      return [resolved, [...more, ...effects]];
    }
    case 'fencing':
      return resolve({ ...state, fenced }, atMs, config);
    case 'probation':
    case 'committed': {
      if (role === 'prior') {
        return state.phase === 'committed' ? retired(state) : [{ ...state, fenced }, [{ do: 'persist' }]];
      }
      // A prior that was told to go but still lives is better than nobody.
      if (fenced.prior) return nobody({ ...state, fenced }, state.failure ?? failure);
      return pass(
        { ...handback({ ...state, fenced, failure: state.failure ?? failure }, config), epoch: state.epoch },
        atMs,
        config,
      );
    }
  }
};

/** V1 died while V2 warms up: V2 gets everything if it is ready; else the controller's own failsafe acts. */
const priorDied = (state: In<Waiting['phase']>, atMs: number, config: Config): Step => {
  if (state.phase !== 'warming') {
    const [after, effects] = pass({ ...forward(state, config), epoch: state.epoch }, atMs, config);
    return [after, [...effects, report('handover.takeover', 'the prior died; the candidate takes over')]];
  }
  const failure = { code: 'OWNER_DIED', text: 'the prior died before the candidate was ready' };
  return [state, [{ do: 'failsafe', failure }, { do: 'persist' }, report('app.died', failure.text)]];
};
