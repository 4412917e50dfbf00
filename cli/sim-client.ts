/** The simulator's HTTP API: the truth, and what the judge says about a span of time (monotonic us). */
import * as v from 'valibot';
import { LIMITS } from '#cli/limits.ts';

const figure = v.nullable(v.number());
const three = v.tuple([v.number(), v.number(), v.number()]);

const judgeSchema = v.object({
  commands: v.number(),
  gapMsP50: figure,
  gapMsP90: figure,
  gapMsP99: figure,
  gapMsMax: figure,
  missedCycles: v.number(),
  missedCyclesBoardLate: v.number(),
  doubled: v.number(),
  stale: v.number(),
  ignored: v.number(),
  invalid: v.number(),
  failsafes: v.number(),
  attitudeDegRms: figure,
  attitudeDegMax: figure,
  altitudeErrorMMax: figure,
  boardLateMsMax: v.number(),
  epochs: v.array(
    v.object({ epoch: v.number(), commands: v.number(), firstUs: v.number(), lastUs: v.number() }),
  ),
});
const traceSchema = v.object({
  samples: v.array(v.object({ tUs: v.number(), gyro: three, tiltDeg: v.number(), z: v.number() })),
  commands: v.array(
    v.object({ tUs: v.number(), epoch: v.number(), imuUs: v.number(), gapMs: figure, kind: v.string() }),
  ),
});

const numbers = v.array(v.number());
const flightSchema = v.object({
  samples: v.array(
    v.object({
      tUs: v.number(),
      imuUs: v.number(),
      gyro: numbers,
      accelerometer: numbers,
      position: numbers,
      velocity: numbers,
      attitude: numbers,
      throttles: numbers,
      batteryPercent: v.number(),
    }),
  ),
});

export type Judged = v.InferOutput<typeof judgeSchema>;
export type Trace = v.InferOutput<typeof traceSchema>;
export type FlightSample = v.InferOutput<typeof flightSchema>['samples'][number];

export class SimClient {
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }

  async state(): Promise<Record<string, unknown>> {
    return (await this.#get('/state')) as Record<string, unknown>;
  }

  async camera(): Promise<Record<string, unknown>> {
    return (await this.#get('/camera')) as Record<string, unknown>;
  }

  async judge(fromUs: number, toUs: number): Promise<Judged> {
    return v.parse(judgeSchema, await this.#get(`/judge?fromUs=${fromUs}&toUs=${toUs}`));
  }

  async trace(fromUs: number, toUs: number): Promise<Trace> {
    return v.parse(traceSchema, await this.#get(`/trace?fromUs=${fromUs}&toUs=${toUs}`));
  }

  /** Every tick: what the board measured, and what was true. */
  async flight(fromUs: number, toUs: number): Promise<FlightSample[]> {
    return v.parse(flightSchema, await this.#get(`/flight?fromUs=${fromUs}&toUs=${toUs}`)).samples;
  }

  async setBattery(percent: number): Promise<void> {
    await this.#get('/battery', { percent });
  }

  async #get(path: string, post?: object): Promise<unknown> {
    const response = await fetch(this.url + path, {
      signal: AbortSignal.timeout(LIMITS.requestMsMax),
      ...(post && {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(post),
      }),
    });
    const body: unknown = await response.json();
    if (!response.ok)
      throw new Error(`the simulator answers ${response.status} to ${path}: ${JSON.stringify(body)}`);
    return body;
  }
}
