/**
 * The gyro around a handover as a picture: three rates, each command's arrival, the gap marked, and what the agent did.
 *
 * Invariant: pure, and self-contained: no script, no font file, no reference outside. Readable on light and dark
 * pages, since it brings its own background.
 */
import type { Trace } from '#cli/sim-client.ts';

export interface Picture {
  trace: Trace;
  /** The last command of the prior and the first of the candidate, monotonic us. */
  lastUs: number;
  firstUs: number;
  prior: string;
  candidate: string;
  missedCycles: number;
  periodMs: number;
  /** Above it all, instead of the ordinary words. */
  title?: string;
  /** Of the agent's, with their times: those within the picture are drawn. */
  events?: readonly { tUs: number; text: string }[];
}

const WIDTH = 960;
const LEFT = 92;
const RIGHT = 24;
const TOP = 112;
const LANE = 84;
const SPACE = 24;
const TICKS_LANE = 44;
const EVENT_ROW = 16;
const COLOR = {
  before: '#2563eb',
  after: '#d9640b',
  gap: '#fde68a',
  wrong: '#dc2626',
  ink: '#1f2937',
  dim: '#6b7280',
  rule: '#e5e7eb',
};
const AXES = ['roll', 'pitch', 'yaw'] as const;
const DEG = 180 / Math.PI;

/** The command before the owner changed and the one after; undefined if the trace shows only one owner. */
export function ownerChange(trace: Trace): { lastUs: number; firstUs: number } | undefined {
  const fresh = trace.commands.filter(({ kind }) => kind === 'fresh');
  const at = fresh.findIndex(({ epoch }, i) => i > 0 && epoch !== fresh[i - 1]?.epoch);
  const [last, first] = [fresh[at - 1], fresh[at]];
  return last === undefined || first === undefined ? undefined : { lastUs: last.tUs, firstUs: first.tUs };
}

export function traceSvg(picture: Picture): string {
  const { trace, lastUs, firstUs } = picture;
  const times = trace.samples.map(({ tUs }) => tUs);
  const [fromUs, toUs] = [times[0] ?? lastUs, times.at(-1) ?? firstUs];
  const x = (tUs: number) => LEFT + ((tUs - fromUs) / Math.max(1, toUs - fromUs)) * (WIDTH - LEFT - RIGHT);
  const commands = TOP + 3 * (LANE + SPACE);
  const events = eventLane(picture, x, fromUs, toUs, commands + TICKS_LANE);
  const bottom = commands + TICKS_LANE + events.height;
  const height = bottom + 56;
  const parts = [
    `<rect width="${WIDTH}" height="${height}" rx="10" fill="#ffffff"/>`,
    header(picture),
    gapBand(x(lastUs), x(firstUs), bottom),
    ...AXES.map((axis, i) => lane(axis, i, picture, x)),
    commandLane(picture, x, commands),
    ...events.parts,
    timeAxis(firstUs, fromUs, toUs, x, bottom),
  ];
  const gapMs = ((firstUs - lastUs) / 1000).toFixed(2);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13" fill="${COLOR.ink}" role="img" aria-label="Angular rates around the handover; ${gapMs} ms between the two versions' commands">
${parts.join('\n')}
</svg>
`;
}

const n = (value: number) => String(Math.round(value * 100) / 100);
const escaped = (text: string) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

function header(picture: Picture): string {
  const { prior, candidate, lastUs, firstUs, missedCycles, periodMs } = picture;
  const gapMs = ((firstUs - lastUs) / 1000).toFixed(2);
  const cycles = missedCycles === 1 ? '1 missed control cycle' : `${missedCycles} missed control cycles`;
  const key = (x: number, color: string, width: number, text: string) =>
    `<rect x="${x}" y="71" width="18" height="${width}" rx="2" transform="translate(0 ${-width / 2})" fill="${color}"/>` +
    `<text x="${x + 26}" y="76">${escaped(text)}</text>`;
  const title = picture.title ?? `Handover in flight: ${gapMs} ms between two commands, ${cycles}`;
  return [
    `<text x="${LEFT}" y="36" font-size="18" font-weight="600">${escaped(title)}</text>`,
    key(LEFT, COLOR.before, 4, `${prior} commands`),
    key(LEFT + 140, COLOR.after, 4, `${candidate} commands`),
    key(
      LEFT + 280,
      COLOR.gap,
      14,
      `last command of ${prior} to first of ${candidate} (control period ${periodMs} ms)`,
    ),
  ].join('\n');
}

function gapBand(left: number, right: number, bottom: number): string {
  const width = Math.max(2, right - left);
  return `<rect x="${n(left)}" y="${TOP - 8}" width="${n(width)}" height="${bottom - TOP + 8}" fill="${COLOR.gap}"/>`;
}

function lane(axis: string, index: number, { trace, firstUs }: Picture, x: (tUs: number) => number): string {
  const top = TOP + index * (LANE + SPACE);
  const rates = trace.samples.map(({ tUs, gyro }) => ({ tUs, rate: (gyro[index] ?? 0) * DEG }));
  // One scale for all three, so that they can be compared; not so fine that noise looks like a storm.
  const most = Math.max(...trace.samples.flatMap(({ gyro }) => gyro.map((rate) => Math.abs(rate) * DEG)), 0);
  const scale = niceCeiling(Math.max(most, 1));
  const y = (rate: number) => top + LANE / 2 - (rate / scale) * (LANE / 2);
  const split = rates.findIndex(({ tUs }) => tUs >= firstUs);
  const at = split < 0 ? rates.length : split;
  const line = (points: typeof rates, color: string) =>
    points.length < 2
      ? ''
      : `<polyline fill="none" stroke="${color}" stroke-width="1.8" stroke-linejoin="round" points="${points.map(({ tUs, rate }) => `${n(x(tUs))},${n(y(rate))}`).join(' ')}"/>`;
  const rule = (rate: number) =>
    `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${n(y(rate))}" y2="${n(y(rate))}" stroke="${COLOR.rule}"/>` +
    `<text x="${LEFT - 8}" y="${n(y(rate) + 4)}" text-anchor="end" font-size="11" fill="${COLOR.dim}">${n(rate)}</text>`;
  return [
    ...[scale, 0, -scale].map(rule),
    `<text x="16" y="${n(top + LANE / 2 - 2)}" font-weight="600">${axis}</text>`,
    `<text x="16" y="${n(top + LANE / 2 + 13)}" font-size="11" fill="${COLOR.dim}">deg/s</text>`,
    line(rates.slice(0, at + 1), COLOR.before),
    line(rates.slice(at), COLOR.after),
  ].join('\n');
}

/** 1, 2 or 5 times a power of ten. */
function niceCeiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10) * power;
}

function commandLane({ trace, firstUs }: Picture, x: (tUs: number) => number, top: number): string {
  // A command that should not have come stands out, whoever sent it.
  const bars = trace.commands
    .filter(({ kind }) => kind === 'fresh' || kind === 'stale' || kind === 'doubled')
    .map(({ tUs, kind }) => {
      const color = kind !== 'fresh' ? COLOR.wrong : tUs < firstUs ? COLOR.before : COLOR.after;
      const from = kind === 'fresh' ? top + 6 : top;
      return `<line x1="${n(x(tUs))}" x2="${n(x(tUs))}" y1="${from}" y2="${top + TICKS_LANE - 8}" stroke="${color}" stroke-width="1.6"/>`;
    });
  return [
    `<text x="16" y="${top + 20}" font-weight="600">rotor</text>`,
    `<text x="16" y="${top + 34}" font-size="11" fill="${COLOR.dim}">commands</text>`,
    ...bars,
  ].join('\n');
}

/** Each in the first row where it has room; without events there is no lane. */
function eventLane(
  { events = [] }: Picture,
  x: (tUs: number) => number,
  fromUs: number,
  toUs: number,
  top: number,
): { height: number; parts: string[] } {
  const ends: number[] = [];
  const shown = events.filter(({ tUs }) => tUs >= fromUs && tUs <= toUs);
  const parts = shown.map(({ tUs, text }) => {
    const at = x(tUs);
    const width = 6.4 * text.length + 16;
    const isLeft = at + width > WIDTH - RIGHT;
    const [from, to] = isLeft ? [at - width, at + 4] : [at - 4, at + width];
    const free = ends.findIndex((end) => end < from);
    const row = free < 0 ? ends.length : free;
    ends[row] = to;
    const y = top + 12 + row * EVENT_ROW;
    const place = isLeft ? `x="${n(at - 7)}" text-anchor="end"` : `x="${n(at + 7)}"`;
    return (
      `<circle cx="${n(at)}" cy="${y - 4}" r="2.5" fill="${COLOR.ink}"/>` +
      `<text ${place} y="${y}" font-size="11">${escaped(text)}</text>`
    );
  });
  if (parts.length === 0) return { height: 0, parts };
  // It tells after it has acted: under load some milliseconds after.
  parts.unshift(
    `<text x="16" y="${top + 12}" font-weight="600">agent</text>`,
    `<text x="16" y="${top + 26}" font-size="11" fill="${COLOR.dim}">as it told</text>`,
  );
  return { height: Math.max(2, ends.length) * EVENT_ROW + 12, parts };
}

function timeAxis(
  zeroUs: number,
  fromUs: number,
  toUs: number,
  x: (tUs: number) => number,
  bottom: number,
): string {
  const stepMs = niceCeiling((toUs - fromUs) / 1000 / 10);
  const marks: string[] = [];
  for (
    let ms = Math.ceil((fromUs - zeroUs) / 1000 / stepMs) * stepMs;
    ms <= (toUs - zeroUs) / 1000;
    ms += stepMs
  ) {
    const at = x(zeroUs + ms * 1000);
    marks.push(
      `<line x1="${n(at)}" x2="${n(at)}" y1="${bottom}" y2="${bottom + 5}" stroke="${COLOR.dim}"/>`,
      `<text x="${n(at)}" y="${bottom + 20}" text-anchor="middle" font-size="11" fill="${COLOR.dim}">${n(ms)}</text>`,
    );
  }
  return [
    `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${bottom}" y2="${bottom}" stroke="${COLOR.dim}"/>`,
    ...marks,
    `<text x="${WIDTH - RIGHT}" y="${bottom + 40}" text-anchor="end" font-size="11" fill="${COLOR.dim}">milliseconds from the new owner's first command</text>`,
  ].join('\n');
}
