/**
 * What was injected and is to be undone, on disk; and the readable history of it.
 *
 * Invariant: `append` returns when the record is durable, and an injection is in here, with all that undoing it needs, before
 * it is done. Injector and watchdog both append, a record in one write; one that was torn by a power cut is told by its
 * checksum and skipped, and costs no other, since each begins on a new line.
 */
import {
  closeSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import * as v from 'valibot';
import { FAILURES } from '#cli/chaos/experiment.ts';
import { CHAOS } from '#cli/chaos/limits.ts';

const process = v.object({ pid: v.pipe(v.number(), v.safeInteger(), v.minValue(2)), startTicks: v.string() });

/** Everything that undoing needs: neither the engine nor the target's good will. */
const undoSchema = v.variant('type', [
  v.object({ type: v.literal('nothing') }),
  /** They stand still by SIGSTOP. */
  v.object({ type: v.literal('continue'), processes: v.array(process) }),
  /** Of our own. */
  v.object({ type: v.literal('end'), processes: v.array(process) }),
  v.object({ type: v.literal('remove'), file: v.string() }),
  v.object({ type: v.literal('clear'), control: v.string(), fault: v.string(), process }),
]);
export type Undo = v.InferOutput<typeof undoSchema>;

const time = v.pipe(v.number(), v.safeInteger());
const injection = v.string();
const recordSchema = v.variant('type', [
  v.object({ type: v.literal('created'), atMs: time, experiment: v.string(), text: v.string() }),
  v.object({ type: v.literal('ended'), atMs: time, experiment: v.string(), text: v.string() }),
  /** Somebody was meant, and nothing was done. */
  v.object({ type: v.literal('passed'), atMs: time, experiment: v.string(), text: v.string() }),
  v.object({
    type: v.literal('begin'),
    ...{ atMs: time, injection, experiment: v.string(), dueMs: time, boot: v.string() },
    failure: v.picklist(FAILURES),
    target: v.string(),
    undo: undoSchema,
    text: v.string(),
  }),
  /** More to undo than was known at first. */
  v.object({ type: v.literal('more'), atMs: time, injection, undo: undoSchema, text: v.string() }),
  v.object({ type: v.literal('on'), atMs: time, injection, text: v.string() }),
  v.object({ type: v.literal('failed'), atMs: time, injection, text: v.string() }),
  v.object({
    type: v.literal('undone'),
    ...{ atMs: time, injection, text: v.string() },
    by: v.picklist(['injector', 'watchdog', 'next start']),
  }),
  v.object({ type: v.literal('not-undone'), atMs: time, injection, text: v.string() }),
]);
export type LedgerRecord = v.InferOutput<typeof recordSchema>;
export type Begun = Extract<LedgerRecord, { type: 'begin' }>;

export interface Open {
  readonly begun: Begun;
  readonly undos: readonly Undo[];
}

export class Ledger {
  readonly path: string;
  readonly #fd: number;

  /** @throws what the file system says */
  constructor(path: string) {
    this.path = path;
    this.#fd = openSync(path, 'a', 0o600);
    syncDirectory(path);
  }

  append(record: LedgerRecord): void {
    const json = JSON.stringify(record);
    const bytes = Buffer.from(`\n${checksum(json)} ${json}\n`);
    if (bytes.length > CHAOS.recordBytesMax) throw new RangeError(`a record of ${bytes.length} bytes`);
    if (writeSync(this.#fd, bytes) !== bytes.length)
      throw new Error(`${this.path} takes no more: is its disk full?`);
    fdatasyncSync(this.#fd);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

const checksum = (text: string): string => crc32(text).toString(16).padStart(8, '0');

/** All whole records, oldest first. A ledger that is not there yet has none. */
export function readLedger(path: string): LedgerRecord[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return parse(text);
}

const parse = (text: string): LedgerRecord[] => text.split('\n').flatMap((line) => parseLine(line) ?? []);

function parseLine(line: string): LedgerRecord | undefined {
  const json = line.slice(9);
  if (json === '' || line.slice(0, 8) !== checksum(json)) return undefined;
  const result = v.safeParse(recordSchema, JSON.parse(json));
  return result.success ? result.output : undefined;
}

/** What is not undone yet, as the records come. */
export class Openings {
  readonly #open = new Map<string, { begun: Begun; undos: Undo[] }>();

  get all(): Open[] {
    return [...this.#open.values()];
  }

  get(injection: string): Open | undefined {
    return this.#open.get(injection);
  }

  take(record: LedgerRecord): void {
    switch (record.type) {
      case 'begin':
        this.#open.set(record.injection, { begun: record, undos: [record.undo] });
        return;
      case 'more':
        this.#open.get(record.injection)?.undos.push(record.undo);
        return;
      case 'undone':
      case 'failed':
        this.#open.delete(record.injection);
        return;
      case 'created':
      case 'ended':
      case 'passed':
      case 'on':
      case 'not-undone':
        return;
    }
  }
}

export function openIn(records: readonly LedgerRecord[]): Open[] {
  const openings = new Openings();
  for (const record of records) openings.take(record);
  return openings.all;
}

/** What another process appends, as far as it is whole. */
export class LedgerReader {
  readonly #path: string;
  #offset = 0;
  #rest = Buffer.alloc(0);

  constructor(path: string) {
    this.#path = path;
  }

  /** Those that came since the last call. */
  read(): LedgerRecord[] {
    const fd = openSync(this.#path, 'r');
    try {
      const bytes = Buffer.alloc(fstatSync(fd).size - this.#offset);
      const length = readSync(fd, bytes, 0, bytes.length, this.#offset);
      this.#offset += length;
      const all = Buffer.concat([this.#rest, bytes.subarray(0, length)]);
      const end = all.lastIndexOf(0x0a) + 1;
      this.#rest = all.subarray(end);
      return parse(all.toString('utf8', 0, end));
    } finally {
      closeSync(fd);
    }
  }
}

/** The highest numbers that were given. */
export function numbersIn(records: readonly LedgerRecord[]): { experiment: number; injection: number } {
  const highest = (ids: string[]) =>
    Math.max(0, ...ids.map((id) => Number(id.slice(1))).filter(Number.isSafeInteger));
  return {
    experiment: highest(records.flatMap((one) => ('experiment' in one ? [one.experiment] : []))),
    injection: highest(records.flatMap((one) => ('injection' in one ? [one.injection] : []))),
  };
}

/** A ledger that grew long keeps what is open and the newest. Only while nobody appends. */
export function shortenLedger(path: string): void {
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) <= CHAOS.ledgerBytesMax) return;
  const records = readLedger(path);
  const open = new Set(openIn(records).map(({ begun }) => begun.injection));
  const from = records.length - CHAOS.ledgerRecordsKept;
  const kept = records.filter((one, at) => at >= from || ('injection' in one && open.has(one.injection)));
  const fd = openSync(`${path}.new`, 'w', 0o600);
  for (const record of kept) {
    const json = JSON.stringify(record);
    writeSync(fd, `\n${checksum(json)} ${json}\n`);
  }
  fsyncSync(fd);
  closeSync(fd);
  renameSync(`${path}.new`, path);
  syncDirectory(path);
}

/** A new file's name must be durable, too. */
function syncDirectory(path: string): void {
  const fd = openSync(dirname(path), 'r');
  fsyncSync(fd);
  closeSync(fd);
}
