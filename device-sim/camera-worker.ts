/** The camera's thread: drawing never holds up the board. Says 'ready' once its socket listens. */
import { parentPort, workerData } from 'node:worker_threads';
import { Camera } from '#device-sim/camera.ts';
import { Truth } from '#device-sim/truth.ts';

export interface CameraWork {
  readonly truth: SharedArrayBuffer;
  readonly counts: SharedArrayBuffer;
  readonly seed: number;
  readonly path: string;
}

const work = workerData as CameraWork;
await new Camera(new Truth(work.truth), work.counts, work.seed).listen(work.path);
parentPort?.postMessage({ ready: true });
