/**
 * One connection through the link: the device's side, the hub's side, a valve each way.
 *
 * Invariant: the hub's side is opened, ended and reset only through the valve that carries the device's bytes, and the other
 * way round: neither learns through a partition what became of the other.
 */
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { type Conditions, type Item, Valve } from '#cli/chaos/wire/valve.ts';

export interface Sides {
  readonly toHub: Conditions;
  readonly fromHub: Conditions;
}

export interface ConnectionOptions {
  readonly device: Socket;
  readonly to: NetConnectOpts;
  /** Of chance, 32 bits. */
  readonly seed: number;
  readonly sides: Sides;
  readonly onClose: () => void;
}

export class Connection {
  readonly #device: Socket;
  readonly #to: NetConnectOpts;
  readonly #toHub: Valve;
  readonly #fromHub: Valve;
  #hub: Socket | undefined;
  /** Bytes that passed. */
  readonly passed = { toHub: 0, fromHub: 0 };
  readonly #onClose: () => void;
  readonly #timers: Partial<Record<'toHub' | 'fromHub', NodeJS.Timeout>> = {};

  constructor({ device, to, seed, sides, onClose }: ConnectionOptions) {
    this.#device = device;
    this.#to = to;
    this.#onClose = onClose;
    this.#toHub = this.#valve('toHub', seed, (item) => this.#outToHub(item));
    this.#fromHub = this.#valve('fromHub', seed ^ 0x5bd1_e995, (item) =>
      this.#out('fromHub', this.#device, item),
    );
    this.#read(device, this.#toHub, () => this.#fromHub);
    // What is set now holds for its opening, too.
    this.set(sides);
    this.#toHub.put({ type: 'open' });
  }

  set({ toHub, fromHub }: Sides): void {
    this.#toHub.set(toHub);
    this.#fromHub.set(fromHub);
    this.#resume();
  }

  destroy(): void {
    this.#device.destroy();
    this.#hub?.destroy();
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
  }

  #valve(side: keyof Sides, seed: number, out: (item: Item) => boolean): Valve {
    return new Valve({
      seed,
      out,
      nowMs: () => performance.now(),
      wake: (atMs, back) => {
        clearTimeout(this.#timers[side]);
        this.#timers[side] = setTimeout(
          () => {
            back();
            this.#resume();
          },
          Math.max(0, atMs - performance.now()),
        );
      },
    });
  }

  /** What a socket says goes into its valve; that it takes again is told to the other. */
  #read(socket: Socket, into: Valve, other: () => Valve): void {
    socket.setNoDelay(true);
    socket.on('data', (bytes) => {
      into.put({ type: 'bytes', bytes });
      if (into.isFull) socket.pause();
    });
    let saidAll = false;
    socket.on('end', () => {
      saidAll = true;
      into.put({ type: 'end' });
      // It hung up before a partition let it through. Delivered later, it would be one more client of the same name.
      if (this.#hub === undefined && into.isShut) socket.destroy();
    });
    // `close` follows, and says all that the other side may know.
    socket.on('error', () => undefined);
    socket.on('drain', () => {
      other().ready();
      this.#resume();
    });
    socket.on('close', () => {
      if (!saidAll) into.put({ type: 'reset' });
      // Its valve may wait for it to drain: it never will.
      other().ready();
      this.#ended();
    });
  }

  #resume(): void {
    for (const [socket, valve] of [
      [this.#device, this.#toHub],
      [this.#hub, this.#fromHub],
    ] as const) {
      if (socket?.isPaused() && !valve.isFull) socket.resume();
    }
    this.#ended();
  }

  #outToHub(item: Item): boolean {
    if (item.type !== 'open') return this.#hub === undefined || this.#out('toHub', this.#hub, item);
    const hub = connect({ ...this.#to, allowHalfOpen: true });
    this.#hub = hub;
    this.#read(hub, this.#fromHub, () => this.#toHub);
    return true;
  }

  #out(side: keyof Sides, socket: Socket, item: Item): boolean {
    switch (item.type) {
      case 'bytes':
        this.passed[side] += item.bytes.length;
        // One that is gone takes everything.
        return socket.destroyed || socket.write(item.bytes);
      case 'end':
        socket.end();
        return true;
      case 'reset':
        // Through namespaces the hub's side is a unix socket, which knows no reset.
        if ('port' in this.#to || socket === this.#device) socket.resetAndDestroy();
        else socket.destroy();
        return true;
      case 'open':
        return true;
    }
  }

  /** A device that gave up before its connection came through was never heard of at the hub. */
  #ended(): void {
    if (!this.#device.destroyed || this.#hub?.destroyed === false) return;
    this.destroy();
    this.#onClose();
  }
}
