/** What was expected beside what was measured, and when the rotors changed hands: pure, figure by figure. */
import { describe, expect, test } from 'vitest';
import { handsOf } from '#cli/fly/hands.ts';
import { parseScenario } from '#cli/fly/parse.ts';
import { type FlightReport, reportText } from '#cli/fly/report.ts';
import { type Figures, judgeFlight } from '#cli/fly/verdict.ts';

const FIGURES: Figures = {
  ...{ owner: 'v2', update: 'done', failure: null, landed: 'no', crashed: 'no', handovers: 1 },
  ...{ gap: 4.2, missed: 0, missedCyclesBoardLate: 0, stale: 0, doubled: 0, failsafes: 0, tilt: 3.25 },
  ...{ 'height-error': 0.02, height: 5.01, off: null, battery: 91, 'frames-lost': 0, 'frames-repeated': 0 },
  'sockets-closed': 0,
};
const judge = (expectation: string, figures: Partial<Figures> = {}) => {
  const scenario = parseScenario(`release v1 = drone\nrelease v2 = drone\nexpect ${expectation}\n`);
  return judgeFlight(scenario.expectations, { ...FIGURES, ...figures } as Figures)[0];
};

describe('an expectation', () => {
  test.each([
    ['owner = v2', true],
    ['owner = v1', false],
    ['owner = nobody', false],
    ['gap <= 4.2ms', true],
    ['gap < 4.2ms', false],
    ['gap <= 4ms', false],
    ['gap >= 0.004s', true],
    ['handovers = 1', true],
    ['handovers = 2', false],
    ['tilt > 3.25', false],
    ['tilt > 3.2', true],
    ['height >= 500cm', true],
    // Nothing was measured: it does not hold, whatever is compared.
    ['off <= 1m', false],
    ['failure = TIMEOUT', false],
  ])('%s: %j', (expectation, held) => expect(judge(expectation)).toMatchObject({ held, text: expectation }));
});

test('a late machine is told, and excuses nothing', () => {
  expect(judge('missed <= 3', { missed: 5, missedCyclesBoardLate: 2 })).toMatchObject({
    held: false,
    excuse: 'the simulated board itself was late in 2 of them: this machine is too slow for what runs on it',
  });
  // Without the board's part it would not hold either.
  expect(judge('missed <= 3', { missed: 9, missedCyclesBoardLate: 2 })).toMatchObject({
    held: false,
    excuse: null,
  });
  expect(judge('missed <= 3', { missed: 2, missedCyclesBoardLate: 2 })).toMatchObject({
    held: true,
    excuse: null,
  });
  expect(judge('stale = 0', { stale: 1, missedCyclesBoardLate: 2 })).toMatchObject({
    held: false,
    excuse: null,
  });
});

describe('the rotors change hands', () => {
  const command = (tUs: number, epoch: number, kind = 'fresh') => ({
    tUs,
    epoch,
    imuUs: tUs,
    gapMs: 4,
    kind,
  });
  test('with the first fresh command of another epoch, also across two looks; a stale one changes nothing', () => {
    const first = handsOf([command(1, 4), command(5, 4)]);
    expect(first).toEqual({ hands: [], last: { epoch: 4, tUs: 5 } });
    const second = handsOf(
      [command(9, 8), command(10, 4, 'stale'), command(13, 8), command(17, 9)],
      first.last,
    );
    expect(second.hands).toEqual([
      { lastUs: 5, firstUs: 9, before: 4, after: 8 },
      { lastUs: 13, firstUs: 17, before: 8, after: 9 },
    ]);
    expect(handsOf([], second.last)).toEqual({ hands: [], last: { epoch: 9, tUs: 17 } });
  });
});

test('the last words name what failed, why, and how busy the machine was', () => {
  const outcomes = [judge('gap <= 4ms'), judge('owner = v2')] as FlightReport['drones'][number]['outcomes'];
  const text = reportText({
    type: 'report',
    title: 't',
    held: false,
    seconds: 12,
    machine: { cores: 2, stealShare: 0.31, busyShare: 0.9, boardLateTicksShare: 0.02 },
    drones: [
      {
        ...{ name: 'drone-1', held: false, outcomes, troubles: ['fault kill v1: its moment did not come'] },
        ...{ figures: FIGURES, record: {} as never, mcap: '/a.mcap' },
        changes: [{ before: 'v1', after: 'v2', atS: 7, gapMs: 4.2, missed: 0, tiltDeg: 1 }],
        pictures: { flight: '/a.svg', handovers: ['/b.svg'] },
      },
    ],
  });
  expect(text).toContain('✘ drone-1: 1 of 2 expectations held');
  expect(text).toContain('✘ gap <= 4ms: 4.2');
  expect(text).toContain('✔ owner = v2: v2');
  expect(text).toContain('✘ fault kill v1: its moment did not come');
  expect(text).toContain('v1 to v2 at 7.00 s: gap 4.20 ms, missed 0');
  expect(text).toContain('31.0 % taken by the host');
  expect(text).toContain('The host took more than this flight can bear');
});
