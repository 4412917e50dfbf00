/**
 * `npm run soak [-- WHAT] [arguments]`: looks for broken promises until the count or the time is over; runs
 * scripts/soak/WHAT.ts. Without a name: the fleet in virtual time.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '#cli/paths.ts';

const directory = join(PACKAGE_ROOT, 'scripts', 'soak');
const given = process.argv.slice(2);
const isNamed = given[0] !== undefined && !given[0].startsWith('-');
const name = isNamed ? given[0] : 'fleet';
const args = isNamed ? given.slice(1) : given;
const program = join(directory, `${name}.ts`);
if (!/^[a-z0-9-]+$/.test(name ?? '') || !existsSync(program)) {
  const names = readdirSync(directory).filter((file) => file.endsWith('.ts'));
  const there = names.map((file) => file.slice(0, -'.ts'.length)).sort();
  process.stderr.write(
    `there is no soak "${name}"\nusage: npm run soak -- [${there.join(' | ')}] [arguments], --help for each\n`,
  );
  process.exit(2);
}
const child = spawn(process.execPath, [program, ...args], { cwd: PACKAGE_ROOT, stdio: 'inherit' });
process.on('SIGINT', () => {});
for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
child.once('exit', (code, signal) => {
  process.exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
});
