/**
 * Where one run of the demo keeps its logs, sockets and stores.
 *
 * Invariant: it names the process that owns it. What a killed run left running is found by that directory's name
 * in its arguments and ended before a new run starts; logs and pictures of the last few runs stay.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LIMITS } from '#cli/limits.ts';
import { stateDirectory } from '#cli/paths.ts';
import { identify, isAlive, type ProcessId, processesNaming, stop } from '#cli/processes.ts';

const OWNER = 'owner.json';

/** Ends what dead runs left, and makes a directory for this one. */
export async function createRunDirectory(): Promise<string> {
  const root = stateDirectory('runs');
  const names = readdirSync(root).sort();
  const dead = names.map((name) => join(root, name)).filter((directory) => !isOwned(directory));
  for (const directory of dead) await endLeftovers(directory);
  for (const directory of dead.slice(0, Math.max(0, dead.length - LIMITS.runsKept + 1))) {
    rmSync(directory, { recursive: true, force: true });
  }
  const stamp = new Date().toISOString().replace(/\D/g, '').slice(0, 14);
  const directory = join(root, `${stamp}-${process.pid}`);
  mkdirSync(directory);
  writeFileSync(join(directory, OWNER), JSON.stringify(identify(process.pid)));
  return directory;
}

function isOwned(directory: string): boolean {
  try {
    return isAlive(JSON.parse(readFileSync(join(directory, OWNER), 'utf8')) as ProcessId);
  } catch {
    return false;
  }
}

/** Processes that name this directory. Returns how many there were. */
export async function endLeftovers(directory: string): Promise<number> {
  const left = processesNaming(directory);
  if (!(await stop(left, LIMITS.childStopMsMax, LIMITS.processGoneMsMax))) {
    throw new Error(`processes ${left.map(({ pid }) => pid).join(', ')} of an earlier run do not end`);
  }
  return left.length;
}

/** Keeps logs, pictures and records, drops stores, sockets and repositories. */
export function emptyRunDirectory(directory: string): void {
  for (const name of readdirSync(directory)) {
    if (name === 'logs' || /\.(svg|png|mcap)$/.test(name) || name === 'report.json') continue;
    rmSync(join(directory, name), { recursive: true, force: true });
  }
}
