/**
 * When a process ends, to the millisecond. A pidfd becomes readable once all of its threads are gone, unasked; but before
 * that the kernel takes its memory apart, which is most of the time that a killed program of Node's takes to be dead.
 * Whether it is on that way can be asked; and who is on it is kept out of the way of those who fly.
 *
 * Invariant: `onDead` is called at most once, and only after the kernel confirmed it. Where the kernel has no pidfd, it is
 * never called: the engine's own word, tens of milliseconds later, has to do.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { LIMITS } from '#agent/limits.ts';
import { parseStat } from '#agent/proc-stat.ts';
import { isNativeError, native, nowUs, READABLE } from '#handover/native.ts';

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

interface Thread {
  readonly isExiting: boolean;
  readonly isKilled: boolean;
  /** Without real time. */
  readonly isOrdinary: boolean;
}

/** @returns undefined if there is none any more */
const threadAt = (path: string): Thread | undefined => {
  const line = unlessGone(() => readFileSync(path, 'latin1'));
  if (line === undefined) return undefined;
  const { field } = parseStat(line);
  return {
    isExiting: (Number(field(9)) & EXITING) !== 0,
    isKilled: (Number(field(31)) & KILLED) !== 0,
    isOrdinary: Number(field(41)) === 0,
  };
};

const threadsOf = (pid: number): { id: number; thread: Thread }[] =>
  (unlessGone(() => readdirSync(`/proc/${pid}/task`)) ?? []).flatMap((id) => {
    const thread = threadAt(`/proc/${pid}/task/${id}/stat`);
    return thread === undefined ? [] : { id: Number(id), thread };
  });

/** Whether its first thread has left the program: most often all others are about to. One short file is read. */
export const beginsToEnd = (pid: number): boolean => threadAt(`/proc/${pid}/stat`)?.isExiting ?? true;

/** Where there is no other core, what can be interrupted of an end is to be interrupted. */
const ENDING = availableParallelism() > 1 ? LIMITS.endingFifoPriority : 0;
/** What cannot be told to end any more is still to get a core to do it. */
const KILLED_FIRST = ENDING || LIMITS.workersFifoPriority;

/**
 * Whether no thread of the process will ever run its program again: dead in all that others could notice.
 *
 * What is left of it gets real time above all who fly: those that were killed and have not had a core since end at once, as
 * a successor waits for them; and the last, on which the kernel takes the memory apart for milliseconds without
 * letting anyone else run there, is then one beside whom the kernel wakes nobody with real time, but on another core.
 */
export const isEnding = (pid: number): boolean => {
  if (!beginsToEnd(pid)) return false;
  const threads = threadsOf(pid);
  for (const { id, thread } of threads) {
    if (thread.isExiting) setPriority(id, ENDING);
    else if (thread.isKilled) setPriority(id, KILLED_FIRST);
  }
  return threads.every(({ thread }) => thread.isExiting);
};

/**
 * For one that is told to end, whenever it does: its end is to hold up nobody who flies, either.
 * @returns ends the watch; idempotent
 */
export const escort = (pid: number): (() => void) => {
  const timer = native.timer(() => {
    if (isEnding(pid)) timer.close();
  });
  const intervalUs = LIMITS.lookMs * 1000;
  timer.set(nowUs() + intervalUs, intervalUs);
  return () => timer.close();
};

/**
 * Real time for all threads of a process that have none, so that the kernel finds each another core than one that is taken: a
 * loop waits for its helpers where they collect garbage or compile for it.
 * @returns gives them back what they had
 */
export const lift = (pid: number): (() => void) => {
  const lifted = threadsOf(pid).flatMap(({ id, thread }) => (thread.isOrdinary ? id : []));
  for (const id of lifted) setPriority(id, LIMITS.urgentFifoPriority);
  return () => {
    for (const id of lifted) setPriority(id, 0);
  };
};

/** SCHED_FIFO at that priority for one thread (0: the calling one), or none with priority 0; where the system refuses, it stays as it is. */
export const setPriority = (id: number, priority: number): void => {
  try {
    native.setFifo(id, priority);
  } catch (error) {
    // It has ended, or we may not: then it takes as long as it takes.
    if (!isNativeError(error)) throw error;
  }
};

/** @returns undefined if what is read is of a process or thread that has ended */
const unlessGone = <T>(read: () => T): T | undefined => {
  try {
    return read();
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
};
