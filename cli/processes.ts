/**
 * Processes by their id: who they are, and being sure that they are gone.
 *
 * Invariant: nothing is ever signalled by name. A process is known by its id and its start time, so that an id
 * which the kernel has given to another is never mistaken for the one that was meant.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseStat } from '#agent/proc-stat.ts';

export interface ProcessId {
  pid: number;
  /** Clock ticks since boot (proc(5), stat field 22). */
  startTicks: string;
}

/** What runs under this id now; undefined when nothing does, or only a zombie. */
export function identify(pid: number): ProcessId | undefined {
  try {
    const { field } = parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    const [state, startTicks] = [field(3), field(22)];
    if (startTicks === undefined || state === 'Z' || state === 'X') return undefined;
    return { pid, startTicks };
  } catch {
    return undefined;
  }
}

export function isAlive(known: ProcessId): boolean {
  return identify(known.pid)?.startTicks === known.startTicks;
}

/** Running processes that name a path below `directory` in their arguments, this one left out. */
export function processesNaming(directory: string): (ProcessId & { args: string[] })[] {
  const found: (ProcessId & { args: string[] })[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      if (!args.some((arg) => arg.includes(`${directory}/`))) continue;
      const known = identify(pid);
      if (known !== undefined) found.push({ ...known, args });
    } catch {
      // Gone between the listing and the look.
    }
  }
  return found;
}

export function signal(known: ProcessId, name: NodeJS.Signals): void {
  if (!isAlive(known)) return;
  try {
    process.kill(known.pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** True once none of them runs; false when the time is over. */
export async function waitGone(known: ProcessId[], waitMsMax: number): Promise<boolean> {
  const endMs = performance.now() + waitMsMax;
  while (known.some(isAlive)) {
    if (performance.now() > endMs) return false;
    await sleep(20);
  }
  return true;
}

/** Asks, waits, then insists. True when all are gone. */
export async function stop(known: ProcessId[], politeMsMax: number, insistMsMax: number): Promise<boolean> {
  for (const each of known) signal(each, 'SIGTERM');
  if (await waitGone(known, politeMsMax)) return true;
  for (const each of known) signal(each, 'SIGKILL');
  return waitGone(known, insistMsMax);
}
