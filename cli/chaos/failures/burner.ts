/**
 * `burner FOR_MS PID START_TICKS GROUP`: told to begin on standard input, keeps a core busy until its time is over or that
 * process is gone.
 *
 * Invariant: it ends by itself, whoever started it. It looks often: while it is in a dead container's control group, the
 * engine cannot remove that, and tries for a third of a second only. What is left then, the last burner removes.
 */
import { readSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { CHAOS } from '#cli/chaos/limits.ts';
import { isAlive } from '#cli/processes.ts';

const [forMs, pid, startTicks = '', group = ''] = process.argv.slice(2);
const target = { pid: Number(pid), startTicks };
const endMs = performance.now() + Math.min(Number(forMs), CHAOS.durationMsMax);

// Blocks until it is told, or until whoever would tell is gone.
const told = readSync(0, Buffer.alloc(2)) > 0;
while (told && performance.now() < endMs && isAlive(target)) {
  const sliceEndMs = performance.now() + CHAOS.burnSliceMs;
  while (performance.now() < sliceEndMs);
}
if (told && !isAlive(target)) {
  try {
    // Its end takes a while: not in there.
    writeFileSync(join(dirname(group), 'cgroup.procs'), String(process.pid));
    rmdirSync(group);
  } catch {
    // The engine has removed it, or a process that is still in it is to.
  }
}
