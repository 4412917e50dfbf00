/**
 * Where lines with descriptors (line-socket.ts) begin: a path that one listens at, and others connect to.
 *
 * Invariant: a socket file is replaced only if nobody listens at it; connections are bounded, and whoever connects is
 * known by its credentials (SO_PEERCRED) before its first line is read.
 */
import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { BOUNDS } from '#handover/bounds.ts';
import { type Described, type LineHandlers, LineSocket } from '#handover/line-socket.ts';
import { AGAIN, isNativeError, native, READABLE } from '#handover/native.ts';

export { closeAll, type LineHandlers, LineSocket, type NamedDescriptor } from '#handover/line-socket.ts';

export interface Peer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}
/** @throws NativeError `ENOENT`, `ECONNREFUSED` (nobody listens), `EAGAIN` (the listener is overrun) */
export const connectLines = <M extends Described>(
  path: string,
  parse: (line: string) => M,
  handlers: LineHandlers<M>,
): LineSocket<M> => {
  const fd = native.unixConnect(path);
  if (fd === AGAIN) {
    throw Object.assign(new Error(`EAGAIN: too many wait at ${path}`), {
      code: 'EAGAIN',
      syscall: 'connect',
    });
  }
  return new LineSocket(fd, parse).start(handlers);
};

export interface LineListener {
  /** Accepts no more and removes the socket file. Accepted connections live on. */
  close(): void;
}

/** A file that is no socket, or a socket somebody listens at, stays. */
const removeStale = (path: string): boolean => {
  const before = lstatSync(path, { throwIfNoEntry: false });
  if (before === undefined) return true;
  if (!before.isSocket()) return false;
  try {
    const fd = native.unixConnect(path);
    if (fd !== AGAIN) native.close(fd);
    return false;
  } catch (error) {
    if (!isNativeError(error) || error.code !== 'ECONNREFUSED') throw error;
  }
  // Another process may have replaced it meanwhile; two agents on one directory are held apart by the journal's lock.
  if (lstatSync(path, { throwIfNoEntry: false })?.ino === before.ino) unlinkSync(path);
  return true;
};

const listenAt = (path: string): number => {
  try {
    return native.unixListen(path, BOUNDS.backlogCount);
  } catch (error) {
    if (!isNativeError(error) || error.code !== 'EADDRINUSE' || !removeStale(path)) throw error;
    return native.unixListen(path, BOUNDS.backlogCount);
  }
};

/**
 * Listens at a path (mode 0660). Connections beyond `BOUNDS.connectionsMax` are closed at once.
 *
 * @param onConnection calls `socket.start(…)`, at once or later
 * @throws NativeError `EADDRINUSE`: somebody listens there, or it is not a socket
 */
export const listenLines = <M extends Described>(
  path: string,
  parse: (line: string) => M,
  onConnection: (socket: LineSocket<M>, peer: Peer) => void,
): LineListener => {
  const fd = listenAt(path);
  chmodSync(path, 0o660);
  const { ino } = lstatSync(path);
  const sockets = new Set<LineSocket<M>>();
  let retry: NodeJS.Timeout | undefined;

  const accept = (): void => {
    for (let count = 0; count < BOUNDS.acceptTurnCountMax; count++) {
      let accepted: number;
      try {
        accepted = native.accept(fd);
      } catch (error) {
        if (!isNativeError(error) || (error.code !== 'EMFILE' && error.code !== 'ENFILE')) throw error;
        watcher.change(0);
        retry = setTimeout(() => watcher.change(READABLE), BOUNDS.acceptRetryMs);
        return;
      }
      if (accepted === AGAIN) return;
      for (const socket of sockets) if (socket.closed) sockets.delete(socket);
      if (sockets.size >= BOUNDS.connectionsMax) {
        native.close(accepted);
        continue;
      }
      const socket = new LineSocket(accepted, parse);
      sockets.add(socket);
      onConnection(socket, native.peer(accepted));
    }
  };
  const watcher = native.watch(fd, READABLE, accept);
  let open = true;
  return {
    close: () => {
      if (!open) return;
      open = false;
      clearTimeout(retry);
      watcher.close();
      native.close(fd);
      if (lstatSync(path, { throwIfNoEntry: false })?.ino === ino) unlinkSync(path);
    },
  };
};
