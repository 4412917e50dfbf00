/**
 * One part of the demo (hub, sim, agent): this same command line as a process of its own.
 *
 * Invariant: it is known by its id, its log is a file, and it is gone (confirmed) when `stop` resolves. It has a
 * session of its own, so that Ctrl-C in the terminal reaches the demo alone, which ends the parts in order.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { LIMITS } from '#cli/limits.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import { identify, type ProcessId, stop } from '#cli/processes.ts';

export interface Child {
  readonly name: string;
  readonly id: ProcessId;
  readonly logFile: string;
  /** The ready line's object. */
  readonly ready: Record<string, unknown>;
  /** Resolves when it ends, wanted or not, with how. */
  readonly ended: Promise<string>;
  /** SIGTERM, a while, SIGKILL; resolves once it is gone. */
  stop(): Promise<void>;
}

export class ChildError extends Error {
  readonly code = 'CHILD';
}

export interface ChildOptions {
  name: string;
  /** Of `midair`. */
  args: string[];
  logFile: string;
  signal: AbortSignal;
}

/** Resolves at its ready line. @throws ChildError with the end of its log */
export async function startChild(options: ChildOptions): Promise<Child> {
  const { name, logFile, signal } = options;
  signal.throwIfAborted();
  const extension = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
  const program = join(PACKAGE_ROOT, 'cli', `bin.${extension}`);
  const log = openSync(logFile, 'a');
  // DOCKER_HOST and MIDAIR_… of the user are for his own calls of the command; a part is told everything.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([key]) => key !== 'DOCKER_HOST' && !key.startsWith('MIDAIR_')),
  );
  const child = spawn(process.execPath, [program, ...options.args], {
    detached: true,
    stdio: ['ignore', 'pipe', log],
    env,
  });
  closeSync(log);
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, name) => resolve(name ?? `status ${code}`));
  });
  const id = child.pid === undefined ? undefined : identify(child.pid);
  const end = async () => {
    if (id !== undefined && !(await stop([id], LIMITS.childStopMsMax, LIMITS.processGoneMsMax))) {
      throw new ChildError(`${name} (pid ${id.pid}) does not end`);
    }
  };
  try {
    const ready = await readyLine(child.stdout as NodeJS.ReadableStream, ended, options);
    if (id === undefined) throw new ChildError(`${name} ended at once`);
    return { name, id, logFile, ready, ended, stop: end };
  } catch (error) {
    await end();
    throw error;
  }
}

async function readyLine(
  stdout: NodeJS.ReadableStream,
  ended: Promise<string>,
  { name, logFile, signal }: ChildOptions,
): Promise<Record<string, unknown>> {
  const lines = createInterface({ input: stdout });
  const inTime = AbortSignal.any([signal, AbortSignal.timeout(LIMITS.childReadyMsMax)]);
  return new Promise((resolve, reject) => {
    const refuse = (why: string) =>
      reject(new ChildError(`${name} ${why}; its log ${logFile} ends:\n${tail(logFile)}`));
    inTime.addEventListener('abort', () =>
      signal.aborted ? reject(signal.reason as Error) : refuse('was not ready in time'),
    );
    void ended.then((how) => refuse(`ended with ${how} before it was ready`));
    lines.on('line', (line) => {
      try {
        const said = JSON.parse(line) as Record<string, unknown>;
        if (said.ready === true) resolve(said);
      } catch {
        // Not the ready line.
      }
    });
  });
}

export function tail(file: string): string {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-LIMITS.logTailLines).join('\n');
  } catch {
    return '(no log)';
  }
}
