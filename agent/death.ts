/**
 * When a process ends, to the millisecond. A pidfd becomes readable once all of its threads are gone, unasked; but before
 * that the kernel takes its memory apart, which is most of the time that a killed program of Node's takes to be dead.
 * Whether it is on that way can be asked.
 *
 * Invariant: `onDead` is called at most once, and only after the kernel confirmed it. Where the kernel has no pidfd, it is
 * never called: the engine's own word, tens of milliseconds later, has to do.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { LIMITS } from '#agent/limits.ts';
import { isNativeError, native, READABLE } from '#handover/native.ts';

/** @returns ends the watch; idempotent */
export const watchDeath = (pid: number, onDead: () => void): (() => void) => {
  let fd: number;
  try {
    fd = native.pidfdOpen(pid);
  } catch (error) {
    if (!isNativeError(error)) throw error;
    if (error.code === 'ESRCH') setImmediate(onDead);
    return () => undefined;
  }
  let open = true;
  const watcher = native.watch(fd, READABLE, () => {
    end();
    onDead();
  });
  watcher.keepAlive(false);
  const end = (): void => {
    if (!open) return;
    open = false;
    watcher.close();
    native.close(fd);
  };
  return end;
};

/** PF_EXITING of the kernel's include/linux/sched.h: set when a thread has left user code for good. */
const EXITING = 0x4;
/** Of the signals that wait for a thread: a killed process's threads have it until they end. */
const KILLED = 1 << 8;

/** The ninth and the 31st field of proc(5)'s stat; the second, the name, may hold anything. */
const threadAt = (path: string): { exiting: boolean; killed: boolean } => {
  const stat = readFileSync(path, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { exiting: (Number(fields[6]) & EXITING) !== 0, killed: (Number(fields[28]) & KILLED) !== 0 };
};

/**
 * Whether no thread of the process will ever run its program again: dead in all that others could notice. Where only threads
 * are left that were killed and have not had a core since, they get one before all that is ordinary: a successor waits for them.
 */
export const isEnding = (pid: number): boolean => {
  try {
    // Most often the answer, and all that is read of a process that lives.
    if (!threadAt(`/proc/${pid}/stat`).exiting) return false;
    const left = readdirSync(`/proc/${pid}/task`).filter((id) => hasten(pid, id));
    return left.length === 0;
  } catch (error) {
    return isGone(error);
  }
};

/** @returns whether it is still to end */
const hasten = (pid: number, id: string): boolean => {
  try {
    const { exiting, killed } = threadAt(`/proc/${pid}/task/${id}/stat`);
    if (!exiting && killed) setPriority(Number(id), LIMITS.workersFifoPriority);
    return !exiting;
  } catch (error) {
    return !isGone(error);
  }
};

/**
 * One that is ending gives up its real time: the kernel takes its memory apart at its own priority, for milliseconds, on a
 * core that its successor needs now.
 */
export const yieldCore = (pid: number): void => {
  try {
    for (const id of readdirSync(`/proc/${pid}/task`)) setPriority(Number(id), 0);
  } catch (error) {
    if (!isGone(error)) throw error;
  }
};

const setPriority = (id: number, priority: number): void => {
  try {
    native.setFifo(id, priority);
  } catch (error) {
    // It has ended, or we may not: then it takes as long as it takes.
    if (!isNativeError(error)) throw error;
  }
};

const isGone = (error: unknown): boolean =>
  ['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '');
