/** Child processes, with every answer bounded and every failure told with what the program said. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { FleetError } from '#fleet/errors.ts';
import { LIMITS } from '#fleet/limits.ts';

/** What git may see of the hub's environment: no user's or system's git configuration has a say here. */
export const GIT_ENVIRONMENT: NodeJS.ProcessEnv = {
  PATH: process.env.PATH ?? '/usr/bin:/bin',
  ...(process.env.TMPDIR ? { TMPDIR: process.env.TMPDIR } : {}),
  HOME: '/nonexistent',
  LC_ALL: 'C',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_TERMINAL_PROMPT: '0',
};

export interface GitOptions {
  environment?: NodeJS.ProcessEnv;
  signal?: AbortSignal;
}

/**
 * Runs one git command and reads its whole answer.
 *
 * @throws FleetError `GIT_FAILED` with git's own words; the AbortSignal's error
 */
export async function git(directory: string, args: string[], options: GitOptions = {}): Promise<Buffer> {
  const child = spawnGit(directory, args, options);
  const chunks: Buffer[] = [];
  let bytes = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes <= LIMITS.gitAnswerBytesMax) chunks.push(chunk);
    else child.kill('SIGKILL');
  });
  await finished(child, args);
  return Buffer.concat(chunks);
}

/** Starts one git command; its output is the caller's, `finished` tells how it ended. */
export function spawnGit(directory: string, args: string[], options: GitOptions = {}) {
  return spawn('git', ['-C', directory, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...GIT_ENVIRONMENT, ...options.environment },
    ...(options.signal ? { signal: options.signal } : {}),
  });
}

/** Resolves when the program ended with status 0 and its pipes are read. */
export async function finished(child: ReturnType<typeof spawnGit>, args: string[]): Promise<void> {
  const said = text(child.stderr);
  const [status, signal] = (await once(child, 'close')) as [number | null, string | null];
  if (status === 0) return;
  const words = (await said).trim().slice(0, 2_000);
  throw new FleetError(
    'GIT_FAILED',
    `git ${args[0]} ended with ${signal ?? `status ${status}`}${words ? `: ${words}` : ''}`,
    "see the hub's log; try the push again",
  );
}

/** Ends a process group that the hub started: politely, then for sure. */
export function endGroup(child: ChildProcess, graceMs: number): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const group = -child.pid;
  signalGroup(group, 'SIGTERM');
  const timer = setTimeout(() => signalGroup(group, 'SIGKILL'), graceMs);
  child.once('close', () => clearTimeout(timer));
}

function signalGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(group, signal);
  } catch {
    // It ended in the meantime, which is what was wanted.
  }
}
