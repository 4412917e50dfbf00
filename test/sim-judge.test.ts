import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createHistory } from '#device-sim/history.ts';
import { Judge } from '#device-sim/judge.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { type Summary, summarise, trace } from '#device-sim/summary.ts';
import { REFUSALS } from '#handover/mavlink/index.ts';

const START = 1_000_000_000;

/** A script of arrivals, times in ms after START: [arrival, epoch, IMU sample]. */
const play = (arrivals: [atMs: number, epoch: number, imuMs: number][]) => {
  const history = createHistory();
  const judge = new Judge(history);
  const verdicts = arrivals.map(([atMs, epoch, imuMs]) =>
    judge.record({ tUs: START + atMs * 1_000, epoch, imuUs: START + imuMs * 1_000 }),
  );
  const summary = (fromMs: number, toMs: number): Summary =>
    summarise(history, START + fromMs * 1_000, START + toMs * 1_000);
  return { history, judge, verdicts, summary };
};
const steady = (count: number, epoch = 1): [number, number, number][] =>
  Array.from({ length: count }, (_, i) => [i * 4 + 1, epoch, i * 4]);

test('an even stream: gaps of 4 ms, nothing missed', () => {
  const { summary } = play(steady(250));
  expect(summary(0, 1_000)).toMatchObject({
    commands: 250,
    gapMsP50: 4,
    gapMsP99: 4,
    gapMsMax: 4,
    missedCycles: 0,
    doubled: 0,
    stale: 0,
    latencyMsP50: 1,
    latencyMsMax: 1,
    epochs: [{ epoch: 1, commands: 250, firstUs: START + 1_000, lastUs: START + 997_000 }],
  });
});

test('missed cycles are round(gap / 4 ms) - 1 of every gap', () => {
  const gaps = [4, 5.9, 6.1, 8, 9.9, 10.1, 4];
  const missed = [0, 0, 1, 1, 1, 2, 0];
  let at = 1;
  const arrivals = gaps.map((gap, index): [number, number, number] => {
    at += gap;
    return [at, 1, index + 1];
  });
  const { history, summary } = play([[1, 1, 0], ...arrivals]);
  const end = Math.floor(at);
  expect(summary(0, end)).toMatchObject({
    missedCycles: missed.reduce((sum, each) => sum + each, 0),
    gapMsMax: 10.1,
    commands: 8,
  });
  expect(trace(history, START, START + 1e6).commands.map(({ gapMs }) => gapMs)).toEqual([null, ...gaps]);
});

test('a second answer to one sample is doubled, and does not close the gap', () => {
  const { verdicts, summary } = play([
    [1, 1, 0],
    [2, 1, 0],
    [5, 1, 4],
    [6, 2, 4],
    [9, 2, 8],
  ]);
  expect(verdicts).toEqual(['fresh', 'doubled', 'fresh', 'doubled', 'fresh']);
  expect(summary(0, 9)).toMatchObject({ commands: 5, doubled: 2, stale: 0, gapMsMax: 4, missedCycles: 0 });
});

test('a lower epoch than any before is stale, even when it answers the newest sample first', () => {
  const { verdicts, summary } = play([
    [1, 1, 0],
    [5, 3, 4],
    [8.5, 1, 8],
    [9, 3, 8],
    [10, 2, 8],
    [13, 3, 12],
  ]);
  // The owner's own answer to 8 is fresh: the stale one before it did not take its place.
  expect(verdicts).toEqual(['fresh', 'fresh', 'stale', 'fresh', 'stale', 'fresh']);
  const result = summary(0, 13);
  expect(result).toMatchObject({ stale: 2, doubled: 0, missedCycles: 0 });
  expect(result.epochs.map(({ epoch, commands }) => [epoch, commands])).toEqual([
    [1, 2],
    [3, 3],
    [2, 1],
  ]);
});

test('an answer to an older sample than the last answered one is stale', () => {
  const { verdicts } = play([
    [1, 1, 0],
    [5, 1, 4],
    [6, 1, 0],
    [9, 1, 8],
  ]);
  expect(verdicts).toEqual(['fresh', 'fresh', 'stale', 'fresh']);
});

test('stale commands cannot hide a pause of the owner', () => {
  const { summary } = play([
    ...steady(10, 2),
    ...Array.from({ length: 20 }, (_, i): [number, number, number] => [41 + i * 4, 1, 40 + i * 4]),
    [121, 2, 120],
  ]);
  expect(summary(0, 121)).toMatchObject({ stale: 20, gapMsMax: 84, missedCycles: 20 });
});

test('a pause that has not ended counts up to the end of the span; one that ended counts at its end', () => {
  const { judge, summary } = play(steady(10));
  expect(summary(0, 41)).toMatchObject({ gapMsMax: 4, missedCycles: 0 });
  expect(summary(0, 137)).toMatchObject({ gapMsMax: 100, missedCycles: 24 });
  judge.record({ tUs: START + 137_000, epoch: 1, imuUs: START + 136_000 });
  expect(summary(0, 100)).toMatchObject({ gapMsMax: 4, missedCycles: 0 });
  expect(summary(100, 137)).toMatchObject({ commands: 1, gapMsMax: 100, missedCycles: 24 });
});

test('a failsafe ends the gap on the record; the first command afterwards closes none', () => {
  const { judge, summary } = play(steady(10));
  judge.failsafe(START + 237_000);
  judge.refuse({ tUs: START + 240_000, epoch: 1, imuUs: START + 236_000 }, 'ignored');
  judge.record({ tUs: START + 9_000_000, epoch: 1, imuUs: START + 8_999_000 });
  expect(summary(0, 9_001)).toMatchObject({
    failsafes: 1,
    ignored: 1,
    commands: 11,
    gapMsMax: 200,
    missedCycles: 49,
  });
});

test('the board’s own lateness is told beside the gap, not taken from it', () => {
  const { judge, summary } = play(steady(10));
  judge.sample(START + 57_000, [0, 0, 0], 0, 0, 16_000, 4);
  judge.record({ tUs: START + 57_000, epoch: 1, imuUs: START + 56_000 });
  judge.record({ tUs: START + 69_000, epoch: 1, imuUs: START + 68_000 });
  expect(summary(0, 69)).toMatchObject({
    gapMsMax: 20,
    missedCycles: 6,
    missedCyclesBoardLate: 4,
    boardLateMsMax: 16,
    lateTicks: 1,
    skippedTicks: 4,
  });
});

test('attitude and height of the true state: RMS, maximum, farthest from the median', () => {
  const { history, judge } = play([]);
  [1, -1, 3].forEach((tilt, i) => {
    judge.sample(START + i, [0.1, 0.2, 0.3], Math.abs(tilt), -2 - i * 0.1 * i, 0, 0);
  });
  const summary = summarise(history, START, START + 2);
  expect(summary).toMatchObject({ samples: 3, attitudeDegMax: 3, altitudeMMedian: 2.1 });
  expect(summary.attitudeDegRms).toBeCloseTo(Math.sqrt(11 / 3), 12);
  expect(summary.altitudeErrorMMax).toBeCloseTo(0.3, 12);
  expect(trace(history, START + 1, START + 1).samples).toEqual([
    { tUs: START + 1, gyro: [0.1, 0.2, 0.3], tiltDeg: 1, z: -2.1 },
  ]);
});

test('no commands: counts of zero and no figures', () => {
  expect(play([]).summary(0, 1_000)).toMatchObject({
    commands: 0,
    gapMsP50: null,
    gapMsMax: null,
    missedCycles: 0,
    attitudeDegRms: null,
    altitudeErrorMMax: null,
    epochs: [],
  });
});

test('percentiles are nearest ranks', () => {
  const arrivals: [number, number, number][] = [[0, 1, 0]];
  for (let gap = 1, at = 0; gap <= 100; gap += 1) {
    at += gap;
    arrivals.push([at, 1, gap]);
  }
  const end = arrivals.at(-1)?.[0] as number;
  expect(play(arrivals).summary(0, end)).toMatchObject({
    gapMsP50: 50,
    gapMsP90: 90,
    gapMsP99: 99,
    gapMsMax: 100,
  });
});

test('what did not pass the signing is counted by its reason, follows nobody and closes no gap', () => {
  const { history, judge, summary } = play([
    [1, 1, 0],
    [5, 1, 4],
  ]);
  REFUSALS.forEach((refusal, index) => {
    for (let count = 0; count <= index; count += 1) {
      judge.refuse({ tUs: START + 6_000, epoch: 99, imuUs: START + 8_000 }, refusal);
    }
  });
  judge.record({ tUs: START + 13_000, epoch: 1, imuUs: START + 12_000 });
  const result = summary(0, 14);
  expect(REFUSALS.map((refusal) => result[refusal])).toEqual([1, 2, 3, 4, 5]);
  expect(result).toMatchObject({
    commands: 3,
    stale: 0,
    gapMsMax: 8,
    missedCycles: 1,
    invalid: 0,
    ignored: 0,
  });
  expect(trace(history, START, START + 14_000).commands[2]).toMatchObject({ kind: 'unsigned', gapMs: null });
});

test('the ring keeps two minutes at the full rate, and forgets the oldest', () => {
  const history = createHistory();
  const judge = new Judge(history);
  const ticks = LIMITS.samplesMax + 5_000;
  for (let i = 0; i < ticks; i += 1) {
    const tUs = START + i * LIMITS.tickUs;
    judge.sample(tUs, [0, 0, 0], 1, -2, 0, 0);
    judge.record({ tUs, epoch: 1, imuUs: tUs });
  }
  const end = START + (ticks - 1) * LIMITS.tickUs;
  expect(summarise(history, end - LIMITS.historyUs, end).samples).toBe(LIMITS.historyUs / LIMITS.tickUs + 1);
  expect(summarise(history, 0, end).samples).toBe(LIMITS.samplesMax - LIMITS.overtakenMax);
});

test('property: every arrival is counted once, and a dumb count agrees', () => {
  const arrival = fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 6 }));
  fc.assert(
    fc.property(fc.array(arrival, { maxLength: 60 }), (script) => {
      const { verdicts, summary } = play(script.map(([epoch, imu], i) => [i, epoch, imu]));
      // The dumb reference: look at all that came before, every time.
      const expected = script.map(([epoch, imu], i) => {
        const before = script.slice(0, i).filter((_, k) => verdicts[k] !== 'stale');
        if (before.some(([e, m]) => e > epoch || m > imu)) return 'stale';
        return before.some(([, m]) => m === imu) ? 'doubled' : 'fresh';
      });
      expect(verdicts).toEqual(expected);
      const result = summary(0, script.length);
      expect(result.commands).toBe(script.length);
      expect(result.stale).toBe(expected.filter((each) => each === 'stale').length);
      expect(result.doubled).toBe(expected.filter((each) => each === 'doubled').length);
      expect(result.epochs.reduce((sum, each) => sum + each.commands, 0)).toBe(script.length);
    }),
    { seed: 2, numRuns: 300 },
  );
});
