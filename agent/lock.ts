/**
 * The update lock of a device's apps: while an app holds it, the app is not updated. balena's files and their meaning:
 * whoever creates the file holds it, whoever removes it gives it back.
 *
 * Invariant: during a transfer the agent holds it itself, taken with O_EXCL, so that no app can take it once the
 * transfer has begun.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where an app finds it: `/tmp/balena/updates.lock`. */
export const LOCK_MOUNT = '/tmp/balena';
export const LOCK_FILE = 'updates.lock';
const OURS = 'midair-agent\n';

export interface UpdateLock {
  /** @returns whether it is ours now; it may have been already */
  take(): boolean;
  /** Whether somebody else holds it. */
  held(): boolean;
  /** Gives it back if it is ours. Never fails: what remains is found as ours at the next start. */
  release(): void;
}

/** @param directory on this host; mounted into the apps at {@link LOCK_MOUNT} */
export const createLock = (directory: string): UpdateLock => {
  mkdirSync(directory, { recursive: true });
  const path = join(directory, LOCK_FILE);
  const content = (): string | undefined => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return undefined;
    }
  };
  return {
    take() {
      try {
        writeFileSync(path, OURS, { flag: 'wx' });
        return true;
      } catch {
        return content() === OURS;
      }
    },
    held() {
      const text = content();
      return text !== undefined && text !== OURS;
    },
    release() {
      if (content() === OURS) rmSync(path, { force: true });
    },
  };
};
