/**
 * Layers rebuilt and served by a process of their own, at the lowest priority, for one pull.
 *
 * Invariant: whatever becomes of that process, the agent goes on: its death breaks the pull, with its last words as the reason.
 * It is gone when `close` resolves.
 *
 * Why not in the agent: it keeps a heap that is bounded for it alone and gives all memory back at its end; a decompressor that a
 * bad delta kills kills nobody who flies; and a process, unlike a thread, can be put into a control group of little weight
 * while the agent stays in its own.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { extname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type Docker from 'dockerode';
import { aborted, textOf } from '#agent/images/errors.ts';
import { LIMITS } from '#agent/images/limits.ts';
import type { Served } from '#agent/images/pull.ts';
import type { LayersOptions } from '#agent/images/sources.ts';
import { fromPlain, type PlainError } from '#agent/images/told-error.ts';
import { APPLY_FLAGS } from '#deltas/index.ts';
import type { Blob } from '#fleet/protocol.ts';

const PROGRAM = join(import.meta.dirname, `patch-process${extname(import.meta.filename)}`);

/** What there is to serve; `fetch` stays here. */
export interface Order extends Omit<LayersOptions, 'docker' | 'signal' | 'fetched'> {
  engine: Docker.DockerOptions;
  /** Repository at the registry. */
  name: string;
  /** Path of the config. */
  config: string;
  fetched: string[];
}

export type ToPatcher =
  | { type: 'order'; order: Omit<Order, 'fetch'> }
  | ({ type: 'fetched'; id: number } & ({ path: string } | { text: string }))
  | { type: 'close' };

export type Told =
  | { type: 'ready'; repository: string; digest: string }
  /** It could not begin. */
  | { type: 'refused'; error: PlainError }
  | { type: 'served'; bytes: number }
  | { type: 'failed'; error: PlainError }
  | { type: 'fetch'; id: number; blob: Blob };

export interface PatcherOptions {
  docker: Docker;
  order: Omit<Order, 'engine'>;
  onServed: (bytes: number) => void;
  /** A layer could not be served, or the process died; at most once. */
  onFailure: () => void;
  /** Told its pid; gives what undoes it. */
  standBack: (pid: number) => () => void;
  signal: AbortSignal;
}

/** @throws ImageError, DeltaError: what kept it from beginning */
export async function openPatcher(options: PatcherOptions): Promise<Served> {
  const { docker, order, onServed, onFailure, standBack, signal } = options;
  const { fetch, ...plain } = order;
  const child = fork(PROGRAM, [], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    execArgv: [...APPLY_FLAGS],
    env: {},
    // A session of its own: its share of the processor is then weighed apart from the agent's.
    detached: true,
  });
  let words = '';
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    words = (words + chunk).slice(-LIMITS.patcherWordsMax);
  });
  const letGo = child.pid === undefined ? () => undefined : standBack(child.pid);

  let failure: { cause: unknown } | undefined;
  let closed: Promise<void> | undefined;
  const ready = Promise.withResolvers<{ repository: string; digest: string }>();
  ready.promise.catch(() => undefined);
  const fail = (cause: Error): void => {
    ready.reject(cause);
    if (failure) return;
    failure = { cause };
    onFailure();
  };
  child.on('error', fail);
  child.once('exit', (code, name) => {
    // Asked to end, it ended.
    if (closed) return ready.reject(new Error('closed'));
    const said = /^.*(?:Error|FATAL).*$/m.exec(words)?.[0];
    fail(
      new Error(`the process that rebuilds layers ended (${name ?? code})${said ? `: ${said.trim()}` : ''}`),
    );
  });
  child.on('message', (told: Told) => {
    switch (told.type) {
      case 'ready':
        ready.resolve(told);
        return;
      case 'refused':
        ready.reject(fromPlain(told.error));
        return;
      case 'served':
        onServed(told.bytes);
        return;
      case 'failed':
        fail(fromPlain(told.error));
        return;
      case 'fetch':
        void fetch(told.blob)
          .then((path): ToPatcher => ({ type: 'fetched', id: told.id, path }))
          .catch((error: unknown): ToPatcher => {
            // The layer fails there without its code; what is wrong is known here.
            fail(error instanceof Error ? error : new Error(textOf(error)));
            return { type: 'fetched', id: told.id, text: textOf(error) };
          })
          .then((answer) => child.connected && child.send(answer));
    }
  });

  const close = (): Promise<void> => (closed ??= end(child).finally(letGo));
  const called = (): void => ready.reject(aborted(signal));
  signal.addEventListener('abort', called, { once: true });
  if (signal.aborted) called();
  try {
    child.send({ type: 'order', order: { ...plain, engine: addressOf(docker) } } satisfies ToPatcher);
    const { repository, digest } = await ready.promise;
    // The engine may notice a death before this process is told of it.
    const settle = async (): Promise<void> => {
      if (failure || child.exitCode !== null || child.signalCode !== null) return;
      const late = new AbortController();
      await Promise.race([
        once(child, 'exit', { signal: late.signal }).catch(() => undefined),
        sleep(LIMITS.patcherDeathMsMax),
      ]);
      late.abort();
    };
    return { repository, digest, failure: () => failure, settle, close };
  } catch (error) {
    await close();
    throw error;
  } finally {
    signal.removeEventListener('abort', called);
  }
}

/** Asks it to end, so that it takes its container and spool with it; then makes it. */
async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  if (child.connected) child.send({ type: 'close' } satisfies ToPatcher, () => undefined);
  const timer = setTimeout(() => child.kill('SIGKILL'), LIMITS.patcherEndMsMax);
  await gone;
  clearTimeout(timer);
}

/** Where dockerode reaches its engine, to be reached from another process. */
function addressOf(docker: Docker): Docker.DockerOptions {
  const { socketPath, host, port, protocol } = docker.modem as Docker.DockerOptions;
  return socketPath
    ? { socketPath }
    : { ...(host && { host }), ...(port && { port }), ...(protocol && { protocol }) };
}
