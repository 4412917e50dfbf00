/**
 * Surveys of layers (deltas/survey.ts) as files, so that a push reads only the layers that are new.
 *
 * Invariant: nothing depends on them. A file appears whole or not at all; one that is missing, spoilt or cannot be written
 * costs the time to read its layer again, and nothing else. A layer never changes, so neither does its survey.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { SurveyStore } from '#deltas/index.ts';

/**
 * @param directory made when it is first needed
 * @param scratch   for files that are not whole yet, on the same file system; who owns it sweeps it
 */
export function surveyFiles(directory: string, scratch: string): SurveyStore {
  const place = (diffId: string): string => {
    const hex = diffId.slice('sha256:'.length);
    return join(directory, hex.slice(0, 2), hex);
  };
  return {
    get: (diffId) => readFile(place(diffId)).catch(() => undefined),
    async put(diffId, bytes) {
      const part = join(scratch, randomBytes(12).toString('hex'));
      try {
        const file = await open(part, 'wx');
        try {
          await file.writeFile(bytes);
          await file.sync();
        } finally {
          await file.close();
        }
        await mkdir(dirname(place(diffId)), { recursive: true });
        await rename(part, place(diffId));
      } catch {
        await rm(part, { force: true });
      }
    },
  };
}
