import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createLock, LOCK_FILE } from '#agent/lock.ts';
import { policyOf } from '#agent/policy.ts';
import { directory } from './handover-kit.ts';

test('the update lock is whose came first; ours stays ours after our death, theirs is never taken away', () => {
  const path = join(directory(), 'locks');
  const lock = createLock(path);
  expect(lock.take()).toBe(true);
  expect(lock.take()).toBe(true);
  expect(() => writeFileSync(join(path, LOCK_FILE), 'app', { flag: 'wx' })).toThrow(/EEXIST/);
  // The agent died here.
  const again = createLock(path);
  again.release();
  writeFileSync(join(path, LOCK_FILE), 'app', { flag: 'wx' });
  expect(again.take()).toBe(false);
  again.release();
  expect(readFileSync(join(path, LOCK_FILE), 'utf8')).toBe('app');
  rmSync(join(path, LOCK_FILE));
  expect(again.take()).toBe(true);
});

test('a release asks for its update by labels, each with a default', () => {
  expect(policyOf({})).toEqual({
    shadowCyclesMin: 250,
    divergenceMax: 0.1,
    heartbeatMsMax: 100,
    probationMs: 2_000,
    loopHzMin: 0,
    errorMax: null,
  });
  const labels = {
    'io.midair.shadow.cycles': '500',
    'io.midair.probation.error': '0.25',
    'io.midair.heartbeat-ms': '12',
  };
  expect(policyOf(labels)).toMatchObject({ shadowCyclesMin: 500, errorMax: 0.25, heartbeatMsMax: 12 });
});

test.each([
  ['io.midair.shadow.cycles', '1.5', 'not a whole number'],
  ['io.midair.heartbeat-ms', '4', 'below 12'],
  ['io.midair.probation-ms', 'soon', 'not a number'],
  ['io.midair.probation-ms', '600001', 'above 600000'],
  ['io.midair.shadow.divergence', '', 'not a number'],
])('a label that says nothing sensible is refused by name: %s=%s', (label, value, why) => {
  expect(() => policyOf({ [label]: value })).toThrow(`label ${label}="${value}": ${why}`);
});
