/**
 * Which failure is injected when, and when it is undone: a machine without clock, chance or system.
 *
 * Invariants: what was injected is asked to be undone when its time is over, when its experiment is stopped or ends, or when
 * the injector closes, and is asked again until it is; never two injections of one failure in one target; nothing is injected
 * after a stop. The same seed, beats and targets give the same injections.
 */
import { drawn } from '#cli/chaos/chance.ts';
import type { Failure, Spec } from '#cli/chaos/experiment.ts';
import { CHAOS } from '#cli/chaos/limits.ts';

export type Why = 'time' | 'stopped' | 'over' | 'closing';

export interface Experiment {
  readonly id: string;
  readonly spec: Spec;
  readonly createdMs: number;
  readonly untilMs: number;
  /** Its next beat. */
  readonly nextMs: number;
  /** State of chance, 32 bits. */
  readonly dice: number;
  /** The beat that is being looked for targets, by the number that its choice was drawn with. */
  readonly choice: number | null;
  readonly beats: number;
  readonly injections: number;
  /** `ending`: something is still to be undone. */
  readonly phase: 'running' | 'ending' | 'ended';
  readonly why: Why | null;
}

export interface Injection {
  readonly id: string;
  readonly experiment: string;
  readonly failure: Failure;
  readonly target: string;
  readonly phase: 'injecting' | 'on' | 'undoing' | 'failed-to-undo';
  readonly dueMs: number;
  /** With `failed-to-undo`: when it is tried again. */
  readonly retryMs: number;
}

export interface State {
  /** Of experiments and of injections: the last number given. */
  readonly numbers: { readonly experiment: number; readonly injection: number };
  readonly experiments: readonly Experiment[];
  readonly active: readonly Injection[];
  readonly closing: boolean;
}

export type Event = { readonly atMs: number } & (
  | { readonly type: 'create'; readonly spec: Spec }
  | { readonly type: 'tick' }
  /** Answers `look`: who may be harmed now, sorted. */
  | { readonly type: 'looked'; readonly experiment: string; readonly targets: readonly string[] }
  | { readonly type: 'injected'; readonly injection: string }
  /** Nothing was done, and nothing is left to undo. */
  | { readonly type: 'not-injected'; readonly injection: string }
  | { readonly type: 'undone'; readonly injection: string }
  | { readonly type: 'not-undone'; readonly injection: string }
  | { readonly type: 'stop'; readonly experiment: string }
  | { readonly type: 'close' }
);

export type Effect =
  /** Find out who matches; say `looked`. */
  | { readonly do: 'look'; readonly experiment: string }
  /** Durable in the ledger first; then say `injected` or `not-injected`. */
  | { readonly do: 'inject'; readonly injection: Injection }
  /** Say `undone` or `not-undone`. */
  | { readonly do: 'undo'; readonly injection: Injection; readonly why: Why }
  /** Nothing of it is left. */
  | { readonly do: 'ended'; readonly experiment: string; readonly why: Why };

export type Step = [State, Effect[]];

/** @param numbers as the ledger has them: no id is given twice */
export const initial = (numbers = { experiment: 0, injection: 0 }): State => ({
  numbers,
  experiments: [],
  active: [],
  closing: false,
});

export function step(state: State, event: Event): Step {
  const { atMs } = event;
  switch (event.type) {
    case 'create':
      return settle(create(state, event.spec, atMs), atMs);
    case 'tick':
      return settle(state, atMs);
    case 'looked': {
      const [next, effects] = chosen(state, event.experiment, event.targets, atMs);
      return followed(settle(next, atMs), effects);
    }
    case 'injected':
      return settle(changed(state, event.injection, { phase: 'on' }), atMs);
    case 'not-injected':
    case 'undone':
      return settle({ ...state, active: state.active.filter(({ id }) => id !== event.injection) }, atMs);
    case 'not-undone':
      return settle(
        changed(state, event.injection, { phase: 'failed-to-undo', retryMs: atMs + CHAOS.undoRetryMs }),
        atMs,
      );
    case 'stop':
      return settle(
        ending(state, (one) => one.id === event.experiment, 'stopped'),
        atMs,
      );
    case 'close':
      return settle({ ...ending(state, () => true, 'closing'), closing: true }, atMs);
  }
}

/** When the next `tick` is due; infinity: only news can change anything. */
export function nextMs(state: State): number {
  const beats = state.experiments.flatMap((one) =>
    one.phase === 'running' ? [Math.min(one.nextMs, one.untilMs)] : [],
  );
  const ends = state.active.flatMap(({ phase, dueMs, retryMs }) =>
    phase === 'on' ? [dueMs] : phase === 'failed-to-undo' ? [retryMs] : [],
  );
  return Math.min(Number.POSITIVE_INFINITY, ...beats, ...ends);
}

const followed = ([state, later]: Step, first: Effect[]): Step => [state, [...first, ...later]];

function create(state: State, spec: Spec, atMs: number): State {
  if (state.closing) return state;
  const number = state.numbers.experiment + 1;
  const experiment: Experiment = {
    id: `x${number}`,
    spec,
    createdMs: atMs,
    untilMs: atMs + spec.forMs,
    nextMs: atMs + spec.frequencyMs,
    dice: spec.seed >>> 0,
    choice: null,
    beats: 0,
    injections: 0,
    phase: 'running',
    why: null,
  };
  const ended = state.experiments.filter(({ phase }) => phase === 'ended').slice(-CHAOS.endedKept);
  const others = state.experiments.filter((one) => one.phase !== 'ended' || ended.includes(one));
  return {
    ...state,
    numbers: { ...state.numbers, experiment: number },
    experiments: [...others, experiment],
  };
}

function changed(state: State, injection: string, change: Partial<Injection>): State {
  return {
    ...state,
    active: state.active.map((one) => (one.id === injection ? { ...one, ...change } : one)),
  };
}

const ending = (state: State, which: (one: Experiment) => boolean, why: Why): State => ({
  ...state,
  experiments: state.experiments.map((one) =>
    one.phase === 'running' && which(one) ? { ...one, phase: 'ending', choice: null, why } : one,
  ),
});

/** What time itself brings: ends, undoing, beats; in this order, so that nothing begins that is over. */
function settle(before: State, atMs: number): Step {
  const effects: Effect[] = [];
  let state = ending(before, ({ untilMs }) => atMs >= untilMs, 'over');
  for (const one of state.active) {
    const why = undoneBecause(state, one, atMs);
    if (why === null) continue;
    state = changed(state, one.id, { phase: 'undoing' });
    effects.push({ do: 'undo', injection: { ...one, phase: 'undoing' }, why });
  }
  const experiments = state.experiments.map((one): Experiment => {
    if (one.phase === 'ending' && !state.active.some(({ experiment }) => experiment === one.id)) {
      effects.push({ do: 'ended', experiment: one.id, why: one.why ?? 'over' });
      return { ...one, phase: 'ended' };
    }
    if (one.phase !== 'running' || atMs < one.nextMs) return one;
    const [chance, dice] = drawn(one.dice);
    const [choice, later] = drawn(dice);
    const hit = chance < one.spec.probability && one.choice === null;
    if (hit) effects.push({ do: 'look', experiment: one.id });
    // Beats that were slept through are let go: no burst when the machine wakes.
    const missed = Math.floor((atMs - one.nextMs) / one.spec.frequencyMs);
    return {
      ...one,
      dice: later,
      choice: hit ? choice : one.choice,
      beats: one.beats + 1,
      nextMs: one.nextMs + (missed + 1) * one.spec.frequencyMs,
    };
  });
  return [{ ...state, experiments }, effects];
}

function undoneBecause(state: State, one: Injection, atMs: number): Why | null {
  if (one.phase === 'failed-to-undo' && atMs < one.retryMs) return null;
  if (one.phase !== 'on' && one.phase !== 'failed-to-undo') return null;
  const experiment = state.experiments.find(({ id }) => id === one.experiment);
  if (experiment?.phase === 'running') return atMs >= one.dueMs ? 'time' : null;
  return experiment?.why ?? 'stopped';
}

/** One of those that match and are not under the same failure already. */
function chosen(state: State, id: string, targets: readonly string[], atMs: number): Step {
  const experiment = state.experiments.find((one) => one.id === id);
  if (experiment?.phase !== 'running' || experiment.choice === null) return [state, []];
  const { failure, durationMs } = experiment.spec;
  const free = targets.filter(
    (target) => !state.active.some((one) => one.failure === failure && one.target === target),
  );
  const inTime = atMs < experiment.untilMs;
  const target = inTime ? free[Math.floor(experiment.choice * free.length)] : undefined;
  const after = (one: Experiment): Experiment =>
    one.id === id ? { ...one, choice: null, injections: one.injections + Number(target !== undefined) } : one;
  const next = { ...state, experiments: state.experiments.map(after) };
  if (target === undefined) return [next, []];
  const number = state.numbers.injection + 1;
  const injection: Injection = {
    id: `i${number}`,
    experiment: id,
    failure,
    target,
    phase: 'injecting',
    // A kill is over when it is done.
    dueMs: failure === 'kill' ? atMs : Math.min(atMs + durationMs, experiment.untilMs),
    retryMs: 0,
  };
  return [
    { ...next, numbers: { ...state.numbers, injection: number }, active: [...state.active, injection] },
    [{ do: 'inject', injection }],
  ];
}
