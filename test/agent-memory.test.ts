/** What the supervisor remembers, and what changes it. */
import { expect, test } from 'vitest';
import {
  blamed,
  emptyMemory,
  flown,
  type Memory,
  reconciled,
  releaseNamed,
  targeted,
  unwatched,
} from '#agent/memory.ts';
import type { Release, Target } from '#fleet/protocol.ts';

const release = (n: number): Release => ({ id: `v${n}`, app: 'a', commit: '', createdAtMs: 0, services: {} });
const target = (generation: number, n: number): Target => ({ fleet: 'f', generation, release: release(n) });
const failure = { code: 'DIED', text: 'its process ended' };
const after = (memory: Memory | null): Memory => {
  if (memory === null) throw new Error('nothing changed');
  return memory;
};

test('a target is news only with a higher generation, and gives a failed release another chance', () => {
  const first = after(targeted(emptyMemory, target(0, 1), null));
  expect(first.target?.generation).toBe(0);
  const failed = after(blamed(first, release(1), failure));
  expect(failed.failed).toEqual({ generation: 0, release: 'v1', failure });
  expect(targeted(failed, target(0, 2), null)).toBeNull();
  const again = after(targeted(failed, target(3, 1), null));
  expect(again).toMatchObject({ failed: null, target: { generation: 3 } });
  expect(targeted(again, target(2, 1), null)).toBeNull();
});

test('what flew is good, the one before it is kept; the same again changes neither', () => {
  const one = flown(emptyMemory, release(1));
  const two = flown(one, release(2));
  expect([two.good?.id, two.previous?.id]).toEqual(['v2', 'v1']);
  expect(flown(two, release(2))).toEqual(two);
});

test('only what is wanted is blamed, and only for what is its fault', () => {
  const memory = after(targeted(emptyMemory, target(1, 2), null));
  expect(blamed(memory, release(1), failure)).toBeNull();
  for (const code of ['AGENT_RESTARTED', 'LOCKED', 'SUPERSEDED', unwatched(failure).code])
    expect(blamed(memory, release(2), { ...failure, code })).toBeNull();
  expect(blamed(emptyMemory, release(2), failure)).toBeNull();
});

test('a death between the two journals does not leave the last good release behind', () => {
  const memory = after(targeted(flown(emptyMemory, release(1)), target(2, 2), null));
  // The other journal says that v2 flies; the handover ended, and nobody wrote it here.
  expect(reconciled(memory, 'v2')).toMatchObject({ good: { id: 'v2' }, previous: { id: 'v1' } });
  expect(reconciled(memory, 'v1')).toBeNull();
  expect(reconciled(memory, null)).toBeNull();
  expect(reconciled(memory, 'v9')).toBeNull();
});

test('what is on its way when the target moves on is not forgotten', () => {
  const moved = after(targeted(flown(emptyMemory, release(1)), target(3, 3), release(2)));
  expect(releaseNamed(moved, 'v2')?.id).toBe('v2');
  expect(reconciled(moved, 'v2')).toMatchObject({ good: { id: 'v2' }, candidate: null });
});
