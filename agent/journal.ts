/**
 * One JSON value that survives `kill -9`, a power cut and a full disk.
 *
 * Invariant: the file has two slots (agent/slots.ts), written in turn and in place, so that the one before the last write
 * is always whole; its space is taken when it is made, so that no later write needs any. `write` returns only when the
 * value is durable; it blocks, since what follows must not overtake it. So is `value` at the start: what a former life was
 * killed over may be in the cache alone, and a power cut would take it back.
 */
import {
  closeSync,
  copyFileSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { AgentError } from '#agent/errors.ts';
import { encodeSlot, newestSlot, slotAt, slotBytes } from '#agent/slots.ts';

export interface Journal<T> {
  readonly value: T;
  /** Set if there was something that could not be read; it was kept beside as `….corrupt`. */
  readonly damaged: Error | null;
  /** @throws AgentError `JOURNAL` if the value does not fit, or the disk refuses */
  write(value: T): void;
  close(): void;
}

export interface JournalOptions<T> {
  readonly path: string;
  /** Room for one value, in bytes of JSON. */
  readonly bytesMax: number;
  /** Throws if the value is not of this journal's shape. */
  readonly parse: (value: unknown) => T;
  /** The value when there is none yet, or none that can be read. */
  readonly empty: T;
}

/** What a journal needs of the operating system. */
export interface JournalFiles {
  /** The file, at least that long: its space is taken, and its name durable, before this returns. */
  open(path: string, bytes: number): JournalFile;
  /** Keeps a copy beside it. */
  keep(path: string, as: string): void;
}
export interface JournalFile {
  /** From its beginning; what is missing stays as it is. */
  read(into: Buffer): void;
  write(bytes: Uint8Array, at: number): void;
  /** Returns once everything that was written is durable. */
  sync(): void;
  close(): void;
}

/** A new file's name must be durable too, before anyone relies on it. */
const syncDirectory = (path: string): void => {
  const fd = openSync(dirname(path), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
};

const realFiles: JournalFiles = {
  open(path, bytes) {
    mkdirSync(dirname(path), { recursive: true });
    closeSync(openSync(path, 'a+', 0o600));
    const fd = openSync(path, 'r+');
    const { size } = fstatSync(fd);
    if (size < bytes) {
      writeSync(fd, Buffer.alloc(bytes - size), 0, bytes - size, size);
      fsyncSync(fd);
      syncDirectory(path);
    }
    return {
      read: (into) => void readSync(fd, into, 0, into.length, 0),
      write: (data, at) => void writeSync(fd, data, 0, data.length, at),
      sync: () => fdatasyncSync(fd),
      close: () => closeSync(fd),
    };
  },
  keep: copyFileSync,
};

/** The latest value of a journal that another process writes; undefined if there is none that can be read. */
export const peekJournal = (path: string): unknown => {
  try {
    const latest = newestSlot(readFileSync(path));
    return latest && JSON.parse(latest.text);
  } catch {
    return undefined;
  }
};

/** @throws AgentError `JOURNAL` if the file cannot be made or opened */
export const openJournal = <T>(
  { path, bytesMax, parse, empty }: JournalOptions<T>,
  files: JournalFiles = realFiles,
): Journal<T> => {
  const slots = Buffer.alloc(2 * slotBytes(bytesMax));
  const failed = (doing: string, cause: unknown): AgentError =>
    new AgentError(
      'JOURNAL',
      `cannot ${doing} the journal ${path}: ${(cause as Error).message}; is the disk full or read-only?`,
      {
        cause,
      },
    );
  let file: JournalFile;
  try {
    file = files.open(path, slots.length);
    file.read(slots);
  } catch (cause) {
    throw failed('open', cause);
  }
  const latest = newestSlot(slots);
  let sequence = latest?.sequence ?? 0;
  let value = empty;
  let damaged: Error | null = null;
  try {
    if (latest) value = parse(JSON.parse(latest.text));
    else if (!slots.equals(Buffer.alloc(slots.length))) throw new Error('neither of its slots is whole');
  } catch (cause) {
    damaged = new Error(`the journal ${path} cannot be read; it is kept as ${path}.corrupt`, { cause });
    files.keep(path, `${path}.corrupt`);
  }

  const journal: Journal<T> = {
    get value() {
      return value;
    },
    damaged,
    write(next) {
      const body = Buffer.from(JSON.stringify(next));
      if (body.length > bytesMax) {
        throw new AgentError(
          'JOURNAL',
          `a value of ${body.length} bytes does not fit the journal ${path} (${bytesMax})`,
        );
      }
      try {
        file.write(encodeSlot(sequence + 1, body), slotAt(sequence + 1, bytesMax));
        file.sync();
      } catch (cause) {
        throw failed('write', cause);
      }
      sequence++;
      value = next;
    },
    close() {
      file.close();
    },
  };
  if (latest) {
    // The same bytes in the same place: torn or not they are the same if they were durable, and if they were not, as
    // after a sync that failed, the other slot is the only one that is: it must stay as it is.
    try {
      file.write(latest.bytes, slotAt(latest.sequence, bytesMax));
      file.sync();
    } catch (cause) {
      throw failed('write', cause);
    }
  }
  return journal;
};
