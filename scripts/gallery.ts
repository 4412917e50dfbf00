/**
 * `node scripts/gallery.ts [--from DIR] [NAME …]`: flies the scenarios in scenarios/ (all, or those named) and writes the
 * gallery of docs/scenarios.md, with the pictures and figures of those very runs. `--from DIR` takes runs that were flown
 * before with `midair sim fly --out DIR/NAME`.
 *
 * Invariant: a figure in the gallery is one of a run's report; a run that failed is shown as that.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { DroneReport, FlightReport } from '#cli/fly/report.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import { commandLine } from '#scripts/command-line.ts';

const { values, positionals, refuse } = commandLine('usage: node scripts/gallery.ts [--from DIR] [NAME …]', {
  options: { from: { type: 'string' } },
  allowPositionals: true,
});
const SCENARIOS = join(PACKAGE_ROOT, 'scenarios');
const PICTURES = join(PACKAGE_ROOT, 'docs', 'scenarios');
const DOCUMENT = join(PACKAGE_ROOT, 'docs', 'scenarios.md');
const [BEGIN, END] = ['<!-- gallery: node scripts/gallery.ts writes this -->', '<!-- end of the gallery -->'];

const known = readdirSync(SCENARIOS)
  .filter((name) => name.endsWith('.scenario'))
  .map((name) => basename(name, '.scenario'));
const wrong = positionals.find((name) => !known.includes(name));
if (wrong !== undefined) refuse(`there is no scenario ${wrong}; there is ${known.join(', ')}`);
const names = positionals.length > 0 ? positionals : known;
const made = values.from === undefined ? mkdtempSync(join(tmpdir(), 'midair-gallery-')) : undefined;
const flown = values.from ?? (made as string);
if (made !== undefined) {
  for (const name of names) {
    const script = join(SCENARIOS, `${name}.scenario`);
    const bin = join(PACKAGE_ROOT, 'cli', 'bin.ts');
    const args = [bin, 'sim', 'fly', '--scenario', script, '--out', join(flown, name)];
    const { status } = spawnSync(process.execPath, args, { stdio: 'inherit' });
    if (status !== 0 && status !== 1) process.exit(status ?? 1);
  }
}
mkdirSync(PICTURES, { recursive: true });
const sections = names.filter((name) => existsSync(join(flown, name, 'report.json'))).map(section);
const missing = names.length - sections.length;
if (missing > 0) process.stderr.write(`${missing} scenarios have no report in ${flown}\n`);
const document = readFileSync(DOCUMENT, 'utf8');
const [before, rest = ''] = document.split(BEGIN) as [string, string?];
const after = rest.split(END)[1] ?? '\n';
const text = [BEGIN, '', ...sections, END].join('\n');
writeFileSync(DOCUMENT, `${before.trimEnd()}\n\n${text}${after}`);
if (made !== undefined) rmSync(made, { recursive: true, force: true });
if (missing > 0) process.exitCode = 1;

function section(name: string): string {
  const report = JSON.parse(readFileSync(join(flown, name, 'report.json'), 'utf8')) as FlightReport;
  const [drone] = report.drones as [DroneReport];
  const picture = (svg: string, what: string): string => {
    const png = basename(svg).replace(/svg$/, 'png');
    const to = `${name}-${png.replace(`${drone.name}-`, '')}`;
    copyFileSync(join(flown, name, png), join(PICTURES, to));
    return `![${what}](scenarios/${to})`;
  };
  const { flight, handovers } = drone.pictures;
  const script = readFileSync(join(SCENARIOS, `${name}.scenario`), 'utf8').trimEnd();
  const failed = drone.outcomes.filter(({ held }) => !held);
  const verdict = report.held ? 'All expectations held.' : 'Not all expectations held in this run:';
  const { cores, busyShare, stealShare } = report.machine;
  return [
    `### ${report.title}`,
    '',
    `\`midair sim fly --scenario scenarios/${name}.scenario\``,
    '',
    '```',
    script,
    '```',
    '',
    picture(flight, `${report.title}: height, tilt and path`),
    '',
    ...handovers
      .filter((_, at) => drone.changes[at]?.before !== drone.changes[at]?.after)
      .slice(0, 1)
      .flatMap((svg) => [picture(svg, 'The rotors change hands'), '']),
    ...drone.changes.map(
      ({ before, after, atS, gapMs, missed, tiltDeg }) =>
        `- ${before} to ${after} after ${atS.toFixed(1)} s: ${gapMs?.toFixed(2) ?? '–'} ms between two commands, ` +
        `${missed} missed ${missed === 1 ? 'cycle' : 'cycles'}, tilt up to ${tiltDeg?.toFixed(1) ?? '–'}°`,
    ),
    `- ${verdict}`,
    ...failed.map(
      ({ text, actual, excuse }) =>
        `  - ${text}: it was ${actual ?? 'not measured'}${excuse ? ` (${excuse})` : ''}`,
    ),
    ...drone.troubles.map((trouble) => `  - ${trouble}`),
    `- ${report.seconds.toFixed(0)} s of flight on ${cores} cores, ${Math.round(busyShare * 100)} % busy, ${Math.round(stealShare * 100)} % taken by the host; ` +
      `on the record ${drone.record.imu} IMU samples, ${drone.record.command} commands, ${drone.record.event} events`,
    '',
  ].join('\n');
}
