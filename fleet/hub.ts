/**
 * The hub, one process: git receive, build, store, deltas, broker, API.
 *
 * Invariant: what is true is in the store, the repositories and the blobs, each written so that it survives
 * `kill -9`; everything else here is rebuilt from them at the start.
 */
import { mkdir } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { getRequestListener } from '@hono/node-server';
import type Docker from 'dockerode';
import type { BaseLogger } from 'pino';
import { createApi, errorBody, statusOf } from '#fleet/api.ts';
import { serveBlob } from '#fleet/blob-http.ts';
import { Blobs } from '#fleet/blobs.ts';
import { type Broker, createBroker } from '#fleet/broker.ts';
import { type DeviceType, deviceTypeOf } from '#fleet/dockerfile.ts';
import { asFleetError, FleetError } from '#fleet/errors.ts';
import { GitHttp } from '#fleet/git-http.ts';
import { LIMITS } from '#fleet/limits.ts';
import { listen } from '#fleet/listen.ts';
import { Offers } from '#fleet/offers.ts';
import { Pushes } from '#fleet/pushes.ts';
import { releaseMaker, removeLeftBuilds } from '#fleet/releases.ts';
import { type HookName, Repositories } from '#fleet/repositories.ts';
import { openSqliteStore } from '#fleet/sqlite.ts';
import { Targets } from '#fleet/targets.ts';

export interface HubOptions {
  /** Everything that the hub keeps: store, repositories, blobs. Made if it is not there. */
  directory: string;
  /** Port 0 takes a free one. */
  http: { host: string; port: number };
  mqtt: { host: string; port: number };
  engine: Docker;
  /** A name: lower-case letters, digits, `.`, `_`, `-`. */
  fleet: string;
  /** What the fleet's devices are; default: what the engine's machine is. */
  deviceType?: DeviceType;
  log: BaseLogger;
}

export interface Hub {
  /** `http://host:port`; git at `/git/{app}.git`, the API at `/v1/…`, the status page at `/`. */
  url: string;
  /** `mqtt://host:port` */
  mqttUrl: string;
  /** Gives up running builds, says goodbye, and resolves when nothing of the hub is left. */
  close(): Promise<void>;
}

/**
 * Starts a hub, and takes up what an earlier one on the same directory left.
 *
 * @throws FleetError `HUB_RUNNING`, `STORE_NEWER`, `BAD_REQUEST`; a listen error such as EADDRINUSE
 */
export async function startHub(options: HubOptions): Promise<Hub> {
  const { fleet, log, engine } = options;
  if (!/^[a-z0-9][a-z0-9._-]{0,62}$/.test(fleet)) {
    throw new FleetError(
      'BAD_REQUEST',
      `"${fleet}" is not a name for a fleet`,
      'use lower-case letters and digits',
    );
  }
  const directory = resolve(options.directory);
  await mkdir(join(directory, 'git'), { recursive: true });
  // First of all, since it holds the directory against a second hub.
  const store = openSqliteStore(join(directory, 'hub.sqlite'));
  const undo: (() => Promise<void> | void)[] = [() => store.close()];
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    store.allOffline();
    const blobs = await Blobs.open(join(directory, 'blobs'));
    const repositories = new Repositories(join(directory, 'git'));
    let broker: Broker | undefined;
    const offers = new Offers({ store, blobs, log, onOffer: (basis) => targets.publishAgain(basis) });
    undo.push(() => offers.close());
    const targets = new Targets({
      fleet,
      store,
      offer: (release, has) => offers.release(release, has),
      publish: async (device, target) => broker?.publishTarget(device, target),
    });
    broker = await createBroker({
      fleet,
      store,
      log,
      onDevice: (device) => {
        targets
          .publishTo(device)
          .catch((error: unknown) => log.error({ err: error, device }, 'target not published'));
      },
      onCurrent: (current) => offers.consider(current),
    });
    undo.push(() => broker?.close());

    const pushes = new Pushes({
      repositories,
      store,
      targets,
      fleet,
      log,
      makeRelease: releaseMaker({
        engine,
        repositories,
        store,
        blobs,
        fleet,
        log,
        deviceType: async () =>
          options.deviceType ??
          deviceTypeOf(String(((await engine.info()) as { Architecture?: string }).Architecture)),
      }),
    });
    for (const app of await repositories.apps()) {
      await repositories.removeLeftQuarantines(app);
      await pushes.reconcile(app);
    }
    await removeLeftBuilds(engine, store, log);
    await targets.publishAll();

    let url = '';
    let mqttUrl = '';
    const git = new GitHttp({ repositories, pushes, hookUrl: () => hookUrl(url), log });
    const api = getRequestListener(
      createApi({
        fleet,
        store,
        targets,
        log,
        offer: (release) => offers.release(release, new Set()),
        addresses: () => ({ url, mqttUrl }),
      }).fetch,
    );
    const server = createServer((request, response) => {
      route({ request, response, git, pushes, blobs, api }).catch((error: unknown) => {
        const told = asFleetError(error);
        if (told.blame === 'hub') log.error({ err: error, path: request.url }, 'request failed');
        if (response.headersSent) response.destroy();
        else response.writeHead(statusOf(told), JSON_TYPE).end(JSON.stringify(errorBody(told)));
      });
    });
    // A push's body may take its time; `pushMsMax` bounds it where it is read.
    server.requestTimeout = LIMITS.pushMsMax;
    url = `http://${hostText(await listen(server, options.http))}`;
    undo.push(async () => {
      // Git first, while its hooks still reach the hub.
      pushes.stop();
      await git.close();
      const closed = new Promise<void>((done) => server.close(() => done()));
      server.closeAllConnections();
      await closed;
    });
    mqttUrl = `mqtt://${hostText(await broker.listen(options.mqtt))}`;
    log.info({ url, mqttUrl, fleet, directory, generation: targets.now().generation }, 'hub ready');
    return { url, mqttUrl, close };
  } catch (error) {
    await close();
    throw error;
  }
}

interface Routing {
  request: IncomingMessage;
  response: ServerResponse;
  git: GitHttp;
  pushes: Pushes;
  blobs: Blobs;
  api: (request: IncomingMessage, response: ServerResponse) => Promise<void>;
}

const JSON_TYPE = { 'content-type': 'application/json; charset=utf-8' };

/** Streams (git, the hook, blobs) are served as streams; the rest is the API's. */
async function route({ request, response, git, pushes, blobs, api }: Routing): Promise<void> {
  const url = URL.parse(request.url ?? '/', 'http://hub');
  const path = url ? decoded(url.pathname) : undefined;
  if (!url || path === undefined)
    throw new FleetError('BAD_REQUEST', 'not an address', 'correct the request');
  if (path.startsWith('/git/')) return git.handle(request, response, path, url.search.slice(1));
  const [, digest] = /^\/v1\/blobs\/(.+)$/.exec(path) ?? [];
  if (digest !== undefined) return serveBlob(blobs, digest, request, response);
  const [, hook] = /^\/hook\/(pre-receive|post-receive)$/.exec(path) ?? [];
  if (hook !== undefined) return serveHook(pushes, hook as HookName, request, response);
  return api(request, response);
}

/** The hook's question and its answer: one JSON object a line, `{line}` as they come, `{exit}` last. */
async function serveHook(pushes: Pushes, name: HookName, request: IncomingMessage, response: ServerResponse) {
  if (request.method !== 'POST')
    throw new FleetError('NOT_FOUND', 'this is for the git hook', 'push with git');
  const token = request.headers.authorization?.replace(/^Bearer /, '') ?? '';
  // Before its body is read: this door is open to whoever reaches the hub.
  if (!pushes.knows(token)) throw new FleetError('NOT_FOUND', 'no such push is going on', 'push with git');
  if (Number(request.headers['content-length'] ?? 0) > LIMITS.hookBodyBytesMax) {
    throw new FleetError('TOO_LARGE', 'too many refs', 'push less at once');
  }
  const body = (await buffer(request)).toString();
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  response.flushHeaders();
  const write = (answer: object) => {
    if (!response.destroyed) response.write(`${JSON.stringify(answer)}\n`);
  };
  const exit = await pushes.hook(token, name, parseJson(body), (line) => write({ line }));
  write({ exit });
  response.end();
}

function decoded(path: string): string | undefined {
  try {
    return decodeURIComponent(path);
  } catch {
    return undefined;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const hostText = ({ address, family, port }: AddressInfo) =>
  `${family === 'IPv6' ? `[${address}]` : address}:${port}`;

/** The hook runs on this machine: an address that means "any" is reached at its loopback. */
const hookUrl = (url: string) => url.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:');
