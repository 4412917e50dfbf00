/**
 * A port of `serialport` over a descriptor that others hold too.
 *
 * Invariants
 * - It never opens, closes, flushes, locks, hangs up or sets a mode: the agent has made the tty raw.
 * - Reads and writes are made at once, on the event loop's thread. serialport's own Linux port makes each in a
 *   thread pool, where a read may still be under way when the link is released, where SCHED_FIFO does not reach,
 *   and where file work of the app delays a command.
 */
import type { SerialPort } from 'serialport';
import { AGAIN, native, READABLE, type Watcher, WRITABLE } from '#handover/native.ts';

export type PortOptions = ConstructorParameters<typeof SerialPort>[0];

export const unsupported = (what: string) => (): Promise<never> =>
  Promise.reject(
    Object.assign(new Error(`SHARED_LINE: ${what} would disturb the link's other holders`), {
      code: 'SHARED_LINE',
    }),
  );
const canceled = (): Error => Object.assign(new Error('Canceled'), { canceled: true });

interface Deferred {
  resolve(bytes: number): void;
  reject(error: Error): void;
}

type Reading = Deferred & { readonly buffer: Buffer; readonly offset: number; readonly length: number };
type Writing = Deferred & { readonly buffer: Buffer; offset: number };

/** serialport's BindingPortInterface over a descriptor that stays ours. */
export class AdoptedPort {
  readonly openOptions: PortOptions;
  readonly #fd: number;
  readonly #watcher: Watcher;
  readonly #onRead: (bytes: Buffer) => void;
  readonly #onWritten: (bytes: Buffer) => void;
  #open = true;
  #stopped = false;
  #watched = 0;
  #reading: Reading | undefined;
  #writing: Writing | undefined;

  constructor(
    fd: number,
    openOptions: PortOptions,
    onRead: (bytes: Buffer) => void,
    onWritten: (bytes: Buffer) => void,
  ) {
    this.#fd = fd;
    this.openOptions = openOptions;
    this.#onRead = onRead;
    this.#onWritten = onWritten;
    this.#watcher = native.watch(fd, 0, (_events, status) => this.#ready(status));
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** For good; writes go on. What was not read waits in the kernel for the successor. */
  stopReading(): void {
    this.#stopped = true;
    this.#watch();
  }

  close(): Promise<void> {
    if (!this.#open) return Promise.reject(new Error('Port is not open'));
    this.#open = false;
    this.#watcher.close();
    this.#fail(canceled());
    return Promise.resolve();
  }

  read(buffer: Buffer, offset: number, length: number): Promise<{ buffer: Buffer; bytesRead: number }> {
    return new Promise<number>((resolve, reject) => {
      if (!this.#open) return reject(canceled());
      this.#reading = { buffer, offset, length, resolve, reject };
      // What a prior left waits in the kernel already: the first command need not wait for the poll to say so.
      if ((this.#watched & READABLE) === 0 && !this.#stopped) this.#read(this.#reading);
      this.#watch();
    }).then((bytesRead) => ({ buffer, bytesRead }));
  }

  write(buffer: Buffer): Promise<void> {
    return new Promise<number>((resolve, reject) => {
      if (!this.#open) return reject(canceled());
      this.#writing = { buffer, offset: 0, resolve, reject };
      this.#write();
    }).then(() => undefined);
  }

  update = unsupported('update');
  set = unsupported('set');
  get = unsupported('get');
  getBaudRate = unsupported('getBaudRate');
  flush = unsupported('flush');
  drain = unsupported('drain');

  /** A read in the hot path finds the watcher as it was: no system call. */
  #watch(): void {
    if (!this.#open) return;
    const reads = this.#reading !== undefined && !this.#stopped;
    const events = (reads ? READABLE : 0) | (this.#writing === undefined ? 0 : WRITABLE);
    if (events === this.#watched) return;
    this.#watched = events;
    this.#watcher.change(events);
  }

  #ready(status: number): void {
    if (status < 0) this.#fail(new Error(`poll failed: ${status}`));
    if (this.#writing !== undefined) this.#write();
    if (this.#reading !== undefined && !this.#stopped) this.#read(this.#reading);
    else this.#watch();
  }

  #read(reading: Reading): void {
    let bytes = 0;
    let failure = new Error('the far end hung up');
    try {
      bytes = native.read(this.#fd, reading.buffer, reading.offset, reading.length);
    } catch (error) {
      failure = error as Error;
    }
    if (bytes === AGAIN) return;
    if (bytes === 0) {
      this.#fail(failure);
      return;
    }
    this.#reading = undefined;
    this.#onRead(reading.buffer.subarray(reading.offset, reading.offset + bytes));
    reading.resolve(bytes);
  }

  #write(): void {
    const writing = this.#writing;
    if (writing === undefined) return;
    const { buffer } = writing;
    try {
      while (writing.offset < buffer.length) {
        const bytes = native.write(this.#fd, buffer, writing.offset, buffer.length - writing.offset);
        if (bytes === AGAIN) break;
        writing.offset += bytes;
      }
    } catch (error) {
      this.#fail(error as Error);
      return;
    }
    if (writing.offset === buffer.length) this.#writing = undefined;
    this.#watch();
    if (writing.offset < buffer.length) return;
    this.#onWritten(buffer);
    writing.resolve(buffer.length);
  }

  #fail(error: Error): void {
    const [reading, writing] = [this.#reading, this.#writing];
    this.#reading = undefined;
    this.#writing = undefined;
    this.#watch();
    reading?.reject(error);
    writing?.reject(error);
  }
}
