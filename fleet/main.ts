/** `midair hub`: starts a hub from the command line's words, says when it is ready, and ends on a signal. */
import Docker from 'dockerode';
import { pino } from 'pino';
import { FleetError } from '#fleet/errors.ts';
import { startHub } from '#fleet/hub.ts';

export interface RunOptions {
  dir: string;
  /** `host:port`; port 0 takes a free one. */
  http?: string;
  mqtt?: string;
  /** `unix:///path`, `tcp://host:port`; default: DOCKER_HOST, else the engine's usual socket. */
  engine?: string;
  fleet?: string;
  /** balena's machine name and architecture of the fleet's devices; both or neither. */
  machine?: string;
  arch?: string;
  logLevel?: string;
  /** Ends the hub as a signal does. */
  signal?: AbortSignal;
}

/**
 * Runs until SIGINT, SIGTERM or `signal`. Prints one line when ready:
 * `{"ready":true,"url":"http://…","mqtt":"mqtt://…","git":"http://…/git/{app}.git","fleet":"…"}`; its log goes to
 * standard error.
 */
export async function run(options: RunOptions): Promise<void> {
  const log = pino({ level: options.logLevel ?? 'info' }, pino.destination({ fd: 2, sync: true }));
  const fleet = options.fleet ?? 'fleet';
  const hub = await startHub({
    directory: options.dir,
    http: hostAndPort(options.http ?? '127.0.0.1:8420'),
    mqtt: hostAndPort(options.mqtt ?? '127.0.0.1:1883'),
    engine: engineAt(options.engine ?? process.env.DOCKER_HOST ?? 'unix:///var/run/docker.sock'),
    fleet,
    ...(options.machine && options.arch
      ? { deviceType: { machine: options.machine, arch: options.arch } }
      : {}),
    log,
  });
  const ready = { ready: true, url: hub.url, mqtt: hub.mqttUrl, git: `${hub.url}/git/{app}.git`, fleet };
  process.stdout.write(`${JSON.stringify(ready)}\n`);
  await new Promise<void>((done) => {
    process.once('SIGINT', done);
    process.once('SIGTERM', done);
    if (options.signal?.aborted) done();
    options.signal?.addEventListener('abort', () => done(), { once: true });
  });
  await hub.close();
}

/** A client of the engine at `unix:///path`, `tcp://host:port` or `http://host:port`. */
export function engineAt(address: string): Docker {
  const url = URL.parse(address);
  if (url?.protocol === 'unix:') return new Docker({ socketPath: decodeURIComponent(url.pathname) });
  if (url?.protocol === 'tcp:' || url?.protocol === 'http:') {
    return new Docker({ protocol: 'http', host: url.hostname, port: Number(url.port || 2375) });
  }
  throw new FleetError(
    'BAD_REQUEST',
    `not an engine's address: ${address}`,
    'use unix:///path or tcp://host:port',
  );
}

function hostAndPort(text: string): { host: string; port: number } {
  const match = /^(.*):(\d{1,5})$/.exec(text);
  if (!match || Number(match[2]) > 65_535) {
    throw new FleetError('BAD_REQUEST', `not an address: ${text}`, 'use host:port, such as 127.0.0.1:8420');
  }
  return { host: (match[1] ?? '').replace(/^\[|\]$/g, ''), port: Number(match[2]) };
}
