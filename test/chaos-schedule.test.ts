/** The schedule of failure injection: stories by hand, and random ones, in which everything must come out undone. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseExperiment } from '#cli/chaos/experiment.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { type Effect, type Event, initial, nextMs, type State, step } from '#cli/chaos/schedule.ts';

const spec = (more: object = {}) =>
  parseExperiment(
    { failure: 'pause', frequencyMs: 1_000, probability: 1, durationMs: 400, forMs: 10_000, ...more },
    7,
  );

/** A machine with a clock that is set by hand. */
function bench() {
  let state: State = initial();
  let atMs = 0;
  const say = (event: { type: Event['type'] } & Record<string, unknown>): Effect[] => {
    const [next, effects] = step(state, { ...event, atMs } as unknown as Event);
    state = next;
    return effects;
  };
  return {
    say,
    at(ms: number): Effect[] {
      atMs = ms;
      return say({ type: 'tick' });
    },
    get state() {
      return state;
    },
  };
}

const kinds = (effects: Effect[]) => effects.map((effect) => effect.do);

describe('stories', () => {
  test('a beat looks, injects into one that matches, and undoes it when its time is over', () => {
    const one = bench();
    expect(one.say({ type: 'create', spec: spec() })).toEqual([]);
    expect(one.at(999)).toEqual([]);
    expect(one.at(1_000)).toEqual([{ do: 'look', experiment: 'x1' }]);
    const [inject] = one.say({ type: 'looked', experiment: 'x1', targets: ['a'] });
    expect(inject).toMatchObject({ do: 'inject', injection: { id: 'i1', target: 'a', dueMs: 1_400 } });
    expect(one.say({ type: 'injected', injection: 'i1' })).toEqual([]);
    expect(nextMs(one.state)).toBe(1_400);
    expect(one.at(1_400)).toMatchObject([{ do: 'undo', why: 'time', injection: { id: 'i1' } }]);
    expect(one.at(1_500)).toEqual([]);
    one.say({ type: 'undone', injection: 'i1' });
    expect(one.state.active).toEqual([]);
  });

  test('stopped while it is being injected: undone as soon as it is, and then it has ended', () => {
    const one = bench();
    one.say({ type: 'create', spec: spec() });
    one.at(1_000);
    one.say({ type: 'looked', experiment: 'x1', targets: ['a'] });
    expect(one.say({ type: 'stop', experiment: 'x1' })).toEqual([]);
    expect(one.say({ type: 'injected', injection: 'i1' })).toMatchObject([{ do: 'undo', why: 'stopped' }]);
    expect(one.say({ type: 'undone', injection: 'i1' })).toEqual([
      { do: 'ended', experiment: 'x1', why: 'stopped' },
    ]);
    expect(one.at(60_000)).toEqual([]);
  });

  test('stopped while it is being looked for targets: nobody is chosen any more', () => {
    const one = bench();
    one.say({ type: 'create', spec: spec() });
    one.at(1_000);
    one.say({ type: 'stop', experiment: 'x1' });
    expect(one.say({ type: 'looked', experiment: 'x1', targets: ['a'] })).toEqual([]);
    expect(one.state.active).toEqual([]);
  });

  test('undoing that fails is tried again until it works', () => {
    const one = bench();
    one.say({ type: 'create', spec: spec() });
    one.at(1_000);
    one.say({ type: 'looked', experiment: 'x1', targets: ['a'] });
    one.say({ type: 'injected', injection: 'i1' });
    one.at(1_400);
    for (let atMs = 1_400; atMs < 4_000; atMs += CHAOS.undoRetryMs) {
      one.at(atMs);
      one.say({ type: 'not-undone', injection: 'i1' });
      expect(kinds(one.at(atMs + CHAOS.undoRetryMs - 1)).includes('undo')).toBe(false);
      expect(kinds(one.at(atMs + CHAOS.undoRetryMs)).includes('undo')).toBe(true);
    }
  });

  test('one under the same failure is not chosen again; another one is', () => {
    const one = bench();
    one.say({ type: 'create', spec: spec({ durationMs: 5_000 }) });
    one.at(1_000);
    one.say({ type: 'looked', experiment: 'x1', targets: ['a'] });
    one.say({ type: 'injected', injection: 'i1' });
    one.at(2_000);
    expect(one.say({ type: 'looked', experiment: 'x1', targets: ['a'] })).toEqual([]);
    one.at(3_000);
    expect(one.say({ type: 'looked', experiment: 'x1', targets: ['a', 'b'] })).toMatchObject([
      { do: 'inject', injection: { target: 'b' } },
    ]);
  });

  test('its end undoes what is still on, though its own time is not over', () => {
    const one = bench();
    one.say({ type: 'create', spec: spec({ durationMs: 5_000, forMs: 3_000 }) });
    one.at(1_000);
    one.say({ type: 'looked', experiment: 'x1', targets: ['a'] });
    one.say({ type: 'injected', injection: 'i1' });
    expect(one.at(2_999)).toEqual([{ do: 'look', experiment: 'x1' }]);
    expect(one.at(3_000)).toMatchObject([{ do: 'undo', why: 'over' }]);
    expect(one.say({ type: 'undone', injection: 'i1' })).toMatchObject([{ do: 'ended', why: 'over' }]);
  });

  test('a machine that slept does not inject what it slept through', () => {
    const one = bench();
    one.say({ type: 'create', spec: spec({ forMs: 3_600_000 }) });
    expect(one.at(1_000_500)).toEqual([{ do: 'look', experiment: 'x1' }]);
    expect(nextMs(one.state)).toBe(1_001_000);
  });

  test('a kill is over when it is done', () => {
    const one = bench();
    one.say({ type: 'create', spec: spec({ failure: 'kill' }) });
    one.at(1_000);
    one.say({ type: 'looked', experiment: 'x1', targets: ['a'] });
    expect(one.say({ type: 'injected', injection: 'i1' })).toMatchObject([{ do: 'undo', why: 'time' }]);
  });

  test('no id is given twice over a restart', () => {
    const [state] = step(initial({ experiment: 4, injection: 9 }), { type: 'create', spec: spec(), atMs: 0 });
    expect(state.experiments[0]?.id).toBe('x5');
  });
});

test('chance is as asked for, and the seed’s alone', () => {
  const beats = (seed: number, probability: number) => {
    const one = bench();
    one.say({ type: 'create', spec: spec({ seed, probability, forMs: 4_000_000 }) });
    return Array.from({ length: 2_000 }, (_, at) => {
      const looked = one.at((at + 1) * 1_000).length > 0;
      if (looked) one.say({ type: 'looked', experiment: 'x1', targets: [] });
      return looked;
    });
  };
  const share = beats(11, 0.3).filter(Boolean).length / 2_000;
  expect(share).toBeGreaterThan(0.26);
  expect(share).toBeLessThan(0.34);
  expect(beats(11, 0.3)).toEqual(beats(11, 0.3));
  expect(beats(11, 0.3)).not.toEqual(beats(12, 0.3));
  expect(beats(1, 0).some(Boolean)).toBe(false);
  expect(beats(1, 1).every(Boolean)).toBe(true);
});

test('whatever happens in whatever order: everything is undone in time, and nothing twice at once', () => {
  const action = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 900 }) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant('create' as const),
        failure: fc.constantFrom('pause', 'kill', 'partition'),
        durationMs: fc.integer({ min: 20, max: 2_000 }),
        forMs: fc.integer({ min: 250, max: 6_000 }),
        frequencyMs: fc.integer({ min: 250, max: 1_500 }),
        seed: fc.nat(),
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('stop' as const), which: fc.nat({ max: 5 }) }) },
    /** Answers one effect that waits, well or badly. */
    {
      weight: 10,
      arbitrary: fc.record({ do: fc.constant('answer' as const), which: fc.nat(), well: fc.boolean() }),
    },
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 120 }), (actions) => {
      let state = initial();
      let atMs = 0;
      let pending: Effect[] = [];
      /** What the world is under: only a deed or its failure to be undone puts it there. */
      const on = new Map<string, { failure: string; target: string }>();
      const say = (event: object) => {
        const [next, effects] = step(state, { ...event, atMs } as Event);
        state = next;
        for (const effect of effects) {
          if (effect.do === 'inject') {
            const { failure, target, experiment } = effect.injection;
            const twin = [...on.values()].some((one) => one.failure === failure && one.target === target);
            expect(twin, 'one failure twice in one target').toBe(false);
            expect(state.experiments.find(({ id }) => id === experiment)?.phase).toBe('running');
            on.set(effect.injection.id, { failure, target });
          }
          if (effect.do === 'ended') {
            expect(state.active.some((one) => one.experiment === effect.experiment)).toBe(false);
          }
        }
        pending.push(...effects.filter((effect) => effect.do !== 'ended'));
      };
      const answer = (effect: Effect, well: boolean) => {
        pending = pending.filter((one) => one !== effect);
        if (effect.do === 'look') {
          say({ type: 'looked', experiment: effect.experiment, targets: well ? ['a', 'b'] : [] });
        } else if (effect.do === 'inject') {
          if (!well) on.delete(effect.injection.id);
          say({ type: well ? 'injected' : 'not-injected', injection: effect.injection.id });
        } else if (effect.do === 'undo') {
          if (well) on.delete(effect.injection.id);
          say({ type: well ? 'undone' : 'not-undone', injection: effect.injection.id });
        }
      };
      for (const one of actions) {
        if (one.do === 'wait') {
          atMs += one.ms;
          say({ type: 'tick' });
          // Nothing that is on stays on beyond its time without having been asked to be undone.
          for (const injection of state.active) {
            if (injection.phase === 'on') expect(injection.dueMs).toBeGreaterThan(atMs);
          }
        } else if (one.do === 'create') {
          const { failure, durationMs, forMs, frequencyMs, seed } = one;
          say({
            type: 'create',
            spec: spec({ failure, durationMs, forMs, frequencyMs, seed, probability: 0.8 }),
          });
        } else if (one.do === 'stop') say({ type: 'stop', experiment: `x${one.which}` });
        else if (pending.length > 0) answer(pending[one.which % pending.length] as Effect, one.well);
      }
      say({ type: 'close' });
      for (let turn = 0; turn < 10_000 && (pending.length > 0 || state.active.length > 0); turn += 1) {
        if (pending[0]) answer(pending[0], true);
        else {
          expect(nextMs(state), 'something is on and nobody waits for it').toBeLessThan(
            Number.POSITIVE_INFINITY,
          );
          atMs = Math.max(atMs, nextMs(state));
          say({ type: 'tick' });
        }
      }
      expect([...on.keys()]).toEqual([]);
      expect(state.active).toEqual([]);
      expect(state.experiments.every(({ phase }) => phase === 'ended')).toBe(true);
      say({ type: 'create', spec: spec() });
      expect(state.experiments.every(({ phase }) => phase === 'ended')).toBe(true);
    }),
    { numRuns: 400 },
  );
});
