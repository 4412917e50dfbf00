/**
 * `npm run bench -- handover [--count N] [--json] [--trace]`: N handovers in flight, between two real containers, by the
 * real agent: V1 -> V2 -> V1 …
 *
 * Says p50, p99 and max of the gap that the flight controller saw, beside ordinary flight's in the same run: before
 * each handover, a span of the same length. Status 1 if a command was stale or doubled, a failsafe came, a frame
 * was lost or repeated, a socket closed, or a handover missed more than 3 cycles. `--trace` lists, for each handover,
 * the agent's events and the arrivals of commands, in ms from the rotors' RELEASE.
 */
import { parseArgs } from 'node:util';
import { handoverSpan, handoverTimes } from '#cli/demo/flight-report.ts';
import { PanelClient } from '#cli/demo/panel-client.ts';
import { createRunDirectory, emptyRunDirectory, endLeftovers } from '#cli/demo/run-directory.ts';
import { Scope } from '#cli/demo/scope.ts';
import { World } from '#cli/demo/world.ts';
import { PERIOD_MS } from '#cli/limits.ts';
import type { Judged } from '#cli/sim-client.ts';
import { table } from '#cli/text.ts';
import { nowUs } from '#handover/native.ts';

/** More than this is a failure, whatever the machine does meanwhile. */
const MISSED_CYCLES_MAX = 3;
/** Ordinary flight after a handover, before the next. */
const CALM_MS = 500;

interface Round {
  to: string;
  /** From the first RELEASE to the rotors' GRANTED. */
  tookMs: number;
  during: Judged;
  ordinary: Judged;
  /** From before the update to after it. */
  whole: Judged;
}

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '20' },
    json: { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
  },
});
const count = Number(values.count);
if (!Number.isInteger(count) || count < 1 || count > 10_000) {
  process.stderr.write('--count must be a whole number from 1 to 10000\n');
  process.exit(2);
}

const say = (text: string) => process.stderr.write(`${text}\n`);
const interrupt = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => interrupt.abort(new Error(`stopped by ${name}`)));
}
const scope = new Scope();
const directory = await createRunDirectory();
const rounds: Round[] = [];
let panel: PanelClient | undefined;
try {
  const world = new World({ scope, directory, signal: interrupt.signal, device: `bench-${process.pid}` });
  panel = await prepare(world);
  for (let i = 0; i < count; i += 1) {
    const round = await handOver(world, i % 2 === 0 ? 'v2' : 'v1');
    rounds.push(round);
    const { during, ordinary, tookMs, to } = round;
    say(
      `${String(i + 1).padStart(String(count).length)}/${count} to ${to}: gap ${ms(during.gapMsMax)}, ordinary ` +
        `${ms(ordinary.gapMsMax)}, missed ${during.missedCycles}, from release to grant ${ms(tookMs)}`,
    );
  }
} catch (error) {
  say(`bench handover: ${(error as Error).message}\nlogs: ${directory}/logs`);
  process.exitCode = 1;
}
const seen = { framesLost: panel?.framesLost, framesRepeated: panel?.framesRepeated, closes: panel?.closes };
for (const error of await scope.close()) {
  say(error.message);
  process.exitCode = 1;
}
await endLeftovers(directory);
emptyRunDirectory(directory);
if (rounds.length > 0) tell();

/** Engines, hub, sim, agent; V1 flies, V2 is built and was flown once, so that both are on the device. */
async function prepare(world: World): Promise<PanelClient> {
  say('preparing: engines, base image, hub, drone, agent; V1 and V2 built and installed');
  await world.openEngines(say);
  await world.loadBase();
  await world.startHub();
  await world.startSim();
  await world.startAgent();
  const app = await world.repository('hover');
  app.overlay('drone');
  await app.commit('V1');
  await app.push();
  await world.updated('v1');
  await world.hovering();
  const client = await scope.use(
    'panel client',
    () => PanelClient.connect(world.panelUrl, world.signal),
    (opened) => opened.close(),
  );
  app.overlay('drone-v2');
  await app.commit('V2');
  await app.push();
  await world.updated('v2');
  await world.hub.choose('v1');
  await world.updated('v1');
  return client;
}

async function handOver(world: World, to: string): Promise<Round> {
  await world.pause(CALM_MS);
  const eventsSeen = (await world.hub.events()).at(-1)?.id ?? 0;
  const startUs = nowUs();
  await world.hub.choose(to);
  await world.updated(to);
  const times = await world.until('the events', async () =>
    handoverTimes(await world.hub.events(eventsSeen)),
  );
  const [fromUs, toUs] = handoverSpan(times);
  if (values.trace) {
    const relative = (atUs: number) => ((atUs - times.rotorsReleaseUs) / 1000).toFixed(2);
    const events = (await world.hub.events(eventsSeen)).filter(({ type }) => type.startsWith('handover.'));
    const { commands } = await world.sim.trace(fromUs, toUs);
    say(
      `  ${events.map(({ type, data }) => `${type.slice(9)} ${String(data.resource)} ${relative(Number(data.atUs))}`).join(', ')}`,
    );
    say(
      `  ${commands.map(({ tUs, epoch, kind }) => `${relative(tUs)}/${epoch}${kind === 'fresh' ? '' : ` ${kind}`}`).join(' ')}`,
    );
  }
  // Same length, and before the candidate was started.
  const lengthUs = toUs - fromUs;
  const calm = await world.sim.judge(startUs - lengthUs, startUs);
  // No command ended a gap in it: the gap is at least as long as the span.
  const ordinary = { ...calm, gapMsMax: calm.gapMsMax ?? lengthUs / 1000 };
  const during = await world.sim.judge(fromUs, toUs);
  const whole = await world.sim.judge(startUs, nowUs());
  return { to, tookMs: (times.rotorsGrantedUs - times.releaseUs) / 1000, during, ordinary, whole };
}

function ms(value: number | null): string {
  return value === null ? '–' : `${value.toFixed(2)} ms`;
}

/** Nearest rank. */
function spread(figures: (number | null)[]): { p50: number; p99: number; max: number } {
  const sorted = figures.filter((figure) => figure !== null).sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

function tell(): void {
  const sum = (figure: (round: Round) => number) => rounds.reduce((all, round) => all + figure(round), 0);
  const result = {
    handovers: rounds.length,
    periodMs: PERIOD_MS,
    gapMs: spread(rounds.map(({ during }) => during.gapMsMax)),
    ordinaryGapMs: spread(rounds.map(({ ordinary }) => ordinary.gapMsMax)),
    tookMs: spread(rounds.map(({ tookMs }) => tookMs)),
    attitudeDeg: spread(rounds.map(({ during }) => during.attitudeDegMax)),
    ordinaryAttitudeDeg: spread(rounds.map(({ ordinary }) => ordinary.attitudeDegMax)),
    missedCycles: sum(({ during }) => during.missedCycles),
    missedCyclesMax: Math.max(...rounds.map(({ during }) => during.missedCycles)),
    missedCyclesBoardLate: sum(({ during }) => during.missedCyclesBoardLate),
    handoversWithoutMiss: rounds.filter(({ during }) => during.missedCycles === 0).length,
    staleCommands: sum(({ whole }) => whole.stale),
    doubledCommands: sum(({ whole }) => whole.doubled),
    failsafes: sum(({ whole }) => whole.failsafes),
    framesLost: seen.framesLost ?? 0,
    framesRepeated: seen.framesRepeated ?? 0,
    socketsClosed: seen.closes ?? 0,
  };
  const row = (name: string, { p50, p99, max }: { p50: number; p99: number; max: number }) => [
    name,
    ...[p50, p99, max].map((figure) => figure.toFixed(2)),
  ];
  process.stdout.write(
    [
      table(
        [`${result.handovers} handovers, period ${PERIOD_MS} ms`, 'p50', 'p99', 'max'],
        [
          row('largest gap between commands, handover (ms)', result.gapMs),
          row('the same, ordinary flight (ms)', result.ordinaryGapMs),
          row('first release to rotors granted (ms)', result.tookMs),
          row('largest tilt, handover (degrees)', result.attitudeDeg),
          row('the same, ordinary flight (degrees)', result.ordinaryAttitudeDeg),
        ],
      ),
      table(
        ['counted', ''],
        [
          ['handovers without a missed cycle', `${result.handoversWithoutMiss} of ${result.handovers}`],
          [
            'missed cycles, most in one, by the board itself',
            `${result.missedCycles}, ${result.missedCyclesMax}, ${result.missedCyclesBoardLate}`,
          ],
          ['commands stale, doubled', `${result.staleCommands}, ${result.doubledCommands}`],
          ['failsafes', String(result.failsafes)],
          ['frames lost, repeated', `${result.framesLost}, ${result.framesRepeated}`],
          ['websockets closed', String(result.socketsClosed)],
        ],
      ),
    ].join('\n'),
  );
  if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  const never = [
    'staleCommands',
    'doubledCommands',
    'failsafes',
    'framesLost',
    'framesRepeated',
    'socketsClosed',
  ] as const;
  if (never.some((name) => result[name] > 0) || result.missedCyclesMax > MISSED_CYCLES_MAX)
    process.exitCode = 1;
}
