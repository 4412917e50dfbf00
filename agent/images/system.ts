/** What installation needs of the operating system beside plain files: passed in, so that tests hold time and chance. */

import { stat, statfs } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

export interface System {
  fetch: typeof fetch;
  /** Rejects when the signal fires. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** In [0, 1). */
  random(): number;
  /** Space for an unprivileged writer at `path`, and which disk that is; undefined if the path cannot be seen. */
  freeSpace(path: string): Promise<{ disk: number; bytes: number } | undefined>;
}

export const system: System = {
  fetch: (...request) => fetch(...request),
  sleep: (ms, signal) => sleep(ms, undefined, { signal }),
  random: Math.random,
  async freeSpace(path) {
    try {
      const [file, space] = await Promise.all([stat(path), statfs(path)]);
      return { disk: file.dev, bytes: space.bavail * space.bsize };
    } catch {
      return undefined;
    }
  },
};
