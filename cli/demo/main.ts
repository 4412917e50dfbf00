/**
 * `npm run demo`: a push updates a flying drone, on this machine, for real.
 *
 * Invariant: whatever happens, and whenever it is interrupted, everything that was started is ended and confirmed
 * gone before the process ends. Status 0 only if every promise held.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type FlightReport, flightReport, handoverSpan, handoverTimes } from '#cli/demo/flight-report.ts';
import { PanelClient } from '#cli/demo/panel-client.ts';
import { reportText } from '#cli/demo/report-text.ts';
import type { Repository } from '#cli/demo/repository.ts';
import { createRunDirectory, emptyRunDirectory, endLeftovers } from '#cli/demo/run-directory.ts';
import { Scope } from '#cli/demo/scope.ts';
import { onSignals } from '#cli/demo/signals.ts';
import { runSteps, type Told } from '#cli/demo/steps.ts';
import { ownerChange, traceSvg } from '#cli/demo/trace-svg.ts';
import { type Current, World } from '#cli/demo/world.ts';
import type { HubStatus } from '#cli/hub-client.ts';
import { LIMITS, PERIOD_MS } from '#cli/limits.ts';
import type { Judged } from '#cli/sim-client.ts';
import { bytesText, durationText } from '#cli/text.ts';

export interface DemoOptions {
  exit: boolean;
  json: boolean;
  svg: string | undefined;
  /** The control panel's port, if it is free; 0: any. */
  panelPort: number;
}

const APP = 'hover';
const THERMAL = 1;

class Interrupted extends Error {}

/** @returns the status of the process */
export async function runDemo(options: DemoOptions): Promise<number> {
  const interrupt = new AbortController();
  const scope = new Scope();
  const release = onSignals((name) => interrupt.abort(new Interrupted(name)));
  let report: FlightReport | undefined;
  let status = 1;
  let directory: string | undefined;
  try {
    directory = await createRunDirectory();
    const device = `demo-${process.pid}`;
    const world = new World({
      scope,
      directory,
      signal: interrupt.signal,
      device,
      panelPort: options.panelPort,
    });
    report = await fly(world, scope, options);
    status = report.held ? 0 : 1;
    print(reportText(report, join(directory, 'logs')));
    if (!options.exit) {
      print(`Flying. Control panel: ${report.panel}   Hub: ${world.hub.url}   Ctrl-C ends.\n`);
      await world.pause(2 ** 31 - 1);
    }
  } catch (error) {
    if (interrupt.signal.aborted) status = report?.held ? 0 : 130;
    else status = 1;
    if (!interrupt.signal.aborted) process.stderr.write(`\nmidair demo: ${(error as Error).message}\n`);
  }
  if (await end(scope, directory)) print('Stopped; nothing is left running.\n');
  else status ||= 1;
  release();
  if (options.json && report !== undefined) print(`${JSON.stringify(report)}\n`);
  return status;
}

function print(text: string): void {
  process.stdout.write(text);
}

/** True if nothing is left. */
async function end(scope: Scope, directory: string | undefined): Promise<boolean> {
  const errors = await scope.close();
  if (directory !== undefined) {
    const left = await endLeftovers(directory);
    if (left > 0) errors.push(new Error(`${left} processes had to be ended by hand`));
    emptyRunDirectory(directory);
  }
  for (const error of errors) process.stderr.write(`midair demo: while stopping: ${error.message}\n`);
  return errors.length === 0;
}

const nowUs = () => Number(process.hrtime.bigint() / 1000n);

async function fly(world: World, scope: Scope, options: DemoOptions): Promise<FlightReport> {
  let repository: Repository;
  let panel: PanelClient;
  let prior: HubStatus['releases'][number];
  let candidate: HubStatus['releases'][number];
  let current: Current;
  let before: Judged;
  let pushMs = 0;
  let startUs = 0;
  let eventsSeen = 0;
  let droppedBefore = 0;
  let report: FlightReport | undefined;

  await runSteps([
    {
      title: 'Docker engines for hub and drone',
      async run({ line }) {
        await world.openEngines(line);
        const { version, storageDriver, isPrivate, url } = world.droneEngine;
        return isPrivate ? `two private ones, ${version}, ${storageDriver}` : `${version} at ${url}`;
      },
    },
    {
      title: 'Base image from this machine’s Node',
      async run() {
        const base = await world.loadBase();
        return `${bytesText(base.bytes)}, ${base.wasLoaded ? 'loaded' : 'there already'}`;
      },
    },
    {
      title: 'Hub',
      async run() {
        await world.startHub();
        return world.hub.url;
      },
    },
    {
      title: 'Simulated drone',
      async run() {
        await world.startSim();
        return `rotors on a pty, ${1000 / PERIOD_MS} Hz, judge at ${world.sim.url}`;
      },
    },
    {
      title: 'Agent on the drone',
      async run() {
        await world.startAgent();
        return world.device;
      },
    },
    {
      title: 'git push V1',
      async run({ line }) {
        repository = await world.repository(APP);
        repository.overlay('drone');
        await repository.commit('Hover, with a camera view');
        await repository.push(line);
        prior = await targetOf(world);
        return prior.id;
      },
    },
    {
      title: 'Install and start V1',
      run: (told) => follow(world, prior.id, told),
    },
    {
      title: 'Take off and hover',
      async run({ say }) {
        await world.hovering(say);
        return '2 m';
      },
    },
    {
      title: 'Ordinary flight, for comparison',
      async run({ say }) {
        panel = await scope.use(
          'panel client',
          () => PanelClient.connect(world.panelUrl, world.signal),
          (client) => client.close(),
        );
        const fromUs = nowUs();
        say(`${LIMITS.baselineMs / 1000} s, with a control panel connected`);
        await world.pause(LIMITS.baselineMs);
        before = await world.sim.judge(fromUs, nowUs());
        return `${before.commands} commands, largest gap ${milliseconds(before.gapMsMax)}`;
      },
    },
    {
      title: 'git push V2: adds a thermal camera view',
      async run({ line }) {
        startUs = nowUs();
        eventsSeen = (await world.hub.events()).at(-1)?.id ?? 0;
        droppedBefore = await droppedAtSource(world);
        repository.overlay('drone-v2');
        await repository.commit('Add a thermal camera view');
        const startMs = performance.now();
        await repository.push(line);
        pushMs = performance.now() - startMs;
        candidate = await targetOf(world);
        return `${candidate.id}, ${durationText(pushMs)}`;
      },
    },
    {
      title: 'Update in flight',
      async run(told) {
        const text = await follow(world, candidate.id, told);
        current = (await world.current()) as Current;
        return text;
      },
    },
    {
      title: 'Collect what happened',
      async run() {
        const times = await world.until('the agent’s events at the hub', async () =>
          handoverTimes(await world.hub.events(eventsSeen)),
        );
        await world.pause(LIMITS.aftermathMs);
        const during = await world.sim.judge(...handoverSpan(times));
        const whole = await world.sim.judge(startUs, nowUs());
        const svg = options.svg ?? world.path('handover.svg');
        await draw(world, times.rotorsGrantedUs, { prior: prior.id, candidate: candidate.id, during, svg });
        const container = world.droneEngine.docker.getContainer(current.owner?.container ?? '');
        report = flightReport({
          ...{ prior, candidate, current, before, during, whole, pushMs, svg },
          containerImageId: (await container.inspect()).Image,
          framesLost: panel.framesLost,
          framesRepeated: panel.framesRepeated,
          framesDroppedAtSource: (await droppedAtSource(world)) - droppedBefore,
          socketsClosed: panel.closes,
          thermal: panel.seen(THERMAL),
          panelUrl: world.panelUrl,
        });
        return undefined;
      },
    },
  ]);
  return report as unknown as FlightReport;
}

async function targetOf(world: World): Promise<HubStatus['releases'][number]> {
  const { target } = await world.hub.status();
  if (target.release === null) throw new Error('the push was taken, but the hub has no target release');
  return target.release;
}

/** Shows the stages of an update until the release flies. */
async function follow(world: World, release: string, { say }: Told): Promise<string> {
  const startMs = performance.now();
  const { update } = await world.updated(release, ({ update }) => {
    if (update.status !== 'updating') return;
    const share =
      update.allBytes > 0 ? ` ${bytesText(update.doneBytes)} of ${bytesText(update.allBytes)}` : '';
    say(`${update.stage}${share}`);
  });
  const how = update.status === 'done' ? `, ${bytesText(update.fetched.bytes)} as ${update.fetched.as}` : '';
  return `${release} flies after ${durationText(performance.now() - startMs)}${how}`;
}

/** Both kinds: frames that the camera gave up, since nobody took them. */
async function droppedAtSource(world: World): Promise<number> {
  const counts = await world.sim.camera();
  const kinds = Object.values(counts).filter((value) => typeof value === 'object' && value !== null);
  return kinds.reduce<number>((sum, kind) => sum + Number((kind as { dropped?: unknown }).dropped ?? 0), 0);
}

async function draw(
  world: World,
  grantedUs: number,
  what: { prior: string; candidate: string; during: Judged; svg: string },
): Promise<void> {
  const trace = await world.sim.trace(
    grantedUs - LIMITS.traceBeforeMs * 1000,
    grantedUs + LIMITS.traceAfterMs * 1000,
  );
  const change = ownerChange(trace);
  if (change === undefined) return;
  const { prior, candidate, during } = what;
  const { missedCycles } = during;
  writeFileSync(
    what.svg,
    traceSvg({ trace, ...change, prior, candidate, missedCycles, periodMs: PERIOD_MS }),
  );
}

const milliseconds = (value: number | null) => (value === null ? '–' : `${value.toFixed(2)} ms`);
