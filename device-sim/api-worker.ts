/** The HTTP API's thread: two minutes of history as JSON take 50 ms, twelve cycles of the board. */
import { parentPort, workerData } from 'node:worker_threads';
import { serve } from '@hono/node-server';
import { createApi } from '#device-sim/api.ts';
import type { BoardName } from '#device-sim/boards/profile.ts';
import { createHistory, type HistoryMemory } from '#device-sim/history.ts';
import { Truth } from '#device-sim/truth.ts';

export interface ApiWork {
  readonly history: HistoryMemory;
  readonly truth: SharedArrayBuffer;
  readonly camera: SharedArrayBuffer;
  readonly port: number;
  readonly board: BoardName;
  readonly cycleUs: number;
}
export type ApiWord = { readonly ready: true; readonly port: number } | { readonly batteryPercent: number };

const work = workerData as ApiWork;
const say = (word: ApiWord): void => parentPort?.postMessage(word);
const app = createApi({
  history: createHistory(work.history),
  truth: new Truth(work.truth),
  camera: work.camera,
  board: work.board,
  cycleUs: work.cycleUs,
  nowUs: () => Number(process.hrtime.bigint() / 1_000n),
  setBattery: (batteryPercent) => say({ batteryPercent }),
});
serve({ fetch: app.fetch, hostname: '127.0.0.1', port: work.port }, ({ port }) => say({ ready: true, port }));
