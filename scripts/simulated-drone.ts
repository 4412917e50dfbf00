/**
 * Figures of docs/simulated-drone.md, computed: `node scripts/simulated-drone.ts` writes them into the page and the
 * picture beside it.
 *
 * Invariant: what is between `<!-- NAME -->` and `<!-- end -->` is made here, from the parameters and the physics that
 * fly, and nowhere else; a test holds page and picture to it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { AIRFRAME_NAMES, AIRFRAMES } from '#device-sim/airframes.ts';
import { Battery } from '#device-sim/battery.ts';
import { heldCommandMarkdown, heldCommandTable } from '#device-sim/held-command.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { hoverThrottle } from '#device-sim/physics.ts';

export const PAGE = new URL('../docs/simulated-drone.md', import.meta.url);
export const PICTURE = new URL('../docs/held-command.svg', import.meta.url);

const figure = (value: number): string => String(Number(value.toPrecision(3)));

const airframes = (): string => {
  const rows = AIRFRAME_NAMES.map((name) => {
    const p = AIRFRAMES[name];
    const { cells, capacityAh, hoverS } = p.battery;
    return [
      `\`${name}\``,
      `${figure(p.massKg)} kg`,
      p.inertiaKgM2.map(figure).join(', '),
      `${figure(4 * p.thrustN)} N`,
      figure(1 / hoverThrottle(p)),
      `${p.motorTauS * 1e3} / ${p.motorTauDownS * 1e3} ms`,
      `${figure(p.dragNPerMS)} N`,
      `${cells} x ${capacityAh} Ah, ${hoverS / 60} min`,
      `${figure(new Battery(p).volts)} V`,
    ];
  });
  const head = [
    'name',
    'mass',
    'inertia x, y, z, kg m²',
    'full thrust',
    'of its weight',
    'motors up / down',
    'drag at 1 m/s',
    'battery, hover',
    'full, at rest',
  ];
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
};

const held = (): string =>
  AIRFRAME_NAMES.map((name) => `\`${name}\`:\n\n${heldCommandMarkdown(AIRFRAMES[name])}`).join('\n\n');

/** The page with its computed parts renewed. */
export const fill = (page: string): string =>
  Object.entries({ airframes: airframes(), held: held() }).reduce((text, [name, made]) => {
    const parts = new RegExp(`(<!-- ${name} -->\n)[^]*?(<!-- end -->)`);
    if (!parts.test(text)) throw new Error(`the page has no <!-- ${name} --> … <!-- end -->`);
    return text.replace(parts, (_, begin: string, end: string) => `${begin}\n${made}\n\n${end}`);
  }, page);

const SIZE = { width: 960, height: 400 } as const;
const LANE = { top: 92, bottom: 336, width: 380, left: [72, 556] } as const;
const TO_S = 0.5;
const COLORS = ['#2563eb', '#d9640b', '#059669', '#7c3aed'];
const INK = '#1f2937';
const DIM = '#6b7280';

/** Tilt under a held turn, and height lost with cut motors, for half a second. */
export const picture = (): string => {
  const timesS = Array.from({ length: TO_S * 100 + 1 }, (_, i) => i / 100);
  const flights = AIRFRAME_NAMES.map((name) => heldCommandTable(AIRFRAMES[name], timesS));
  const lanes = [
    { title: 'The last command began a turn: tilt', unit: '°', top: 180, of: 'turning', value: 'tiltDeg' },
    { title: 'Motors cut: height lost', unit: ' m', top: 1.2, of: 'cut', value: 'lostM' },
  ] as const;
  const drawn = lanes.map(({ title, unit, top, of, value }, lane) => {
    const left = LANE.left[lane] as number;
    const x = (tS: number): number => left + (tS / TO_S) * LANE.width;
    const y = (at: number): number => LANE.bottom - (Math.min(at, top) / top) * (LANE.bottom - LANE.top);
    const rules = [0, 0.25, 0.5, 0.75, 1].map((share) => {
      const at = y(share * top);
      return (
        `<line x1="${left}" x2="${left + LANE.width}" y1="${at}" y2="${at}" stroke="#e5e7eb"/>` +
        `<text x="${left - 8}" y="${at + 4}" text-anchor="end" font-size="11" fill="${DIM}">${figure(share * top)}${unit}</text>`
      );
    });
    const ticks = [0, 100, 200, 300, 400, 500].map(
      (ms) =>
        `<text x="${x(ms / 1e3)}" y="${LANE.bottom + 18}" text-anchor="middle" font-size="11" fill="${DIM}">${ms} ms</text>`,
    );
    const limit = x(LIMITS.failsafeUs / 1e6);
    const lines = flights.map((rows, at) => {
      const points = rows.map((row) => `${x(row.tS).toFixed(1)},${y(row[of][value]).toFixed(1)}`).join(' ');
      return `<polyline fill="none" stroke="${COLORS[at]}" stroke-width="2" stroke-linejoin="round" points="${points}"/>`;
    });
    return [
      `<text x="${left}" y="${LANE.top - 14}" font-weight="600">${title}</text>`,
      ...rules,
      ...ticks,
      `<line x1="${limit}" x2="${limit}" y1="${LANE.top}" y2="${LANE.bottom}" stroke="${INK}" stroke-dasharray="4 4"/>`,
      `<text x="${limit + 6}" y="${LANE.top + 12}" font-size="11" fill="${DIM}">failsafe</text>`,
      ...lines,
    ].join('\n');
  });
  const legend = AIRFRAME_NAMES.map((name, at) => {
    const left = (LANE.left[0] as number) + at * 130;
    return (
      `<rect x="${left}" y="370" width="18" height="4" rx="2" fill="${COLORS[at]}"/>` +
      `<text x="${left + 26}" y="376">${name}</text>`
    );
  });
  const label = 'Tilt and height lost by time, for four airframes whose commands stop coming';
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${SIZE.width} ${SIZE.height}" width="${SIZE.width}" ` +
      `height="${SIZE.height}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" ` +
      `font-size="13" fill="${INK}" role="img" aria-label="${label}">`,
    `<rect width="${SIZE.width}" height="${SIZE.height}" rx="10" fill="#ffffff"/>`,
    `<text x="${LANE.left[0]}" y="40" font-size="18" font-weight="600">How long may a companion be silent?</text>`,
    ...drawn,
    ...legend,
    '</svg>\n',
  ].join('\n');
};

if (import.meta.main) {
  writeFileSync(PAGE, fill(readFileSync(PAGE, 'utf8')));
  writeFileSync(PICTURE, picture());
}
