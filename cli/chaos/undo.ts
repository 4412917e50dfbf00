/**
 * Undoing one injection by what the ledger has of it.
 *
 * Invariant: idempotent, and asks nobody whose absence could be the failure itself: no engine, no agent. Continuing a process
 * never thaws it: a container that its agent has frozen as a fence stays frozen, since SIGCONT and the freezer are apart.
 */
import { readFileSync, rmSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { ChaosError } from '#cli/chaos/errors.ts';
import type { Open, Undo } from '#cli/chaos/ledger.ts';
import { signalKnown } from '#cli/chaos/processes.ts';
import { clearFault } from '#cli/chaos/wire/client.ts';
import { isAlive, waitGone } from '#cli/processes.ts';
import { nowUs } from '#handover/native.ts';

export const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

/** The ledger's clock for what is due: since boot, the same in injector and watchdog, whatever the wall clock does. */
export const monotonicMs = (): number => Math.round(nowUs() / 1000);

export const BALLAST = '.midair-chaos-';
const GONE_MS_MAX = 2_000;

/** @returns how, in words. @throws if it is not undone; to be tried again */
export async function undo({ begun, undos }: Open): Promise<string> {
  const sameBoot = begun.boot === bootId();
  const words: string[] = [];
  for (const one of undos) {
    // Processes of before a start of the machine are gone, and their numbers are others'.
    if (sameBoot || one.type === 'remove') words.push(await undoOne(one));
    else words.push('gone with the machine’s last start');
  }
  return [...new Set(words)].join(', ');
}

async function undoOne(one: Undo): Promise<string> {
  switch (one.type) {
    case 'nothing':
      return 'not undone by the injector: what was killed is its supervisor’s to start again';
    case 'continue': {
      const count = one.processes.filter((known) => signalKnown(known, 'SIGCONT')).length;
      return count === 0 ? 'already gone' : `${count} ${count === 1 ? 'process goes' : 'processes go'} on`;
    }
    case 'end': {
      for (const known of one.processes) signalKnown(known, 'SIGKILL');
      if (!(await waitGone(one.processes, GONE_MS_MAX))) throw new Error('a busy loop does not end');
      return 'busy loops ended';
    }
    case 'remove':
      return removeBallast(one.file);
    case 'clear':
      if (!isAlive(one.process)) return 'the link has ended';
      return (await clearFault(one.control, one.fault))
        ? 'the link passes bytes again'
        : 'the link had cleared it itself';
  }
}

function removeBallast(file: string): string {
  if (!basename(file).startsWith(BALLAST)) {
    throw new ChaosError('INTERNAL', `${file} is no ballast of ours: remove it by hand if it is`);
  }
  const bytes = statSync(file, { throwIfNoEntry: false })?.size;
  rmSync(file, { force: true });
  return bytes === undefined ? 'already gone' : `${bytes} bytes given back`;
}
