/** A short run of `npm run soak -- deltas`, and that it finds what is wrong. */
import { expect, test } from 'vitest';
import { DeltaError, memoryAccess, openDelta } from '#deltas/index.ts';
import { caseOf, MUTATION_NAMES, type Subject, subjects } from '../scripts/soak/deltas/mutate.ts';
import { judge } from '../scripts/soak/deltas/outcome.ts';
import { run } from '../scripts/soak/deltas.ts';

test('changed artifacts end with the right bytes or a known code, in a process of its own', async () => {
  // Among these is one that ended the whole process: a decompressor that failed after it had been given up.
  expect(await run(['--seed', '300', '--seeds', '200', '--json'])).toBe(0);
}, 120_000);

test('a seed gives the same case again, and every kind of change occurs', async () => {
  const all = await subjects();
  const seen = new Set<string>();
  for (let seed = 1; seed <= 150; seed += 1) {
    const [one, again] = [await caseOf(all, seed), await caseOf(all, seed)];
    expect(one.artifact.equals(again.artifact)).toBe(true);
    seen.add(one.mutation);
  }
  expect([...seen].sort()).toEqual([...MUTATION_NAMES].sort());
}, 60_000);

test('what would be wrong is judged so', async () => {
  const [good] = (await subjects()) as [Subject];
  const { artifact, basis } = good;
  const plain = { mutation: 'none', artifact, basis };
  expect(await judge({ subject: good, ...plain })).toMatchObject({ outcome: 'right' });
  expect((await judge({ subject: good, ...plain })).failure).toBeUndefined();
  // A reader that calls any bytes right, as a subject of another digest makes it look.
  const other = { ...good, diffId: `sha256:${'0'.repeat(64)}` };
  expect(await judge({ subject: other, ...plain })).toMatchObject({ outcome: 'NOT_FOUND' });
  // One that complains only when all is given out.
  const early = { ...good, bytes: 0 };
  expect((await judge({ subject: early, ...plain })).failure).toContain('given out');
  await expect(openDelta(memoryAccess(artifact.subarray(1)))).rejects.toBeInstanceOf(DeltaError);
});
