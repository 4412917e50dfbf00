/**
 * The simulator's HTTP API: the truth and the verdict, for people, tests and the demo.
 *
 * GET /state, GET /judge?fromUs=&toUs=, GET /trace?fromUs=&toUs=, GET /flight?fromUs=&toUs=, GET /camera, POST /battery {percent}.
 * Invariant: reads what the board left in shared memory; the only thing that goes the other way is the battery.
 * Times are CLOCK_MONOTONIC, us; both are optional: from the oldest kept (two minutes) to now.
 */
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import * as v from 'valibot';
import type { BoardName } from '#device-sim/boards/profile.ts';
import { CAMERA, CAMERA_KINDS } from '#device-sim/camera.ts';
import type { History } from '#device-sim/history.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { AT, eulerDeg, tiltRad } from '#device-sim/physics.ts';
import { flight, summarise, trace } from '#device-sim/summary.ts';
import { TRUTH, type Truth } from '#device-sim/truth.ts';

export interface ApiOptions {
  readonly history: History;
  readonly truth: Truth;
  readonly camera: SharedArrayBuffer;
  /** Kind of the board, and how often it wants to be told. */
  readonly board: BoardName;
  readonly cycleUs: number;
  readonly nowUs: () => number;
  readonly setBattery: (percent: number) => void;
}

const timeUs = v.optional(
  v.pipe(
    v.string(),
    v.regex(/^\d{1,16}(\.\d+)?$/, 'must be a time in microseconds (CLOCK_MONOTONIC)'),
    v.transform(Number),
  ),
);
const spanSchema = v.object({ fromUs: timeUs, toUs: timeUs });
const batterySchema = v.object({
  percent: v.pipe(v.number('must be a number'), v.minValue(0, 'is below 0'), v.maxValue(100, 'is above 100')),
});

class BadRequest extends Error {}

const parse = <T>(schema: v.GenericSchema<unknown, T>, input: unknown): T => {
  const result = v.safeParse(schema, input);
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new BadRequest(`${v.getDotPath(issue) ?? 'input'}: ${issue.message}`);
};

const stateOf = (values: Float64Array, kind: BoardName): Record<string, unknown> => {
  const x = values.subarray(TRUTH.state, TRUTH.state + AT.length);
  const at = (index: number): number => x[index] as number;
  const vector = (from: number, length = 3): number[] => Array.from(x.subarray(from, from + length));
  const get = (index: number): number => values[index] as number;
  const flag = (index: number): boolean => get(index) === 1;
  return {
    tUs: get(TRUTH.tUs),
    position: vector(AT.position),
    velocity: vector(AT.velocity),
    attitudeDeg: eulerDeg(at(6), at(7), at(8), at(9)),
    tiltDeg: (tiltRad(x) * 180) / Math.PI,
    omega: vector(AT.rates),
    motors: vector(AT.motors, 4),
    throttles: Array.from(values.subarray(TRUTH.throttles, TRUTH.throttles + 4)),
    armed: flag(TRUTH.armed),
    landed: flag(TRUTH.onGround),
    failsafe: flag(TRUTH.failsafe),
    crashed: flag(TRUTH.crashed),
    battery: get(TRUTH.batteryPercent),
    batteryV: get(TRUTH.batteryV),
    batteryA: get(TRUTH.batteryA),
    wind: Array.from(values.subarray(TRUTH.wind, TRUTH.wind + 3)),
    epoch: get(TRUTH.epoch),
    lastCommandUs: get(TRUTH.lastCommandUs),
    board: {
      kind,
      fifo: flag(TRUTH.fifo),
      ticks: get(TRUTH.ticks),
      skippedTicks: get(TRUTH.skippedTicks),
      lateTicks: get(TRUTH.lateTicks),
      lateMsMax: get(TRUTH.lateUsMax) / 1_000,
      jumpedMs: get(TRUTH.jumpedUs) / 1_000,
      framesSent: get(TRUTH.framesSent),
      framesDropped: get(TRUTH.framesDropped),
      bytesDiscarded: get(TRUTH.bytesDiscarded),
      commandsLost: get(TRUTH.commandsLost),
      garbageBytes: get(TRUTH.garbageBytes),
      badChecksums: get(TRUTH.badChecksums),
      signed: flag(TRUTH.signed),
      streams: get(TRUTH.streams),
      baud: get(TRUTH.baud) || null,
      wireInDroppedBytes: get(TRUTH.wireInDroppedBytes),
      wireOutDroppedBytes: get(TRUTH.wireOutDroppedBytes),
    },
  };
};

const cameraOf = (counts: Float64Array): Record<string, unknown> => ({
  reader: counts[CAMERA.reader] === 1,
  refused: counts[CAMERA.refused],
  ...Object.fromEntries(
    CAMERA_KINDS.map((kind, index) => [
      kind,
      {
        produced: counts[CAMERA.produced + index],
        sent: counts[CAMERA.sent + index],
        dropped: counts[CAMERA.dropped + index],
        unread: counts[CAMERA.unread + index],
      },
    ]),
  ),
});

export const createApi = ({
  history,
  truth,
  camera,
  board,
  cycleUs,
  nowUs,
  setBattery,
}: ApiOptions): Hono => {
  const counts = new Float64Array(camera);
  const span = (query: Record<string, string>): [number, number] => {
    const { fromUs, toUs } = parse(spanSchema, query);
    const end = toUs ?? nowUs();
    const start = fromUs ?? Math.max(0, end - LIMITS.historyUs);
    if (start > end) throw new BadRequest('fromUs: is after toUs');
    return [start, end];
  };
  const app = new Hono();
  app.get('/state', (c) => c.json(stateOf(truth.read(), board)));
  app.get('/judge', (c) => c.json(summarise(history, ...span(c.req.query()), cycleUs)));
  app.get('/trace', (c) => c.json(trace(history, ...span(c.req.query()))));
  app.get('/flight', (c) => c.json({ samples: flight(history, ...span(c.req.query())) }));
  app.get('/camera', (c) => c.json(cameraOf(counts)));
  const small = bodyLimit({
    maxSize: LIMITS.httpBodyBytesMax,
    onError: (c) => c.json({ code: 'TOO_LARGE', error: `at most ${LIMITS.httpBodyBytesMax} bytes` }, 413),
  });
  app.post('/battery', small, async (c) => {
    const body: unknown = await c.req.json().catch(() => undefined);
    const { percent } = parse(batterySchema, body);
    setBattery(percent);
    return c.json({ percent });
  });
  const routes = 'GET /state, /judge, /trace, /flight, /camera, POST /battery';
  app.notFound((c) => c.json({ code: 'NOT_FOUND', error: `there is ${routes}` }, 404));
  app.onError((error, c) => {
    if (error instanceof BadRequest) return c.json({ code: 'INVALID_REQUEST', error: error.message }, 400);
    return c.json({ code: 'INTERNAL', error: error.message }, 500);
  });
  return app;
};
