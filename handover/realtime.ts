/**
 * SCHED_FIFO for the app's event loop, and if it cannot be had, which step is missing. Never fails: without it
 * the drone flies as well as the machine's load allows.
 */
import { readFileSync } from 'node:fs';
import { BOUNDS } from '#handover/bounds.ts';
import { isNativeError, native } from '#handover/native.ts';

const CAP_SYS_NICE = 23n;
const PRIORITY = { flies: BOUNDS.fifoPriority, standsBy: BOUNDS.standByFifoPriority, nobody: 0 };

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
};

const missing = (): string => {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(read('/proc/self/status') ?? '')?.[1];
  if (effective !== undefined && ((BigInt(`0x${effective}`) >> CAP_SYS_NICE) & 1n) === 0n) {
    return 'the container lacks CAP_SYS_NICE: start it with --cap-add SYS_NICE';
  }
  const group =
    read('/sys/fs/cgroup/cpu/cpu.rt_runtime_us') ?? read('/sys/fs/cgroup/cpu,cpuacct/cpu.rt_runtime_us');
  if (group === '0') {
    return 'the container has no real-time budget: set its CpuRealtimeRuntime, with a daemon started with --cpu-rt-runtime';
  }
  return 'the kernel refuses it: its real-time budget (RT_GROUP_SCHED) or a seccomp filter is in the way';
};

/**
 * Of this thread: who flies is above who stands by.
 * @returns undefined if it is so now, else what is missing
 */
export const setFifo = (whose: 'flies' | 'standsBy' | 'nobody'): string | undefined => {
  try {
    native.setFifo(0, PRIORITY[whose]);
    return undefined;
  } catch (error) {
    if (!isNativeError(error)) throw error;
    return `${error.code}: ${missing()}`;
  }
};
