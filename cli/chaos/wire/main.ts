/** `midair chaos link`: the wire of one device as a process: opened, marked, told, and ended by a signal. */
import { mkdirSync, rmSync } from 'node:fs';
import { isIP } from 'node:net';
import { join, resolve } from 'node:path';
import { MARK_FILE } from '#agent/test-device.ts';
import { ChaosError } from '#cli/chaos/errors.ts';
import { writeMark } from '#cli/chaos/marks.ts';
import { CONTROL_SOCKET } from '#cli/chaos/paths.ts';
import { openControl } from '#cli/chaos/wire/control.ts';
import { Link } from '#cli/chaos/wire/link.ts';
import { Namespaces } from '#cli/chaos/wire/namespaces.ts';
import { identify } from '#cli/processes.ts';

export interface LinkOptions {
  readonly directory: string;
  readonly device: string;
  /** The hub's own, `http://127.0.0.1:8420`. */
  readonly hub: string;
  readonly mqtt: string;
  /** Through network namespaces: loss and partition by the kernel. As root. */
  readonly namespaces?: boolean;
}

const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));

/** @throws ChaosError `NOT_LOOPBACK` */
function addressOf(url: string, port: number): { host: string; port: number } {
  const parsed = new URL(url);
  const host = parsed.hostname.replace(/^\[(.*)\]$/, '$1');
  if (!isLoopback(host)) {
    throw new ChaosError(
      'NOT_LOOPBACK',
      `${url} is not on this machine: a link carries the harness's bytes on loopback only`,
    );
  }
  return { host, port: Number(parsed.port || port) };
}

/** Until SIGINT or SIGTERM. */
export async function run(options: LinkOptions): Promise<void> {
  const { device } = options;
  const directory = resolve(options.directory);
  const [hub, mqtt] = [addressOf(options.hub, 80), addressOf(options.mqtt, 1883)];
  mkdirSync(directory, { recursive: true });
  const namespaces = options.namespaces ? await Namespaces.open(directory) : undefined;
  const link = new Link(namespaces);
  const ports = { hub: await link.open('hub', hub), mqtt: await link.open('mqtt', mqtt) };
  const control = await openControl(link, join(directory, CONTROL_SOCKET));
  const self = identify(process.pid);
  if (self === undefined) throw new ChaosError('INTERNAL', '/proc does not show this process');
  writeMark({ role: 'link', device, directory, ...self });
  process.stdout.write(
    `${JSON.stringify({
      ready: true,
      device,
      hub: `http://127.0.0.1:${ports.hub}`,
      mqtt: `mqtt://127.0.0.1:${ports.mqtt}`,
      control: join(directory, CONTROL_SOCKET),
      ...(namespaces === undefined ? {} : { namespaces: true, netem: namespaces.hasNetem }),
    })}\n`,
  );
  await new Promise<void>((done) => {
    process.once('SIGINT', done);
    process.once('SIGTERM', done);
  });
  rmSync(join(directory, MARK_FILE), { force: true });
  control.closeAllConnections();
  await new Promise((done) => control.close(done));
  await link.close();
}
