/**
 * What the apps say, and what the machine makes of it.
 *
 * Invariant: a line counts only from the side that was asked, under the epoch in which it was asked. Anything else is
 * reported as stale and changes nothing.
 */
import { cancel, pairOf, report } from '#handover/ends.ts';
import { roleOf, trouble } from '#handover/faults.ts';
import type { AppMessage } from '#handover/messages.ts';
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
  Versions,
} from '#handover/state.ts';
import { arrived, giverOf, pilotOf, released, resolve, takerOf } from '#handover/transfer.ts';

type Message<T extends AppMessage['type']> = Extract<AppMessage, { type: T }>;

const stale = (state: State, message: AppMessage): Step => [
  state,
  [report('handover.stale', `${message.type} of epoch ${message.epoch} refused, now ${state.epoch}`)],
];
const isMoving = (state: State): state is Moving =>
  state.phase === 'releasing' || state.phase === 'granting' || state.phase === 'fencing';

export const heard = (state: State, from: AppId, message: AppMessage, atMs: number, config: Config): Step => {
  const role = roleOf(state, from);
  switch (message.type) {
    case 'HELLO':
      return hello(state, from, role, message);
    case 'SNAP':
      return snap(state, role, message, atMs, config);
    case 'READY':
      return ready(state, role, message, atMs, config);
    case 'RELEASED': {
      if (message.more) return [state, []];
      if (!isMoving(state) || message.epoch !== state.epoch || message.resource !== state.resource) {
        return stale(state, message);
      }
      if (role !== giverOf(state.direction)) return stale(state, message);
      if (state.phase === 'releasing') return released(state, atMs, config);
      if (state.phase === 'fencing') return resolve({ ...state, awaitsRelease: false }, atMs, config);
      return stale(state, message);
    }
    case 'GRANTED':
      if (
        state.phase !== 'granting' ||
        role !== takerOf(state.direction) ||
        message.epoch !== state.epoch ||
        message.resource !== state.resource
      ) {
        return stale(state, message);
      }
      return arrived(state, atMs, config);
    case 'FAULT': {
      const { code, text } = message;
      // That it refused an old line of ours is no fault of its own.
      if (role === undefined || code === 'STALE_EPOCH')
        return [state, [report('app.fault', `${code}: ${text}`)]];
      return trouble(state, role, { code, text }, true, atMs, config);
    }
    case 'RETIRE':
      return state.phase === 'committed' && role === 'prior'
        ? [state, [{ do: 'stop', who: from }]]
        : stale(state, message);
  }
};

// ---------------------------------------------------------------- HELLO

const hello = (state: State, from: AppId, role: Role | undefined, message: Message<'HELLO'>): Step => {
  const { epoch, holds, reads, writes } = message;
  const versions: Versions = { reads, writes };
  // After a lost journal the owner knows better: who holds the rotors flies, and the epoch never goes back.
  const flies = state.phase === 'idle' && (state.owner ?? (holds.includes('rotors') ? from : null)) === from;
  if (flies) {
    const known =
      state.owner !== null &&
      epoch <= state.epoch &&
      JSON.stringify(state.speaks) === JSON.stringify(versions);
    const owner = { ...state, owner: from, speaks: versions, epoch: Math.max(epoch, state.epoch) };
    return [owner, [...(known ? [] : [{ do: 'persist' } as const]), offer(owner.epoch, from)]];
  }
  if (role === undefined || !('candidate' in state)) return unknown(state, from, message);
  const speaks = { ...state.speaks, [role]: versions };
  if (role === 'prior' || state.phase !== 'warming') {
    return [{ ...state, speaks }, [offer(state.epoch, from)]];
  }
  return welcome({ ...state, speaks });
};

const offer = (epoch: number, to: AppId): Effect => ({
  do: 'send',
  to,
  message: { type: 'OFFER', epoch, role: 'owner' },
});

/** The candidate's first words: whether the way there and the way back are open is known before anything passes. */
const welcome = (state: In<'warming'>): Step => {
  const { prior, candidate, policy, epoch } = state;
  const closed = closedWay(state.speaks);
  if (closed) return cancel(state, closed);
  const follows = prior !== null && !state.fenced.prior;
  const { shadowCyclesMin: cyclesMin, divergenceMax } = policy;
  const bounds = follows ? { shadow: { cyclesMin, divergenceMax } } : {};
  return [
    state,
    [
      { do: 'send', to: candidate, message: { type: 'OFFER', epoch, role: 'candidate', ...bounds } },
      ...(follows ? [{ do: 'mirror', from: prior, to: candidate } as const] : []),
      report('handover.warming', 'the candidate warms up'),
    ],
  ];
};

const closedWay = ({ prior, candidate }: Record<Role, Versions | null>): Failure | null => {
  if (prior === null || candidate === null) return null;
  const can = (who: Versions): string => who.reads.join(', ');
  if (!candidate.reads.includes(prior.writes)) {
    const text = `the candidate cannot take over: it reads state ${can(candidate)}, and what flies writes ${prior.writes}`;
    return { code: 'INCOMPATIBLE_STATE', text };
  }
  if (!prior.reads.includes(candidate.writes)) {
    const text =
      `there would be no way back: what flies reads state ${can(prior)}, and the candidate writes ${candidate.writes}; ` +
      'first fly a release that reads both';
    return { code: 'NO_WAY_BACK', text };
  }
  return null;
};

const unknown = (state: State, from: AppId, { holds }: Message<'HELLO'>): Step => {
  const failure = { code: 'UNKNOWN_APP', text: 'no update of this app is under way' };
  const { epoch } = state;
  return [
    state,
    [
      ...holds.map(
        (resource): Effect => ({ do: 'send', to: from, message: { type: 'DROP', epoch, resource } }),
      ),
      { do: 'send', to: from, message: { type: 'REVOKE', epoch, ...failure } },
      report('app.unknown', `${from.slice(0, 12)} is neither owner nor candidate`),
    ],
  ];
};

// ---------------------------------------------------------------- READY, SNAP

const ready = (
  state: State,
  role: Role | undefined,
  message: Message<'READY'>,
  atMs: number,
  { limits }: Config,
): Step => {
  if (role !== 'candidate' || message.epoch !== state.epoch) return stale(state, message);
  if (state.phase === 'ready') return [state, [{ do: 'lock' }]];
  if (state.phase !== 'warming') return stale(state, message);
  const { cycles, divergence } = message;
  const { shadowCyclesMin, divergenceMax } = state.policy;
  const follows = !state.fenced.prior;
  if (follows && (cycles < shadowCyclesMin || divergence > divergenceMax)) {
    const text = `${cycles} cycles in the prior's shadow, ${divergence} from it; at least ${shadowCyclesMin} and at most ${divergenceMax} are asked for`;
    return cancel(state, { code: 'DIVERGED', text });
  }
  return [
    {
      ...pairOf(state),
      phase: 'ready',
      epoch: state.epoch,
      heardMs: atMs,
      deadlineMs: atMs + limits.prepareMsMax,
    },
    [
      // From here on it is granted the rotors at once should the prior die, and only then is that written.
      { do: 'persist' },
      { do: 'send', to: state.candidate, message: { type: 'PREPARE', epoch: state.epoch } },
      report('handover.ready', `candidate is warm: ${cycles} cycles, divergence ${divergence}`),
    ],
  ];
};

const snap = (
  state: State,
  role: Role | undefined,
  message: Message<'SNAP'>,
  atMs: number,
  config: Config,
): Step => {
  if (role === undefined || pilotOf(state, config) !== role || !('heardMs' in state)) return [state, []];
  // Its way here is no time in which it was heard. A clock that is not ours moves nothing back, and nothing into the future.
  const madeMs = message.atUs === undefined ? atMs : message.atUs / 1000;
  const alive = { ...state, heardMs: Math.max(state.heardMs, Math.min(madeMs, atMs)) };
  return alive.phase === 'probation' ? judged(alive, message, atMs, config) : [alive, []];
};

/** In probation a heartbeat is not enough: the loop's rate and the tracking error are held to what the release asked for. */
const judged = (
  state: In<'probation'>,
  { cycles, error }: Message<'SNAP'>,
  atMs: number,
  config: Config,
): Step => {
  const { loopHzMin, errorMax } = state.policy;
  if (errorMax !== null && error !== undefined && error > errorMax) {
    const text = `it is ${error} off its setpoint, at most ${errorMax} is borne`;
    return trouble(state, 'candidate', { code: 'TRACKING_ERROR', text }, true, atMs, config);
  }
  if (loopHzMin === 0 || cycles === undefined) return [state, []];
  // Not when it was read: the agent may be late.
  const madeMs = state.heardMs;
  const since = state.loop;
  if (since === null || cycles < since.cycles) return [{ ...state, loop: { atMs: madeMs, cycles } }, []];
  const tookMs = madeMs - since.atMs;
  if (tookMs < config.limits.rateWindowMs) return [state, []];
  const hz = ((cycles - since.cycles) * 1000) / tookMs;
  if (hz >= loopHzMin) return [{ ...state, loop: { atMs: madeMs, cycles } }, []];
  const text = `its loop ran at ${hz.toFixed(1)} Hz, at least ${loopHzMin} is asked for`;
  return trouble(state, 'candidate', { code: 'LOOP_TOO_SLOW', text }, true, atMs, config);
};
