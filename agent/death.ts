/**
 * When a process ends, to the millisecond: a pidfd becomes readable once all of its threads are gone.
 *
 * Invariant: `onDead` is called at most once, and only after the kernel confirmed it. Where the kernel has no pidfd, it is
 * never called: the engine's own word, tens of milliseconds later, has to do.
 */
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
