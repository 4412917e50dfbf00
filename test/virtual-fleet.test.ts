/** A short soak: whole fleets in virtual time, planted bugs, a rollout at scale, a bad release stopped at its canary. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { MUTANTS, type Mutant } from '#test/virtual/mutants.ts';
import { run } from '#test/virtual/run.ts';
import { CALM_PLAN, calmStory, storyOf } from '#test/virtual/story.ts';

const SEEDS = 60;
/** Each planted bug was found within 16 of these. */
const HARSH_SEEDS_MAX = 60;

test(`${SEEDS} fleets with crashes, power cuts, partitions and bad disks keep every promise`, {
  timeout: 300_000,
}, () => {
  let events = 0;
  for (let seed = 0; seed < SEEDS; seed++) {
    const verdict = run(storyOf(seed));
    events += verdict.events;
    expect(verdict.broken, `npm run soak -- --seed ${seed} --trace`).toBeNull();
  }
  console.log(`${SEEDS} fleets, ${events} events`);
  expect(events).toBeGreaterThan(SEEDS * 500);
});

test('a seed gives the same trace here, again, and in another process', { timeout: 120_000 }, async () => {
  const first = run(storyOf(9));
  expect(run(storyOf(9)).hash).toBe(first.hash);
  expect(run(storyOf(10)).hash).not.toBe(first.hash);
  const program = new URL('../scripts/soak/fleet.ts', import.meta.url).pathname;
  const { stdout } = await promisify(execFile)(process.execPath, [program, '--seed', '9', '--json']);
  expect(JSON.parse(stdout)).toEqual(first);
});

describe('planted, and found:', () => {
  const expected: Record<Exclude<Mutant, 'none'>, RegExp> = {
    'skip-fsync': /its disk says|wakes at/,
    'stale-epoch': /two owners|stale|was used/,
    'thaw-fenced': /two owners|was used/,
    'timeout-is-success': /two owners/,
    'publish-before-commit': /hub is at generation|meant/,
  };
  test.each(MUTANTS)('%s', { timeout: 300_000 }, (mutant) => {
    for (let seed = 0; seed < HARSH_SEEDS_MAX; seed++) {
      const { broken, story } = run(storyOf(seed, { harsh: true }), { mutant });
      if (broken === null) continue;
      console.log(`${mutant}: seed ${seed}, ${broken}`);
      expect(broken).toMatch(expected[mutant]);
      expect(story.at(-1)).toContain(broken);
      return;
    }
    expect.fail(`not found in ${HARSH_SEEDS_MAX} seeds`);
  });
});

test('a release flies on all of 200 drones, wave by wave', { timeout: 120_000 }, () => {
  const verdict = run(calmStory(1, 200, CALM_PLAN));
  expect(verdict).toMatchObject({ broken: null, rollouts: ['v2 done'], started: { v1: 200, v2: 200 } });
});

test('who flies it already says so when it is asked anew', { timeout: 60_000 }, () => {
  const story = calmStory(3, 10, CALM_PLAN);
  const verdict = run({ ...story, rollouts: story.rollouts.map((one) => ({ ...one, release: 'v1' })) });
  expect(verdict).toMatchObject({ broken: null, rollouts: ['v1 done'], started: { v1: 10 } });
});

test.each(['crashes-warming', 'diverges', 'crashes-in-probation', 'off-setpoint', 'slow-loop'] as const)(
  'a release that %s goes no further than its canaries, and they fly the old one again',
  { timeout: 120_000 },
  (behaviour) => {
    const verdict = run(calmStory(2, 200, CALM_PLAN, behaviour));
    expect(verdict.broken).toBeNull();
    expect(verdict.rollouts).toEqual([expect.stringMatching(/^v2 aborted \((TOO_FEW|ERRORS|HANDBACKS)\)$/)]);
    // One in a hundred of 200.
    expect(verdict.started).toEqual({ v1: 200, v2: 2 });
  },
);
