/**
 * One JSON value that survives `kill -9` and a power cut.
 *
 * Invariant: the file is always a whole old or a whole new value: written beside, synced, renamed, and the
 * folder synced. `write` returns only when the value is durable; it blocks, since what follows must not overtake it.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

export interface Journal<T> {
  readonly value: T;
  /** Set if the file was there and could not be read; it was kept beside as `….corrupt`. */
  readonly damaged: Error | null;
  write(value: T): void;
}

const sync = (path: string): void => {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
};

/**
 * @param parse throws if the value is not of this journal's shape
 * @param empty the value when there is no file yet, or none that can be read
 */
export const openJournal = <T>(path: string, parse: (value: unknown) => T, empty: T): Journal<T> => {
  mkdirSync(dirname(path), { recursive: true });
  let value = empty;
  let damaged: Error | null = null;
  try {
    value = parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') {
      damaged = new Error(`the journal ${path} cannot be read; it is kept as ${path}.corrupt`, { cause });
      renameSync(path, `${path}.corrupt`);
    }
  }
  return {
    get value() {
      return value;
    },
    damaged,
    write(next) {
      const fd = openSync(`${path}.new`, 'w', 0o600);
      try {
        writeSync(fd, JSON.stringify(next));
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(`${path}.new`, path);
      sync(dirname(path));
      value = next;
    },
  };
};
