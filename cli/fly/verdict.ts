/**
 * What was expected, beside what was measured: the verdict on one drone.
 *
 * Invariant: pure. An expectation whose figure was not measured does not hold. Lateness of the machine is told beside a
 * figure that it explains; it never makes an expectation hold.
 */
import type { Comparison, Expectation, FigureName } from '#cli/fly/scenario.ts';

/** Null: there was nothing to measure. */
export type Figures = Readonly<Record<FigureName, number | string | null>> & {
  /** Of the missed cycles, those that the simulated board's own lateness explains. */
  readonly missedCyclesBoardLate: number;
};

export interface Outcome {
  text: string;
  line: number;
  held: boolean;
  actual: number | string | null;
  /** Why it does not hold, if it is not the drone's doing. */
  excuse: string | null;
}

const COMPARE: Record<Comparison, (a: number, b: number) => boolean> = {
  '=': (a, b) => a === b,
  '<': (a, b) => a < b,
  '>': (a, b) => a > b,
  '<=': (a, b) => a <= b,
  '>=': (a, b) => a >= b,
};

export const judgeFlight = (expectations: readonly Expectation[], figures: Figures): Outcome[] =>
  expectations.map((expectation) => {
    const { text, line, figure } = expectation;
    const actual = figures[figure];
    const held = holds(expectation, actual);
    return { text, line, held, actual, excuse: held ? null : excuseOf(expectation, figures) };
  });

const holds = ({ comparison, value }: Expectation, actual: number | string | null): boolean => {
  if (actual === null) return false;
  if (typeof value === 'number' && typeof actual === 'number') return COMPARE[comparison](actual, value);
  return actual === value;
};

const excuseOf = (expectation: Expectation, figures: Figures): string | null => {
  const { figure } = expectation;
  const late = figures.missedCyclesBoardLate;
  if (late === 0) return null;
  if (figure === 'missed' && holds(expectation, Number(figures.missed) - late)) {
    return `the simulated board itself was late in ${late} of them: this machine is too slow for what runs on it`;
  }
  return figure === 'gap' ? `the simulated board itself was late in ${late} cycles of it` : null;
};
