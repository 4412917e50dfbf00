/**
 * The program under test as a process.
 *
 * Invariant: none outlives the runner: each is killed by its pid when its world ends, or the runner does.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { CONFORM } from '#handover/conform/limits.ts';
import { within } from '#handover/conform/wait.ts';

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class Program {
  readonly #child: ChildProcess;
  #output = '';
  /** How it ended; undefined while it runs. */
  end: string | undefined;

  constructor(command: readonly string[], env: Record<string, string>) {
    const [file = '', ...args] = command;
    this.#child = spawn(file, args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(this.#child);
    const keep = (text: Buffer): void => {
      this.#output = (this.#output + text.toString()).slice(-CONFORM.outputCharsMax);
    };
    this.#child.stdout?.on('data', keep);
    this.#child.stderr?.on('data', keep);
    const ended = (how: string) => () => {
      this.end ??= how;
      running.delete(this.#child);
    };
    this.#child.once('error', (error) => ended(`does not start: ${error.message}`)());
    this.#child.once('exit', (code, signal) => ended(signal ?? `exit ${code}`)());
  }

  /** What it printed last, for the report. */
  get output(): string {
    return this.#output.trim();
  }
  get pid(): number | undefined {
    return this.#child.pid;
  }
  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

/** Stops a process, confirmed; the result lets it go on. Undefined: it is not to be seen from here. */
export const stopped = async (pid: number): Promise<(() => void) | undefined> => {
  const state = (): string | undefined => {
    try {
      return /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1];
    } catch {
      return undefined;
    }
  };
  if (pid <= 0 || state() === undefined) return undefined;
  process.kill(pid, 'SIGSTOP');
  await within(CONFORM.stopMsMax, () => state() !== 'R' && state() !== 'S' && state() !== 'D');
  return () => process.kill(pid, 'SIGCONT');
};
