/** The demo's picture: what it marks is what the judge recorded, and it is a picture whatever comes in. */
import { expect, test } from 'vitest';
import { ownerChange, traceSvg } from '#cli/demo/trace-svg.ts';
import type { Trace } from '#cli/sim-client.ts';

const START_US = 1_000_000;
const PERIOD_US = 4_000;

/** 50 commands of epoch 3, then 50 of epoch 7, `gapUs` between; a stale one of epoch 3 after. */
function flight(gapUs: number): Trace {
  const samples = Array.from({ length: 100 }, (_, i) => ({
    tUs: START_US + i * PERIOD_US,
    gyro: [0.01 * Math.sin(i / 5), -0.02, 0] as [number, number, number],
    tiltDeg: 0.1,
    z: -2,
  }));
  const command = (tUs: number, epoch: number, kind = 'fresh') => ({
    tUs,
    epoch,
    imuUs: tUs,
    gapMs: 4,
    kind,
  });
  const before = Array.from({ length: 50 }, (_, i) => command(START_US + i * PERIOD_US, 3));
  const lastUs = before.at(-1)?.tUs ?? 0;
  const after = Array.from({ length: 50 }, (_, i) => command(lastUs + gapUs + i * PERIOD_US, 7));
  return {
    samples,
    commands: [
      ...before,
      ...after.slice(0, 3),
      command(lastUs + gapUs + 9_000, 3, 'stale'),
      ...after.slice(3),
    ],
  };
}

test('the owner changes between the last fresh command of one epoch and the first of the next', () => {
  const lastUs = START_US + 49 * PERIOD_US;
  expect(ownerChange(flight(4_060))).toEqual({ lastUs, firstUs: lastUs + 4_060 });
});

test('a trace of one owner has no change', () => {
  const trace = flight(4_000);
  expect(
    ownerChange({ ...trace, commands: trace.commands.filter(({ epoch }) => epoch === 3) }),
  ).toBeUndefined();
  expect(ownerChange({ samples: [], commands: [] })).toBeUndefined();
});

test('the picture says the gap, marks it to scale, and draws every fresh command', () => {
  const trace = flight(12_000);
  const change = ownerChange(trace);
  if (change === undefined) throw new Error('no change');
  const svg = traceSvg({ trace, ...change, prior: 'v1', candidate: 'v2', missedCycles: 2, periodMs: 4 });
  expect(svg).toContain('12.00 ms between two commands, 2 missed control cycles');
  // And the stale one, which stands out.
  expect(svg.match(/stroke-width="1.6"/g)).toHaveLength(101);
  expect(svg.match(/stroke="#dc2626"/g)).toHaveLength(1);
  const band = /<rect x="[\d.]+" y="\d+" width="([\d.]+)" height="\d+" fill="#fde68a"/.exec(svg);
  const spanMs = (99 * PERIOD_US) / 1000;
  expect(Number(band?.[1])).toBeCloseTo((12 / spanMs) * (960 - 92 - 24), 0);
  expect(svg).not.toMatch(/NaN|undefined|Infinity/);
});

test('names are escaped, and few samples do no harm', () => {
  const trace = { samples: [], commands: [] };
  const svg = traceSvg({
    trace,
    lastUs: 5,
    firstUs: 10,
    prior: '<v1>',
    candidate: '"&',
    missedCycles: 0,
    periodMs: 4,
  });
  expect(svg).not.toContain('<v1>');
  expect(svg).not.toMatch(/NaN|undefined|Infinity/);
});

test('what the agent did stands below, within the picture, no two words on one place', () => {
  const trace = flight(4_060);
  const change = ownerChange(trace);
  if (change === undefined) throw new Error('no change');
  const { firstUs } = change;
  const events = [
    ...Array.from({ length: 4 }, (_, i) => ({ tUs: firstUs - 10_000 + 1_000 * i, text: `step <${i}>` })),
    { tUs: START_US + 99 * PERIOD_US - 1_000, text: 'at the very end of it' },
    { tUs: START_US - 1, text: 'long before' },
  ];
  const picture = { trace, ...change, prior: 'v1', candidate: 'v2', missedCycles: 0, periodMs: 4 };
  const svg = traceSvg({ ...picture, title: 'v1 & v2', events });
  expect(svg).toContain('v1 &#38; v2');
  expect(svg).not.toContain('long before');
  const words = [
    ...svg.matchAll(/<text x="([\d.]+)"( text-anchor="end")? y="([\d.]+)" font-size="11">([^<]+)</g),
  ];
  expect(words.map(([, , , , text]) => text)).toEqual([
    ...Array.from({ length: 4 }, (_, i) => `step &#60;${i}&#62;`),
    'at the very end of it',
  ]);
  expect(new Set(words.slice(0, 4).map(([, , , y]) => y)).size).toBe(4);
  // Written towards the left, so that it does not leave the picture.
  expect(words[4]?.[2]).toBeDefined();
  expect(svg).not.toMatch(/NaN|undefined|Infinity/);
});
