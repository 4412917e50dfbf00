/**
 * What a person, or a program, sees of the flight while it flies: a table that changes on a terminal, lines elsewhere,
 * one JSON object a line for programs.
 *
 * Invariant: only shows. On standard output there is nothing but what was asked for.
 */
import { durationText, table } from '#cli/text.ts';

export interface Row {
  drone: string;
  phase: string;
  altitudeM: number;
  speedMS: number;
  tiltDeg: number;
  owner: string;
  update: string;
  handovers: number;
  gapMs: number | null;
  missed: number;
  stale: number;
  failsafes: number;
}

export interface Told {
  line: (text: string) => void;
}

export interface Show {
  step(title: string, run: (told: Told) => Promise<string>): Promise<void>;
  /** Something happened, `atS` into the flight. */
  mark(atS: number, drone: string | undefined, text: string): void;
  /** Of a push, while the flight goes on. */
  detail(text: string): void;
  table(atS: number, rows: readonly Row[]): void;
  /** The last words: the table stays as it is. */
  end(): void;
}

const HEAD = [
  'drone',
  'flies',
  'phase',
  'height',
  'speed',
  'tilt',
  'update',
  'hands',
  'gap',
  'missed',
  'stale',
];

const cells = (row: Row): string[] => [
  row.drone,
  row.owner,
  row.failsafes > 0 ? 'failsafe' : row.phase,
  `${row.altitudeM.toFixed(2)} m`,
  `${row.speedMS.toFixed(2)} m/s`,
  `${row.tiltDeg.toFixed(1)}°`,
  row.update,
  String(row.handovers),
  row.gapMs === null ? '–' : `${row.gapMs.toFixed(2)} ms`,
  String(row.missed),
  String(row.stale),
];

/** Below these there is no room to draw a table again and again. */
const COLUMNS_MIN = 100;
const RULE_LINES = 3;

export const createShow = (json: boolean, out: NodeJS.WriteStream): Show => {
  if (json) return jsonShow(out);
  return out.isTTY === true && out.columns >= COLUMNS_MIN ? terminalShow(out) : lineShow(out);
};

const at = (atS: number): string => `${atS.toFixed(1).padStart(6)} s`;
const markText = (atS: number, drone: string | undefined, text: string): string =>
  `${at(atS)}  ${drone === undefined ? '' : `${drone}  `}${text}`;

const lineShow = (out: NodeJS.WritableStream): Show => {
  const line = (text: string): void => void out.write(`${text}\n`);
  let shownS = Number.NEGATIVE_INFINITY;
  return {
    async step(title, run) {
      const startMs = performance.now();
      const text = await run({ line: (said) => line(`  ${said}`) });
      line(`✔ ${title}: ${text} (${durationText(performance.now() - startMs)})`);
    },
    mark: (atS, drone, text) => line(markText(atS, drone, text)),
    detail: (text) => line(`  ${text}`),
    table(atS, rows) {
      // A line every few seconds tells that it flies; the marks tell the rest.
      if (atS - shownS < 5) return;
      shownS = atS;
      for (const row of rows) line(`${at(atS)}  ${cells(row).slice(0, 7).join('  ')}`);
    },
    end: () => undefined,
  };
};

const terminalShow = (out: NodeJS.WriteStream): Show => {
  let drawn = 0;
  let last = '';
  const erase = (): void => {
    if (drawn > 0) out.write(`\u001b[${drawn}A\u001b[J`);
    drawn = 0;
  };
  const draw = (text: string): void => {
    last = text;
    out.write(text);
    drawn = text.split('\n').length - 1;
  };
  const above = (text: string): void => {
    erase();
    out.write(`${text.slice(0, out.columns - 1)}\n`);
    if (last !== '') draw(last);
  };
  return {
    async step(title, run) {
      const startMs = performance.now();
      draw(`❯ ${title}\n`);
      const told = (text: string): void => {
        erase();
        draw(`❯ ${title}: ${text}`.slice(0, out.columns - 1).concat('\n'));
      };
      const text = await run({ line: told });
      erase();
      last = '';
      out.write(`✔ ${title}: ${text} (${durationText(performance.now() - startMs)})\n`);
    },
    mark: (atS, drone, text) => above(markText(atS, drone, text)),
    detail: () => undefined,
    table(atS, rows) {
      erase();
      const text = table(HEAD, rows.map(cells));
      const lines = text.split('\n').map((one) => one.slice(0, out.columns - 1));
      draw(`\n${at(atS)}\n${lines.join('\n')}`);
      if (rows.length + RULE_LINES > out.rows) drawn = 0;
    },
    end() {
      last = '';
      drawn = 0;
    },
  };
};

const jsonShow = (out: NodeJS.WritableStream): Show => {
  const say = (value: object): void => void out.write(`${JSON.stringify(value)}\n`);
  return {
    async step(title, run) {
      const startMs = performance.now();
      const text = await run({ line: () => undefined });
      say({ type: 'step', title, text, ms: Math.round(performance.now() - startMs) });
    },
    mark: (atS, drone, text) => say({ type: 'mark', atS: round(atS), drone: drone ?? null, text }),
    detail: () => undefined,
    table: (atS, rows) => say({ type: 'drones', atS: round(atS), drones: rows }),
    end: () => undefined,
  };
};

const round = (value: number): number => Math.round(value * 1000) / 1000;
