/**
 * One simulated drone, running: the board on this thread, the camera and the HTTP API on their own.
 *
 * Invariant: this thread does nothing but the board, so that what the judge sees is the companion's doing. Under
 * SCHED_FIFO where the system grants it, for this thread alone.
 */
import { type Worker as NodeWorker, Worker } from 'node:worker_threads';
import { pino } from 'pino';
import { AIRFRAMES } from '#device-sim/airframes.ts';
import type { ApiWord, ApiWork } from '#device-sim/api-worker.ts';
import { Board } from '#device-sim/board.ts';
import { type BoardName, CYCLE_US } from '#device-sim/boards/profile.ts';
import { createCameraCounts } from '#device-sim/camera.ts';
import type { CameraWork } from '#device-sim/camera-worker.ts';
import { Directory } from '#device-sim/directory.ts';
import { createHistory } from '#device-sim/history.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { Link } from '#device-sim/link.ts';
import { parseOptions, SimError, type SimOptions } from '#device-sim/options.ts';
import { TRUTH, Truth } from '#device-sim/truth.ts';
import { readKeyFile, systemTicks } from '#handover/mavlink/index.ts';
import { native, nowUs } from '#handover/native.ts';

/** The line that is printed once the drone can be used. */
export interface Ready {
  readonly ready: true;
  /** The tty of the flight controller. */
  readonly rotors: string;
  /** The unix socket of the camera; null without one. */
  readonly camera: string | null;
  readonly url: string;
  readonly fifo: boolean;
  readonly board: BoardName;
}

export interface Sim {
  readonly ready: Ready;
  /** Rejects if a part fails; resolves after `close`. */
  readonly ended: Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** Below the kernel's own threads, above everything of normal priority. */
const FIFO_PRIORITY = 10;

/**
 * @param options see options.ts; parsed here
 * @throws SimError `INVALID_OPTIONS`, `DIRECTORY`, `ALREADY_RUNNING`, `NO_START`
 */
export const startSim = async (options: SimOptions): Promise<Sim> => {
  const { board: kind, baud, airframe, wind, ...rest } = parseOptions(options);
  const { dir, seed, camera, port, fifo, signingKey, logLevel } = rest;
  const parameters = AIRFRAMES[airframe];
  const log = pino({ name: 'sim', level: logLevel }, pino.destination(2));
  const signing =
    signingKey === undefined ? undefined : { key: keyOf(signingKey), startTicks: systemTicks() };
  const directory = await Directory.open(dir);
  const truth = new Truth();
  const history = createHistory();
  const counts = createCameraCounts();
  const workers: NodeWorker[] = [];
  let link: Link | undefined;
  const failure = Promise.withResolvers<void>();
  // Whoever waits for `ended` gets it; nobody has to.
  failure.promise.catch(() => undefined);

  let closing: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    const path = link?.path ?? '';
    link?.close();
    await Promise.all(workers.map((worker) => worker.terminate()));
    await directory.close(path);
    failure.resolve();
  };
  const close = (): Promise<void> => {
    closing ??= end();
    return closing;
  };

  try {
    const board = new Board({
      kind,
      parameters,
      seed,
      wind,
      startUs: nowUs(),
      history,
      truth,
      signing,
    });
    const apiWork: ApiWork = {
      history: history.memory,
      truth: truth.memory,
      camera: counts,
      port,
      board: kind,
      cycleUs: CYCLE_US[kind],
    };
    const api = startWorker('api-worker', apiWork, failure.reject);
    workers.push(api);
    api.on('message', (word: ApiWord) => {
      if ('batteryPercent' in word) board.setBattery(word.batteryPercent);
    });
    const waits: Promise<unknown>[] = [firstWord(api, 'the HTTP API')];
    if (camera) {
      const work: CameraWork = { truth: truth.memory, counts, seed, path: directory.camera };
      const worker = startWorker('camera-worker', work, failure.reject);
      workers.push(worker);
      waits.push(firstWord(worker, 'the camera'));
    }
    const [bound] = (await Promise.all(waits)) as [{ port: number }];

    let isFifo = false;
    if (fifo) {
      try {
        native.setFifo(0, FIFO_PRIORITY);
        isFifo = true;
      } catch (error) {
        log.warn(
          { code: (error as NodeJS.ErrnoException).code },
          'no SCHED_FIFO: the board may be late under load',
        );
      }
    }
    truth.values[TRUTH.fifo] = Number(isFifo);
    link = new Link(board, truth, baud);
    directory.linkRotors(link.path);
    const ready: Ready = {
      ready: true,
      rotors: directory.rotors,
      camera: camera ? directory.camera : null,
      url: `http://127.0.0.1:${bound.port}`,
      fifo: isFifo,
      board: kind,
    };
    log.info(
      {
        tty: link.path,
        url: ready.url,
        board: kind,
        baud,
        airframe,
        seed,
        fifo: isFifo,
        signed: signing !== undefined,
      },
      'the drone stands on the ground',
    );
    return { ready, ended: failure.promise, close };
  } catch (error) {
    await close();
    throw error;
  }
};

const keyOf = (path: string): Uint8Array => {
  try {
    return readKeyFile(path).key;
  } catch (cause) {
    throw new SimError('INVALID_OPTIONS', `signingKey: ${(cause as Error).message}`, { cause });
  }
};

const startWorker = (name: string, work: object, failed: (error: Error) => void): NodeWorker => {
  // The same file beside this one, as source or as built.
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const worker = new Worker(new URL(`./${name}.${extension}`, import.meta.url), { workerData: work });
  worker.on('error', (cause) =>
    failed(new SimError('NO_START', `${name} failed: ${String(cause)}`, { cause })),
  );
  return worker;
};

const firstWord = async (worker: NodeWorker, what: string): Promise<unknown> =>
  await new Promise((resolve, reject) => {
    const fail = (text: string, cause?: unknown): void =>
      reject(new SimError('NO_START', `${what} ${text}`, { cause }));
    const timer = setTimeout(() => fail('did not start in time'), LIMITS.startMsMax);
    worker.once('message', (word) => {
      clearTimeout(timer);
      resolve(word);
    });
    worker.once('error', (cause) => {
      clearTimeout(timer);
      fail(`did not start: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
    });
  });
