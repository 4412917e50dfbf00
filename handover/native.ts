/**
 * The operating system's part of a handover that Node itself lacks: descriptors over unix sockets, ptys and raw
 * ttys, a timer descriptor, a poll watcher. A thin, typed door to handover/native/descriptors.c.
 *
 * Invariants: every descriptor made here is close-on-exec and nonblocking; nothing blocks; what would block
 * returns {@link AGAIN}; every other failure throws a {@link NativeError}. Descriptors are plain numbers: who
 * holds one closes it, once, after its watcher was closed.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** "Would block": returned, never thrown, since it is no error. */
export const AGAIN = -1;

/** Bits for {@link Native.watch}, libuv's. */
export const READABLE = 1;
export const WRITABLE = 2;
export const DISCONNECT = 4;

/** `code` is the errno's name (`ENOENT`), or `MSG_CTRUNC`, `ERR_INVALID_ARG_VALUE`. */
export interface NativeError extends Error {
  code: string;
  errno?: number;
  syscall?: string;
}

export interface Watcher {
  /** Other events than before; 0 pauses. Throws `EBADF` once closed. */
  change(events: number): void;
  /** Whether the watcher alone keeps the process running; it does at first. */
  keepAlive(on: boolean): void;
  /** Idempotent; no callback afterwards. The descriptor stays open, and is to be closed after this. */
  close(): void;
}

export interface Timer {
  /**
   * @param atUs       first expiry, CLOCK_MONOTONIC in µs; a past time fires at once; 0 disarms
   * @param intervalUs 0 (once) to one hour; later expiries follow from `atUs` without drift
   */
  set(atUs: number, intervalUs?: number): void;
  close(): void;
}

export interface Native {
  /**
   * Sends once on a unix stream socket; the descriptors (at most 250) ride with the first byte.
   * @returns bytes taken by the kernel (1 to `length`; all descriptors went along), or AGAIN (nothing went)
   */
  send(fd: number, bytes: Uint8Array, offset: number, length: number, descriptors: readonly number[]): number;
  /**
   * Receives once from a unix stream socket. The kernel may put bytes that were sent without descriptors before
   * those sent with them, and ends the read after these: handover/lines.ts finds each line's own.
   * @param into received descriptors are pushed here, in order; they are the caller's to close
   * @returns bytes, 0 at the end, or AGAIN
   * @throws NativeError `MSG_CTRUNC`: some descriptors did not fit or could not be made; all were closed
   */
  receive(fd: number, bytes: Uint8Array, offset: number, length: number, into: number[]): number;
  /** Binds and listens. @throws NativeError `EADDRINUSE` if the path exists, used or not */
  unixListen(path: string, backlog: number): number;
  /** @returns a descriptor, or AGAIN if the listener's backlog is full. @throws NativeError `ENOENT`, `ECONNREFUSED` */
  unixConnect(path: string): number;
  /** @returns a descriptor, or AGAIN if none waits. @throws NativeError `EMFILE`: see handover/lines.ts */
  accept(fd: number): number;
  /** @param address numeric IP address; @param port 0 lets the kernel choose ({@link Native.tcpPort}) */
  tcpListen(address: string, port: number, backlog: number): number;
  tcpPort(fd: number): number;
  /**
   * Bytes since the connection began that were taken out of the kernel and given to it, by whoever had it. Another process
   * that used it meanwhile has moved them. [-1, -1]: no TCP connection.
   */
  tcpPosition(fd: number): [read: number, written: number];
  socketPair(): [number, number];
  /** SO_PEERCRED: who connected, or who listened. `pid` 0: a process outside our pid namespace. */
  peer(fd: number): { pid: number; uid: number; gid: number };
  /** @returns bytes, 0 at the end, or AGAIN. A pty's master says `EIO` once no slave is open. */
  read(fd: number, bytes: Uint8Array, offset: number, length: number): number;
  /** @returns bytes taken, or AGAIN */
  write(fd: number, bytes: Uint8Array, offset: number, length: number): number;
  close(fd: number): void;
  /** A second descriptor of the same open file. */
  duplicate(fd: number): number;
  /** Opens a tty raw: 8N1, no flow control, no hangup on close. @param baud a standard speed, 9600 to 4000000 */
  openTty(path: string, baud: number): number;
  /** A new pty, raw; `path` is the slave's. */
  openPty(): { master: number; slave: number; path: string };
  ttyIsRaw(fd: number): boolean;
  /** A descriptor of the monotonic clock; see {@link Native.timer} for the ready-made use. */
  timerCreate(): number;
  timerSet(fd: number, atUs: number, intervalUs: number): void;
  /** Expiries since the last read; 0 if none. */
  timerRead(fd: number): number;
  /** A timer of microsecond resolution; `onExpiry` gets the number of expiries since its last call. */
  timer(onExpiry: (expiries: number) => void): Timer;
  /**
   * Calls back from the event loop while one of `events` holds (level-triggered). `status` below 0 is an error
   * (-errno). One watcher per descriptor and event loop: a second throws `EEXIST`; watch a duplicate instead.
   */
  watch(fd: number, events: number, callback: (events: number, status: number) => void): Watcher;
  /**
   * SCHED_FIFO for one thread (`pid` 0: the calling one; a process id means its main thread), not inherited by
   * what it starts. Priority 1 to 99; 0 goes back to normal. @throws NativeError `EPERM`, `ESRCH`
   */
  setFifo(pid: number, priority: number): void;
  /**
   * A descriptor of a process: readable ({@link Native.watch}) once it has ended with all its threads.
   * @throws NativeError `ESRCH`: there is none; `ENOSYS`: a kernel before 5.3
   */
  pidfdOpen(pid: number): number;
  /** Signals that very process, whatever became of its number. @param signal 0 only asks. @throws NativeError `ESRCH`, `EPERM` */
  pidfdSignal(fd: number, signal: number): void;
}

type Addon = Omit<Native, 'peer' | 'openPty' | 'watch' | 'timer'> & {
  peer(fd: number): [number, number, number];
  openPty(): [number, number, string];
  watch(fd: number, events: number, callback: (events: number, status: number) => void): number;
  rewatch(id: number, events: number): void;
  unwatch(id: number): void;
  keepAlive(id: number, on: boolean): void;
};

/** Beside this source, beside the built JavaScript (dist/handover), or where MIDAIR_NATIVE says. */
const load = (): Addon => {
  const candidates = [
    fileURLToPath(new URL('./native/build/Release/descriptors.node', import.meta.url)),
    fileURLToPath(new URL('../../handover/native/build/Release/descriptors.node', import.meta.url)),
    process.env.MIDAIR_NATIVE,
  ];
  const path = candidates.find((candidate) => candidate !== undefined && existsSync(candidate));
  if (path === undefined) {
    throw Object.assign(
      new Error(
        'midair: the native part is not built (descriptors.node); run `npm rebuild`, or set MIDAIR_NATIVE to it',
      ),
      { code: 'NATIVE_MISSING' },
    );
  }
  try {
    return createRequire(import.meta.url)(path) as Addon;
  } catch (cause) {
    throw Object.assign(
      new Error(`midair: the native part ${path} does not load here; run \`npm rebuild\``, { cause }),
      { code: 'NATIVE_MISSING' },
    );
  }
};

const addon = load();

const watch: Native['watch'] = (fd, events, callback) => {
  const id = addon.watch(fd, events, callback);
  let open = true;
  return {
    change: (next) => addon.rewatch(id, next),
    keepAlive: (on) => addon.keepAlive(id, on),
    close: () => {
      if (open) addon.unwatch(id);
      open = false;
    },
  };
};

export const native: Native = {
  ...addon,
  peer: (fd) => {
    const [pid, uid, gid] = addon.peer(fd);
    return { pid, uid, gid };
  },
  openPty: () => {
    const [master, slave, path] = addon.openPty();
    return { master, slave, path };
  },
  watch,
  timer: (onExpiry) => {
    const fd = addon.timerCreate();
    const watcher = watch(fd, READABLE, () => {
      const expiries = addon.timerRead(fd);
      if (expiries > 0) onExpiry(expiries);
    });
    let open = true;
    return {
      set: (atUs, intervalUs = 0) => addon.timerSet(fd, atUs, intervalUs),
      close: () => {
        if (!open) return;
        open = false;
        watcher.close();
        addon.close(fd);
      },
    };
  },
};

/** Now on the clock of every `…Us` field: CLOCK_MONOTONIC, µs. */
export const nowUs = (): number => Number(process.hrtime.bigint() / 1000n);

export const isNativeError = (error: unknown): error is NativeError =>
  error instanceof Error && 'code' in error && typeof error.code === 'string';
