/** What a run says at its end: for programs, and for people. Pure. */

import { FLY } from '#cli/fly/limits.ts';
import type { MachineUse } from '#cli/fly/machine.ts';
import type { Counts } from '#cli/fly/recorder.ts';
import type { Figures, Outcome } from '#cli/fly/verdict.ts';

export interface DroneReport {
  name: string;
  held: boolean;
  outcomes: Outcome[];
  /** What the script asked for and could not be done. */
  troubles: string[];
  figures: Figures;
  changes: {
    before: string;
    after: string;
    atS: number;
    gapMs: number | null;
    missed: number;
    tiltDeg: number | null;
  }[];
  /** Messages on the record, by channel. */
  record: Counts;
  mcap: string;
  pictures: { flight: string; handovers: string[] };
}

export interface FlightReport {
  type: 'report';
  title: string;
  held: boolean;
  seconds: number;
  machine: MachineUse & { boardLateTicksShare: number };
  drones: DroneReport[];
}

const value = (actual: number | string | null): string =>
  actual === null ? 'nothing was measured' : typeof actual === 'number' ? String(round(actual)) : actual;
const round = (number: number): number => Math.round(number * 100) / 100;

export const reportText = (report: FlightReport): string => {
  const lines: string[] = [''];
  for (const { name, held, outcomes, troubles, changes, mcap, pictures } of report.drones) {
    const failed = outcomes.filter((outcome) => !outcome.held);
    lines.push(
      `${held ? '✔' : '✘'} ${name}: ${outcomes.length - failed.length} of ${outcomes.length} expectations held`,
    );
    for (const { text, actual, excuse } of outcomes) {
      const mark = failed.some((one) => one.text === text) ? '✘' : '✔';
      lines.push(`    ${mark} ${text}: ${value(actual)}${excuse === null ? '' : ` (${excuse})`}`);
    }
    for (const trouble of troubles) lines.push(`    ✘ ${trouble}`);
    for (const { before, after, atS, gapMs, missed, tiltDeg } of changes) {
      lines.push(
        `    ${before} to ${after} at ${atS.toFixed(2)} s: gap ${gapMs?.toFixed(2) ?? '–'} ms, missed ${missed}, tilt up to ${tiltDeg?.toFixed(1) ?? '–'}°`,
      );
    }
    lines.push(`    record ${mcap}`, `    picture ${pictures.flight}`);
    for (const picture of pictures.handovers) lines.push(`    picture ${picture}`);
  }
  const { machine } = report;
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
  lines.push(
    `${report.held ? 'All expectations held' : 'Not all expectations held'}; ${report.seconds.toFixed(1)} s of flight on ${machine.cores} cores, ` +
      `${percent(machine.busyShare)} busy, ${percent(machine.stealShare)} taken by the host, ${percent(machine.boardLateTicksShare)} of the boards' ticks late`,
  );
  if (machine.stealShare > FLY.stealShareMax) {
    lines.push(
      'The host took more than this flight can bear: what came late here may come in time elsewhere.',
    );
  }
  return `${lines.join('\n')}\n`;
};
