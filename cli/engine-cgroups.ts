/**
 * The control groups of private engines' containers.
 *
 * Invariant: what a dead engine left running can be found, thawed and killed without an engine, by the container's
 * id. The parent is the one of any Docker engine, where an agent looks too; it goes when the last container is gone.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeLeftovers } from '#agent/engine-cgroup.ts';
import { LIMITS } from '#cli/limits.ts';

export const CGROUP_PARENT = '/docker';
const MOUNT = '/sys/fs/cgroup';

/** v2: the mount itself. v1: one directory a controller. */
function hierarchies(): string[] {
  if (existsSync(join(MOUNT, 'cgroup.controllers'))) return [MOUNT];
  try {
    return readdirSync(MOUNT, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(MOUNT, entry.name));
  } catch {
    return [];
  }
}

/**
 * Real-time share for all private engines' containers. False where the kernel has no RT_GROUP_SCHED or another
 * group took the share: dockerd would then refuse to start containers if it were asked for it.
 */
export function grantRealTime(): boolean {
  const cpu = join(MOUNT, 'cpu');
  if (!existsSync(join(cpu, 'cpu.rt_runtime_us'))) return false;
  const parent = join(cpu, CGROUP_PARENT);
  removeLeftovers();
  try {
    mkdirSync(parent, { recursive: true });
    writeFileSync(join(parent, 'cpu.rt_runtime_us'), String(LIMITS.realTimeRuntimeUs));
    return true;
  } catch {
    return false;
  }
}

/** The daemon unpacks layers: beside what flies it stands back. Its containers are in groups of their own. v1 only. */
export function standBack(pid: number): void {
  const group = join(MOUNT, 'cpu', 'midair-engine');
  try {
    if (!existsSync(join(MOUNT, 'cpu', 'cpu.shares'))) return;
    mkdirSync(group, { recursive: true });
    writeFileSync(join(group, 'cpu.shares'), String(LIMITS.engineCpuShares));
    writeFileSync(join(group, 'cgroup.procs'), String(pid));
  } catch {
    // Not ours to arrange here: then it has the weight of everything else.
  }
}

/** Ends what still runs in these containers, frozen or not, and removes their groups. No engine is asked. */
export async function killContainers(containerIds: string[]): Promise<void> {
  const groups = hierarchies().flatMap((hierarchy) =>
    containerIds.map((id) => join(hierarchy, CGROUP_PARENT, id)).filter((group) => existsSync(group)),
  );
  const endMs = performance.now() + LIMITS.processGoneMsMax;
  for (;;) {
    const left = groups.filter((group) => !endGroup(group));
    if (left.length === 0 || performance.now() > endMs) return;
    await sleep(20);
  }
}

/** One try; true when the group is gone. */
function endGroup(group: string): boolean {
  try {
    for (const pid of readFileSync(join(group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean)) {
      process.kill(Number(pid), 'SIGKILL');
    }
  } catch {
    // Gone meanwhile: the directory tells.
  }
  // On v1 a killed frozen process dies only once it is thawed; nothing runs in between, the signal comes first.
  write(join(group, 'freezer.state'), 'THAWED');
  write(join(group, 'cgroup.freeze'), '0');
  return removeDirectory(group);
}

function write(file: string, text: string): void {
  try {
    if (existsSync(file)) writeFileSync(file, text);
  } catch {
    // The group went away.
  }
}

function removeDirectory(group: string): boolean {
  try {
    rmdirSync(group);
    return true;
  } catch {
    return !existsSync(group);
  }
}

/** Removes the parent groups where they are empty; where another engine uses them they stay. */
export function removeParents(): void {
  for (const hierarchy of hierarchies()) removeDirectory(join(hierarchy, CGROUP_PARENT));
}
