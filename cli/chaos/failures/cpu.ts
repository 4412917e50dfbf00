/**
 * Busy loops in the target's own control group, so that they take from its share and from whoever has the least.
 *
 * Invariant: each is a process of ours that ends by itself when its time is over, when its target dies, and when it is never
 * told to begin; it is in the ledger before it is told. Only the processor's group is joined where the kernel keeps them apart
 * (cgroup v1), so that a fence finds the target's own processes alone.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ChaosError, textOf } from '#cli/chaos/errors.ts';
import type { Inject } from '#cli/chaos/failures/deed.ts';
import { thingText } from '#cli/chaos/targets.ts';
import { identify } from '#cli/processes.ts';

const CGROUP = '/sys/fs/cgroup';

/** Where a process is put to share a target's processor; undefined if the kernel's files do not show it. */
export function processorGroupOf(pid: number): string | undefined {
  const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8')
    .split('\n')
    .map((line) => /^\d+:([^:]*):(.*)$/.exec(line))
    .filter((found) => found !== null);
  const v1 = lines.find(([, controllers]) => controllers?.split(',').includes('cpu'));
  const [, , path = ''] = v1 ?? lines.find(([, controllers]) => controllers === '') ?? [];
  const roots = v1 === undefined ? [CGROUP] : [join(CGROUP, v1[1] ?? ''), join(CGROUP, 'cpu')];
  return roots
    .map((root) => join(root, path))
    .find((directory) => existsSync(join(directory, 'cgroup.procs')));
}

export const cpu: Inject = async ({ target, parameters, leftMs, note }) => {
  const { pid, startTicks } = target.process;
  const group = processorGroupOf(pid);
  if (group === undefined)
    throw new ChaosError('TARGET_GONE', `${thingText(target)} is in no control group here`);
  const program = join(import.meta.dirname, `burner.${import.meta.filename.endsWith('.ts') ? 'ts' : 'js'}`);
  const args = [program, String(leftMs()), String(pid), startTicks, group];
  const burners = Array.from({ length: parameters.cores }, () =>
    spawn(process.execPath, args, { stdio: ['pipe', 'ignore', 'ignore'], detached: true }),
  );
  try {
    for (const one of burners) {
      one.on('error', () => undefined);
      one.stdin.on('error', () => undefined);
      one.unref();
    }
    const processes = burners.flatMap((one) => identify(one.pid ?? -1) ?? []);
    if (processes.length < burners.length) throw new ChaosError('INTERNAL', 'a busy loop does not start');
    note({ type: 'end', processes }, `${parameters.cores} busy loops beside ${thingText(target)}`);
    for (const known of processes) writeFileSync(join(group, 'cgroup.procs'), String(known.pid));
    for (const one of burners) one.stdin.end('go');
  } catch (error) {
    // Never told to begin: with their standard input closed they end.
    for (const one of burners) one.stdin.destroy();
    if (error instanceof ChaosError) throw error;
    throw new ChaosError('TARGET_GONE', `${group} cannot be joined: ${textOf(error)}`, { cause: error });
  }
  return `${burners.length} busy ${burners.length === 1 ? 'loop' : 'loops'} in ${group}`;
};
