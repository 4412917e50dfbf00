/** Whether a candidate flies as the prior does, judged cycle by cycle. */
import { describe, expect, it } from 'vitest';
import { BOUNDS } from '#handover/bounds.ts';
import { DivergedError, ShadowJudge } from '#handover/shadow.ts';

const CYCLE_MS = 4;

/** Gives it cycle after cycle; returns how many it took to be ready, or what it threw. */
const judge = (cyclesMin: number, divergenceOf: (cycle: number) => number, divergenceMax = 0.1) => {
  const one = new ShadowJudge({ cyclesMin, divergenceMax });
  for (let cycle = 1; cycle <= 100_000; cycle += 1) {
    try {
      if (one.add(divergenceOf(cycle), cycle * CYCLE_MS)) return { one, cycle };
    } catch (error) {
      return { one, cycle, error };
    }
  }
  throw new Error('it neither settled nor gave up');
};

describe('ready', () => {
  it('after so many cycles in a row, the largest of them told; the limit itself is within it', () => {
    const { one, cycle } = judge(10, (at) => (at === 4 ? 0.1 : 0.01));
    expect(cycle).toBe(10);
    expect(one.readiness).toEqual({ cycles: 10, divergence: 0.1 });
  });

  it.each([0.11, Number.POSITIVE_INFINITY, Number.NaN])('not while one cycle is beyond it: %s', (beyond) => {
    const { one, cycle } = judge(10, (at) => (at === 9 ? beyond : 0.02));
    expect(cycle).toBe(19);
    expect(one.readiness).toEqual({ cycles: 10, divergence: 0.02 });
  });

  it('at the first cycle, where none is asked for', () => {
    expect(judge(0, () => 0).cycle).toBe(1);
  });
});

describe('diverged', () => {
  it('when it has not settled in a multiple of the cycles asked for; it says by how much and when', () => {
    // Far off while it starts from nothing, which is no news; worst at 35 afterwards.
    const { cycle, error } = judge(10, (at) => (at < 10 ? 0.9 : at === 35 ? 0.5 : 0.2));
    expect(cycle).toBe(10 * BOUNDS.shadowCyclesFactor);
    expect(error).toBeInstanceOf(DivergedError);
    expect(error).toMatchObject({
      code: 'DIVERGED',
      message:
        "its output was up to 0.500 from the prior's, at cycle 35, 140 ms into the shadow; " +
        '0.200 at the end, at most 0.1 is allowed for 10 cycles in a row',
    });
  });

  it('also if it is close in most cycles, but never in enough of them in a row', () => {
    const { error } = judge(10, (at) => (at % 10 === 0 ? 0.3 : 0));
    expect(error).toMatchObject({ code: 'DIVERGED' });
  });
});
