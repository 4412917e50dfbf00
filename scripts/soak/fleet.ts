/**
 * `npm run soak -- [--seeds N] [--from S]`: whole fleets in virtual time, one a seed, until a promise is broken or all is well.
 * `npm run soak -- --seed S [--trace]` replays one: the same trace, so the same hash, on every run and machine.
 *
 * Invariant: a seed's verdict depends on the seed (and `--drones`, `--harsh`, `--plant`) alone. Status 0 only if no promise was broken.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { commandLine } from '#scripts/command-line.ts';
import { MUTANTS, type Mutant } from '#test/virtual/mutants.ts';
import { run, type Verdict } from '#test/virtual/run.ts';
import { storyOf } from '#test/virtual/story.ts';

const USAGE = `usage: npm run soak -- [--seeds N] [--from S] [--drones D] [--harsh] [--workers W] [--minutes M] [--json]
       npm run soak -- --seed S [--drones D] [--harsh] [--trace] [--json]

  --seeds N     so many seeds, 1000 by default
  --from S      the first of them, 0 by default
  --seed S      one seed: its hash, its verdict and, if a promise was broken, the story
  --trace       every line of it
  --drones D    in each fleet, instead of what the seed says (2 to 8)
  --harsh       four faults on every drone, and a bad release on half of them
  --workers W   threads, ${availableParallelism()} by default
  --minutes M   ends after so long, whatever is left
  --plant BUG   plants a bug that must be found: ${MUTANTS.join(', ')}
  --json        one JSON object
`;

const { values, refuse, number, whole } = commandLine(USAGE, {
  options: {
    seeds: { type: 'string' },
    from: { type: 'string' },
    seed: { type: 'string' },
    drones: { type: 'string' },
    workers: { type: 'string' },
    minutes: { type: 'string' },
    plant: { type: 'string' },
    harsh: { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const given = (
  name: 'seeds' | 'from' | 'seed' | 'drones' | 'workers' | 'minutes',
  low: number,
  high: number,
  read = whole,
) => {
  const text = values[name];
  return text === undefined ? undefined : read(name, text, low, high);
};
const SEED_MAX = 0xffff_ffff;
const seed = given('seed', 0, SEED_MAX);
const from = given('from', 0, SEED_MAX) ?? 0;
const seeds = given('seeds', 1, 10_000_000) ?? 1_000;
const drones = given('drones', 1, 10_000);
const workers = given('workers', 1, 64) ?? availableParallelism();
const minutes = given('minutes', 0, 10_080, number) ?? Number.POSITIVE_INFINITY;
const plant = values.plant ?? 'none';
const { harsh } = values;
if (plant !== 'none' && !(MUTANTS as readonly string[]).includes(plant))
  refuse(`there is no bug "${plant}" to plant; there is: ${MUTANTS.join(', ')}`);

if (seed !== undefined) replay(seed);
else await soak();

function command(of: number): string {
  const options = [
    drones === undefined ? '' : ` --drones ${drones}`,
    plant === 'none' ? '' : ` --plant ${plant}`,
  ];
  return `npm run soak -- --seed ${of}${options.join('')}`;
}

function replay(of: number): void {
  const verdict = run(storyOf(of, { drones, harsh }), {
    mutant: plant as Mutant,
    ...(values.trace && !values.json ? { onLine: (line: string) => process.stdout.write(`${line}\n`) } : {}),
  });
  if (values.json) process.stdout.write(`${JSON.stringify(verdict)}\n`);
  else tell(verdict);
  process.exitCode = verdict.broken === null ? 0 : 1;
}

function tell({ seed: of, broken, hash, story, rollouts, events, virtualMs }: Verdict): void {
  const lines = [
    ...(broken !== null && !values.trace ? [...story, ''] : []),
    `seed ${of}: ${broken === null ? 'every promise was kept' : `BROKEN: ${broken}`}`,
    `  ${Math.round(virtualMs / 1000)} s of a fleet, ${events} events; ${rollouts.join(', ') || 'no rollout ended'}`,
    `  trace ${hash}`,
    ...(broken === null ? [] : [`  replay: ${command(of)} --trace`]),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

async function soak(): Promise<void> {
  const beganMs = performance.now();
  const endMs = beganMs + minutes * 60_000;
  const broken: Verdict[] = [];
  const over = new AbortController();
  let next = from;
  let done = 0;
  let virtualMs = 0;
  let events = 0;
  const status = () => {
    const tookSec = (performance.now() - beganMs) / 1000;
    return `${done} of ${seeds} seeds, ${broken.length} broken; ${(done / tookSec).toFixed(1)} a second, ${Math.round(virtualMs / 1000 / tookSec)} virtual seconds a second`;
  };
  const show = setInterval(
    () => {
      if (!values.json) process.stderr.write(process.stderr.isTTY ? `\r${status()} ` : `${status()}\n`);
    },
    process.stderr.isTTY ? 500 : 30_000,
  );
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => over.abort());

  const work = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL('./fleet/worker.ts', import.meta.url));
      let isEnding = false;
      const more = (): void => {
        if (over.signal.aborted || next >= from + seeds || performance.now() > endMs) {
          isEnding = true;
          void worker.terminate();
          return;
        }
        worker.postMessage({ seed: next, options: { drones, harsh }, mutant: plant });
        next += 1;
      };
      worker.on('message', (verdict: Verdict) => {
        done += 1;
        virtualMs += verdict.virtualMs;
        events += verdict.events;
        if (verdict.broken !== null) {
          broken.push(verdict);
          if (!values.json) tell(verdict);
        }
        more();
      });
      worker.once('error', (error) => {
        over.abort();
        reject(error);
      });
      worker.once('exit', (code) =>
        isEnding || code === 0 ? resolve() : reject(new Error(`worker ended with ${code}`)),
      );
      more();
    });
  try {
    await Promise.all(Array.from({ length: Math.min(workers, seeds) }, work));
  } finally {
    clearInterval(show);
  }
  const tookMs = performance.now() - beganMs;
  const first = [...broken].sort((a, b) => a.seed - b.seed);
  if (values.json) {
    const found = first.map(({ seed: of, broken: what, hash }) => ({ seed: of, broken: what, hash }));
    process.stdout.write(
      `${JSON.stringify({ from, seeds: done, plant, broken: found, virtualMs, events, tookMs })}\n`,
    );
  } else {
    process.stdout.write(`${process.stderr.isTTY ? '\n' : ''}${status()}\n`);
    for (const { seed: of, broken: what } of first) process.stdout.write(`  ${of}: ${what}\n`);
  }
  process.exitCode = first.length === 0 && done > 0 ? 0 : 1;
}
