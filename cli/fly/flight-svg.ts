/**
 * A whole flight as a picture: height and place over time, coloured by who flew, with what happened to it; and its path
 * from above.
 *
 * Invariant: pure and self-contained, as trace-svg.ts; every point drawn is one of the record's.
 */
import type { Mark } from '#cli/fly/drone.ts';
import type { Change, Point } from '#cli/fly/tape.ts';

export interface FlightPicture {
  title: string;
  points: readonly Point[];
  marks: readonly Mark[];
  changes: readonly Pick<Change, 'firstUs' | 'after' | 'before' | 'judged'>[];
  startUs: number;
  endUs: number;
  /** Where the time is counted from, if not from the picture's beginning. */
  zeroUs?: number;
  /** Of an epoch's owner. */
  nameOf: (epoch: number) => string;
}

const WIDTH = 960;
const LEFT = 92;
const RIGHT = 690;
const TOP = 96;
const HEIGHT_LANE = 150;
const TILT_LANE = 60;
const SPACE = 34;
const MARK_ROW = 17;
/** Of a wait on the ground, before the take-off: what is shown. */
const GROUND_US = 4e6;
const COLOR = { ink: '#1f2937', dim: '#6b7280', rule: '#e5e7eb', ground: '#9ca3af' };
/** By the order in which owners appear. */
const OWNERS = ['#2563eb', '#d9640b', '#7c3aed', '#0f766e', '#be185d'];
const PLACE = { x: 724, size: 212 };

const n = (value: number) => String(Math.round(value * 100) / 100);
const escaped = (text: string) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

export function flightSvg(whole: FlightPicture): string {
  const picture = fromTakeoff(whole);
  const { points, startUs, endUs, title, nameOf } = picture;
  const spanUs = Math.max(1, endUs - startUs);
  const x = (tUs: number) => LEFT + ((tUs - startUs) / spanUs) * (RIGHT - LEFT);
  const runs = byOwner(points, nameOf);
  const names = [...new Set(runs.map(({ name }) => name))];
  const colorOf = (name: string) =>
    name === ''
      ? COLOR.ground
      : (OWNERS[names.filter((one) => one !== '').indexOf(name) % OWNERS.length] as string);
  const tiltTop = TOP + HEIGHT_LANE + SPACE;
  const bottom = tiltTop + TILT_LANE;
  const marks = placed(picture, x);
  const rows = Math.max(0, ...marks.map(({ row }) => row + 1));
  const height = bottom + 50 + rows * MARK_ROW + 14;
  const lane = (top: number, size: number, max: number, of: (point: Point) => number) => (points_: Point[]) =>
    points_.map((point) => `${n(x(point.tUs))},${n(top + size - (of(point) / max) * size)}`).join(' ');
  const upMax = niceCeiling(Math.max(1, ...points.map(({ up }) => up)));
  const tiltMax = niceCeiling(Math.max(2, ...points.map(({ tiltDeg }) => tiltDeg)));
  const heightLine = lane(TOP, HEIGHT_LANE, upMax, ({ up }) => Math.max(0, up));
  const tiltLine = lane(tiltTop, TILT_LANE, tiltMax, ({ tiltDeg }) => tiltDeg);
  const lines = (line: (points: Point[]) => string, width: number) =>
    runs.map(
      ({ name, points: some }) =>
        `<polyline fill="none" stroke="${colorOf(name)}" stroke-width="${width}" stroke-linejoin="round" stroke-linecap="round" points="${line(some)}"/>`,
    );
  const parts = [
    `<rect width="${WIDTH}" height="${height}" rx="10" fill="#ffffff"/>`,
    `<text x="${LEFT}" y="36" font-size="18" font-weight="600">${escaped(title)}</text>`,
    ...legend(
      names.filter((name) => name !== ''),
      colorOf,
    ),
    ...scale(TOP, HEIGHT_LANE, upMax, 'height', 'm'),
    ...scale(tiltTop, TILT_LANE, tiltMax, 'tilt', 'degrees'),
    ...marks.map(({ at, row }) => {
      const down = bottom + 36 + row * MARK_ROW;
      return `<line x1="${n(at)}" x2="${n(at)}" y1="${TOP - 6}" y2="${down}" stroke="${COLOR.ground}" stroke-width="0.8" stroke-dasharray="2 3"/>`;
    }),
    ...picture.changes.map(({ firstUs }) => {
      const at = n(x(firstUs));
      return `<line x1="${at}" x2="${at}" y1="${TOP - 6}" y2="${bottom}" stroke="#f59e0b" stroke-width="2"/>`;
    }),
    ...lines(tiltLine, 1.4),
    ...lines(heightLine, 2.4),
    ...timeAxis(spanUs, x, startUs, picture.zeroUs ?? startUs, bottom),
    ...marks.map(({ at, row, text, isLeft }) => {
      const y = bottom + 40 + row * MARK_ROW;
      const anchor = isLeft ? `x="${n(at - 5)}" text-anchor="end"` : `x="${n(at + 5)}"`;
      return (
        `<circle cx="${n(at)}" cy="${y - 4}" r="2.2" fill="${COLOR.dim}"/>` +
        `<text ${anchor} y="${y}" font-size="11.5" paint-order="stroke" stroke="#ffffff" stroke-width="4">${escaped(text)}</text>`
      );
    }),
    ...path(picture, runs, colorOf),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13" fill="${COLOR.ink}" role="img" aria-label="${escaped(title)}: height, tilt and path over time">
${parts.join('\n')}
</svg>
`;
}

/** A long wait on the ground is left out; what was done in it stands at the beginning, with how long before. */
function fromTakeoff(picture: FlightPicture): FlightPicture {
  const { startUs, points, marks } = picture;
  const airborneUs = points.find(({ up }) => up > 0.1)?.tUs ?? startUs;
  const fromUs = airborneUs - GROUND_US;
  if (fromUs - startUs < GROUND_US) return picture;
  const earlier = ({ tUs, text }: Mark): Mark => ({
    tUs: fromUs,
    text: `${text} (${((fromUs - tUs) / 1e6).toFixed(0)} s before)`,
  });
  return {
    ...picture,
    startUs: fromUs,
    zeroUs: startUs,
    points: points.filter(({ tUs }) => tUs >= fromUs),
    marks: marks
      .filter(({ text }) => text !== 'start')
      .map((mark) => (mark.tUs < fromUs ? earlier(mark) : mark)),
  };
}

interface Run {
  name: string;
  points: Point[];
}

/** Each run begins where the one before ended, so that the line has no hole. */
function byOwner(points: readonly Point[], nameOf: (epoch: number) => string): Run[] {
  const runs: Run[] = [];
  for (const point of points) {
    const name = point.epoch === 0 ? '' : nameOf(point.epoch);
    const last = runs.at(-1);
    if (last?.name === name) last.points.push(point);
    else runs.push({ name, points: [...(last?.points.slice(-1) ?? []), point] });
  }
  return runs;
}

function legend(names: readonly string[], colorOf: (name: string) => string): string[] {
  let at = LEFT;
  const parts = names.map((name) => {
    const text = `${name} flies`;
    const part =
      `<rect x="${at}" y="60" width="18" height="5" rx="2.5" fill="${colorOf(name)}"/>` +
      `<text x="${at + 25}" y="67">${escaped(text)}</text>`;
    at += 25 + 8 * text.length + 20;
    return part;
  });
  parts.push(
    `<rect x="${at + 8}" y="56" width="2" height="14" fill="#f59e0b"/><text x="${at + 18}" y="67">the rotors change hands</text>`,
  );
  return parts;
}

function scale(top: number, size: number, max: number, name: string, unit: string): string[] {
  const steps = size > 100 ? [0, 0.5, 1] : [0, 1];
  return [
    ...steps.map((share) => {
      const y = n(top + size - share * size);
      return (
        `<line x1="${LEFT}" x2="${RIGHT}" y1="${y}" y2="${y}" stroke="${COLOR.rule}"/>` +
        `<text x="${LEFT - 8}" y="${Number(y) + 4}" text-anchor="end" font-size="11" fill="${COLOR.dim}">${n(share * max)}</text>`
      );
    }),
    `<text x="14" y="${top + size / 2}" font-weight="600">${name}</text>`,
    `<text x="14" y="${top + size / 2 + 15}" font-size="11" fill="${COLOR.dim}">${unit}</text>`,
  ];
}

/** 1, 2 or 5 times a power of ten, or twice as fine. */
function niceCeiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value) ?? 10) * power;
}

function timeAxis(
  spanUs: number,
  x: (tUs: number) => number,
  startUs: number,
  zeroUs: number,
  bottom: number,
): string[] {
  const stepS = [1, 2, 5, 10, 20, 30, 60, 120].find((step) => spanUs / 1e6 / step <= 12) ?? 300;
  const parts = [`<line x1="${LEFT}" x2="${RIGHT}" y1="${bottom}" y2="${bottom}" stroke="${COLOR.dim}"/>`];
  const [fromS, toS] = [(startUs - zeroUs) / 1e6, (startUs + spanUs - zeroUs) / 1e6];
  // The scale's own zero stands where the first would.
  for (let s = Math.floor(fromS / stepS + 1) * stepS; s <= toS; s += stepS) {
    const at = n(x(zeroUs + s * 1e6));
    parts.push(
      `<line x1="${at}" x2="${at}" y1="${bottom}" y2="${bottom + 5}" stroke="${COLOR.dim}"/>` +
        `<text x="${at}" y="${bottom + 18}" text-anchor="middle" font-size="11" fill="${COLOR.dim}">${s} s</text>`,
    );
  }
  return parts;
}

interface Placed {
  at: number;
  row: number;
  text: string;
  isLeft: boolean;
}

/** Marks below the axis, each in the first row where it has room. */
function placed({ marks, startUs, endUs }: FlightPicture, x: (tUs: number) => number): Placed[] {
  const ends: number[] = [];
  return [...marks]
    .sort((a, b) => a.tUs - b.tUs)
    .filter(({ tUs, text }) => tUs >= startUs && tUs <= endUs && text !== 'start')
    .map(({ tUs, text }) => {
      const at = x(tUs);
      const short = text.length > 64 ? `${text.slice(0, 63)}…` : text;
      const width = 6.4 * short.length + 14;
      const isLeft = at + width > WIDTH - 20;
      const [from, to] = isLeft ? [at - width, at + 4] : [at - 4, at + width];
      let row = ends.findIndex((end) => end < from);
      if (row < 0) row = ends.length;
      ends[row] = to;
      return { at, row, text: short, isLeft };
    });
}

/** From above, north up, the same scale both ways. */
function path(picture: FlightPicture, runs: readonly Run[], colorOf: (name: string) => string): string[] {
  const { points } = picture;
  const [norths, easts] = [points.map(({ north }) => north), points.map(({ east }) => east)];
  const middle = (values: number[]) => (Math.min(0, ...values) + Math.max(0, ...values)) / 2;
  const reach = (values: number[]) => Math.max(0, ...values) - Math.min(0, ...values);
  const span = niceCeiling(Math.max(2, 1.15 * reach(norths), 1.15 * reach(easts)));
  const { x: left, size } = PLACE;
  const [north0, east0] = [middle(norths), middle(easts)];
  const px = (east: number) => left + size / 2 + ((east - east0) / span) * size;
  const py = (north: number) => TOP + size / 2 - ((north - north0) / span) * size;
  const at = (point: Point | undefined) => `${n(px(point?.east ?? 0))},${n(py(point?.north ?? 0))}`;
  const changed = picture.changes.map(({ firstUs }) => {
    const point = points.find(({ tUs }) => tUs >= firstUs) ?? points.at(-1);
    return `<circle cx="${n(px(point?.east ?? 0))}" cy="${n(py(point?.north ?? 0))}" r="5" fill="none" stroke="#f59e0b" stroke-width="2"/>`;
  });
  return [
    `<rect x="${left}" y="${TOP}" width="${size}" height="${size}" fill="#f9fafb" stroke="${COLOR.rule}"/>`,
    `<line x1="${n(px(0))}" x2="${n(px(0))}" y1="${TOP}" y2="${TOP + size}" stroke="${COLOR.rule}"/>`,
    `<line x1="${left}" x2="${left + size}" y1="${n(py(0))}" y2="${n(py(0))}" stroke="${COLOR.rule}"/>`,
    ...runs.map(
      ({ name, points: some }) =>
        `<polyline fill="none" stroke="${colorOf(name)}" stroke-width="2.2" stroke-linejoin="round" points="${some.map(at).join(' ')}"/>`,
    ),
    ...changed,
    `<circle cx="${n(px(0))}" cy="${n(py(0))}" r="2.6" fill="${COLOR.ink}"/>`,
    `<text x="${left}" y="${TOP - 10}" font-weight="600">from above</text>`,
    `<text x="${left + size}" y="${TOP - 10}" text-anchor="end" font-size="11" fill="${COLOR.dim}">${n(span)} m wide, north up</text>`,
  ];
}
