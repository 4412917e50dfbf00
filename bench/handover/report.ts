/** What `bench -- handover` says: distributions as tables, JSON and a picture. Pure. */
import { table } from '#cli/text.ts';

export interface Spread {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** Nearest rank; NaN (null in JSON) where there is nothing. */
export const spread = (figures: readonly (number | null)[]): Spread => {
  const sorted = figures.filter((figure) => figure !== null).sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) };
};

export const spreadRow = (name: string, { p50, p90, p99, max }: Spread): string[] => [
  name,
  ...[p50, p90, p99, max].map((figure) => (Number.isNaN(figure) ? '–' : figure.toFixed(2))),
];

export const spreadTable = (head: string, rows: string[][]): string =>
  table([head, 'p50', 'p90', 'p99', 'max'], rows);

export interface Series {
  readonly name: string;
  readonly values: readonly number[];
}

const WIDTH = 960;
const LEFT = 250;
const RIGHT = 120;
const ROW = 34;
const TOP = 64;
/** The scale's ends, ms: below one period there is no gap; a failsafe has acted long before its end. */
const [FROM_MS, TO_MS] = [3, 10_000];
const TICKS_MS = [4, 8, 20, 50, 100, 200, 1_000, 5_000];

/** One row a series, one dot a measurement, on a logarithmic scale: what happens once in a hundred stays visible. */
export const gapsSvg = (title: string, series: readonly Series[], failsafeMs: number): string => {
  const x = (ms: number): number => {
    const share = Math.log(Math.min(TO_MS, Math.max(FROM_MS, ms)) / FROM_MS) / Math.log(TO_MS / FROM_MS);
    return LEFT + share * (WIDTH - LEFT - RIGHT);
  };
  const height = TOP + series.length * ROW + 44;
  const bottom = height - 36;
  const text = (at: number, y: number, words: string, more = '') =>
    `<text x="${at.toFixed(1)}" y="${y}" ${more}>${words.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</text>`;
  const grid = TICKS_MS.map(
    (ms) =>
      `<line x1="${x(ms).toFixed(1)}" x2="${x(ms).toFixed(1)}" y1="${TOP - 8}" y2="${bottom}" stroke="#e5e7eb"/>` +
      text(x(ms), bottom + 18, ms < 1000 ? `${ms}` : `${ms / 1000} s`, 'text-anchor="middle" fill="#6b7280"'),
  );
  const rows = series.map(({ name, values }, index) => {
    const y = TOP + index * ROW + ROW / 2;
    const dots = values.map(
      (ms, at) =>
        // Dots side by side would hide their number: they are spread over the row, always the same way.
        `<circle cx="${x(ms).toFixed(1)}" cy="${(y + (((at * 7) % 11) - 5) * 1.6).toFixed(1)}" r="2.4" fill="${
          ms >= failsafeMs ? '#dc2626' : '#2563eb'
        }" fill-opacity="0.55"/>`,
    );
    const { p50 } = spread(values);
    const median = `<line x1="${x(p50).toFixed(1)}" x2="${x(p50).toFixed(1)}" y1="${y - 12}" y2="${y + 12}" stroke="#d9640b" stroke-width="2"/>`;
    const label = text(LEFT - 14, y + 4, name, 'text-anchor="end" fill="#1f2937"');
    const figure = text(WIDTH - RIGHT + 12, y + 4, `${p50.toFixed(1)} ms`, 'fill="#d9640b"');
    return label + dots.join('') + median + figure;
  });
  const limit = x(failsafeMs).toFixed(1);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="13">`,
    `<rect width="${WIDTH}" height="${height}" rx="10" fill="#ffffff"/>`,
    text(24, 30, title, 'font-size="16" font-weight="600" fill="#1f2937"'),
    ...grid,
    `<line x1="${limit}" x2="${limit}" y1="${TOP - 8}" y2="${bottom}" stroke="#dc2626" stroke-dasharray="4 3"/>`,
    text(x(failsafeMs) + 5, TOP - 12, 'failsafe', 'fill="#dc2626"'),
    ...rows,
    text(WIDTH - RIGHT, bottom + 18, 'ms without a command', 'text-anchor="end" fill="#6b7280"'),
    '</svg>\n',
  ].join('\n');
};
