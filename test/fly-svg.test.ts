/** The picture of a whole flight: what it draws is on the record, and it is a picture whatever comes in. */
import { expect, test } from 'vitest';
import { type FlightPicture, flightSvg } from '#cli/fly/flight-svg.ts';

const START_US = 5_000_000;

/** Ten points a second: `groundS` on the ground, then up, `v1` and `v2` half and half. */
const flight = (groundS: number, seconds = 20): FlightPicture => {
  const points = Array.from({ length: 10 * seconds }, (_, i) => {
    const s = i / 10;
    const up = Math.max(0, Math.min(5, s - groundS));
    const epoch = s < groundS ? 0 : s < seconds / 2 + groundS / 2 ? 4 : 8;
    return { tUs: START_US + s * 1e6, north: up, east: -2 * up, up, tiltDeg: 1, epoch };
  });
  const change = points.find(({ epoch }) => epoch === 8)?.tUs ?? 0;
  return {
    title: 'A flight <& its picture>',
    points,
    marks: [
      { tUs: START_US, text: 'start' },
      { tUs: START_US + 100_000, text: 'update v2' },
      { tUs: change, text: 'v2 owner' },
      { tUs: change + 1_000, text: 'v2 committed' },
    ],
    changes: [{ firstUs: change, before: 4, after: 8, judged: {} as never }],
    startUs: START_US,
    endUs: START_US + seconds * 1e6,
    nameOf: (epoch) => (epoch === 4 ? 'v1' : 'v2'),
  };
};

test('each owner has its colour, the change of hands its line, every mark its words', () => {
  const svg = flightSvg(flight(2));
  expect(svg).toContain('A flight &#60;&#38; its picture&#62;');
  for (const text of ['v1 flies', 'v2 flies', 'update v2', 'v2 owner', 'v2 committed'])
    expect(svg).toContain(text);
  // Height, tilt and path, for each owner and for the ground.
  expect(svg.match(/<polyline[^>]*stroke="#2563eb"/g)).toHaveLength(3);
  expect(svg.match(/<polyline[^>]*stroke="#d9640b"/g)).toHaveLength(3);
  expect(svg.match(/<line[^>]*stroke="#f59e0b"/g)).toHaveLength(1);
  expect(svg).not.toContain('>start<');
  expect(svg).not.toMatch(/NaN|undefined|Infinity/);
});

test('a long wait on the ground is left out, and said', () => {
  const svg = flightSvg(flight(60, 80));
  expect(svg).toContain('update v2 (56 s before)');
  expect(svg).toContain('>66 s<');
  expect(svg).not.toContain('>30 s<');
});

test('nothing flown is a picture, too', () => {
  const svg = flightSvg({ ...flight(2), points: [], changes: [], marks: [] });
  expect(svg).not.toMatch(/NaN|undefined|Infinity/);
});
