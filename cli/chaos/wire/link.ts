/**
 * The wire between a device and its hub: TCP as it is, until a fault is set on it.
 *
 * Invariant: every fault has an end of its own here, whoever set it and whatever became of him. With none set, bytes pass as
 * they come. Only addresses of this machine are listened on and connected to.
 */
import { createServer, type NetConnectOpts, type Server } from 'node:net';
import { textOf } from '#cli/chaos/errors.ts';
import type { Parameters } from '#cli/chaos/experiment.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { Connection, type Sides } from '#cli/chaos/wire/connection.ts';
import type { Namespaces, Route } from '#cli/chaos/wire/namespaces.ts';
import { CLEAR, type Conditions } from '#cli/chaos/wire/valve.ts';

export interface Fault extends Pick<Parameters, 'latencyMs' | 'jitterMs' | 'lossPercent' | 'way'> {
  readonly id: string;
  readonly failure: 'latency' | 'loss' | 'partition';
  readonly seed: number;
  /** It ends by itself after this. */
  readonly forMs: number;
}

export class Link {
  readonly #faults = new Map<string, { fault: Fault; timer: NodeJS.Timeout }>();
  readonly #connections = new Set<Connection>();
  readonly #servers: Server[] = [];
  readonly #namespaces: Namespaces | undefined;
  /** Of every connection, as far as the kernel does not do it. */
  #conditions: Sides = { toHub: CLEAR, fromHub: CLEAR };
  #accepted = 0;
  #passed = { toHub: 0, fromHub: 0 };

  /** @param namespaces its bytes go through these */
  constructor(namespaces?: Namespaces) {
    this.#namespaces = namespaces;
  }

  /** @returns the port of 127.0.0.1 that is listened on. @throws a listen error such as EADDRINUSE */
  async open(route: Route, address: { host: string; port: number }, port = 0): Promise<number> {
    const to: NetConnectOpts = (await this.#namespaces?.route(route, address)) ?? address;
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      if (this.#connections.size >= CHAOS.wireConnectionsMax) {
        socket.destroy();
        return;
      }
      const seed = [...this.#faults.values()].reduce((sum, { fault }) => sum ^ fault.seed, ++this.#accepted);
      const connection = new Connection({
        ...{ device: socket, to, seed: seed >>> 0, sides: this.#conditions },
        onClose: () => this.#closed(connection),
      });
      this.#connections.add(connection);
    });
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host: '127.0.0.1', port }, () => {
        server.off('error', reject);
        resolve();
      });
    });
    return (server.address() as { port: number }).port;
  }

  /** @returns false: there are too many. One of the same id is replaced. */
  async set(fault: Fault): Promise<boolean> {
    if (this.#faults.size >= CHAOS.wireFaultsMax && !this.#faults.has(fault.id)) return false;
    clearTimeout(this.#faults.get(fault.id)?.timer);
    const timer = setTimeout(() => this.#over(fault.id), fault.forMs);
    this.#faults.set(fault.id, { fault, timer });
    await this.#apply();
    return true;
  }

  /** @returns whether it was still set */
  async clear(id: string): Promise<boolean> {
    const known = this.#faults.get(id);
    clearTimeout(known?.timer);
    this.#faults.delete(id);
    await this.#apply();
    return known !== undefined;
  }

  /** Tried again until it works: nobody else may be left to do it. */
  #over(id: string): void {
    this.clear(id).catch((error: unknown) => {
      process.stderr.write(`chaos link: ${id} is not cleared: ${textOf(error)}; trying again\n`);
      setTimeout(() => this.#over(id), CHAOS.undoRetryMs).unref();
    });
  }

  state() {
    const passed = { ...this.#passed };
    for (const one of this.#connections) {
      passed.toHub += one.passed.toHub;
      passed.fromHub += one.passed.fromHub;
    }
    return {
      faults: [...this.#faults.values()].map(({ fault }) => fault),
      connections: this.#connections.size,
      accepted: this.#accepted,
      passed,
    };
  }

  async close(): Promise<void> {
    for (const { timer } of this.#faults.values()) clearTimeout(timer);
    const closed = this.#servers.map((server) => new Promise((resolve) => server.close(resolve)));
    for (const one of this.#connections) one.destroy();
    await Promise.all(closed);
    await this.#namespaces?.close();
  }

  #closed(connection: Connection): void {
    if (!this.#connections.delete(connection)) return;
    this.#passed.toHub += connection.passed.toHub;
    this.#passed.fromHub += connection.passed.fromHub;
  }

  async #apply(): Promise<void> {
    this.#conditions = (await this.#namespaces?.set(this.#sides())) ?? this.#sides();
    for (const one of [...this.#connections]) one.set(this.#conditions);
  }

  #sides(): Sides {
    const faults = [...this.#faults.values()].map(({ fault }) => fault);
    return { toHub: together(faults, 'to-hub'), fromHub: together(faults, 'from-hub') };
  }
}

/** Of all faults that are set on one way: delays add up, the worst loss counts. Pure. */
export function together(faults: readonly Fault[], way: 'to-hub' | 'from-hub'): Conditions {
  const on = (failure: Fault['failure']) =>
    faults.filter((fault) => fault.failure === failure && (fault.way === 'both' || fault.way === way));
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  const latency = on('latency');
  return {
    partitioned: on('partition').length > 0,
    latencyMs: sum(latency.map(({ latencyMs }) => latencyMs)),
    jitterMs: sum(latency.map(({ jitterMs }) => jitterMs)),
    lossPercent: Math.max(0, ...on('loss').map(({ lossPercent }) => lossPercent)),
  };
}
