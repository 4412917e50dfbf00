/**
 * What the prior reads from and writes to the flight controller, mirrored to a candidate in its shadow.
 *
 * Invariants: the writing end never waits and never slows its flight: when the pair is full the record is
 * dropped and counted. Records: 1 byte kind (0 in, 1 out), 4 bytes LE length, bytes (at most
 * `BOUNDS.mirrorRecordBytesMax`). A record arrives whole or not at all.
 */
import { BOUNDS } from '#handover/bounds.ts';
import type { JsonObject } from '#handover/messages.ts';
import { AGAIN, native, READABLE, type Watcher } from '#handover/native.ts';

export interface MirrorRecord {
  /** `in`: read from the controller; `out`: written to it by the prior. */
  readonly kind: 'in' | 'out';
  readonly bytes: Buffer;
}

const HEADER_BYTES = 5;

/** The prior's end. Takes the descriptor over. */
export class MirrorSource {
  readonly #fd: number;
  #open = true;
  /** The end of a record of which the kernel took the beginning; it must go before anything else. */
  #tail: Buffer | undefined;
  dropped = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  get open(): boolean {
    return this.#open;
  }

  record(kind: MirrorRecord['kind'], bytes: Uint8Array): void {
    if (!this.#open || bytes.length === 0) return;
    if (bytes.length > BOUNDS.mirrorRecordBytesMax) {
      this.dropped += 1;
      return;
    }
    if (this.#tail !== undefined) {
      this.#tail = this.#write(this.#tail);
      if (this.#tail !== undefined) {
        this.dropped += 1;
        return;
      }
    }
    const record = Buffer.allocUnsafe(HEADER_BYTES + bytes.length);
    record[0] = kind === 'in' ? 0 : 1;
    record.writeUInt32LE(bytes.length, 1);
    record.set(bytes, HEADER_BYTES);
    const rest = this.#write(record);
    if (rest === record) this.dropped += 1;
    else this.#tail = rest;
  }

  /** What did not go; `bytes` itself if nothing did. A shadow that went away ends the mirror, nothing else. */
  #write(bytes: Buffer): Buffer | undefined {
    if (!this.#open) return undefined;
    try {
      const sent = native.send(this.#fd, bytes, 0, bytes.length, []);
      if (sent === AGAIN) return bytes;
      return sent === bytes.length ? undefined : bytes.subarray(sent);
    } catch {
      this.close();
      return undefined;
    }
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    native.close(this.#fd);
  }
}

/**
 * The candidate's end: `for await (const { kind, bytes } of mirror)`, or {@link Mirror.onRecord} for one that
 * must not wait for a turn of the event loop. Ends when the prior stops mirroring and when the candidate is
 * granted the rotors, revoked or closed.
 */
export class Mirror implements AsyncIterable<MirrorRecord> {
  /** False at a first start: there is no prior, and the mirror has ended already. */
  readonly available: boolean;
  /**
   * The rotors' payload of who is mirrored, as of its last heartbeat: go on from there, since what a controller has learned (of
   * the wind, of a tired battery) is not in what it reads. Undefined: not known, or of a version that is not read here.
   */
  readonly payload: JsonObject | undefined;
  /** The oldest records are dropped when a shadow iterates too slowly. */
  dropped = 0;
  readonly #fd: number | undefined;
  readonly #watcher: Watcher | undefined;
  readonly #bytes = Buffer.allocUnsafe(HEADER_BYTES + 2 * BOUNDS.mirrorRecordBytesMax);
  #used = 0;
  #ended: boolean;
  #records: MirrorRecord[] = [];
  #wake: (() => void) | undefined;
  #listener: ((record: MirrorRecord) => void) | undefined;

  /** Takes the descriptor over; without one it has ended. */
  constructor(fd?: number, payload?: JsonObject) {
    this.#fd = fd;
    this.payload = payload;
    this.available = fd !== undefined;
    this.#ended = fd === undefined;
    if (fd !== undefined) this.#watcher = native.watch(fd, READABLE, () => this.#read());
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Synchronous delivery, instead of iteration; what waits is delivered at once. */
  onRecord(listener: ((record: MirrorRecord) => void) | undefined): void {
    this.#listener = listener;
    if (listener !== undefined) for (const record of this.#records.splice(0)) listener(record);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<MirrorRecord, void, undefined> {
    for (;;) {
      const waiting = this.#records;
      this.#records = [];
      yield* waiting;
      if (this.#records.length > 0) continue;
      if (this.#ended) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Idempotent. What was received before is still delivered. */
  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#watcher?.close();
    if (this.#fd !== undefined) native.close(this.#fd);
    this.#wake?.();
  }

  #read(): void {
    if (this.#fd === undefined) return;
    let got: number;
    try {
      got = native.read(this.#fd, this.#bytes, this.#used, this.#bytes.length - this.#used);
    } catch {
      got = 0;
    }
    if (got === AGAIN) return;
    if (got === 0) {
      this.close();
      return;
    }
    this.#used += got;
    let at = 0;
    while (this.#used - at >= HEADER_BYTES) {
      const length = this.#bytes.readUInt32LE(at + 1);
      if (length > BOUNDS.mirrorRecordBytesMax) {
        this.close();
        return;
      }
      const end = at + HEADER_BYTES + length;
      if (end > this.#used) break;
      const kind = this.#bytes[at] === 0 ? 'in' : 'out';
      this.#deliver({ kind, bytes: Buffer.from(this.#bytes.subarray(at + HEADER_BYTES, end)) });
      if (this.#ended) return;
      at = end;
    }
    this.#bytes.copy(this.#bytes, 0, at, this.#used);
    this.#used -= at;
  }

  #deliver(record: MirrorRecord): void {
    if (this.#listener !== undefined) {
      this.#listener(record);
      return;
    }
    if (this.#records.length >= BOUNDS.mirrorQueueCountMax) {
      this.#records.shift();
      this.dropped += 1;
    }
    this.#records.push(record);
    this.#wake?.();
    this.#wake = undefined;
  }
}
