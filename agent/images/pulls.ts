/**
 * Which images were being pulled, on the disk: an engine that loses its client in the middle of a pull may keep the image
 * and never name it, and nobody would find it again.
 *
 * Invariant: an image that may be left so is noted before its pull, in an empty file of its name.
 */
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { diskError } from '#agent/images/errors.ts';

export interface Pulls {
  /** @throws ImageError `DISK`, `DISK_FULL` */
  begin(id: string): Promise<void>;
  /** Ids of all that were begun since {@link end}, also by an earlier process. */
  begun(): Promise<string[]>;
  end(): Promise<void>;
}

export const openPulls = (directory: string): Pulls => ({
  async begin(id) {
    try {
      await mkdir(directory, { recursive: true });
      await writeFile(join(directory, id.replace('sha256:', '')), '', { mode: 0o600, flush: true });
    } catch (error) {
      throw diskError(error, `noting a pull in ${directory}`);
    }
  },
  async begun() {
    const names = await readdir(directory).catch(() => []);
    return names.filter((name) => /^[0-9a-f]{64}$/.test(name)).map((name) => `sha256:${name}`);
  },
  end: () => rm(directory, { recursive: true, force: true }),
});
