/** `npm run bench -- NAME [arguments]`: runs bench/NAME.ts. Without a name: says which there are. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '#cli/paths.ts';

const [name = '', ...args] = process.argv.slice(2);
const directory = join(PACKAGE_ROOT, 'bench');
const names = readdirSync(directory)
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -'.ts'.length));
const program = join(directory, `${name}.ts`);
if (!/^[a-z0-9-]+$/.test(name) || !existsSync(program)) {
  process.stderr.write(`usage: npm run bench -- NAME [arguments]\nthere is: ${names.sort().join(', ')}\n`);
  process.exit(2);
}
// Some benchmarks measure peers that are Debian packages: npm's pre script does not know which one runs.
const setup = spawnSync(process.execPath, [join(PACKAGE_ROOT, 'scripts', 'setup.mjs'), name], {
  stdio: 'inherit',
});
if (setup.status !== 0) process.exit(setup.status ?? 1);
const child = spawn(process.execPath, [program, ...args], { cwd: PACKAGE_ROOT, stdio: 'inherit' });
process.on('SIGINT', () => {});
for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
child.once('exit', (code, signal) => {
  process.exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
});
