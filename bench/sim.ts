/**
 * `npm run bench -- sim [--drones N] [--no-realtime] [--json]`: what the simulation costs. A rollout over a whole fleet in virtual
 * time (one thread), the rigid body's steps on one core, and how many drones this machine flies in real time, a minute or two.
 *
 * Both clocks are told: wall time is what one waits for, CPU time what it costs when others have the cores.
 */
import { loadavg } from 'node:os';
import { table } from '#cli/text.ts';
import { PARAMETERS } from '#device-sim/parameters.ts';
import { createState, step } from '#device-sim/physics.ts';
import { commandLine } from '#scripts/command-line.ts';
import { run } from '#test/virtual/run.ts';
import { CALM_PLAN, calmStory } from '#test/virtual/story.ts';
import { realtime } from './sim/realtime.ts';

const { values, whole } = commandLine('usage: npm run bench -- sim [--drones N] [--no-realtime] [--json]', {
  options: {
    drones: { type: 'string', default: '1000' },
    realtime: { type: 'boolean', default: true },
    json: { type: 'boolean', default: false },
  },
  allowNegative: true,
});
const drones = whole('drones', values.drones, 1, 10_000);

/** Wall and CPU milliseconds of `work`. */
const timed = <T>(work: () => T): { result: T; wallMs: number; cpuMs: number } => {
  const beganMs = performance.now();
  const before = process.cpuUsage();
  const result = work();
  const { user, system } = process.cpuUsage(before);
  return { result, wallMs: performance.now() - beganMs, cpuMs: (user + system) / 1000 };
};

// Compiled and warm.
run(calmStory(1, 20, CALM_PLAN));
const fleet = timed(() => run(calmStory(1, drones, CALM_PLAN)));
const { broken, virtualMs, events, rollouts, started } = fleet.result;
if (broken !== null || started.v2 !== drones) {
  process.stderr.write(`the rollout did not end as it should: ${broken ?? rollouts.join()}\n`);
  process.exit(1);
}

const DT_S = 1 / 250;
const body = (steps: number): void => {
  const state = createState(100);
  const hover = [0.5, 0.5, 0.5, 0.5];
  for (let at = 0; at < steps; at += 1) step(state, hover, DT_S, PARAMETERS);
};
body(100_000);
const STEPS = 1_000_000;
const physics = timed(() => body(STEPS));

const perSec = (amount: number, ms: number): number => Math.round(amount / (ms / 1000));
const rows = [
  {
    what: `${drones} drones through a rollout, s`,
    wall: fleet.wallMs / 1000,
    cpu: fleet.cpuMs / 1000,
  },
  {
    what: 'virtual seconds of a drone per second',
    wall: perSec((virtualMs / 1000) * drones, fleet.wallMs),
    cpu: perSec((virtualMs / 1000) * drones, fleet.cpuMs),
  },
  { what: 'drones updated per second', wall: perSec(drones, fleet.wallMs), cpu: perSec(drones, fleet.cpuMs) },
  { what: 'events per second', wall: perSec(events, fleet.wallMs), cpu: perSec(events, fleet.cpuMs) },
  {
    what: 'rigid-body steps per second (RK4)',
    wall: perSec(STEPS, physics.wallMs),
    cpu: perSec(STEPS, physics.cpuMs),
  },
  {
    what: 'rigid bodies at 250 Hz per core',
    wall: perSec(STEPS, physics.wallMs) / 250,
    cpu: perSec(STEPS, physics.cpuMs) / 250,
  },
];
const load = loadavg()[0];
const real = values.realtime ? await realtime((text) => process.stderr.write(`${text}\n`)) : undefined;
if (values.json) {
  process.stdout.write(`${JSON.stringify({ drones, virtualMs, events, load, rows, realtime: real })}\n`);
} else {
  const cell = (amount: number): string => (amount < 100 ? amount.toFixed(1) : Math.round(amount).toString());
  process.stdout.write(
    table(
      ['', 'by wall clock', 'by CPU time'],
      rows.map(({ what, wall, cpu }) => [what, cell(wall), cell(cpu)]),
    ),
  );
  process.stdout.write(
    `${rollouts.join()}; ${Math.round(virtualMs / 1000)} virtual seconds, one thread; load ${load?.toFixed(1)}\n`,
  );
  if (real !== undefined)
    process.stdout.write(
      `${real.drones} drones in real time on ${real.cores} cores, ${real.dronesPerCore.toFixed(1)} per core: ` +
        `${(real.lateTicksShare * 100).toFixed(2)} % of the boards' ticks late; the host took ${(real.stealShare * 100).toFixed(1)} %\n`,
    );
}
