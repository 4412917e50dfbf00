/**
 * A link's way through two network namespaces with a pair of virtual interfaces between them, so that what the kernel does to
 * packets is done to real ones: loss and partition by iptables, latency by tc's netem where the kernel has it.
 *
 * Invariant: both namespaces are ours alone and go with their relays, which go with us; nothing outside them is configured. What
 * is set is set as a whole, so that undoing is setting what is left.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { createServer, connect as netConnect, type Server } from 'node:net';
import { join as joinPath } from 'node:path';
import { promisify } from 'node:util';
import { ChaosError, textOf } from '#cli/chaos/errors.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import type { Sides } from '#cli/chaos/wire/connection.ts';
import { join } from '#cli/chaos/wire/relay.ts';
import type { Conditions } from '#cli/chaos/wire/valve.ts';
import { findCommand } from '#cli/paths.ts';

const run = promisify(execFile);
/** Seen by nobody but the two. */
const ADDRESSES = { device: '10.231.77.1', hub: '10.231.77.2' } as const;
const PORTS = { hub: 7001, mqtt: 7002 } as const;
export type Route = keyof typeof PORTS;
const COMMANDS = {
  unshare: 'util-linux',
  nsenter: 'util-linux',
  ip: 'iproute2',
  tc: 'iproute2',
  iptables: 'iptables',
};

export class Namespaces {
  readonly #directory: string;
  readonly #relays: { device: ChildProcess; hub: ChildProcess };
  readonly #exits: Server[] = [];
  #queue: Promise<void> = Promise.resolve();
  /** Whether the kernel can delay packets: CONFIG_NET_SCH_NETEM. */
  readonly hasNetem: boolean;

  /** @throws ChaosError `NAMESPACE` with what is missing */
  static async open(directory: string): Promise<Namespaces> {
    if (process.getuid?.() !== 0) throw new ChaosError('NAMESPACE', 'network namespaces are made by root');
    for (const [command, debian] of Object.entries(COMMANDS)) {
      if (findCommand(command) === undefined) {
        throw new ChaosError(
          'NAMESPACE',
          `${command} is missing (Debian: apt-get install ${debian}); or leave out --namespaces`,
        );
      }
    }
    const path = (name: string) => joinPath(directory, name);
    for (const route of ['hub', 'mqtt'] as const) rmSync(path(`${route}.in`), { force: true });
    const device = startRelay(
      (['hub', 'mqtt'] as const).flatMap((route) => [
        path(`${route}.in`),
        `${ADDRESSES.hub}:${PORTS[route]}`,
      ]),
    );
    const hub = startRelay(
      (['hub', 'mqtt'] as const).flatMap((route) => [`0.0.0.0:${PORTS[route]}`, path(`${route}.out`)]),
    );
    try {
      await Promise.all([ready(device), ready(hub)]);
      await inside(device, `ip link set lo up && ip link add wire type veth peer name wire netns ${hub.pid}`);
      for (const [relay, address] of [
        [device, ADDRESSES.device],
        [hub, ADDRESSES.hub],
      ] as const) {
        await inside(
          relay,
          `ip address add ${address}/30 dev wire && ip link set wire up && iptables -L INPUT -n`,
        );
      }
      const hasNetem = await inside(
        device,
        'tc qdisc add dev wire root netem delay 0ms && tc qdisc del dev wire root',
      ).then(
        () => true,
        () => false,
      );
      return new Namespaces(directory, { device, hub }, hasNetem);
    } catch (cause) {
      for (const relay of [device, hub]) relay.stdin?.destroy();
      if (cause instanceof ChaosError) throw cause;
      throw new ChaosError('NAMESPACE', `no namespace: ${textOf(cause)}; or leave out --namespaces`, {
        cause,
      });
    }
  }

  private constructor(
    directory: string,
    relays: { device: ChildProcess; hub: ChildProcess },
    hasNetem: boolean,
  ) {
    this.#directory = directory;
    this.#relays = relays;
    this.hasNetem = hasNetem;
  }

  /** Where a connection goes in; it comes out at `to`. */
  async route(route: Route, to: { host: string; port: number }): Promise<{ path: string }> {
    const exit = joinPath(this.#directory, `${route}.out`);
    rmSync(exit, { force: true });
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      join(socket, netConnect({ ...to, allowHalfOpen: true }));
    });
    await new Promise<void>((resolve) => server.listen(exit, () => resolve()));
    this.#exits.push(server);
    return { path: joinPath(this.#directory, `${route}.in`) };
  }

  /** Sets all of it, in the order of the calls. @returns what the kernel could not do */
  async set(sides: Sides): Promise<Sides> {
    const work = this.#queue.then(async () => {
      // Packets to the hub leave the device's interface and come in at the hub's.
      await inside(this.#relays.hub, filter(sides.toHub));
      await inside(this.#relays.device, filter(sides.fromHub));
      if (!this.hasNetem) return;
      await inside(this.#relays.device, delay(sides.toHub));
      await inside(this.#relays.hub, delay(sides.fromHub));
    });
    this.#queue = work.catch(() => undefined);
    await work;
    return { toHub: this.#left(sides.toHub), fromHub: this.#left(sides.fromHub) };
  }

  #left(conditions: Conditions): Conditions {
    const { latencyMs, jitterMs } = this.hasNetem ? { latencyMs: 0, jitterMs: 0 } : conditions;
    return { partitioned: false, lossPercent: 0, latencyMs, jitterMs };
  }

  async close(): Promise<void> {
    await this.#queue;
    for (const server of this.#exits) server.close();
    const ended = Object.values(this.#relays).map(
      (relay) =>
        new Promise<void>((resolve) => {
          if (relay.exitCode !== null || relay.signalCode !== null) resolve();
          relay.once('exit', () => resolve());
          relay.stdin?.destroy();
        }),
    );
    await Promise.all(ended);
  }
}

const filter = ({ partitioned, lossPercent }: Conditions): string => {
  const lost = `iptables -A INPUT -m statistic --mode random --probability ${lossPercent / 100} -j DROP`;
  const rule = partitioned ? 'iptables -A INPUT -j DROP' : lossPercent > 0 ? lost : 'true';
  return `iptables -F INPUT && ${rule}`;
};

const delay = ({ latencyMs, jitterMs }: Conditions): string =>
  latencyMs > 0
    ? `tc qdisc replace dev wire root netem delay ${latencyMs}ms ${jitterMs}ms`
    : 'tc qdisc del dev wire root 2>/dev/null || true';

function startRelay(addresses: string[]): ChildProcess {
  const program = joinPath(
    import.meta.dirname,
    `relay.${import.meta.filename.endsWith('.ts') ? 'ts' : 'js'}`,
  );
  const args = ['--net', process.execPath, program, ...addresses];
  return spawn(findCommand('unshare') as string, args, { stdio: ['pipe', 'pipe', 'inherit'] });
}

async function ready(relay: ChildProcess): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('a relay does not start')), CHAOS.watchdogReadyMsMax);
    relay.stdout?.once('data', () => {
      clearTimeout(timer);
      resolve();
    });
    relay.once('error', reject);
    relay.once('exit', () => reject(new Error('a relay ended at once')));
  });
}

/** In the relay's namespace. */
async function inside(relay: ChildProcess, script: string): Promise<void> {
  await run(findCommand('nsenter') as string, [
    `--net=/proc/${relay.pid}/ns/net`,
    'sh',
    '-c',
    `PATH=$PATH:/usr/sbin:/sbin; ${script}`,
  ]);
}
