/** A flight controller behind a gate, and apps on its channels: who wrote what is in each frame. */
import { Parser, Writer } from '#handover/mavlink/index.ts';
import { AGAIN, native } from '#handover/native.ts';
import { cleanUp } from './handover-kit.ts';

const command = {
  time_usec: 0,
  controls: Array.from({ length: 16 }, () => 0),
  // The last byte: an empty end is not sent.
  mode: 1,
  flags: 0,
};
/** Command `n` of an epoch, 93 bytes. */
export const frameOf = (epoch: number, n: number): Buffer =>
  Buffer.from(
    new Writer({ systemId: 1, componentId: 191 }).encode('HIL_ACTUATOR_CONTROLS', {
      ...command,
      time_usec: n,
      flags: epoch,
    }),
  );

export const write = (fd: number, bytes: Uint8Array): number => native.write(fd, bytes, 0, bytes.length);

export const readAll = (fd: number): Buffer => {
  const chunk = Buffer.alloc(64 * 1024);
  const parts: Buffer[] = [];
  for (let got = read(fd, chunk); got > 0; got = read(fd, chunk))
    parts.push(Buffer.from(chunk.subarray(0, got)));
  return Buffer.concat(parts);
};
const read = (fd: number, chunk: Buffer): number => {
  const got = native.read(fd, chunk, 0, chunk.length);
  return got === AGAIN ? 0 : got;
};

/** The far end of the tty. */
export class Controller {
  readonly master: number;
  readonly slave: number;
  readonly path: string;
  readonly #parser = new Parser();
  /** Heard so far: [epoch, n]. */
  readonly heard: [number, number][] = [];

  constructor() {
    const { master, slave, path } = native.openPty();
    [this.master, this.slave, this.path] = [master, slave, path];
    cleanUp(() => {
      native.close(master);
      native.close(slave);
    });
  }

  hear(): this {
    for (const { name, fields } of this.#parser.read(readAll(this.master))) {
      if (name === 'HIL_ACTUATOR_CONTROLS') this.heard.push([Number(fields.flags), fields.time_usec]);
    }
    return this;
  }
  /** Bytes that were in no whole frame. */
  get garbageBytes(): number {
    return this.#parser.counts.garbageBytes + this.#parser.partial().length;
  }
  say(text: string): void {
    const bytes = Buffer.from(text);
    if (write(this.master, bytes) !== bytes.length) throw new Error('the tty is full');
  }
}
