/**
 * Processes of targets: which they are, and signals that reach them and no other.
 *
 * Invariant: a signal goes to a pidfd whose process was seen to be the one meant (its start time, its container) after the
 * pidfd was opened; a number that the kernel gave to another is never signalled.
 */
import { readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { containerOfPid } from '#agent/engine-cgroup.ts';
import { identify, isAlive, type ProcessId } from '#cli/processes.ts';
import { isNativeError, native } from '#handover/native.ts';

/** @returns false: it is gone. @throws NativeError `EPERM` */
export function signalKnown(known: ProcessId, signal: NodeJS.Signals, container?: string): boolean {
  let fd: number;
  try {
    fd = native.pidfdOpen(known.pid);
  } catch (error) {
    if (isNativeError(error) && error.code === 'ESRCH') return false;
    throw error;
  }
  try {
    if (!isAlive(known)) return false;
    if (container !== undefined && containerOfPid(known.pid) !== container) return false;
    native.pidfdSignal(fd, constants.signals[signal]);
    return true;
  } catch (error) {
    if (isNativeError(error) && error.code === 'ESRCH') return false;
    throw error;
  } finally {
    native.close(fd);
  }
}

/** All that are in a container now, by the kernel's word. */
export function processesOf(container: string): ProcessId[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && containerOfPid(Number(entry)) === container)
    .flatMap((entry) => identify(Number(entry)) ?? []);
}
