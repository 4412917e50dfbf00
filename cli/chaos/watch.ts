/**
 * The injector's end of the watchdog.
 *
 * Invariant: `isWatching` only while a watchdog that said it watches is alive; when it dies another is started. It holds the
 * reading end of a pipe whose only writing end is ours: however we end, it learns.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { ChaosError } from '#cli/chaos/errors.ts';
import { CHAOS } from '#cli/chaos/limits.ts';

export class Watch {
  readonly #directory: string;
  #child: ChildProcess | undefined;
  #ready = false;
  #closing = false;

  /** @throws ChaosError `NO_WATCHDOG` */
  static async start(directory: string): Promise<Watch> {
    const watch = new Watch(directory);
    await watch.#start();
    return watch;
  }

  private constructor(directory: string) {
    this.#directory = directory;
  }

  get isWatching(): boolean {
    return this.#ready;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Everything is undone: it finds nothing and ends. */
  async close(): Promise<void> {
    this.#closing = true;
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.stdin?.end();
    await ended;
  }

  async #start(): Promise<void> {
    const program = join(
      import.meta.dirname,
      `watchdog.${import.meta.filename.endsWith('.ts') ? 'ts' : 'js'}`,
    );
    const child = spawn(process.execPath, [program, `${this.#directory}/`], {
      detached: true,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child = child;
    child.stdin.on('error', () => undefined);
    const said = Promise.withResolvers<void>();
    const timer = setTimeout(() => said.reject(new Error('it does not answer')), CHAOS.watchdogReadyMsMax);
    child.stdout.once('data', () => said.resolve());
    child.once('error', (error) => said.reject(error));
    child.once('exit', () => {
      said.reject(new Error('it ended at once'));
      if (this.#child === child) this.#ended();
    });
    try {
      await said.promise;
      this.#ready = true;
    } catch (cause) {
      throw new ChaosError('NO_WATCHDOG', `no watchdog: ${(cause as Error).message}`, { cause });
    } finally {
      clearTimeout(timer);
    }
  }

  #ended(): void {
    const was = this.#ready;
    this.#ready = false;
    // One that never came up is not tried for ever.
    if (was && !this.#closing)
      this.#start().catch((error: Error) => process.stderr.write(`${error.message}\n`));
  }
}
