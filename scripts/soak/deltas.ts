/**
 * `npm run soak -- deltas [--minutes N | --seeds N] [--seed S] [--json]`: the decoder against artifacts that lie.
 *
 * Each seed is one changed artifact or basis; it must end with the right bytes or a DeltaError of a known code, within the memory
 * and time that deltas/outcome.ts says. The cases run in a process of their own with the heap that an agent's patcher has: one that
 * dies or hangs is found by the seed that it was at. Ends at the first failure; `--seed S` runs that one again.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { commandLine } from '#scripts/command-line.ts';
import type { FromChild, ToChild } from './deltas/child.ts';
import { BOUNDS, type Verdict } from './deltas/outcome.ts';

const USAGE = 'usage: npm run soak -- deltas [--minutes N | --seeds N] [--seed FIRST] [--json]';
const SEEDS_MAX = 1e12;
const BATCH = 500;
/** By the clock, of one case: a shared machine may stand still for a while. */
const SILENT_MS_MAX = 60_000;
const HEAP_MIB = 64;

interface Tally {
  runs: number;
  outcomes: Map<string, number>;
  mutations: Map<string, number>;
  cpuMsMax: number;
  memoryBytesMax: number;
}

type Judged = { seed: number; subject: string; mutation: string } & Verdict;

/** @returns the process's exit status: 0 only if no case failed */
export async function run(args: string[]): Promise<number> {
  const { first, seedsMax, endMs, json } = parseOptions(args);
  const tally: Tally = { runs: 0, outcomes: new Map(), mutations: new Map(), cpuMsMax: 0, memoryBytesMax: 0 };
  const startMs = performance.now();
  let stopped = false;
  const stop = (): void => {
    stopped = true;
  };
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, stop);
  const cases = await Cases.open();
  let failed: { seed: number; text: string } | undefined;
  try {
    for (let from = first; !stopped && from < first + seedsMax && performance.now() < endMs; from += BATCH) {
      failed = await cases.run({ from, to: Math.min(from + BATCH, first + seedsMax) }, (one) =>
        count(tally, one),
      );
      if (failed) break;
      if (!json && Math.floor((from - first) / BATCH) % 20 === 0)
        process.stderr.write(`${line(tally, startMs)}\n`);
    }
  } finally {
    await cases.close();
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.off(name, stop);
  }
  report(tally, startMs, json, failed);
  return failed ? 1 : 0;
}

function parseOptions(args: string[]): { first: number; seedsMax: number; endMs: number; json: boolean } {
  const { values, positive, whole } = commandLine(USAGE, {
    args,
    options: {
      minutes: { type: 'string' },
      seeds: { type: 'string' },
      seed: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const one = values.seed !== undefined && values.seeds === undefined && values.minutes === undefined;
  const first = whole('seed', values.seed ?? '1', 0, SEEDS_MAX);
  const seedsMax = one ? 1 : whole('seeds', values.seeds ?? String(SEEDS_MAX), 1, SEEDS_MAX);
  const hasEnd = one || values.seeds !== undefined;
  const minutes = positive('minutes', values.minutes ?? (hasEnd ? '10080' : '10'), 0, 10_080);
  return { first, seedsMax, endMs: performance.now() + minutes * 60_000, json: values.json };
}

/** The child, and what it is at. */
class Cases {
  readonly #child: ChildProcess;
  #words = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
      this.#words = (this.#words + chunk).slice(-4_000);
    });
  }

  static async open(): Promise<Cases> {
    const child = fork(join(import.meta.dirname, 'deltas', 'child.ts'), [], {
      execArgv: ['--expose-gc', `--max-old-space-size=${HEAP_MIB}`],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    const cases = new Cases(child);
    const [message] = (await Promise.race([once(child, 'message'), once(child, 'exit')])) as unknown[];
    if (message !== 'ready') throw new Error(`the cases could not be begun: ${cases.#words}`);
    return cases;
  }

  /** @returns the case that failed */
  async run(
    range: ToChild,
    onVerdict: (one: Judged) => void,
  ): Promise<{ seed: number; text: string } | undefined> {
    const child = this.#child;
    let at = range.from;
    const { promise, resolve } = Promise.withResolvers<{ seed: number; text: string } | undefined>();
    const timer = setTimeout(
      () => resolve({ seed: at, text: `no verdict within ${SILENT_MS_MAX} ms` }),
      SILENT_MS_MAX,
    );
    const onExit = (code: number | null, signal: string | null): void =>
      resolve({ seed: at, text: `the process died (${signal ?? code}): ${this.#words}` });
    const onMessage = (message: FromChild): void => {
      at = message.seed;
      timer.refresh();
      if (!('outcome' in message)) return;
      onVerdict(message);
      if (message.failure !== undefined)
        resolve({ seed: at, text: `${message.subject}, ${message.mutation}: ${message.failure}` });
      else if (at === range.to - 1) resolve(undefined);
    };
    child.on('message', onMessage).once('exit', onExit);
    child.send(range);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      child.off('message', onMessage).off('exit', onExit);
    }
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}

function count(tally: Tally, { outcome, mutation, cpuMs, memoryBytes }: Judged): void {
  tally.runs += 1;
  tally.outcomes.set(outcome, (tally.outcomes.get(outcome) ?? 0) + 1);
  tally.mutations.set(mutation, (tally.mutations.get(mutation) ?? 0) + 1);
  tally.cpuMsMax = Math.max(tally.cpuMsMax, cpuMs);
  tally.memoryBytesMax = Math.max(tally.memoryBytesMax, memoryBytes);
}

const line = ({ runs, outcomes, cpuMsMax, memoryBytesMax }: Tally, startMs: number): string => {
  const seconds = (performance.now() - startMs) / 1000;
  const ends = [...outcomes].sort((a, b) => b[1] - a[1]).map(([outcome, times]) => `${outcome} ${times}`);
  const most = `at most ${Math.round(memoryBytesMax / 1024 ** 2)} MiB of ${BOUNDS.memoryBytesMax / 1024 ** 2} and ${Math.round(cpuMsMax)} ms`;
  return `${runs} cases in ${Math.round(seconds)} s, ${most}: ${ends.join(', ')}`;
};

function report(
  tally: Tally,
  startMs: number,
  json: boolean,
  failed: { seed: number; text: string } | undefined,
): void {
  if (json) {
    const { outcomes, mutations, ...rest } = tally;
    const told = {
      ...rest,
      outcomes: Object.fromEntries(outcomes),
      mutations: Object.fromEntries(mutations),
    };
    process.stdout.write(`${JSON.stringify({ soak: 'deltas', ...told, failed: failed ?? null })}\n`);
    return;
  }
  process.stdout.write(`${line(tally, startMs)}\n`);
  if (failed)
    process.stdout.write(
      `seed ${failed.seed} failed: ${failed.text}\nagain: npm run soak -- deltas --seed ${failed.seed}\n`,
    );
}

if (import.meta.main) process.exitCode = await run(process.argv.slice(2));
