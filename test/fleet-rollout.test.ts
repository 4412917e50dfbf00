/** A rollout, told as stories. */
import { describe, expect, test } from 'vitest';
import type { Current } from '#fleet/protocol.ts';
import {
  answerOf,
  begin,
  deadlineMs,
  type Plan,
  type Rollout,
  type RolloutEffect,
  type RolloutEvent,
  step,
  targetOf,
} from '#fleet/rollout.ts';

const PLAN: Plan = {
  waves: [{ count: 1 }, { percent: 50 }],
  successMin: 0.5,
  errorMax: 0.25,
  sampleMin: 4,
  soakMs: 10_000,
  deviceMsMax: 60_000,
  handbacksMax: 1,
  gapMsMax: 200,
  gapsMax: 1,
  onTrouble: 'pause',
};
const names = (count: number) => Array.from({ length: count }, (_, at) => `d${at}`);
type Happening = RolloutEvent extends infer E ? (E extends RolloutEvent ? Omit<E, 'atMs'> : never) : never;

class Story {
  rollout: Rollout;
  nowMs = 1_000;
  effects: RolloutEffect[];
  constructor(plan: Partial<Plan> = {}, count = 8) {
    const all = {
      plan: { ...PLAN, ...plan },
      release: 'v2',
      prior: 'v1',
      generation: 4,
      devices: names(count),
    };
    [this.rollout, this.effects] = begin({ ...all, atMs: this.nowMs });
  }
  happen(event: Happening): this {
    [this.rollout, this.effects] = step(this.rollout, { ...event, atMs: this.nowMs } as RolloutEvent);
    return this;
  }
  done(...devices: number[]): this {
    for (const n of devices) this.#answer(n, { status: 'done' });
    return this;
  }
  failed(...devices: number[]): this {
    for (const n of devices) this.#answer(n, { status: 'failed', code: 'DIED' });
    return this;
  }
  #answer(n: number, answer: { status: 'done' } | { status: 'failed'; code: string }): void {
    const { generation } = targetOf(this.rollout, `d${n}`);
    this.happen({ type: 'answer', device: `d${n}`, answer: { generation, ...answer } });
  }
  /** To its own deadline. */
  wait(): this {
    this.nowMs = deadlineMs(this.rollout);
    return this.happen({ type: 'tick' });
  }
  get wanted(): string {
    return names(this.rollout.order.length)
      .map((name) => targetOf(this.rollout, name).release?.slice(1) ?? '-')
      .join('');
  }
  get is(): string {
    const why = 'why' in this.rollout ? ` ${this.rollout.why.code}` : '';
    return `${this.rollout.phase} ${this.rollout.wave}${why}`;
  }
}

describe('waves', () => {
  test('each begins when the one before has flown it and been watched; the rest are the last', () => {
    const story = new Story();
    expect([story.is, story.wanted]).toEqual(['wave 0', '21111111']);
    story.done(0);
    expect([story.is, story.wanted]).toEqual(['soaking 0', '21111111']);
    story.wait();
    expect([story.is, story.wanted]).toEqual(['wave 1', '22221111']);
    // Half of this wave of three is two.
    expect(story.done(1).is).toBe('wave 1');
    expect(story.done(2).is).toBe('soaking 1');
    story.wait();
    expect([story.is, story.wanted]).toEqual(['wave 2', '22222222']);
    story.done(3, 4, 5).wait();
    expect(story.is).toBe('done 2');
  });

  test('what was decided is durable before a device hears of it', () => {
    const story = new Story();
    const kinds = () => story.effects.map((effect) => effect.do);
    expect(kinds().slice(0, 2)).toEqual(['persist', 'publish']);
    story.done(0).wait();
    expect(kinds().slice(0, 2)).toEqual(['persist', 'publish']);
    expect(story.effects[1]).toEqual({ do: 'publish', devices: ['d1', 'd2', 'd3'] });
    story.happen({ type: 'abort' });
    expect(kinds().slice(0, 2)).toEqual(['persist', 'publish']);
  });

  test('a device gets a release only in its wave, whatever it says', () => {
    const story = new Story();
    story.happen({ type: 'answer', device: 'd7', answer: { generation: 4, status: 'done' } });
    expect([story.is, story.rollout.devices.d7?.status]).toEqual(['wave 0', 'waiting']);
    // An answer to an earlier target is no answer to this one.
    story.happen({ type: 'answer', device: 'd0', answer: { generation: 4, status: 'done' } });
    expect(story.is).toBe('wave 0');
  });

  test('a reach that adds nobody is no wave, a fleet of none is done, and a plan without sense is refused', () => {
    expect(new Story({ waves: [{ count: 2 }, { percent: 10 }, { count: 50 }] }).rollout.ends).toEqual([2, 8]);
    expect(new Story({ waves: [] }).wanted).toBe('22222222');
    expect(new Story({}, 0).wait().is).toBe('done 0');
    expect(() => new Story({ waves: [{ percent: 0 }] })).toThrow(RangeError);
    expect(() => new Story({ successMin: 1.1 })).toThrow(/successMin/);
    expect(() => new Story({ soakMs: Number.NaN })).toThrow(/soakMs/);
  });

  test('who joins later is in the last wave, at once when that has begun', () => {
    const story = new Story({}, 2).happen({ type: 'joined', device: 'd2' });
    expect(story.wanted).toBe('211');
    story.done(0).wait();
    expect(story.wanted).toBe('222');
    story.happen({ type: 'joined', device: 'd3' });
    expect([story.wanted, story.effects.at(-1)]).toEqual(['2222', { do: 'publish', devices: ['d3'] }]);
  });
});

describe('trouble', () => {
  test('silence is no success: a canary that does not answer stops it', () => {
    const story = new Story().wait();
    expect([story.is, story.rollout.devices.d0?.status]).toEqual(['paused 0 TOO_FEW', 'late']);
    expect(deadlineMs(story.rollout)).toBe(Number.POSITIVE_INFINITY);
    // It answers after all, and the operator goes on.
    story.done(0).happen({ type: 'resume' });
    expect(story.is).toBe('soaking 0');
  });

  test('errors are judged from enough answers on', () => {
    const story = new Story({ waves: [] });
    story.failed(0).done(1, 2);
    expect(story.is).toBe('wave 0');
    expect(story.failed(3).is).toBe('paused 0 ERRORS');
    expect((story.rollout as { why: { text: string } }).why.text).toBe('2 of 4 failed (DIED)');
  });

  test('a failure while it is watched counts, and so does a success after a failure', () => {
    const story = new Story({ sampleMin: 1 }).done(0);
    expect(story.failed(0).is).toBe('paused 0 ERRORS');
    const other = new Story({ sampleMin: 2 }).failed(0);
    expect(other.is).toBe('paused 0 TOO_FEW');
    expect(other.done(0).rollout.devices.d0).toEqual({ status: 'done', generation: 5 });
  });

  test.each([
    ['HANDBACKS', { handedBack: true, gapMs: 0 }],
    ['GAPS', { handedBack: false, gapMs: 201 }],
  ])('flight quality stops it by itself, and it says why: %s', (code, flight) => {
    const story = new Story({ waves: [], onTrouble: 'abort' });
    const flew = (n: number) => story.happen({ type: 'flight', device: `d${n}`, generation: 5, ...flight });
    // Told twice it happened once.
    flew(0);
    flew(0);
    expect(story.is).toBe('wave 0');
    flew(1);
    expect([story.is, story.wanted]).toEqual([`aborted 0 ${code}`, '11111111']);
    expect(story.effects.map((effect) => effect.do)).toEqual(['persist', 'persist', 'publish', 'report']);
  });
});

describe('the operator', () => {
  test('pauses without losing time, and what was accepted is not judged again', () => {
    const story = new Story({ waves: [] });
    story.nowMs += 20_000;
    story.happen({ type: 'pause' });
    story.nowMs += 500_000;
    story.happen({ type: 'resume' });
    expect(deadlineMs(story.rollout)).toBe(story.nowMs + 40_000);
    story.done(1, 2).failed(0, 3);
    expect(story.is).toBe('paused 0 ERRORS');
    expect(story.happen({ type: 'resume' }).is).toBe('wave 0');
    expect(story.done(4, 5).is).toBe('soaking 0');
  });

  test('aborts: who was asked goes back under a new generation, who waited never left', () => {
    const story = new Story().happen({ type: 'abort' });
    expect(targetOf(story.rollout, 'd0')).toEqual({ generation: 6, release: 'v1' });
    expect(targetOf(story.rollout, 'd1')).toEqual({ generation: 4, release: 'v1' });
    expect(story.effects).toContainEqual({ do: 'publish', devices: ['d0'] });
    for (const type of ['pause', 'resume', 'abort', 'retry'] as const) {
      expect(story.happen({ type }).effects).toMatchObject([{ do: 'report', type: 'rollout.refused' }]);
      expect(story.rollout.phase).toBe('aborted');
    }
  });

  test('asks again who failed or was late, under a generation that they do not know', () => {
    const story = new Story({ waves: [], sampleMin: 99 }).done(0, 1, 2, 3).wait();
    expect(story.is).toBe('done 0');
    expect(story.happen({ type: 'retry' }).effects[0]).toMatchObject({ type: 'rollout.refused' });
    const late = new Story({ waves: [], successMin: 1 }).done(0, 1).failed(2);
    late.wait();
    expect(late.is).toBe('paused 0 ERRORS');
    late.happen({ type: 'retry' });
    expect([
      late.is,
      targetOf(late.rollout, 'd2').generation,
      targetOf(late.rollout, 'd0').generation,
    ]).toEqual(['wave 0', 6, 5]);
    expect(late.done(2, 3, 4, 5, 6, 7).is).toBe('soaking 0');
  });
});

test('a current state is an answer only once it says how it went, and not while the device tries by itself', () => {
  const current: Current = {
    device: 'd0',
    generation: 5,
    bootId: 'b',
    sequence: 1,
    atMs: 0,
    owner: { release: 'v1', imageId: `sha256:${'0'.repeat(64)}`, container: 'c' },
    images: [],
    update: { status: 'idle' },
  };
  const failed = (code: string): Current => ({
    ...current,
    update: { status: 'failed', release: 'v2', failure: { code, text: '' } },
  });
  expect(answerOf(current, 'v2')).toBeNull();
  expect(answerOf(failed('DIED'), 'v2')).toEqual({ generation: 5, status: 'failed', code: 'DIED' });
  expect(answerOf(failed('AGENT_RESTARTED'), 'v2')).toBeNull();
  const flying = { ...current, owner: { ...current.owner, release: 'v2' } } as Current;
  expect(answerOf(flying, 'v2')).toEqual({ generation: 5, status: 'done' });
  const updating = { status: 'updating', release: 'v2', stage: 'warm', doneBytes: 0, allBytes: 0 } as const;
  expect(answerOf({ ...flying, update: updating }, 'v2')).toBeNull();
});
