/**
 * `midair sim fly`: a scenario, flown for real on this machine.
 *
 * Invariant: status 0 only if every expectation held on every drone, 1 if not, 2 for a scenario that cannot be read;
 * whenever it is interrupted, everything that was started is ended and confirmed gone before the process ends. Records and
 * pictures stay.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createRunDirectory, emptyRunDirectory, endLeftovers } from '#cli/demo/run-directory.ts';
import { Scope } from '#cli/demo/scope.ts';
import { onSignals } from '#cli/demo/signals.ts';
import type { Drone } from '#cli/fly/drone.ts';
import { Flight } from '#cli/fly/flight.ts';
import { parseScenario } from '#cli/fly/parse.ts';
import { drawFlight } from '#cli/fly/pictures.ts';
import { type DroneReport, type FlightReport, reportText } from '#cli/fly/report.ts';
import { type Scenario, ScenarioError } from '#cli/fly/scenario.ts';
import { createShow } from '#cli/fly/show.ts';
import { judgeFlight } from '#cli/fly/verdict.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';

export interface FlyOptions {
  /** Path of the script. */
  scenario: string;
  /** Instead of the script's own number. */
  drones: number | undefined;
  json: boolean;
  /** Where records, pictures and the report are copied to. */
  out: string | undefined;
}

/** @returns the status of the process */
export const runFly = async (options: FlyOptions): Promise<number> => {
  let scenario: Scenario;
  try {
    scenario = loadScenario(options.scenario);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    return 2;
  }
  const { report, status } = await flyScenario(scenario, options);
  if (report === undefined) return status;
  process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : reportText(report));
  return status;
};

/** @throws ScenarioError; Error of a file that cannot be read */
export const loadScenario = (path: string): Scenario => {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const known = join(PACKAGE_ROOT, 'scenarios');
    const reason = (cause as NodeJS.ErrnoException).code ?? 'unreadable';
    throw new Error(`${path} cannot be read (${reason}); there are examples in ${known}`, { cause });
  }
  const scenario = parseScenario(text, basename(path));
  const problems = scenario.releases.flatMap(({ name, folders }) => {
    const missing = folders.filter((folder) => !existsSync(join(PACKAGE_ROOT, 'apps', folder)));
    const line = text.split('\n').findIndex((one) => new RegExp(`^\\s*release\\s+${name}\\b`).test(one)) + 1;
    return missing.map((folder) => {
      const column = (text.split('\n')[line - 1] ?? '').indexOf(folder) + 1;
      return { line, column, length: folder.length, text: `there is no apps/${folder}` };
    });
  });
  if (problems.length > 0) throw new ScenarioError(basename(path), text, problems);
  return scenario;
};

class Interrupted extends Error {}

/** @returns the report, if it came to one, and the status of the process */
export const flyScenario = async (
  scenario: Scenario,
  options: Pick<FlyOptions, 'drones' | 'json' | 'out'>,
): Promise<{ report: FlightReport | undefined; status: number }> => {
  const interrupt = new AbortController();
  const release = onSignals((name) => interrupt.abort(new Interrupted(name)));
  const scope = new Scope();
  const show = createShow(options.json, process.stdout);
  let directory: string | undefined;
  let flight: Flight | undefined;
  let report: FlightReport | undefined;
  let status = 1;
  try {
    directory = await createRunDirectory();
    const drones = options.drones ?? scenario.drones;
    flight = new Flight({ scenario, drones, scope, directory, signal: interrupt.signal, show });
    await flight.prepare();
    await flight.fly();
    show.end();
    report = await reportOf(flight, scenario, directory);
    status = report.held ? 0 : 1;
  } catch (error) {
    show.end();
    status = interrupt.signal.aborted ? 130 : 1;
    const { message, code } = error as NodeJS.ErrnoException;
    const logs = directory === undefined ? '' : `\nlogs: ${join(directory, 'logs')}`;
    const told = `midair sim fly: ${message}${code === undefined ? '' : ` (${code})`}${logs}\n`;
    if (!interrupt.signal.aborted) process.stderr.write(told);
  }
  const errors = await scope.close();
  if (directory !== undefined) {
    const left = await endLeftovers(directory);
    if (left > 0) errors.push(new Error(`${left} processes had to be ended by hand`));
    emptyRunDirectory(directory);
  }
  for (const error of errors) process.stderr.write(`midair sim fly: while stopping: ${error.message}\n`);
  if (errors.length > 0) status ||= 1;
  if (report !== undefined && directory !== undefined) keep(report, directory, options.out);
  release();
  return { report, status };
};

const reportOf = async (flight: Flight, scenario: Scenario, directory: string): Promise<FlightReport> => {
  const drones: DroneReport[] = [];
  let [late, ticks] = [0, 0];
  const use = flight.machine.use();
  for (const drone of flight.drones) {
    const { board } = (await drone.world.sim.state()) as { board: { lateTicks: number; ticks: number } };
    late += board.lateTicks;
    ticks += board.ticks;
    drones.push(await reportOfDrone(drone, flight, scenario, directory));
  }
  return {
    type: 'report',
    title: scenario.title,
    held: drones.every(({ held }) => held),
    seconds: flight.secondsOf(flight.endUs),
    machine: { ...use, boardLateTicksShare: late / Math.max(1, ticks) },
    drones,
  };
};

const reportOfDrone = async (
  drone: Drone,
  flight: Flight,
  scenario: Scenario,
  directory: string,
): Promise<DroneReport> => {
  const figures = await drone.figures();
  const outcomes = judgeFlight(scenario.expectations, figures);
  const { troubles, recorder, panel, tape } = drone;
  const nameOf = (epoch: number) => panel.releaseOf(epoch) ?? `epoch ${epoch}`;
  await recorder.close();
  const { startUs, endUs } = flight;
  const pictures = await drawFlight(drone, directory, scenario.title, { startUs, endUs });
  return {
    name: drone.name,
    held: troubles.length === 0 && outcomes.every(({ held }) => held),
    outcomes,
    troubles,
    figures,
    changes: tape.changes.map(({ before, after, firstUs, judged }) => ({
      before: nameOf(before),
      after: nameOf(after),
      atS: flight.secondsOf(firstUs),
      gapMs: judged.gapMsMax,
      missed: judged.missedCycles,
      tiltDeg: judged.attitudeDegMax,
    })),
    record: recorder.counts,
    mcap: recorder.path,
    pictures,
  };
};

/** The report beside the records; and all of it where it was asked for. */
const keep = (report: FlightReport, directory: string, out: string | undefined): void => {
  writeFileSync(join(directory, 'report.json'), `${JSON.stringify(report, null, 2)}\n`);
  if (out === undefined) return;
  mkdirSync(out, { recursive: true });
  const move = (path: string): string => {
    const to = join(out, basename(path));
    copyFileSync(path, to);
    return to;
  };
  for (const drone of report.drones) {
    const { flight, handovers } = drone.pictures;
    for (const svg of [flight, ...handovers]) move(svg.replace(/svg$/, 'png'));
    drone.mcap = move(drone.mcap);
    drone.pictures = { flight: move(flight), handovers: handovers.map(move) };
  }
  writeFileSync(join(out, 'report.json'), `${JSON.stringify(report, null, 2)}\n`);
};
