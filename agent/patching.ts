/**
 * Makes a process that patches stand back: the lowest priority, and a control group of little weight where there can be one.
 *
 * Invariant: nothing but that process is moved, and what cannot be done is said and left: it then works at the weight it has.
 *
 * v1: a group below the agent's own in `cpu`, and in `blkio` where that has weights. v2 lets no process live beside a group below
 * its own, except in a threaded one, which has `cpu` and not `io`; at the root of the tree there is no such rule.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { ROOTS, type Roots } from '#agent/engine-cgroup.ts';
import { LIMITS } from '#agent/limits.ts';

const NAME = 'midair-patching';

interface Told {
  warn(data: object, text: string): void;
}

/** Of each hierarchy in /proc/self/cgroup: its controllers (none: v2) and where this process is in it. */
const ownGroups = (roots: Roots): { controllers: string[]; path: string }[] =>
  readFileSync(join(roots.proc, 'self', 'cgroup'), 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [, , controllers, path] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
      return path === undefined
        ? []
        : [{ controllers: (controllers ?? '').split(',').filter(Boolean), path }];
    });

/** @returns groups that it was put into, to be removed once it has ended */
function intoGroups(pid: number, roots: Roots): string[] {
  const own = ownGroups(roots);
  const made: string[] = [];
  const v1 = (controller: string, weights: Record<string, number>): void => {
    const group = own.find(({ controllers }) => controllers.includes(controller));
    if (!group) return;
    const directory = join(roots.cgroup, controller, group.path, NAME);
    mkdirSync(directory, { recursive: true });
    made.push(directory);
    let weighed = false;
    for (const [file, weight] of Object.entries(weights)) {
      if (!existsSync(join(directory, file))) continue;
      writeFileSync(join(directory, file), String(weight));
      weighed = true;
    }
    if (weighed) writeFileSync(join(directory, 'cgroup.procs'), String(pid));
  };
  v1('cpu', { 'cpu.shares': LIMITS.patchingCpuShares });
  v1('blkio', { 'blkio.bfq.weight': LIMITS.patchingIoWeight, 'blkio.weight': LIMITS.patchingIoWeight });
  const v2 = own.find(({ controllers }) => controllers.length === 0);
  if (v2 && !own.some(({ controllers }) => controllers.includes('cpu')))
    made.push(intoV2(pid, join(roots.cgroup, v2.path), v2.path === '/'));
  return made;
}

function intoV2(pid: number, own: string, isRoot: boolean): string {
  const directory = join(own, NAME);
  mkdirSync(directory, { recursive: true });
  if (!isRoot) writeFileSync(join(directory, 'cgroup.type'), 'threaded');
  writeFileSync(join(own, 'cgroup.subtree_control'), isRoot ? '+cpu +io' : '+cpu');
  writeFileSync(join(directory, 'cpu.weight'), String(LIMITS.patchingCpuWeight));
  if (existsSync(join(directory, 'io.weight')))
    writeFileSync(join(directory, 'io.weight'), String(LIMITS.patchingIoWeight));
  writeFileSync(join(directory, 'cgroup.procs'), String(pid));
  return directory;
}

/** @returns removes its groups; to be called when it has ended */
export function standBack(pid: number, log: Told, roots: Roots = ROOTS): () => void {
  let groups: string[] = [];
  try {
    groups = intoGroups(pid, roots);
  } catch (err) {
    log.warn({ err }, 'patching without a control group of little weight');
  }
  try {
    os.setPriority(pid, os.constants.priority.PRIORITY_LOW);
    // sched(7): outside of control groups sessions are weighed against each other, not processes.
    writeFileSync(join(roots.proc, String(pid), 'autogroup'), String(os.constants.priority.PRIORITY_LOW));
  } catch {
    // It has ended, or this kernel groups no sessions.
  }
  return () => {
    for (const group of groups) {
      try {
        rmdirSync(group);
      } catch {
        // Another agent's patching is in it.
      }
    }
  };
}
