/** A runner that passes everything would prove nothing: each known way to be wrong must fail its own cases. */
import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { conformText, handoverCommand } from '#cli/commands/handover.ts';
import { conform } from '#handover/conform/index.ts';
import { subjects } from './conform-kit.ts';

/** Way, the cases that it must fail, and one beside them that it must pass. */
const WAYS: [way: string, fails: string[], passes: string][] = [
  ['writes-on', ['pass-rotors', 'after-released'], 'pass-camera'],
  ['reads-on', ['pass-camera'], 'pass-listener'],
  ['granted-early', ['prepare'], 'pass-camera'],
  ['loses-partial', ['pass-rotors'], 'pass-camera'],
  ['stale', ['stale-release', 'stale-grant', 'older-grant'], 'invalid-json'],
  ['leaks', ['stale-grant', 'older-grant'], 'stale-release'],
  ['forgets', ['invalid-json', 'in-flight'], 'renewed-grant'],
  ['believes-unheard', ['in-release-rotors', 'in-release-camera'], 'in-flight'],
  ['obeys', ['retired-holding', 'revoked-holding'], 'hand-back'],
  ['flies-on-dropped', ['drop-rotors'], 'state-version'],
  ['rotors-last', ['takeover'], 'hand-back'],
  ['any-state', ['state-version'], 'pass-rotors'],
  ['deaf-interval', ['watched-heartbeat'], 'pass-rotors'],
  ['keeps-mirror', ['follow'], 'pass-rotors'],
  ['always-ready', ['diverges'], 'revoke'],
  ['skips-bad-lines', ['not-utf8', 'unknown-type', 'unnamed-descriptor'], 'too-long'],
];

describe('the conformance runner', () => {
  // They wait more than they work.
  it.concurrent.each(WAYS)(
    'finds one that is wrong: %s',
    async (way, fails, passes) => {
      const command = subjects.wrong(way);
      // What must fail is waited for in vain; what must pass has all the patience that a busy desk may need.
      const failing = await conform({ command, only: fails, patience: 6 });
      expect(
        failing.filter(({ ok }) => ok).map(({ id }) => id),
        conformText(failing),
      ).toEqual([]);
      const passing = await conform({ command, only: [passes] });
      expect(
        passing.every(({ ok }) => ok),
        conformText(passing),
      ).toBe(true);
    },
    60_000,
  );

  it('does not wait in each case for one that does not start, and says why', async () => {
    const results = await conform({ command: subjects.wrong('no-start') });
    expect(results[0]).toMatchObject({ ok: false, output: 'this one does not start' });
    expect(results.slice(1).every(({ ok, seen }) => !ok && seen.includes('not run'))).toBe(true);
    const missing = await conform({ command: ['/nowhere/program'], only: ['prepare'] });
    expect(missing[0]?.seen).toContain('ENOENT');
  });

  it('refuses a name that is no case, so that nothing passes by nothing', async () => {
    await expect(conform({ command: ['true'], only: ['no-such'] })).rejects.toThrow(RangeError);
  });
});

describe('midair handover conform', () => {
  const run = async (...args: string[]): Promise<{ text: string; status: typeof process.exitCode }> => {
    const chunks: string[] = [];
    const write = process.stdout.write.bind(process.stdout);
    const before = process.exitCode;
    process.stdout.write = ((chunk: string) => chunks.push(chunk) > 0) as typeof process.stdout.write;
    try {
      const program = new Command('midair').addCommand(handoverCommand());
      await program.parseAsync(['handover', 'conform', ...args], { from: 'user' });
      return { text: chunks.join(''), status: process.exitCode };
    } finally {
      process.stdout.write = write;
      process.exitCode = before;
    }
  };

  it('prints a table and ends with status 0 when all passed, 1 when not', async () => {
    const good = await run('--only', 'prepare', '--', ...subjects.python());
    expect(good.text).toMatch(/^case +expected +seen +ok\n/);
    expect(good.text).toMatch(/\nprepare .* ok\n1 passed, 0 failed\n$/);
    expect(good.status ?? 0).toBe(0);
    const bad = await run('--only', 'prepare', '--', ...subjects.wrong('granted-early'));
    expect(bad.text).toMatch(/\nprepare .* FAILED\n/);
    expect(bad.status).toBe(1);
  });

  it('gives JSON', async () => {
    const { text } = await run('--json', '--only', 'prepare', '--', ...subjects.python());
    expect(JSON.parse(text)).toMatchObject({
      passed: 1,
      failed: 0,
      cases: [{ group: 'good path', id: 'prepare', ok: true }],
    });
  });
});
