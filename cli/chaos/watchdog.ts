/**
 * `watchdog DIR`, a process beside the injector: undoes what the injector no longer can.
 *
 * Invariants: when its standard input ends, which the kernel sees to however the injector died, everything in the ledger that
 * is not undone is undone, and what it had undone before by a deadline once more: an injector that stood still may have done
 * it after that. What is overdue is undone in any case. It ends only when nothing is left, and has a session of its own.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { textOf } from '#cli/chaos/errors.ts';
import { Ledger, LedgerReader, type Open, Openings } from '#cli/chaos/ledger.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { LEDGER_FILE } from '#cli/chaos/paths.ts';
import { monotonicMs, undo } from '#cli/chaos/undo.ts';

const path = join(process.argv[2] ?? '.', LEDGER_FILE);
const ledger = new Ledger(path);
const reader = new LedgerReader(path);
const openings = new Openings();
/** By a deadline, while the injector lived. */
const late = new Map<string, Open>();
let alone = false;

const read = (): void => {
  for (const record of reader.read()) openings.take(record);
};

/** @returns whether it is */
async function undone(open: Open, why: string): Promise<boolean> {
  const { injection } = open.begun;
  try {
    const text = `${await undo(open)} (${why})`;
    ledger.append({ type: 'undone', atMs: Date.now(), injection, by: 'watchdog', text });
    return true;
  } catch (error) {
    process.stderr.write(`chaos watchdog: ${injection}: ${textOf(error)}; trying again\n`);
    return false;
  }
}

async function overdue(): Promise<void> {
  for (const open of openings.all) {
    if (monotonicMs() < open.begun.dueMs + CHAOS.graceMs) continue;
    if (await undone(open, 'overdue, the injector did not')) late.set(open.begun.injection, open);
  }
}

async function everything(): Promise<void> {
  read();
  const left = new Map([...late, ...openings.all.map((open) => [open.begun.injection, open] as const)]);
  while (left.size > 0) {
    for (const [injection, open] of left) {
      if (await undone(open, 'the injector has ended')) left.delete(injection);
    }
    if (left.size > 0) await sleep(CHAOS.watchMs);
  }
}

process.stdin.resume();
const leave = (): void => {
  alone = true;
};
for (const event of ['end', 'close', 'error'] as const) process.stdin.once(event, leave);
// A terminal's Ctrl-C does not come here; who ends this one by hand gets the same.
for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(name, leave);
process.stdout.on('error', () => undefined);
process.stderr.on('error', () => undefined);

read();
process.stdout.write('ready\n');
while (!alone) {
  await sleep(CHAOS.watchMs);
  read();
  await overdue();
}
await everything();
process.exit(0);
