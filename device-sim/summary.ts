/**
 * What the record says about a span of time: the figures that the demo's table and the tests quote.
 *
 * Invariant: derived from the history alone; both ends of a span are inclusive; nothing is smoothed or left out. The
 * board's own lateness is reported beside the gaps, never subtracted from them.
 */
import { COMMAND, FLIGHT, type History, KINDS, type Kind, SAMPLE } from '#device-sim/history.ts';
import { LIMITS } from '#device-sim/limits.ts';

export interface Summary {
  fromUs: number;
  toUs: number;
  /** All that arrived and was followed: fresh, doubled and stale. */
  commands: number;
  /** Between fresh commands, by the arrival of the later one; null without any. */
  gapMsP50: number | null;
  gapMsP90: number | null;
  gapMsP99: number | null;
  /** Includes silence that is still open at the end of the span. */
  gapMsMax: number | null;
  /** Cycles (of 4 ms, for the `direct` kind) without a command: round(gap / 4) - 1 of each gap. */
  missedCycles: number;
  /** Of these, the ones that the board's own lateness in that gap explains. */
  missedCyclesBoardLate: number;
  /** A second answer to the same IMU sample. */
  doubled: number;
  /** Of a lower epoch than one seen before, or answering an older sample than the last answered one. */
  stale: number;
  /** Not followed: in failsafe or crashed; not finite, in the future, or disarming in the air. */
  ignored: number;
  invalid: number;
  /** Frames of any kind that did not pass the signing, by the reason (handover/mavlink/signing.ts). */
  unsigned: number;
  badSignature: number;
  replayed: number;
  tooOld: number;
  tooManyStreams: number;
  failsafes: number;
  /** From the answered sample's time to the arrival of the answer. */
  latencyMsP50: number | null;
  latencyMsP99: number | null;
  latencyMsMax: number | null;
  samples: number;
  /** Tilt from level, of the true state. */
  attitudeDegRms: number | null;
  attitudeDegMax: number | null;
  /** Farthest from the span's own median height. */
  altitudeErrorMMax: number | null;
  altitudeMMedian: number | null;
  /** The board's own: how late its ticks were, how many by more than 2 ms, how many did not happen. */
  boardLateMsMax: number;
  lateTicks: number;
  skippedTicks: number;
  epochs: { epoch: number; commands: number; firstUs: number; lastUs: number }[];
}

/** Nearest rank. */
const percentile = (sorted: readonly number[], share: number): number | null =>
  sorted.length === 0 ? null : (sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] as number);

/** @param cycleUs how often the board wants to be told: 4 ms for the `direct` kind (boards/profile.ts) */
export const summarise = (
  history: History,
  fromUs: number,
  toUs: number,
  cycleUs: number = LIMITS.tickUs,
): Summary => {
  const cycleMs = cycleUs / 1_000;
  const missed = (gapMs: number): number => Math.max(0, Math.round(gapMs / cycleMs) - 1);
  const { commands, samples, failsafes, open } = history;
  const counts = Object.fromEntries(KINDS.map((kind) => [kind, 0])) as Record<Kind, number>;
  const gaps: number[] = [];
  const latencies: number[] = [];
  const epochs = new Map<number, { epoch: number; commands: number; firstUs: number; lastUs: number }>();
  let missedCycles = 0;
  let missedCyclesBoardLate = 0;

  const addGap = (gapMs: number, boardLateMs: number): void => {
    gaps.push(gapMs);
    missedCycles += missed(gapMs);
    missedCyclesBoardLate += missed(gapMs) - missed(gapMs - boardLateMs);
  };
  const [first, end] = commands.between(fromUs, toUs);
  for (let i = first; i < end; i += 1) {
    const tUs = commands.get(i, COMMAND.tUs);
    const kind = KINDS[commands.get(i, COMMAND.kind)] as Kind;
    const gapMs = commands.get(i, COMMAND.gapMs);
    counts[kind] += 1;
    if (!Number.isNaN(gapMs)) addGap(gapMs, commands.get(i, COMMAND.boardLateMs));
    const imuUs = commands.get(i, COMMAND.imuUs);
    if (kind === 'fresh' && !Number.isNaN(imuUs)) latencies.push((tUs - imuUs) / 1_000);
    if (kind !== 'fresh' && kind !== 'doubled' && kind !== 'stale') continue;
    const epoch = commands.get(i, COMMAND.epoch);
    const sender = epochs.get(epoch);
    if (sender !== undefined) {
      sender.commands += 1;
      sender.lastUs = tUs;
    } else if (epochs.size < LIMITS.epochsMax) {
      epochs.set(epoch, { epoch, commands: 1, firstUs: tUs, lastUs: tUs });
    }
  }
  // A pause that has not ended yet counts as far as the span goes; less than a cycle and a half is none.
  const openMs = (toUs - (open[0] as number)) / 1_000;
  if (openMs > 1.5 * cycleMs) addGap(openMs, 0);

  const heights: number[] = [];
  let tiltSquares = 0;
  let tiltMax = 0;
  let boardLateUsMax = 0;
  let lateTicks = 0;
  let skippedTicks = 0;
  const [firstSample, endSample] = samples.between(fromUs, toUs);
  for (let i = firstSample; i < endSample; i += 1) {
    const tilt = samples.get(i, SAMPLE.tiltDeg);
    const lateUs = samples.get(i, SAMPLE.lateUs);
    tiltSquares += tilt * tilt;
    tiltMax = Math.max(tiltMax, tilt);
    heights.push(-samples.get(i, SAMPLE.z));
    boardLateUsMax = Math.max(boardLateUsMax, lateUs);
    if (lateUs > LIMITS.lateTickUs) lateTicks += 1;
    skippedTicks += samples.get(i, SAMPLE.skippedTicks);
  }
  const [firstFailsafe, endFailsafe] = failsafes.between(fromUs, toUs);

  const ascending = (a: number, b: number): number => a - b;
  gaps.sort(ascending);
  latencies.sort(ascending);
  heights.sort(ascending);
  const median = percentile(heights, 0.5);
  return {
    fromUs,
    toUs,
    commands: counts.fresh + counts.doubled + counts.stale,
    gapMsP50: percentile(gaps, 0.5),
    gapMsP90: percentile(gaps, 0.9),
    gapMsP99: percentile(gaps, 0.99),
    gapMsMax: percentile(gaps, 1),
    missedCycles,
    missedCyclesBoardLate,
    doubled: counts.doubled,
    stale: counts.stale,
    ignored: counts.ignored,
    invalid: counts.invalid,
    unsigned: counts.unsigned,
    badSignature: counts.badSignature,
    replayed: counts.replayed,
    tooOld: counts.tooOld,
    tooManyStreams: counts.tooManyStreams,
    failsafes: endFailsafe - firstFailsafe,
    latencyMsP50: percentile(latencies, 0.5),
    latencyMsP99: percentile(latencies, 0.99),
    latencyMsMax: percentile(latencies, 1),
    samples: heights.length,
    attitudeDegRms: heights.length === 0 ? null : Math.sqrt(tiltSquares / heights.length),
    attitudeDegMax: heights.length === 0 ? null : tiltMax,
    altitudeErrorMMax:
      median === null ? null : Math.max((heights.at(-1) as number) - median, median - (heights[0] as number)),
    altitudeMMedian: median,
    boardLateMsMax: boardLateUsMax / 1_000,
    lateTicks,
    skippedTicks,
    epochs: [...epochs.values()],
  };
};

export interface Trace {
  /** Every tick: true rates in rad/s, tilt from level, height as z (m, down). */
  samples: { tUs: number; gyro: [number, number, number]; tiltDeg: number; z: number }[];
  commands: { tUs: number; epoch: number; imuUs: number; gapMs: number | null; kind: Kind }[];
}

export const trace = (history: History, fromUs: number, toUs: number): Trace => {
  const { commands, samples } = history;
  const out: Trace = { samples: [], commands: [] };
  const [firstSample, endSample] = samples.between(fromUs, toUs);
  for (let i = firstSample; i < endSample; i += 1) {
    out.samples.push({
      tUs: samples.get(i, SAMPLE.tUs),
      gyro: [samples.get(i, SAMPLE.gyroX), samples.get(i, SAMPLE.gyroY), samples.get(i, SAMPLE.gyroZ)],
      tiltDeg: samples.get(i, SAMPLE.tiltDeg),
      z: samples.get(i, SAMPLE.z),
    });
  }
  const [first, end] = commands.between(fromUs, toUs);
  for (let i = first; i < end; i += 1) {
    const gapMs = commands.get(i, COMMAND.gapMs);
    out.commands.push({
      tUs: commands.get(i, COMMAND.tUs),
      epoch: commands.get(i, COMMAND.epoch),
      imuUs: commands.get(i, COMMAND.imuUs),
      gapMs: Number.isNaN(gapMs) ? null : gapMs,
      kind: KINDS[commands.get(i, COMMAND.kind)] as Kind,
    });
  }
  return out;
};

export interface FlightSample {
  tUs: number;
  imuUs: number;
  /** Measured: rad/s and m/s^2, body. */
  gyro: number[];
  accelerometer: number[];
  /** True: m, m/s (NED), and w, x, y, z. */
  position: number[];
  velocity: number[];
  attitude: number[];
  throttles: number[];
  batteryPercent: number;
}

/** Every tick of a span. */
export const flight = ({ flight: ring }: History, fromUs: number, toUs: number): FlightSample[] => {
  const samples: FlightSample[] = [];
  const [first, end] = ring.between(fromUs, toUs);
  for (let i = first; i < end; i += 1) {
    const some = (at: number, length: number): number[] =>
      Array.from({ length }, (_, column) => ring.get(i, at + column));
    samples.push({
      tUs: ring.get(i, FLIGHT.tUs),
      imuUs: ring.get(i, FLIGHT.imuUs),
      gyro: some(FLIGHT.gyro, 3),
      accelerometer: some(FLIGHT.accelerometer, 3),
      position: some(FLIGHT.position, 3),
      velocity: some(FLIGHT.velocity, 3),
      attitude: some(FLIGHT.attitude, 4),
      throttles: some(FLIGHT.throttles, 4),
      batteryPercent: ring.get(i, FLIGHT.batteryPercent),
    });
  }
  return samples;
};
