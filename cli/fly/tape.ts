/**
 * Takes a drone's record as it flies: into the flight recorder, and into the few figures and points that the end needs.
 *
 * Invariant: every sample and command is taken once, in order, however long the flight; memory is bounded by what one
 * look brings and by ten points a second for the picture.
 */
import { type Hand, handsOf } from '#cli/fly/hands.ts';
import { FLY } from '#cli/fly/limits.ts';
import type { FlightRecorder } from '#cli/fly/recorder.ts';
import { PERIOD_MS } from '#cli/limits.ts';
import type { FlightSample, Judged, SimClient, Trace } from '#cli/sim-client.ts';

export interface Change {
  /** The last command of the one and the first of the other. */
  lastUs: number;
  firstUs: number;
  before: number;
  after: number;
  /** Around it. */
  judged: Judged;
  heightErrorM: number | null;
  trace: Trace;
}

/** For the picture of the flight. */
export interface Point {
  tUs: number;
  north: number;
  east: number;
  up: number;
  tiltDeg: number;
  epoch: number;
}

export interface Totals {
  commands: number;
  samples: number;
  stale: number;
  doubled: number;
  ignored: number;
  failsafes: number;
  tiltDegMax: number;
  /** Ticks that the board itself did not run in time, by more than half a cycle. */
  lateTicks: number;
  boardLateMsMax: number;
}

const POINT_EVERY = Math.round(1000 / PERIOD_MS / 10);

export class Tape {
  readonly changes: Change[] = [];
  readonly points: Point[] = [];
  readonly totals: Totals = {
    ...{ commands: 0, samples: 0, stale: 0, doubled: 0, ignored: 0, failsafes: 0 },
    ...{ tiltDegMax: 0, lateTicks: 0, boardLateMsMax: 0 },
  };
  /** Changes of hands whose surroundings are not on the record yet. */
  readonly #pending: Hand[] = [];
  readonly #sim: SimClient;
  readonly #recorder: FlightRecorder;
  readonly #releaseOf: (epoch: number) => string | undefined;
  #takenUs: number;
  #last: { epoch: number; tUs: number } | undefined;
  #seen = 0;

  constructor(
    sim: SimClient,
    recorder: FlightRecorder,
    releaseOf: (epoch: number) => string | undefined,
    fromUs: number,
  ) {
    this.#sim = sim;
    this.#recorder = recorder;
    this.#releaseOf = releaseOf;
    this.#takenUs = fromUs - 1;
  }

  /** Everything up to `toUs`, which must be `FLY.tapeLagMs` ago. */
  async take(toUs: number): Promise<void> {
    const fromUs = this.#takenUs + 1;
    if (toUs < fromUs) return;
    const [trace, flight] = await Promise.all([
      this.#sim.trace(fromUs, toUs),
      this.#sim.flight(fromUs, toUs),
    ]);
    this.#takenUs = toUs;
    this.#count(trace);
    this.#draw(trace, flight);
    await this.#recorder.flight(flight);
    await this.#recorder.commands(trace.commands, this.#releaseOf);
    const { hands, last } = handsOf(trace.commands, this.#last);
    this.#last = last;
    this.#pending.push(...hands);
    while (this.#pending[0] !== undefined && this.#pending[0].firstUs + FLY.heightAfterMs * 1000 <= toUs) {
      this.changes.push(await this.#around(this.#pending.shift() as Hand));
    }
  }

  /** At the end of the flight: those changes, too, after which it did not last. */
  async end(toUs: number): Promise<void> {
    await this.take(toUs);
    for (const hand of this.#pending.splice(0)) this.changes.push(await this.#around(hand));
  }

  #count({ samples, commands }: Trace): void {
    const { totals } = this;
    totals.samples += samples.length;
    for (const { tiltDeg } of samples) totals.tiltDegMax = Math.max(totals.tiltDegMax, tiltDeg);
    for (const { kind } of commands) {
      if (kind === 'stale') totals.stale += 1;
      else if (kind === 'doubled') totals.doubled += 1;
      else if (kind === 'ignored') totals.ignored += 1;
      else if (kind === 'silence') totals.failsafes += 1;
      if (kind === 'fresh' || kind === 'stale' || kind === 'doubled') totals.commands += 1;
    }
  }

  #draw({ samples, commands }: Trace, flight: readonly FlightSample[]): void {
    let at = 0;
    let epoch = this.#last?.epoch ?? 0;
    for (const { tUs, position } of flight) {
      for (; at < commands.length && (commands[at]?.tUs ?? 0) <= tUs; at += 1) {
        if (commands[at]?.kind === 'fresh') epoch = commands[at]?.epoch ?? epoch;
      }
      const index = this.#seen;
      this.#seen += 1;
      if (index % POINT_EVERY !== 0) continue;
      const [north = 0, east = 0, down = 0] = position;
      const tiltDeg = samples.find((sample) => sample.tUs >= tUs)?.tiltDeg ?? 0;
      this.points.push({ tUs, north, east, up: -down, tiltDeg, epoch });
    }
  }

  async #around(hand: Hand): Promise<Change> {
    const { lastUs, firstUs } = hand;
    const periodUs = PERIOD_MS * 1000;
    const judged = await this.#sim.judge(
      lastUs - FLY.periodsBefore * periodUs,
      firstUs + FLY.periodsAfter * periodUs,
    );
    const height = await this.#sim.judge(
      lastUs - FLY.heightBeforeMs * 1000,
      firstUs + FLY.heightAfterMs * 1000,
    );
    const trace = await this.#sim.trace(
      lastUs - FLY.pictureBeforeMs * 1000,
      firstUs + FLY.pictureAfterMs * 1000,
    );
    return { ...hand, judged, heightErrorM: height.altitudeErrorMMax, trace };
  }
}
