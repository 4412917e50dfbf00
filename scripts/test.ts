/**
 * `npm test`: vitest, then one plain last line, `N passed, N failed`.
 *
 * Invariant: the status is 0 only if every test passed. A file that does not load, an error outside of any test
 * and a runner that dies count as failures, so the line never tells of a success that was none.
 *
 *   npm test [-- vitest's arguments]
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '#cli/paths.ts';

const directory = mkdtempSync(join(tmpdir(), 'midair-test-'));
const countsFile = join(directory, 'counts.json');
const vitest = join(PACKAGE_ROOT, 'node_modules', 'vitest', 'vitest.mjs');
const args = [
  vitest,
  'run',
  '--reporter=default',
  '--reporter=./scripts/counts-reporter.ts',
  ...process.argv.slice(2),
];
const env = { ...process.env, MIDAIR_TEST_COUNTS: countsFile };
const child = spawn(process.execPath, args, { cwd: PACKAGE_ROOT, stdio: 'inherit', env });
// Ctrl-C reaches vitest by itself; a signal to this process alone is passed on, and its end is waited for.
process.on('SIGINT', () => {});
for (const name of ['SIGTERM', 'SIGHUP'] as const) process.on(name, () => child.kill(name));

child.once('error', (error) => {
  process.stderr.write(`vitest does not start: ${error.message}\n`);
  finish(1);
});
child.once('exit', (code, name) => finish(code ?? 128 + (name === null ? 0 : constants.signals[name])));

function finish(status: number): void {
  let counts = { passed: 0, failed: 0 };
  try {
    counts = JSON.parse(readFileSync(countsFile, 'utf8'));
  } catch {
    // The runner died before its end: nothing was counted.
  }
  rmSync(directory, { recursive: true, force: true });
  if (status !== 0 && counts.failed === 0) counts.failed = 1;
  if (status === 0 && counts.failed > 0) status = 1;
  process.stdout.write(`${counts.passed} passed, ${counts.failed} failed\n`);
  process.exitCode = status;
}
