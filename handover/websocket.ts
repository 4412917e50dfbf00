/**
 * Live websockets, passed on as open connections: the far side sees nothing but the next message.
 *
 * Invariants
 * - Every byte that a client sent is parsed by exactly one holder: what this one had read of a message whose end
 *   has not come is rebuilt as frames (websocket-head.ts), what it had not read waits in the kernel.
 * - What this one had sent is with the kernel before the connection is passed; the frame it was writing is whole.
 * - A client that does not take its bytes within `BOUNDS.websocketFlushMsMax` would hold up the flight: it stays here, where its
 *   bytes are, and is closed with 1012 (service restart) only when this version retires. In a hand-back nothing happened to it.
 * - What cannot move is closed with 1012 and counted: compression contexts and TLS live in the process, and a message half
 *   sent by the app cannot be finished by another one.
 * - One that comes back from a version that died is closed with 1012 if that one has read from it or written to it: nobody
 *   knows any more where in a frame it stands. The kernel's own counts of its bytes tell.
 *
 * `ws` has no public way to do this; what is used of its inside is named in one interface and looked for before
 * a connection is touched, so that another version of it closes connections (1012) instead of breaking them.
 */
import { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import * as v from 'valibot';
import { WebSocket } from 'ws';
import { BOUNDS } from '#handover/bounds.ts';
import { type Grant, type Holder, HolderError, type Released } from '#handover/holder.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll, type NamedDescriptor } from '#handover/lines.ts';
import type { Listener } from '#handover/listener.ts';
import type { JsonObject } from '#handover/messages.ts';
import { native } from '#handover/native.ts';
import { type Receiver, receiverHead, receiverIsKnown } from '#handover/websocket-head.ts';

const RESTART = 1012;

interface Inside {
  _socket: (Socket & { _handle: Handle | null; _read: () => void }) | null;
  _receiver: Receiver;
  _sender: { _state: number; _queue: unknown[]; _firstFragment: boolean };
  _extensions: Record<string, unknown>;
  _isServer: boolean;
  _protocol: string;
  _readyState: number;
  _closeTimer: NodeJS.Timeout | null;
  setSocket(socket: Socket, head: Buffer, options: object): void;
}
interface Handle {
  readonly fd: number;
  readonly writeQueueSize: number;
  /** Node's note of whether it has asked for bytes. */
  reading: boolean;
  readStart(): number;
  readStop(): number;
  close(): void;
}

const entrySchema = v.object({
  fd: v.string(),
  /** `http`: no websocket, but a kept-alive connection between two requests. */
  kind: v.optional(v.picklist(['websocket', 'http']), 'websocket'),
  protocol: v.string(),
  head: v.pipe(v.string(), v.base64()),
  /** Bytes read and written so far, by the kernel's count, when it was let go. */
  position: v.exactOptional(v.tuple([v.number(), v.number()])),
  meta: v.record(v.string(), v.unknown()),
});
const payloadSchema = v.object({
  connections: v.array(entrySchema),
  closed: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0)), 0),
  kept: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0)), 0),
});
/** `closed`: how many could not move; `kept`: how many stay with who released until it retires. */
export type ConnectionsPayload = JsonObject & v.InferOutput<typeof payloadSchema>;
type Entry = v.InferOutput<typeof entrySchema>;

export interface WebSocketsOptions {
  /** A connection that came from the prior: attach its listeners, synchronously; nothing has been read of it yet. */
  onAdopt(socket: WebSocket, meta: JsonObject): void;
  /** Its connections that wait for a request are passed with ours. */
  listener?: Listener;
  /** One that had stayed here is ours again with the others, its listeners as they were: it may be sent to again. */
  onReturn?(socket: WebSocket, meta: JsonObject): void;
  /** Bytes of one message; as given to the app's WebSocketServer. */
  maxPayload?: number;
  /** How long a release waits for clients to take what was sent; by default `BOUNDS.websocketFlushMsMax`. */
  flushMsMax?: number;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class WebSockets implements Holder<ConnectionsPayload> {
  readonly #options: WebSocketsOptions;
  readonly #sockets = new Map<WebSocket, JsonObject>();
  /** They read too slowly to be passed, and stay until we retire. */
  readonly #kept = new Map<WebSocket, JsonObject>();
  #owns = false;
  /** Our duplicates of what was released, until `drop`. */
  #moved: number[] = [];

  constructor(options: WebSocketsOptions) {
    this.#options = options;
    options.listener?.passIdle();
  }

  get owns(): boolean {
    return this.#owns;
  }
  get size(): number {
    return this.#sockets.size;
  }
  /** How many stay here though another version owns the others. */
  get kept(): number {
    return this.#kept.size;
  }
  /** Those that are open here, each with its meta; empty while another version owns them. */
  [Symbol.iterator](): IterableIterator<[WebSocket, JsonObject]> {
    return this.#sockets.entries();
  }

  /**
   * Takes charge of a connection that this app accepted. One that comes while another version owns them is closed
   * with 1012: its client connects again, and reaches that version.
   * @param meta what a successor needs to know of it, at most `BOUNDS.websocketMetaBytesMax` as JSON; kept by
   *   reference, so that its fields may be brought up to date
   * @returns whether it is ours
   */
  add(socket: WebSocket, meta: JsonObject = {}): boolean {
    if (!this.#owns) {
      socket.close(RESTART);
      return false;
    }
    this.#sockets.set(socket, meta);
    // An error is followed by 'close'; an app that does not listen for it shall not fall from the sky.
    socket.on('error', () => {});
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#kept.delete(socket);
    });
    return true;
  }

  /** Sends to all. While another version owns them there are none. */
  broadcast(data: string | Uint8Array): void {
    for (const socket of this.#sockets.keys()) {
      if (socket.readyState === WebSocket.OPEN) socket.send(data);
    }
  }

  async grant(grant: Grant<ConnectionsPayload>): Promise<void> {
    const descriptors = new Map(grant.descriptors);
    try {
      const { connections } =
        grant.payload === null ? { connections: [] } : v.parse(payloadSchema, grant.payload);
      this.#owns = true;
      for (const [socket, meta] of this.#kept) {
        this.#sockets.set(socket, meta);
        this.#options.onReturn?.(socket, meta);
      }
      this.#kept.clear();
      let count = 0;
      for (const entry of connections) {
        const fd = descriptors.get(entry.fd);
        if (fd === undefined) throw new HolderError('NO_DESCRIPTOR', `no descriptor "${entry.fd}"`);
        descriptors.delete(entry.fd);
        // After an undelivered release the descriptors are our own duplicates, not to be closed by `drop`.
        this.#moved = this.#moved.filter((moved) => moved !== fd);
        this.#adopt(fd, entry);
        count += 1;
        if (count % BOUNDS.websocketTurnCountMax === 0) await turn();
      }
    } finally {
      closeAll(descriptors.values());
      this.#moved = this.#moved.filter((moved) => ![...descriptors.values()].includes(moved));
    }
  }

  async release(deadlineMs: number): Promise<Released<ConnectionsPayload>> {
    if (!this.#owns) throw new HolderError('NOT_OWNER', 'the connections are not ours');
    this.#owns = false;
    const sockets = [...this.#sockets];
    this.#sockets.clear();
    const { flushMsMax = BOUNDS.websocketFlushMsMax } = this.#options;
    const untilMs = performance.now() + Math.min(flushMsMax, deadlineMs / 2);
    const moving: [WebSocket, JsonObject][] = [];
    let closed = 0;
    for (const [socket, meta] of sockets) {
      // A client that is saying goodbye stays with who said it first.
      if (socket.readyState !== WebSocket.OPEN) continue;
      if (canMove(socket, meta)) {
        freeze(socket);
        moving.push([socket, meta]);
      } else {
        socket.close(RESTART);
        closed += 1;
      }
    }
    const connections: Entry[] = [];
    const descriptors: NamedDescriptor[] = [];
    const pass = (fd: number, entry: Omit<Entry, 'fd' | 'position'>): void => {
      const name = `c${connections.length}`;
      this.#moved.push(fd);
      descriptors.push({ name, fd });
      connections.push({ ...entry, fd: name, ...positionOf(fd) });
    };
    for (const [at, [socket, meta]] of moving.entries()) {
      if (at > 0 && at % BOUNDS.websocketTurnCountMax === 0) await turn();
      while (!flushed(socket) && performance.now() < untilMs) await pause(1);
      if (!flushed(socket)) {
        thaw(socket);
        this.#kept.set(socket, meta);
        continue;
      }
      const head = headOf(socket);
      if (head === undefined || head.length > BOUNDS.websocketHeadBytesMax) {
        thaw(socket);
        void goodbye(socket);
        closed += 1;
        continue;
      }
      const { _protocol: protocol } = inside(socket);
      pass(letGo(socket), { kind: 'websocket', protocol, head: head.toString('base64'), meta });
    }
    for (const fd of this.#options.listener?.takeIdle() ?? []) {
      pass(fd, { kind: 'http', protocol: '', head: '', meta: {} });
    }
    return { payload: { connections, closed, kept: this.#kept.size } as ConnectionsPayload, descriptors };
  }

  async retire(): Promise<void> {
    await Promise.all([...this.#kept.keys()].map((socket) => goodbye(socket)));
  }

  drop(): void {
    this.#owns = false;
    closeAll(this.#moved.splice(0));
    // Only if they are dropped without a release: their clients connect again, to whoever owns them.
    for (const socket of this.#sockets.keys()) socket.close(RESTART);
    this.#sockets.clear();
  }

  async rehearse(): Promise<void> {
    const [near, far] = native.socketPair();
    const sockets = new WebSockets({ onAdopt: (socket) => socket.send('') });
    const entry = { fd: 'c0', kind: 'websocket', protocol: '', head: '', meta: {} } as const;
    try {
      const payload = { connections: [entry], closed: 0, kept: 0 };
      await sockets.grant({ from: 'release', payload, descriptors: new Map([['c0', near]]), epoch: 0 });
      await sockets.release(LIMITS.otherReleaseMsMax);
    } finally {
      sockets.drop();
      native.close(far);
    }
  }

  #adopt(fd: number, { kind, protocol, head, position, meta }: Entry): void {
    const now = native.tcpPosition(fd);
    const isTouched = position?.some((count, at) => count !== now[at]);
    if (kind === 'http') {
      // Its client asks again, as after any server's restart.
      if (isTouched || this.#options.listener === undefined) native.close(fd);
      else this.#options.listener.adopt(fd);
      return;
    }
    const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
    socket.pause();
    const socketOfWs = new WebSocket(null as unknown as string, undefined, { autoPong: true } as object);
    const it = inside(socketOfWs);
    it._protocol = protocol;
    it.setSocket(socket, Buffer.from(head, 'base64'), {
      allowSynchronousEvents: true,
      maxPayload: this.#options.maxPayload ?? 1024 * 1024,
      maxBufferedChunks: 0,
      maxFragments: 0,
      skipUTF8Validation: false,
    });
    if (isTouched) {
      void goodbye(socketOfWs);
      return;
    }
    this.add(socketOfWs, meta as JsonObject);
    this.#options.onAdopt(socketOfWs, meta as JsonObject);
    socket.resume();
  }
}

const inside = (socket: WebSocket): Inside => socket as unknown as Inside;

const canMove = (socket: WebSocket, meta: JsonObject): boolean => {
  const { _socket, _receiver, _sender, _extensions, _isServer } = inside(socket);
  return (
    _isServer === true &&
    _socket instanceof Socket &&
    !(_socket instanceof TLSSocket) &&
    typeof _socket._handle?.fd === 'number' &&
    _socket._handle.fd >= 0 &&
    typeof _socket._handle.readStop === 'function' &&
    typeof _socket._handle.readStart === 'function' &&
    typeof _extensions === 'object' &&
    Object.keys(_extensions).length === 0 &&
    Array.isArray(_sender?._queue) &&
    Number.isInteger(_sender._state) &&
    _sender._firstFragment === true &&
    receiverIsKnown(_receiver) &&
    Buffer.byteLength(JSON.stringify(meta)) <= BOUNDS.websocketMetaBytesMax
  );
};

/** Nothing is read from here on, whatever Node's stream asks for, and nothing more is sent. */
const freeze = (socket: WebSocket): void => {
  const it = inside(socket);
  const { _socket } = it;
  if (_socket === null) return;
  _socket._read = () => {};
  _socket.pause();
  if (_socket._handle !== null) {
    _socket._handle.readStop();
    _socket._handle.reading = false;
  }
  it._readyState = WebSocket.CLOSING;
};

/** Not by ws's own count of bytes: it counts what the app tries to send after the freeze, which goes nowhere. */
const flushed = (socket: WebSocket): boolean => {
  const { _socket, _sender } = inside(socket);
  return (
    _socket !== null &&
    _socket.writableLength === 0 &&
    (_socket._handle?.writeQueueSize ?? 0) === 0 &&
    _sender._state === 0 &&
    _sender._queue.length === 0
  );
};

/** All that was read and not yet given to the app, as a client would send it again. */
const headOf = (socket: WebSocket): Buffer | undefined => {
  const { _socket, _receiver } = inside(socket);
  if (_socket === null || _socket._handle === null || _socket.destroyed) return undefined;
  const parsed = receiverHead(_receiver);
  if (parsed === undefined) return undefined;
  _socket.removeAllListeners('data');
  const parts = [parsed];
  for (let rest = _socket.read() as Buffer | null; rest !== null; rest = _socket.read() as Buffer | null) {
    parts.push(rest);
  }
  return Buffer.concat(parts);
};

/** A duplicate of its descriptor; the original is closed without a word to the far side. */
const letGo = (socket: WebSocket): number => {
  const it = inside(socket);
  const { _socket } = it;
  const handle = _socket?._handle;
  if (_socket == null || handle == null) throw new Error('invariant: headOf has looked for the handle');
  const fd = native.duplicate(handle.fd);
  clearTimeout(it._closeTimer ?? undefined);
  socket.removeAllListeners();
  it._receiver.removeAllListeners();
  _socket.removeAllListeners();
  _socket.on('error', () => {});
  _socket._handle = null;
  handle.close();
  _socket.destroy();
  it._readyState = WebSocket.CLOSED;
  return fd;
};

/** Reads and is read again, as if nothing had been. */
const thaw = (socket: WebSocket): void => {
  const it = inside(socket);
  const { _socket } = it;
  it._readyState = WebSocket.OPEN;
  if (_socket === null) return;
  Reflect.deleteProperty(_socket, '_read');
  _socket.resume();
  // Node's stream still waits for what it had asked for before: it does not ask again.
  if (_socket._handle === null || _socket._handle.reading) return;
  _socket._handle.reading = true;
  _socket._handle.readStart();
};

/** Tells it to connect again, and ends it if it does not hear that either. */
const goodbye = (socket: WebSocket): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(() => socket.terminate(), BOUNDS.websocketCloseMsMax);
    socket.on('error', () => {});
    socket.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
    socket.close(RESTART);
  });

const positionOf = (fd: number): Pick<Entry, 'position'> => {
  const position = native.tcpPosition(fd);
  return position[0] < 0 ? {} : { position };
};
