/**
 * A container's processes through the kernel's own files, without asking the engine.
 *
 * Invariant: a container is called frozen or empty only when the kernel says so; nothing is signalled that is not
 * in the container's own cgroup at that moment; nothing is thawed before every process in it has a SIGKILL pending.
 *
 * Writing the freezer file and confirming takes a fraction of a millisecond, the engine's pause call tens of
 * them, and these files answer when the engine hangs. cgroup v1: Documentation/admin-guide/cgroup-v1/
 * freezer-subsystem.rst; v2: admin-guide/cgroup-v2.rst (cgroup.freeze, cgroup.kill, cgroup.events).
 */
import { existsSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises';
import { isNativeError, native } from '#handover/native.ts';

export const CGROUP_LIMITS = {
  /** A freeze takes well under a millisecond unless a process sits in an uninterruptible wait. */
  freezeMsMax: 50,
  /** What stands frozen can wait for its end; its exit takes a core for milliseconds, and the successor needs one now. */
  frozenMs: 100,
  /** Exit of a killed process: closing its files, giving back its memory. */
  emptyMsMax: 3_000,
  pollMs: 1,
  /** Turns of the event loop instead of timers at first: a freeze is confirmed in tenths of a millisecond. */
  spinMsMax: 3,
  /** Cgroups that a container may have made inside its own. */
  nestedMax: 1_000,
  /** An engine fills a group that it made within milliseconds. One that was empty for so long was left behind. */
  leftoverMsMin: 10_000,
  /** Rounds of signalling, for processes that were being born during the last one (not possible once frozen). */
  killRoundsMax: 20,
} as const;

/** The kernel's directories; others in tests. */
export interface Roots {
  cgroup: string;
  proc: string;
}
export const ROOTS: Roots = { cgroup: '/sys/fs/cgroup', proc: '/proc' };

export interface Cgroup {
  version: 1 | 2;
  directory: string;
}

const CONTAINER_ID = /[0-9a-f]{64}/;

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
};

/**
 * Finds the cgroup of a running container, by where engines put it and by where `pid` is.
 * @param pid its first process as this process's namespace numbers it, if known
 */
export function findCgroup(containerId: string, pid?: number, roots = ROOTS): Cgroup | undefined {
  const own = pid === undefined ? undefined : cgroupPathOf(pid, roots);
  const paths = [`/docker/${containerId}`, `/system.slice/docker-${containerId}.scope`];
  if (own?.path.includes(containerId)) paths.unshift(own.path);
  for (const path of paths) {
    const v1 = join(roots.cgroup, 'freezer', path);
    if (existsSync(join(v1, 'freezer.state'))) return { version: 1, directory: v1 };
    const v2 = join(roots.cgroup, path);
    if (existsSync(join(v2, 'cgroup.freeze'))) return { version: 2, directory: v2 };
  }
  return undefined;
}

/** False: the kernel has removed it, which it does only with an empty one. */
export const exists = ({ directory }: Cgroup): boolean => existsSync(directory);

/** @returns true once the kernel confirms that no process in it runs; false if it did not in time, then it is thawed */
export async function freeze(cgroup: Cgroup, msMax: number = CGROUP_LIMITS.freezeMsMax): Promise<boolean> {
  const [file, on] = cgroup.version === 1 ? ['freezer.state', 'FROZEN'] : ['cgroup.freeze', '1'];
  try {
    writeFileSync(join(cgroup.directory, file), on);
  } catch {
    return false;
  }
  if (await poll(() => isFrozen(cgroup), msMax)) return true;
  thaw(cgroup);
  return false;
}

export const isFrozen = ({ version, directory }: Cgroup): boolean =>
  version === 1
    ? read(join(directory, 'freezer.state'))?.trim() === 'FROZEN'
    : /^frozen 1$/m.test(read(join(directory, 'cgroup.events')) ?? '');

/** Only for a cgroup whose freeze failed half-way, and for one whose processes all have a SIGKILL pending. */
function thaw({ version, directory }: Cgroup): void {
  const [file, off] = version === 1 ? ['freezer.state', 'THAWED'] : ['cgroup.freeze', '0'];
  try {
    writeFileSync(join(directory, file), off);
  } catch {
    // Gone: then nothing is left to thaw.
  }
}

/** @returns true when no process is in it or below it, or it is gone */
export function isEmpty(cgroup: Cgroup): boolean {
  if (!exists(cgroup)) return true;
  if (cgroup.version === 2) {
    const events = read(join(cgroup.directory, 'cgroup.events'));
    return events === undefined ? !exists(cgroup) : /^populated 0$/m.test(events);
  }
  // `tasks` lists threads: a group's leader may be a zombie while its threads still write.
  return tree(cgroup.directory).every((directory) => (read(join(directory, 'tasks')) ?? '').trim() === '');
}

function tree(root: string): string[] {
  const directories = [root];
  for (const directory of directories) {
    if (directories.length > CGROUP_LIMITS.nestedMax) throw new RangeError(`too many cgroups below ${root}`);
    try {
      for (const entry of readdirSync(directory, { withFileTypes: true })) {
        if (entry.isDirectory()) directories.push(join(directory, entry.name));
      }
    } catch {
      // Removed meanwhile.
    }
  }
  return directories;
}

/** @returns process ids in it and below it; 0 stands for one that this pid namespace does not show */
const pidsIn = ({ directory }: Cgroup): number[] =>
  tree(directory).flatMap((each) =>
    (read(join(each, 'cgroup.procs')) ?? '')
      .split('\n')
      .filter((line) => line !== '')
      .map(Number),
  );

/**
 * Sends SIGKILL to every process of a container, then lets frozen ones die of it.
 *
 * @returns false if some process could not be signalled from here (another pid namespace); then nothing was thawed
 */
export async function killAll(cgroup: Cgroup, containerId: string, roots = ROOTS): Promise<boolean> {
  const kill = join(cgroup.directory, 'cgroup.kill');
  if (cgroup.version === 2 && existsSync(kill)) {
    try {
      writeFileSync(kill, '1');
      thaw(cgroup);
      return true;
    } catch {
      if (isEmpty(cgroup)) return true;
    }
  }
  const signalled = new Set<number>();
  for (let round = 0; round < CGROUP_LIMITS.killRoundsMax; round++) {
    const fresh = pidsIn(cgroup).filter((pid) => !signalled.has(pid));
    if (fresh.length === 0) {
      thaw(cgroup);
      return true;
    }
    for (const pid of fresh) {
      if (pid <= 0) return false;
      const outcome = signalGuarded(pid, containerId, 'SIGKILL', roots);
      if (outcome === 'other' || outcome === 'denied') return false;
      signalled.add(pid);
    }
  }
  return false;
}

/**
 * Lets a container die after another's SIGKILL to its first process (the engine's; the pids are out of sight here).
 *
 * On v1 a frozen process dies only once thawed, and thawing wakes all: the others would act until the first one's
 * death reaches them. So only a container with one process is thawed; on v2 a killed one dies frozen.
 * @returns false if it stays frozen
 */
export function thawKilled(cgroup: Cgroup): boolean {
  if (cgroup.version === 2) return true;
  if (pidsIn(cgroup).length > 1) return false;
  thaw(cgroup);
  return true;
}

/**
 * Removes the groups of containers that are gone, where their engine failed to: each keeps its share of the real-time budget, and
 * sooner or later no container gets any. Seen with runc 1.1 where a process ends by itself while its container is stopped: on a busy
 * machine after one handover of four.
 *
 * @param ended containers that are known to be gone: their groups need not have been there for a while
 * @returns how many were there
 */
export function removeLeftovers(
  ended: ReadonlySet<string> = new Set(),
  roots = ROOTS,
  msMin: number = CGROUP_LIMITS.leftoverMsMin,
): number {
  const names = (directory: string): string[] => {
    try {
      return readdirSync(directory, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map(({ name }) => name);
    } catch {
      return [];
    }
  };
  const removed = new Set<string>();
  // v1 has one hierarchy a folder; v2 is the mount itself.
  for (const hierarchy of ['', ...names(roots.cgroup)]) {
    const parent = join(roots.cgroup, hierarchy, 'docker');
    for (const id of names(parent).filter((name) => CONTAINER_ID.test(name))) {
      const directory = join(parent, id);
      try {
        if (!ended.has(id) && Date.now() - statSync(directory).ctimeMs < msMin) continue;
        // The kernel refuses while a process is in it.
        rmdirSync(directory);
        removed.add(id);
      } catch {
        // In use, or gone already.
      }
    }
  }
  return removed.size;
}

export const waitEmpty = (cgroup: Cgroup, msMax: number = CGROUP_LIMITS.emptyMsMax): Promise<boolean> =>
  poll(() => isEmpty(cgroup), msMax);

async function poll(done: () => boolean, msMax: number): Promise<boolean> {
  const beganMs = performance.now();
  for (;;) {
    if (done()) return true;
    const sinceMs = performance.now() - beganMs;
    if (sinceMs >= msMax) return false;
    // A timer takes a millisecond at least, and who waits for this may be falling.
    await (sinceMs < CGROUP_LIMITS.spinMsMax ? immediate() : sleep(CGROUP_LIMITS.pollMs));
  }
}

/**
 * Signals a process only if it is in that container: its pidfd is opened first, then its cgroup is read, then the pidfd
 * is signalled. If the number was given to another process meanwhile, the pidfd still means the first.
 */
export function signalGuarded(
  pid: number,
  containerId: string,
  signal: NodeJS.Signals,
  roots = ROOTS,
  send?: (pid: number, signal: NodeJS.Signals) => void,
): 'sent' | 'gone' | 'other' | 'denied' {
  if (!Number.isSafeInteger(pid) || pid <= 1) return 'other';
  const fd = pidfd(pid);
  try {
    const path = cgroupPathOf(pid, roots)?.path;
    if (path === undefined) return existsSync(join(roots.proc, String(pid))) ? 'other' : 'gone';
    if (!path.includes(containerId)) return 'other';
    if (send) send(pid, signal);
    else if (fd === undefined) process.kill(pid, signal);
    else native.pidfdSignal(fd, constants.signals[signal]);
    return 'sent';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH' ? 'gone' : 'denied';
  } finally {
    if (fd !== undefined) native.close(fd);
  }
}

/** Undefined: it is gone, or the kernel is older than 5.3 and its number has to do. */
const pidfd = (pid: number): number | undefined => {
  try {
    return native.pidfdOpen(pid);
  } catch (error) {
    if (!isNativeError(error)) throw error;
    return undefined;
  }
};

/** The line of /proc/PID/cgroup that names the freezer's hierarchy, else the unified one's. */
function cgroupPathOf(pid: number | 'self', roots: Roots): { path: string } | undefined {
  const lines = (read(join(roots.proc, String(pid), 'cgroup')) ?? '')
    .split('\n')
    .map((line) => /^\d+:([^:]*):(.*)$/.exec(line))
    .filter((match) => match !== null);
  const line =
    lines.find(([, controllers]) => controllers?.split(',').includes('freezer')) ??
    lines.find(([, controllers]) => controllers === '');
  return line?.[2] === undefined ? undefined : { path: line[2] };
}

/**
 * Which container a process is in, as the kernel says; authenticates a socket's peer by its SO_PEERCRED pid.
 *
 * The first id beyond the path that this process shares with it: a cgroup that an app made inside its own may
 * bear any name, and below another container (engine in a container) all paths begin with that one's id.
 */
export function containerOfPid(pid: number, roots = ROOTS): string | undefined {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  const path = cgroupPathOf(pid, roots)?.path.split('/');
  if (!path) return undefined;
  const own = cgroupPathOf('self', roots)?.path.split('/') ?? [];
  let shared = 0;
  while (shared < path.length && path[shared] === own[shared]) shared++;
  const beyond = path.slice(shared).find((part) => CONTAINER_ID.test(part));
  const within = shared === path.length ? path.findLast((part) => CONTAINER_ID.test(part)) : undefined;
  return CONTAINER_ID.exec(beyond ?? within ?? '')?.[0];
}

/** Clock ticks since boot at which a process began: with its pid, its identity for as long as the machine is up. */
export function startTicksOf(pid: number, roots = ROOTS): number | undefined {
  // The command name is in brackets and may hold anything, brackets and spaces too: fields count from the last one.
  const fields = read(join(roots.proc, String(pid), 'stat'))
    ?.replace(/^.*\) /s, '')
    .split(' ');
  const ticks = Number(fields?.[19]);
  return Number.isFinite(ticks) ? ticks : undefined;
}

/**
 * Whether that process of that container exists and can still act.
 *
 * A group's leader may be a zombie while its threads go on: all of them are looked at.
 */
export function isAlive(containerId: string, pid: number, roots = ROOTS): boolean {
  if (!cgroupPathOf(pid, roots)?.path.includes(containerId)) return false;
  const tasks = join(roots.proc, String(pid), 'task');
  try {
    return readdirSync(tasks).some((task) => {
      const state = read(join(tasks, task, 'stat'))?.replace(/^.*\) /s, '')[0];
      return state !== undefined && state !== 'Z' && state !== 'X';
    });
  } catch {
    return false;
  }
}
