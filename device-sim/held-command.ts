/**
 * What becomes of a drone whose motors keep their last command, or stop: tilt and height lost against time.
 *
 * Invariant: pure and without chance; the physics that flies, in still air, from a hover, the battery full. It answers
 * how long a companion may be silent, which the failsafe's limit (limits.ts, `failsafeUs`) rests on.
 */
import type { Parameters } from '#device-sim/parameters.ts';
import {
  AT,
  createState,
  hoverThrottle,
  motorGoal,
  ROLL,
  type State,
  step,
  tiltRad,
} from '#device-sim/physics.ts';

/**
 * `trimmed`: the hover's command, one percent of it unevenly to the right, as it is at any moment of a quiet flight.
 * `turning`: the last command was the beginning of a turn: a tenth of the hover's thrust more on one side, less on the
 * other. `cut`: motors off.
 */
export const HELD_CASES = ['trimmed', 'turning', 'cut'] as const;
export type HeldCase = (typeof HELD_CASES)[number];

export interface Held {
  /** The largest until then. */
  readonly tiltDeg: number;
  /** Downwards of where it was. */
  readonly lostM: number;
}
export interface HeldRow extends Record<HeldCase, Held> {
  readonly tS: number;
}

export const HELD_TIMES_S = [0.02, 0.05, 0.1, 0.2, 0.5, 1] as const;

const STEP_S = 1e-3;
/** High enough for the longest row. */
const HEIGHT_M = 1_000;
const UNEVEN: Record<HeldCase, number> = { trimmed: 0.01, turning: 0.1, cut: 0 };

const heldThrottles = (p: Parameters, held: HeldCase): number[] => {
  if (held === 'cut') return [0, 0, 0, 0];
  return ROLL.map((side) => hoverThrottle(p) * (1 + side * UNEVEN[held]));
};

/** @param timesS rising; rounded to the step of 1 ms */
export const heldCommandTable = (p: Parameters, timesS: readonly number[] = HELD_TIMES_S): HeldRow[] => {
  const flights = HELD_CASES.map((held) => fly(p, heldThrottles(p, held), timesS));
  return timesS.map((tS, row) => ({
    tS,
    ...(Object.fromEntries(
      HELD_CASES.map((held, at) => [held, (flights[at] as Held[])[row] as Held]),
    ) as Record<HeldCase, Held>),
  }));
};

const fly = (p: Parameters, throttles: readonly number[], timesS: readonly number[]): Held[] => {
  const state = hovering(p);
  let steps = 0;
  let tilt = 0;
  return timesS.map((tS) => {
    const until = Math.round(tS / STEP_S);
    for (; steps < until; steps += 1) {
      step(state, throttles, STEP_S, p);
      tilt = Math.max(tilt, tiltRad(state.x));
    }
    return { tiltDeg: (tilt * 180) / Math.PI, lostM: (state.x[AT.position + 2] as number) + HEIGHT_M };
  });
};

const hovering = (p: Parameters): State => {
  const state = createState(HEIGHT_M);
  state.x.fill(motorGoal(hoverThrottle(p), p), AT.motors, AT.motors + 4);
  return state;
};

/** One airframe's rows, as docs/simulated-drone.md shows them. */
export const heldCommandMarkdown = (p: Parameters): string => {
  const figure = ({ tiltDeg, lostM }: Held): string =>
    `${tiltDeg.toFixed(1)}° | ${(lostM * 100).toFixed(1)} cm`;
  return [
    '| held for | trimmed: tilt | lost | turning: tilt | lost | cut: tilt | lost |',
    '|---|---|---|---|---|---|---|',
    ...heldCommandTable(p).map(
      ({ tS, trimmed, turning, cut }) =>
        `| ${Math.round(tS * 1_000)} ms | ${figure(trimmed)} | ${figure(turning)} | ${figure(cut)} |`,
    ),
  ].join('\n');
};
