/** The demo's last words: what happened, as tables, and which promises held. Pure. */
import type { FlightReport } from '#cli/demo/flight-report.ts';
import { bytesText, durationText, table } from '#cli/text.ts';

export function reportText(report: FlightReport, logs: string): string {
  const { handover, ordinary, attitude, bytes, stagesMs } = report;
  const flight = table(
    ['in flight', 'ordinary', 'handover'],
    [
      ['largest gap between commands', ms(ordinary.gapMsMax), ms(handover.gapMs)],
      ['missed control cycles', String(ordinary.missedCycles), String(handover.missedCycles)],
      ['largest tilt', degrees(attitude.beforeDeg), degrees(attitude.duringDeg)],
    ],
  );
  const counts = table(
    ['during the whole update', ''],
    [
      ['commands of a former owner, doubled', `${handover.staleCommands}, ${handover.doubledCommands}`],
      ['camera frames lost, repeated', `${handover.framesLost}, ${handover.framesRepeated}`],
      ['websockets closed', String(handover.socketsClosed)],
      ['frames of the new thermal view', String(report.thermalFrames)],
    ],
  );
  const sizes = table(
    ['transferred', ''],
    [
      ['delta', bytes.delta === null ? `none (came as ${bytes.fetchedAs})` : bytesText(bytes.delta)],
      ['changed layers whole', bytesText(bytes.full)],
      ['image whole', bytesText(bytes.image)],
    ],
  );
  const stages = table(
    ['stage', 'time'],
    [
      ['push and build', durationText(report.pushMs)],
      ...Object.entries(stagesMs).map(([stage, t]) => [stage, durationText(t)]),
    ],
  );
  const promises = report.promises.map(({ text, held }) => `  ${held ? '✔' : '✘'} ${text}`).join('\n');
  const verdict = report.held ? 'All promises held.' : `A promise was broken; logs: ${logs}`;
  return `\n${[flight, counts, sizes, stages].join('\n')}\n${promises}\n\n${verdict}\nGyro trace: ${report.svg}\n`;
}

const ms = (value: number | null) => (value === null ? '–' : `${value.toFixed(2)} ms`);
const degrees = (value: number | null) => (value === null ? '–' : `${value.toFixed(2)}°`);
