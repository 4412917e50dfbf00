/**
 * The wire between a device and its hub: TCP as it is, until a fault is set on it.
 *
 * Invariant: every fault has an end of its own here, whoever set it and whatever became of him. With none set, bytes pass as
 * they come. Only addresses of this machine are listened on and connected to.
 */
import { createServer, type Server } from 'node:net';
import type { Parameters } from '#cli/chaos/experiment.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { Connection, type Sides } from '#cli/chaos/wire/connection.ts';
import type { Conditions } from '#cli/chaos/wire/valve.ts';

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
  #accepted = 0;
  #passed = { toHub: 0, fromHub: 0 };

  /** @returns the port of 127.0.0.1 that is listened on. @throws a listen error such as EADDRINUSE */
  async open(to: { host: string; port: number }, port = 0): Promise<number> {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      if (this.#connections.size >= CHAOS.wireConnectionsMax) {
        socket.destroy();
        return;
      }
      const seed = [...this.#faults.values()].reduce((sum, { fault }) => sum ^ fault.seed, ++this.#accepted);
      const connection = new Connection(socket, to, seed >>> 0, () => this.#closed(connection));
      this.#connections.add(connection);
      connection.set(this.#sides());
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
  set(fault: Fault): boolean {
    if (this.#faults.size >= CHAOS.wireFaultsMax && !this.#faults.has(fault.id)) return false;
    clearTimeout(this.#faults.get(fault.id)?.timer);
    const timer = setTimeout(() => this.clear(fault.id), fault.forMs);
    this.#faults.set(fault.id, { fault, timer });
    this.#apply();
    return true;
  }

  /** @returns whether it was still set */
  clear(id: string): boolean {
    const known = this.#faults.get(id);
    clearTimeout(known?.timer);
    this.#faults.delete(id);
    this.#apply();
    return known !== undefined;
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
  }

  #closed(connection: Connection): void {
    if (!this.#connections.delete(connection)) return;
    this.#passed.toHub += connection.passed.toHub;
    this.#passed.fromHub += connection.passed.fromHub;
  }

  #apply(): void {
    const sides = this.#sides();
    for (const one of [...this.#connections]) one.set(sides);
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
