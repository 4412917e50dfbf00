/**
 * The rotor link: a serial port whose descriptor is passed from version to version while it is in use.
 *
 * Invariants
 * - Apps read and write it through `serialport`. Its binding here adopts the descriptor: it never opens,
 *   flushes, locks, hangs up or sets a mode, since others hold the same tty; the agent has made it raw.
 * - Reads and writes are made at once on the event loop's thread. serialport's own Linux binding makes each in a
 *   thread pool, where a read may still be under way when the link is released, where SCHED_FIFO does not reach,
 *   and where file work of the app delays a command; and a port that it closed may, when collected, take its
 *   poll handle's descriptor number away from whoever has that number by then.
 * - A release falls between two ticks: right after a command was written, with nothing read but what it gives.
 */
import { SerialPort } from 'serialport';
import { BOUNDS } from '#handover/bounds.ts';
import type { Grant, Holder, Released } from '#handover/holder.ts';
import type { NamedDescriptor } from '#handover/lines.ts';
import type { JsonObject } from '#handover/messages.ts';
import { MirrorSource } from '#handover/mirror.ts';
import { AGAIN, native, nowUs, READABLE, WRITABLE, type Watcher } from '#handover/native.ts';

type PortOptions = ConstructorParameters<typeof SerialPort>[0];

const unsupported = (what: string) => (): Promise<never> =>
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

/** serialport's BindingPortInterface over a descriptor that stays ours. */
class AdoptedPort {
  readonly openOptions: PortOptions;
  readonly #fd: number;
  readonly #watcher: Watcher;
  readonly #onRead: (bytes: Buffer) => void;
  readonly #onWritten: (bytes: Buffer) => void;
  #open = true;
  #reading: (Deferred & { buffer: Buffer; offset: number; length: number }) | undefined;
  #writing: (Deferred & { buffer: Buffer; offset: number }) | undefined;

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
  get writing(): boolean {
    return this.#writing !== undefined;
  }

  /** From here on nothing is read; writes go on. What was not read waits in the kernel. */
  stopReading(): void {
    const reading = this.#reading;
    this.#reading = undefined;
    this.#watch();
    reading?.reject(canceled());
  }

  close(): Promise<void> {
    if (!this.#open) return Promise.reject(new Error('Port is not open'));
    this.#open = false;
    this.#watcher.close();
    this.#reading?.reject(canceled());
    this.#writing?.reject(canceled());
    this.#reading = undefined;
    this.#writing = undefined;
    return Promise.resolve();
  }

  read(buffer: Buffer, offset: number, length: number): Promise<{ buffer: Buffer; bytesRead: number }> {
    return new Promise<number>((resolve, reject) => {
      if (!this.#open) reject(canceled());
      else {
        this.#reading = { buffer, offset, length, resolve, reject };
        this.#watch();
      }
    }).then((bytesRead) => ({ buffer, bytesRead }));
  }

  write(buffer: Buffer): Promise<void> {
    return new Promise<number>((resolve, reject) => {
      if (!this.#open) reject(canceled());
      else {
        this.#writing = { buffer, offset: 0, resolve, reject };
        this.#write();
      }
    }).then(() => undefined);
  }

  update = unsupported('update');
  set = unsupported('set');
  get = unsupported('get');
  getBaudRate = unsupported('getBaudRate');
  flush = unsupported('flush');
  drain = unsupported('drain');

  #watch(): void {
    if (!this.#open) return;
    this.#watcher.change(
      (this.#reading === undefined ? 0 : READABLE) | (this.#writing === undefined ? 0 : WRITABLE),
    );
  }

  #ready(status: number): void {
    if (status < 0) {
      const error = new Error(`poll failed: ${status}`);
      this.#reading?.reject(error);
      this.#writing?.reject(error);
      this.#reading = undefined;
      this.#writing = undefined;
      this.#watch();
      return;
    }
    if (this.#writing !== undefined) this.#write();
    if (this.#reading !== undefined) this.#read();
  }

  #read(): void {
    const reading = this.#reading;
    if (reading === undefined) return;
    try {
      const bytes = native.read(this.#fd, reading.buffer, reading.offset, reading.length);
      if (bytes === AGAIN) return;
      if (bytes === 0) throw new Error('the far end hung up');
      this.#reading = undefined;
      this.#onRead(reading.buffer.subarray(reading.offset, reading.offset + bytes));
      reading.resolve(bytes);
    } catch (error) {
      this.#reading = undefined;
      this.#watch();
      reading.reject(error as Error);
    }
  }

  #write(): void {
    const writing = this.#writing;
    if (writing === undefined) return;
    try {
      while (writing.offset < writing.buffer.length) {
        const bytes = native.write(
          this.#fd,
          writing.buffer,
          writing.offset,
          writing.buffer.length - writing.offset,
        );
        if (bytes === AGAIN) {
          this.#watch();
          return;
        }
        writing.offset += bytes;
      }
      this.#writing = undefined;
      this.#watch();
      this.#onWritten(writing.buffer);
      writing.resolve(writing.offset);
    } catch (error) {
      this.#writing = undefined;
      this.#watch();
      writing.reject(error as Error);
    }
  }
}
