/**
 * While the agent fetches and patches it stands back: its process is moved into a control group of little weight, and back.
 *
 * Invariant: whatever becomes of the work, the process is back in its own group when it is over. A handover is never under way
 * then. Control groups v1 only: v2 lets no process live beside a group below it. Where it cannot be done, it works at full weight.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LIMITS } from '#agent/limits.ts';
import type { Log } from '#agent/log.ts';

/** Of the v1 controller `cpu`, alone or with others; undefined: there is none. */
const ownGroup = (): string | undefined => {
  for (const line of readFileSync('/proc/self/cgroup', 'utf8').split('\n')) {
    const [, controllers = '', path = ''] = line.split(':');
    if (controllers.split(',').includes('cpu')) return join('/sys/fs/cgroup', controllers, path);
  }
  return undefined;
};

export const standingBack = async <T>(log: Log, work: () => Promise<T>): Promise<T> => {
  let back = (): void => undefined;
  try {
    const own = ownGroup();
    if (own !== undefined) {
      const group = join(own, 'midair-patching');
      mkdirSync(group, { recursive: true });
      writeFileSync(join(group, 'cpu.shares'), String(LIMITS.patchingCpuShares));
      writeFileSync(join(group, 'cgroup.procs'), String(process.pid));
      back = () => writeFileSync(join(own, 'cgroup.procs'), String(process.pid));
    }
  } catch (err) {
    log.warn({ err }, 'patching at full weight: no control group of its own');
  }
  try {
    return await work();
  } finally {
    back();
  }
};
