/**
 * One JSON value that survives `kill -9`, a power cut and a full disk.
 *
 * Invariant: the file has two slots, written in turn and in place, so that the one before the last write is always whole;
 * its space is taken when it is made, so that no later write needs any. `write` returns only when the value is durable; it
 * blocks, since what follows must not overtake it.
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
import { crc32 } from 'node:zlib';
import { AgentError } from '#agent/errors.ts';

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

/** Before each value: magic, CRC-32 of what follows it, sequence number, length; little-endian. */
const HEADER_BYTES = 16;
const MAGIC = 0x314a_444d; // "MDJ1"

/** A new file's name must be durable too, before anyone relies on it. */
const syncDirectory = (path: string): void => {
  const fd = openSync(dirname(path), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
};

const readSlot = (slot: Buffer): { sequence: number; text: string } | undefined => {
  const length = slot.readUInt32LE(12);
  if (slot.readUInt32LE(0) !== MAGIC || length > slot.length - HEADER_BYTES) return undefined;
  if (slot.readUInt32LE(4) !== crc32(slot.subarray(8, HEADER_BYTES + length))) return undefined;
  return { sequence: slot.readUInt32LE(8), text: slot.toString('utf8', HEADER_BYTES, HEADER_BYTES + length) };
};

const latestOf = (slots: Buffer): ReturnType<typeof readSlot> => {
  const slotBytes = slots.length / 2;
  const [first, second] = [slots.subarray(0, slotBytes), slots.subarray(slotBytes)].map(readSlot);
  return first && second ? (first.sequence > second.sequence ? first : second) : (first ?? second);
};

/** The latest value of a journal that another process writes; undefined if there is none that can be read. */
export const peekJournal = (path: string): unknown => {
  try {
    const latest = latestOf(readFileSync(path));
    return latest && JSON.parse(latest.text);
  } catch {
    return undefined;
  }
};

/** @throws AgentError `JOURNAL` if the file cannot be made or opened */
export const openJournal = <T>({ path, bytesMax, parse, empty }: JournalOptions<T>): Journal<T> => {
  const slotBytes = HEADER_BYTES + bytesMax;
  const slots = Buffer.alloc(2 * slotBytes);
  const failed = (doing: string, cause: unknown): AgentError =>
    new AgentError(
      'JOURNAL',
      `cannot ${doing} the journal ${path}: ${(cause as Error).message}; is the disk full or read-only?`,
      {
        cause,
      },
    );
  let fd: number;
  try {
    mkdirSync(dirname(path), { recursive: true });
    fd = openSync(path, 'a+', 0o600);
    closeSync(fd);
    fd = openSync(path, 'r+');
    const { size } = fstatSync(fd);
    if (size < slots.length) {
      writeSync(fd, slots, 0, slots.length - size, size);
      fsyncSync(fd);
      syncDirectory(path);
    }
    readSync(fd, slots, 0, slots.length, 0);
  } catch (cause) {
    throw failed('open', cause);
  }
  const latest = latestOf(slots);
  let sequence = latest?.sequence ?? 0;
  let value = empty;
  let damaged: Error | null = null;
  try {
    if (latest) value = parse(JSON.parse(latest.text));
    else if (slots.some((byte) => byte !== 0)) throw new Error('neither of its slots is whole');
  } catch (cause) {
    damaged = new Error(`the journal ${path} cannot be read; it is kept as ${path}.corrupt`, { cause });
    copyFileSync(path, `${path}.corrupt`);
  }

  return {
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
      const slot = Buffer.alloc(HEADER_BYTES + body.length);
      slot.writeUInt32LE(MAGIC, 0);
      slot.writeUInt32LE(sequence + 1, 8);
      slot.writeUInt32LE(body.length, 12);
      body.copy(slot, HEADER_BYTES);
      slot.writeUInt32LE(crc32(slot.subarray(8)), 4);
      try {
        writeSync(fd, slot, 0, slot.length, ((sequence + 1) % 2) * slotBytes);
        fdatasyncSync(fd);
      } catch (cause) {
        throw failed('write', cause);
      }
      sequence++;
      value = next;
    },
    close() {
      closeSync(fd);
    },
  };
};
