/**
 * Git over HTTP, by git's own http-backend as a CGI program (git-http-backend(1)), with nothing held in memory.
 *
 * Invariant: every push has one session with a one-time token, known to this push's processes only; the session
 * ends when git ended, and with it the push's turn. A pusher who goes away cancels his push.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { extname, join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { BaseLogger } from 'pino';
import { asFleetError, FleetError } from '#fleet/errors.ts';
import { LIMITS } from '#fleet/limits.ts';
import { endGroup, GIT_ENVIRONMENT } from '#fleet/processes.ts';
import type { Pushes, PushSession } from '#fleet/pushes.ts';
import type { Repositories } from '#fleet/repositories.ts';

const PATH = /^\/git\/([^/]+)\.git\/(info\/refs|git-upload-pack|git-receive-pack)$/;
/** Beside this file, in whatever form this file runs. */
const HOOK_PROGRAM = join(import.meta.dirname, `hook${extname(import.meta.filename)}`);

export interface GitHttpOptions {
  repositories: Repositories;
  pushes: Pushes;
  /** The hub's own address for the hook. */
  hookUrl: () => string;
  log: BaseLogger;
}

interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  /** Decoded, `/git/…`. */
  path: string;
  /** As it came, without `?`. */
  query: string;
}

export class GitHttp {
  readonly #options: GitHttpOptions;
  readonly #running = new Set<Promise<void>>();
  readonly #stopping = new AbortController();

  constructor(options: GitHttpOptions) {
    this.#options = options;
  }

  /** Answers a request under `/git/`; never throws. */
  async handle(
    request: IncomingMessage,
    response: ServerResponse,
    path: string,
    query: string,
  ): Promise<void> {
    const work = this.#handle({ request, response, path, query }).catch((error: unknown) =>
      refuse(response, error),
    );
    this.#running.add(work);
    await work.finally(() => this.#running.delete(work));
  }

  /** Gives up what is going on; resolves when no git process is left. */
  async close(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#running);
  }

  async #handle(exchange: Exchange): Promise<void> {
    const { request, path } = exchange;
    const { repositories, pushes } = this.#options;
    const [, app, endpoint] = PATH.exec(path) ?? [];
    if (app === undefined || endpoint === undefined) {
      throw new FleetError(
        'NOT_FOUND',
        'no such address in a git repository',
        'use {hub}/git/{app}.git as the remote',
      );
    }
    if (this.#stopping.signal.aborted) {
      throw new FleetError('BUSY', 'the hub is stopping', 'try again when it runs');
    }
    if (this.#running.size >= LIMITS.gitProcessesMax) {
      throw new FleetError('BUSY', 'the hub serves as many git clients as it can', 'try again in a moment');
    }
    const advertises = endpoint === 'info/refs';
    if (request.method !== (advertises ? 'GET' : 'POST')) {
      throw new FleetError(
        'BAD_REQUEST',
        `${request.method} is not for ${endpoint}`,
        'use git to talk to this address',
      );
    }
    const service = advertises ? new URLSearchParams(exchange.query).get('service') : endpoint;
    if (service === 'git-receive-pack') {
      await repositories.ensure(app);
      if (advertises) await pushes.reconcile(app);
    } else if (!(await repositories.exists(app))) {
      throw new FleetError(
        'NOT_FOUND',
        `there is no app "${app}" at this hub yet`,
        'push to it first: that makes it',
      );
    }

    if (endpoint !== 'git-receive-pack') {
      await this.#run(exchange, {}, undefined);
      return;
    }
    const token = randomBytes(32).toString('hex');
    const session = pushes.open(app, token);
    const environment = {
      MIDAIR_HOOK_URL: this.#options.hookUrl(),
      MIDAIR_HOOK_TOKEN: token,
      MIDAIR_HOOK_NODE: process.execPath,
      MIDAIR_HOOK_PROGRAM: HOOK_PROGRAM,
      NODE_NO_WARNINGS: '1',
    };
    try {
      await this.#run(exchange, environment, session);
    } finally {
      await pushes.end(session);
    }
  }

  /** Runs http-backend for one request, both ways at once, to its end. */
  async #run(exchange: Exchange, extra: NodeJS.ProcessEnv, session: PushSession | undefined): Promise<void> {
    const { request, response, path } = exchange;
    const child = spawn('git', ['http-backend'], {
      // A group of its own, so that git's helpers and the hook end with it.
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...GIT_ENVIRONMENT, ...this.#cgi(exchange), ...extra },
    });
    const ended = new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', () => resolve());
    });
    child.stderr.setEncoding('utf8');
    child.stderr.on('data', (words: string) =>
      this.#options.log.warn({ path, words: words.slice(0, 2_000) }, 'git http-backend said'),
    );

    let grace: NodeJS.Timeout | undefined;
    const giveUp = (why: string) => {
      if (grace) return;
      session?.cancel(why);
      child.stdin.destroy();
      // The hook says no at once and git then ends by itself; a git that sits elsewhere is ended.
      grace = setTimeout(() => endGroup(child, LIMITS.gitGraceMsMax), session ? LIMITS.gitGraceMsMax : 0);
    };
    const timer = setTimeout(() => giveUp('it took too long'), LIMITS.pushMsMax);
    const closed = () => {
      if (!response.writableFinished) giveUp('the pusher went away');
    };
    response.once('close', closed);
    const stop = () => giveUp('the hub is stopping');
    this.#stopping.signal.addEventListener('abort', stop, { once: true });

    try {
      const upload = pipeline(request, new Cap(LIMITS.pushBodyBytesMax), child.stdin).catch(
        (error: unknown) => {
          // Git may answer without reading all; that is its right. Anything else is noticed by `closed`.
          if (error instanceof FleetError) giveUp(error.message);
        },
      );
      await answer(child.stdout, response).catch((error: unknown) => giveUp(String(error)));
      await ended;
      await upload;
    } finally {
      clearTimeout(timer);
      clearTimeout(grace);
      response.off('close', closed);
      this.#stopping.signal.removeEventListener('abort', stop);
      if (!response.writableEnded) response.destroy();
    }
  }

  #cgi({ request, path, query }: Exchange): NodeJS.ProcessEnv {
    const headers = request.headers;
    return {
      GATEWAY_INTERFACE: 'CGI/1.1',
      SERVER_PROTOCOL: 'HTTP/1.1',
      GIT_PROJECT_ROOT: this.#options.repositories.directory,
      GIT_HTTP_EXPORT_ALL: '1',
      PATH_INFO: path.slice('/git'.length),
      QUERY_STRING: query,
      REQUEST_METHOD: request.method ?? 'GET',
      REMOTE_ADDR: request.socket.remoteAddress ?? '',
      REMOTE_USER: 'pusher',
      ...(headers['content-type'] ? { CONTENT_TYPE: headers['content-type'] } : {}),
      // Absent for a chunked body: http-backend then reads to the end of its input.
      ...(headers['content-length'] ? { CONTENT_LENGTH: headers['content-length'] } : {}),
      ...(headers['content-encoding'] ? { HTTP_CONTENT_ENCODING: headers['content-encoding'] } : {}),
      ...(typeof headers['git-protocol'] === 'string' ? { GIT_PROTOCOL: headers['git-protocol'] } : {}),
    };
  }
}

/** Reads the CGI head (RFC 3875 §6), then lets the body through as it comes. */
async function answer(output: NodeJS.ReadableStream, response: ServerResponse): Promise<void> {
  let head: Buffer | null = Buffer.alloc(0);
  await pipeline(
    output,
    new Transform({
      transform(chunk: Buffer, _encoding, done) {
        if (head === null) {
          done(null, chunk);
          return;
        }
        head = Buffer.concat([head, chunk]);
        const end = head.indexOf('\r\n\r\n');
        if (end < 0) {
          done(head.length > LIMITS.gitHeadBytesMax ? new Error('the CGI head is too long') : null);
          return;
        }
        writeHead(head.toString('latin1', 0, end), response);
        const rest = head.subarray(end + 4);
        head = null;
        done(null, rest);
      },
      flush(done) {
        done(head === null ? null : new Error('git http-backend ended without an answer'));
      },
    }),
    response,
  );
}

function writeHead(head: string, response: ServerResponse): void {
  let status = 200;
  for (const line of head.split('\r\n')) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).trim();
    if (name === 'status') status = Number.parseInt(value, 10);
    else response.setHeader(name, value);
  }
  response.writeHead(status);
  // The head goes out now: a push's first lines follow long before its end.
  response.flushHeaders();
}

const STATUS = { NOT_FOUND: 404, BAD_APP_NAME: 404, BUSY: 503 } as const;

/** Git shows a text/plain answer to the person only beside a 404; others show as a number. */
function refuse(response: ServerResponse, error: unknown): void {
  const told = asFleetError(error);
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const status = (STATUS as Record<string, number>)[told.code] ?? (told.blame === 'hub' ? 500 : 400);
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' });
  response.end(`Midair: ${told.code}: ${told.message}\n  next: ${told.next}\n`);
}

/** Ends a stream that is longer than it may be. */
class Cap extends Transform {
  #left: number;

  constructor(bytesMax: number) {
    super();
    this.#left = bytesMax;
  }

  override _transform(
    chunk: Buffer,
    _encoding: BufferEncoding,
    done: (error: Error | null, data?: Buffer) => void,
  ) {
    this.#left -= chunk.length;
    if (this.#left < 0) done(new FleetError('TOO_LARGE', 'the push is too large', 'push less at once'));
    else done(null, chunk);
  }
}
