/**
 * One call to the engine: its bound, its errors by code, and the shapes that go in and come out.
 *
 * Invariant: every call settles within its bound, also when the engine dies in the middle of its answer (the HTTP
 * client below would then never call back).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type Docker from 'dockerode';

export const ENGINE_LIMITS = {
  /** One call; create and start on a busy SD card have been seen to need seconds. */
  callMsMax: 30_000,
  /** From SIGKILL to the engine's own word that it is over. */
  killMsMax: 10_000,
  /** The engine learns of an exit tens of milliseconds after the kernel. */
  pollMsMin: 5,
  pollMsMax: 250,
  /** One long poll for an exit; then the state is asked for again, in case the engine lost the poll. */
  waitMsMax: 20_000,
  /** An engine may be restarted under a flying app. */
  unreachableMsMax: 120_000,
  logLinesMax: 1_000,
  /** Of each container's log on disk: two files of this size. */
  logFileBytesMax: 1024 * 1024,
  /** CPU period that real-time runtime is a part of; the kernel's default. */
  cpuRtPeriodUs: 1_000_000,
  /** Of an app's threads without real time; 1,024 is what everything else has. */
  appCpuShares: 8_192,
} as const;

export type EngineCode =
  | 'ENGINE_UNREACHABLE'
  /** The engine refused or failed; its words are in the text. */
  | 'ENGINE_FAILED'
  | 'NO_SUCH_IMAGE'
  | 'NO_SUCH_CONTAINER'
  | 'START_FAILED'
  /** Real-time runtime was asked for and is not to be had; start again without. */
  | 'NO_REALTIME'
  /** Neither death nor standstill could be confirmed: treat the container as still acting. */
  | 'NOT_CONFIRMED';

/** A fault of the device's, or with `NO_SUCH_…` of the caller's. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
  readonly code: EngineCode;
  /** The engine's HTTP status, if it answered. */
  readonly status: number | undefined;
  constructor(code: EngineCode, message: string, options?: ErrorOptions & { status?: number | undefined }) {
    super(`${code}: ${message}`, options);
    this.code = code;
    this.status = options?.status;
  }
}

export interface ContainerSpec {
  name: string;
  /** Full image id, `sha256:…`. */
  imageId: string;
  env: Readonly<Record<string, string>>;
  labels: Readonly<Record<string, string>>;
  /** Directories of the host, at `target` in the container. */
  mounts: readonly { source: string; target: string; readOnly?: boolean }[];
  networkMode: 'none' | 'host';
  /** Microseconds of each second that SCHED_FIFO may use; brings CAP_SYS_NICE. Needs a daemon with --cpu-rt-runtime. */
  cpuRtRuntimeUs?: number;
  capAdd?: readonly string[];
}

/** @param url `unix:///path` or `tcp://127.0.0.1:PORT` */
export function addressOf(url: string): Docker.DockerOptions {
  const parsed = URL.parse(url);
  if (parsed?.protocol === 'unix:' && parsed.pathname)
    return { socketPath: decodeURIComponent(parsed.pathname) };
  if (parsed?.protocol === 'tcp:' && parsed.port) {
    return { protocol: 'http', host: parsed.hostname, port: Number(parsed.port) };
  }
  throw new EngineError(
    'ENGINE_UNREACHABLE',
    `${url} is no engine's address; give unix:///path or tcp://host:port`,
  );
}

/**
 * Asks the engine, within a bound.
 * @throws EngineError `ENGINE_UNREACHABLE`, `ENGINE_FAILED`, `NO_SUCH_CONTAINER`
 */
export async function ask<T>(
  doing: string,
  call: (signal: AbortSignal) => Promise<T>,
  msMax: number = ENGINE_LIMITS.callMsMax,
): Promise<T> {
  const late = new AbortController();
  const ended = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late.abort();
    ended.reject(new Error(`no answer in ${msMax} ms`));
  }, msMax);
  try {
    return await Promise.race([call(late.signal), ended.promise]);
  } catch (error) {
    throw toEngineError(error, doing);
  } finally {
    clearTimeout(timer);
  }
}

function toEngineError(error: unknown, doing: string): EngineError {
  if (error instanceof EngineError) return error;
  const status = error instanceof Error && 'statusCode' in error ? Number(error.statusCode) : undefined;
  const text = wordsOf(error);
  if (status === undefined) {
    return new EngineError(
      'ENGINE_UNREACHABLE',
      `${doing} failed (${text}); check that the engine runs (docker info) and that its socket may be used`,
      { cause: error },
    );
  }
  if (status === 404)
    return new EngineError('NO_SUCH_CONTAINER', `${doing} failed: ${text}`, { cause: error, status });
  return new EngineError('ENGINE_FAILED', `${doing} failed: ${text}`, { cause: error, status });
}

/** The engine's own sentence out of the client's wrapping. */
function wordsOf(error: unknown): string {
  const json = error instanceof Error && 'json' in error ? error.json : undefined;
  if (typeof json === 'object' && json !== null && 'message' in json) return String(json.message).trim();
  return error instanceof Error ? error.message.trim() : String(error);
}

export const isGone = (error: unknown): boolean =>
  error instanceof EngineError && error.code === 'NO_SUCH_CONTAINER';

/** Undefined when the container is no more. */
export async function unlessGone<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

export const notConfirmed = (id: string, why: string, cause?: unknown): EngineError =>
  new EngineError(
    'NOT_CONFIRMED',
    `container ${short(id)} could not be fenced: ${why}; nothing may be granted to another version until it is dead`,
    { cause },
  );

export function startError(error: unknown, spec: ContainerSpec): EngineError {
  if (!(error instanceof EngineError) || error.code === 'ENGINE_UNREACHABLE') return error as EngineError;
  const { cause, message, status } = error;
  if (error.code === 'NO_SUCH_CONTAINER' && /image/i.test(message)) {
    return new EngineError(
      'NO_SUCH_IMAGE',
      `image ${short(spec.imageId)} is not on the engine; install it first`,
      {
        cause,
        status,
      },
    );
  }
  if (spec.cpuRtRuntimeUs !== undefined && /real-?time|rt_runtime|cpu\.rt/i.test(message)) {
    return new EngineError(
      'NO_REALTIME',
      `${message}; the daemon needs --cpu-rt-runtime and the kernel CONFIG_RT_GROUP_SCHED, or start without`,
      { cause, status },
    );
  }
  return new EngineError('START_FAILED', `${message}; check the image's command and the mounts`, {
    cause,
    status,
  });
}

export function creation(spec: ContainerSpec): Docker.ContainerCreateOptions {
  const { cpuRtRuntimeUs } = spec;
  const capAdd = [...(spec.capAdd ?? []), ...(cpuRtRuntimeUs === undefined ? [] : ['SYS_NICE'])];
  return {
    name: spec.name,
    Image: spec.imageId,
    Env: Object.entries(spec.env).map(([name, value]) => `${name}=${value}`),
    Labels: { ...spec.labels },
    HostConfig: {
      NetworkMode: spec.networkMode,
      // Bind mounts by type, not by string: a source that is missing is an error, not a fresh directory of root's.
      Mounts: spec.mounts.map(({ source, target, readOnly }) => ({
        Type: 'bind',
        Source: source,
        Target: target,
        ReadOnly: readOnly ?? false,
      })),
      // Where two want a core the app has it: cgroup v1 shares, which the engine turns into v2's weight.
      CpuShares: ENGINE_LIMITS.appCpuShares,
      RestartPolicy: { Name: 'no' },
      LogConfig: {
        Type: 'json-file',
        Config: { 'max-size': String(ENGINE_LIMITS.logFileBytesMax), 'max-file': '2' },
      },
      ...(capAdd.length > 0 && { CapAdd: capAdd }),
      ...(cpuRtRuntimeUs !== undefined && {
        CpuRealtimePeriod: ENGINE_LIMITS.cpuRtPeriodUs,
        CpuRealtimeRuntime: cpuRtRuntimeUs,
      }),
    },
  };
}

/** The engine's frames of both streams: 1 byte stream, 3 zero, 4 bytes length (big endian), text. */
export function demultiplexed(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts: Uint8Array[] = [];
  for (let at = 0; at + 8 <= bytes.byteLength; ) {
    const length = view.getUint32(at + 4);
    parts.push(bytes.subarray(at + 8, at + 8 + length));
    at += 8 + length;
  }
  return Buffer.concat(parts).toString('utf8');
}

export const short = (id: string): string => id.replace('sha256:', '').slice(0, 12);

export const pause = (ms: number): Promise<void> => sleep(ms);
