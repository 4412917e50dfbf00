/**
 * The directory in which the drone's devices appear.
 *
 * Invariant: one simulator a directory. The lock is a listening socket, which ends with its process however that ends:
 * whoever connects to it knows that a simulator runs; a socket that refuses is a leftover and is replaced.
 */
import { existsSync, readlinkSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { SimError } from '#device-sim/options.ts';

const answers = async (path: string): Promise<boolean> =>
  await new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });

const listen = async (path: string): Promise<Server> =>
  await new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', reject);
    server.listen(path, () => resolve(server));
  });

/** Step by step: mkdir's own `recursive` never returns where the kernel answers ENOENT to every attempt (/proc). */
const make = async (dir: string): Promise<void> => {
  try {
    await mkdir(dir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT' || existsSync(dirname(dir))) throw error;
    await make(dirname(dir));
    await mkdir(dir);
  }
};

export class Directory {
  readonly camera: string;
  readonly rotors: string;
  readonly #lock: Server;

  /** @throws SimError `DIRECTORY`, `ALREADY_RUNNING` */
  static async open(dir: string): Promise<Directory> {
    const lock = join(dir, 'sim.lock');
    try {
      await make(resolve(dir));
      if (await answers(lock)) {
        throw new SimError(
          'ALREADY_RUNNING',
          `a simulator runs in ${dir}; stop it, or name another directory`,
        );
      }
      await rm(lock, { force: true });
      const server = await listen(lock);
      await rm(join(dir, 'camera'), { force: true });
      return new Directory(dir, server);
    } catch (cause) {
      if (cause instanceof SimError) throw cause;
      const text = `${dir} cannot be used (${(cause as Error).message}); name a directory that can be written`;
      throw new SimError('DIRECTORY', text, { cause });
    }
  }

  private constructor(dir: string, lock: Server) {
    this.camera = join(dir, 'camera');
    this.rotors = join(dir, 'rotors');
    this.#lock = lock;
  }

  /** Replaced in one step: whoever opens it finds the old tty or the new one. */
  linkRotors(tty: string): void {
    const next = `${this.rotors}.new`;
    rmSync(next, { force: true });
    symlinkSync(tty, next);
    renameSync(next, this.rotors);
  }

  async close(tty: string): Promise<void> {
    if (readLink(this.rotors) === tty) rmSync(this.rotors, { force: true });
    rmSync(this.camera, { force: true });
    await new Promise<void>((resolve) => {
      this.#lock.close(() => resolve());
    });
  }
}

const readLink = (path: string): string | undefined => {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
};
