/**
 * An http server on a passed listening socket.
 *
 * Invariants
 * - Only the owner accepts. Who connects during a handover waits in the kernel's backlog, and is accepted by the
 *   successor: the socket itself is never closed, only this process's descriptor of it.
 * - Requests under way are finished, and their connections closed. Those between two requests go with the websockets
 *   (WebSockets has them passed), else they are closed. A request that still comes here after the release is sent to the
 *   successor: 307 to its own address, on a new connection. No page is half of one version.
 *
 * It accepts by itself and hands sockets to the server by its 'connection' event, as Node documents it, because
 * `server.close()` cannot be undone quickly in a hand-back.
 */
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import { BOUNDS } from '#handover/bounds.ts';
import { type Grant, type Holder, HolderError, type Released, takeOne } from '#handover/holder.ts';
import type { NamedDescriptor } from '#handover/lines.ts';
import { AGAIN, isNativeError, native, READABLE, type Watcher } from '#handover/native.ts';

const sendOn: RequestListener = ({ url = '' }, response) => {
  // Only a path of this server: `//host` would lead elsewhere.
  const own = url.startsWith('/') && !url.startsWith('//');
  response.writeHead(own ? 307 : 503, { connection: 'close', ...(own ? { location: url } : {}) });
  response.end();
};

export class Listener implements Holder {
  readonly #server: Server;
  #fd: number | undefined;
  #watcher: Watcher | undefined;
  #retry: NodeJS.Timeout | undefined;
  /** Accepted and not upgraded, with its requests under way and whether it ever had one. */
  readonly #sockets = new Map<Socket, { pending: number; used: boolean }>();
  #closing: NodeJS.Timeout | undefined;
  #passesIdle = false;
  /** The app's, while requests are sent on. */
  #handlers: RequestListener[] | undefined;
  readonly #counter = (request: IncomingMessage, response: ServerResponse): void =>
    this.#count(request, response);

  /** @param server not listening; its own `listen` and `close` are not used */
  constructor(server: Server) {
    this.#server = server;
    server.prependListener('request', this.#counter);
    // An upgraded socket is no longer http's: WebSockets moves it.
    server.prependListener('upgrade', (request: IncomingMessage) => this.#sockets.delete(request.socket));
  }

  get owns(): boolean {
    return this.#watcher !== undefined;
  }
  /** Accepted connections that still speak http. */
  get connections(): number {
    return this.#sockets.size;
  }

  grant(grant: Grant): Promise<void> {
    const fd = takeOne(grant, 'listener');
    if (fd !== this.#fd) this.drop();
    this.#fd = fd;
    this.#stop();
    this.#restore();
    const watcher = native.watch(fd, READABLE, () => this.#accept(fd, watcher));
    this.#watcher = watcher;
    // Makes the server watch its timeouts (headers, requests), as its own `listen` would.
    this.#server.emit('listening');
    return Promise.resolve();
  }

  release(): Promise<Released> {
    if (this.#watcher === undefined) {
      return Promise.reject(new HolderError('NOT_OWNER', 'the listening socket is not ours'));
    }
    this.#stop();
    this.#handlers = this.#server
      .listeners('request')
      .filter((each) => each !== this.#counter) as RequestListener[];
    this.#server.removeAllListeners('request');
    this.#server.on('request', this.#counter);
    this.#server.on('request', sendOn);
    if (!this.#passesIdle) this.#endIdle(true);
    // One that was accepted a moment ago may have its first request on the way.
    this.#closing = setTimeout(() => this.#endIdle(false), BOUNDS.freshConnectionMsMax);
    return Promise.resolve({ payload: {} });
  }

  /** Idle connections are passed: somebody calls {@link takeIdle} after a release. */
  passIdle(): void {
    this.#passesIdle = true;
  }

  /**
   * Descriptors of the connections of which nothing is under way: not a byte of the next request was read. They are the
   * caller's, and ours no more.
   */
  takeIdle(): number[] {
    const idle = new Set([...this.#sockets.keys()].filter((socket) => socket.bytesRead === 0));
    // Node's parsers know whether a request has begun, and say it by this alone.
    const sockets = [...this.#sockets.keys()];
    for (const socket of sockets) {
      socket.destroy = () => {
        idle.add(socket);
        return socket;
      };
    }
    try {
      this.#server.closeIdleConnections();
    } finally {
      for (const socket of sockets) Reflect.deleteProperty(socket, 'destroy');
    }
    return [...idle].flatMap((socket) => {
      const fd = letGo(socket);
      if (fd !== undefined) this.#sockets.delete(socket);
      return fd ?? [];
    });
  }

  /** A connection of another version's, between two requests. Takes the descriptor over. */
  adopt(fd: number): void {
    this.#serve(fd, true);
  }

  descriptors(): readonly NamedDescriptor[] {
    return this.#fd === undefined ? [] : [{ name: 'listener', fd: this.#fd }];
  }

  drop(): void {
    if (this.owns) this.#stop();
    if (this.#fd !== undefined) native.close(this.#fd);
    this.#fd = undefined;
  }

  #restore(): void {
    if (this.#handlers === undefined) return;
    this.#server.off('request', sendOn);
    for (const handler of this.#handlers) this.#server.on('request', handler);
    this.#handlers = undefined;
  }

  #endIdle(usedOnly: boolean): void {
    for (const [socket, { pending, used }] of this.#sockets) {
      if (pending === 0 && (used || !usedOnly)) socket.end();
    }
  }

  #stop(): void {
    clearTimeout(this.#retry);
    clearTimeout(this.#closing);
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  #accept(fd: number, watcher: Watcher): void {
    for (let count = 0; count < BOUNDS.acceptTurnCountMax && this.#watcher === watcher; count++) {
      let accepted: number;
      try {
        accepted = native.accept(fd);
      } catch (error) {
        if (!isNativeError(error) || (error.code !== 'EMFILE' && error.code !== 'ENFILE')) throw error;
        watcher.change(0);
        this.#retry = setTimeout(() => watcher.change(READABLE), BOUNDS.acceptRetryMs);
        return;
      }
      if (accepted === AGAIN) return;
      this.#serve(accepted, false);
    }
  }

  #serve(fd: number, used: boolean): void {
    const socket = new Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
    socket.setNoDelay(true);
    this.#sockets.set(socket, { pending: 0, used });
    socket.once('close', () => this.#sockets.delete(socket));
    this.#server.emit('connection', socket);
  }

  #count({ socket }: IncomingMessage, response: ServerResponse): void {
    const use = this.#sockets.get(socket);
    if (use === undefined) return;
    use.pending += 1;
    use.used = true;
    if (!this.owns) response.shouldKeepAlive = false;
    response.once('close', () => {
      use.pending -= 1;
      if (use.pending === 0 && !this.owns) socket.end();
    });
  }
}

interface Handle {
  readonly fd: number;
  readonly writeQueueSize: number;
  readStop(): number;
  close(): void;
}

/** A duplicate of its descriptor; the original is closed without a word to the far side. */
const letGo = (socket: Socket): number | undefined => {
  const inside = socket as unknown as { _handle: Handle | null; _read: () => void };
  const handle = inside._handle;
  if (handle == null || handle.fd < 0 || socket.destroyed) return undefined;
  if (socket.writableLength > 0 || handle.writeQueueSize > 0) return undefined;
  inside._read = () => {};
  // Takes the handle back from Node's http parser, which else reads from it without the socket.
  socket.on('readable', () => {});
  handle.readStop();
  const fd = native.duplicate(handle.fd);
  inside._handle = null;
  handle.close();
  socket.destroy();
  return fd;
};
