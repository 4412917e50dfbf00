/**
 * `npm run soak -- flights [--minutes N]`: handover after handover until the time is over, 20 in a flight, each flight from an
 * empty device. Ends at the first broken promise, with its logs; status 0 only if there was none.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import { commandLine } from '#scripts/command-line.ts';

const { values, positive } = commandLine(
  'usage: npm run soak -- flights [--minutes N]   real flights on the real engine, 60 minutes by default, a week at most',
  { options: { minutes: { type: 'string', default: '60' } } },
);
const minutes = positive('minutes', values.minutes, 0, 10_080);
const endMs = performance.now() + minutes * 60_000;
const program = join(PACKAGE_ROOT, 'bench', 'handover.ts');
let stopped = false;

for (let flight = 1; performance.now() < endMs && !stopped; flight += 1) {
  process.stdout.write(
    `flight ${flight}, ${Math.ceil((endMs - performance.now()) / 60_000)} minutes to go\n`,
  );
  const status = await handovers();
  if (status !== 0 && !stopped) {
    process.stdout.write(`flight ${flight} broke a promise\n`);
    process.exitCode = 1;
    break;
  }
}

function handovers(): Promise<number> {
  const child = spawn(process.execPath, [program, '--count', '20'], { cwd: PACKAGE_ROOT, stdio: 'inherit' });
  const stop = () => {
    stopped = true;
    child.kill('SIGTERM');
  };
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, stop);
  return new Promise((resolve) => {
    child.once('exit', (code) => {
      for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(name, stop);
      resolve(code ?? 1);
    });
  });
}
