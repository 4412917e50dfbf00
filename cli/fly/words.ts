/** Words of a script's line with their places, amounts with their units, and the word that was probably meant. Pure. */
export interface Word {
  readonly text: string;
  /** From 1. */
  readonly column: number;
}

/** What is wrong with a word; its line is known by whoever reads the line. */
export class Wrong extends Error {
  readonly column: number;
  readonly length: number;
  constructor({ text, column }: Word, message: string) {
    super(message);
    this.column = column;
    this.length = text.length;
  }
}

const SPLIT = /<=|>=|[<>=+]|[^\s<>=+]+/g;

/** A comment is no word; comparisons, `=` and `+` are words by themselves. */
export const wordsOf = (line: string): Word[] => {
  const code = line.replace(/#.*$/, '');
  return [...code.matchAll(SPLIT)].map((match) => ({ text: match[0], column: match.index + 1 }));
};

const UNITS = {
  time: { s: 1_000, ms: 1 },
  length: { m: 1, cm: 0.01 },
  speed: { 'm/s': 1 },
  angle: { deg: 1, '°': 1 },
  share: { '%': 1 },
  count: {},
} as const satisfies Record<string, Record<string, number>>;
export type Dimension = keyof typeof UNITS;

/** Bounds of what can be meant, in the dimension's own unit: ms, m, m/s, degrees, percent. */
const MOST: Record<Dimension, number> = {
  time: 3_600_000,
  length: 1_000,
  speed: 100,
  angle: 180,
  share: 100,
  count: 1e6,
};

/** @returns in ms, m, m/s, degrees, percent. @throws Wrong */
export const amount = (word: Word, dimension: Dimension): number => {
  const units: Record<string, number> = UNITS[dimension];
  const known = Object.keys(units);
  const match = /^(-?\d+(?:\.\d+)?)(.*)$/.exec(word.text);
  const example = dimension === 'count' ? '3' : `3${known[0]}`;
  if (match === null) throw new Wrong(word, `expected ${article(dimension)}, for instance ${example}`);
  const [, digits, unit = ''] = match;
  const factor = unit === '' && dimension !== 'time' ? 1 : units[unit];
  if (factor === undefined) {
    const without = unit === '' ? `${digits} has no unit` : `"${unit}" is no unit of ${article(dimension)}`;
    throw new Wrong(word, `${without}: write ${digits}${known.join(` or ${digits}`)}`);
  }
  const value = Math.round(Number(digits) * factor * 1e6) / 1e6;
  if (Math.abs(value) > MOST[dimension]) throw new Wrong(word, `${word.text} is beyond ${MOST[dimension]}`);
  if (dimension === 'count' && !Number.isInteger(value)) throw new Wrong(word, 'expected a whole number');
  return value;
};

const article = (dimension: Dimension): string => `${dimension === 'angle' ? 'an' : 'a'} ${dimension}`;

/** One of a few words. @throws Wrong with the one that was probably meant */
export const oneOf = <T extends string>(word: Word, known: readonly T[], what: string): T => {
  const found = known.find((one) => one === word.text);
  if (found !== undefined) return found;
  const meant = nearest(word.text, known);
  const help = meant === undefined ? `there is ${known.join(', ')}` : `did you mean "${meant}"?`;
  throw new Wrong(word, `"${word.text}" is no ${what}; ${help}`);
};

/** The closest of them, if it is close. */
export const nearest = (text: string, known: readonly string[]): string | undefined => {
  const scored = known
    .map((one) => ({ one, far: distance(text.toLowerCase().slice(0, 40), one.toLowerCase()) }))
    .sort((a, b) => a.far - b.far);
  const [best] = scored;
  return best !== undefined && best.far <= Math.max(1, Math.floor(best.one.length / 3))
    ? best.one
    : undefined;
};

/** Letters inserted, left out, changed or swapped with their neighbour. */
const distance = (a: string, b: string): number => {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i += 1) {
    const above = rows[i - 1] as number[];
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const change = (above[j - 1] as number) + Number(a[i - 1] !== b[j - 1]);
      let least = Math.min((above[j] as number) + 1, (row[j - 1] as number) + 1, change);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) least = Math.min(least, (rows[i - 2]?.[j - 2] as number) + 1);
      row.push(least);
    }
    rows.push(row);
  }
  return rows[a.length]?.[b.length] as number;
};
