/**
 * `npm run bench -- handover`: handovers in flight, between two real containers, by the real agent; V1 killed and V1 stopped with V2
 * standing by; and what a user would do without Midair, on the same drone in the same run.
 *
 * Says p50, p90, p99 and max of the gap that the flight controller saw, beside ordinary flight's in the same run: before
 * each handover, a span of the same length. Status 1 if in a cooperative handover a command was stale or doubled, a failsafe
 * came, a frame was lost or repeated, a socket closed, or one missed more than 3 cycles; or if an update failed: V1 flies on then,
 * which is counted, and after some of it the run ends.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { handoverSpan, handoverTimes } from '#cli/demo/flight-report.ts';
import { PanelClient } from '#cli/demo/panel-client.ts';
import { createRunDirectory, emptyRunDirectory, endLeftovers } from '#cli/demo/run-directory.ts';
import { Scope } from '#cli/demo/scope.ts';
import { World, WorldError } from '#cli/demo/world.ts';
import { Machine, type MachineUse } from '#cli/fly/machine.ts';
import { PERIOD_MS } from '#cli/limits.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import type { Judged } from '#cli/sim-client.ts';
import { table } from '#cli/text.ts';
import { nowUs } from '#handover/native.ts';
import { commandLine } from '#scripts/command-line.ts';
import { flyPeer, SCHEMES, type Scheme } from './handover/peers.ts';
import { gapsSvg, spread, spreadRow, spreadTable } from './handover/report.ts';
import { type Takeover, takeOver } from './handover/takeover.ts';

const USAGE = `usage: npm run bench -- handover [options]

  --count N      so many handovers, 20 by default
  --takeovers N  so many of V1 killed, and of V1 stopped; by default a tenth of the handovers, 4 to 50
  --peers N      so many of each thing that one would do without Midair, 3 by default
  --gate         the strict rotor gate between app and tty; no peers
  --load N       so many programs that never wait beside it all, at normal priority
  --svg FILE     a picture of the gaps
  --trace        for each handover, the agent's events and the arrivals of commands, in ms from the rotors' RELEASE
  --json         one JSON object, at the end
`;
/** More than this is a failure, whatever the machine does meanwhile. */
const MISSED_CYCLES_MAX = 3;
/** So many updates may fail, and the run goes on: on a machine whose host takes its cores V2 may seem to hang. */
const FAILED_MAX = 10;
/** Ordinary flight after a handover, before the next. */
const CALM_MS = 300;
/** The release's own probation: what is measured is over by then. */
const PROBATION_MS = 300;
/** Shorter than the default: real time is asked for, and the machine is to be idle. */
const HEARTBEAT_MS = 40;
/** The board's own: it acts after so long without a command. */
const FAILSAFE_MS = 200;

interface Round {
  to: string;
  /** From the first RELEASE to the rotors' GRANTED. */
  tookMs: number;
  during: Judged;
  ordinary: Judged;
  /** From before the update to after it. */
  whole: Judged;
  /** Of all that, the share of the processors' time that this machine's host took away. */
  stealShare: number;
}

const { values, whole } = commandLine(USAGE, {
  options: {
    count: { type: 'string', default: '20' },
    takeovers: { type: 'string' },
    peers: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
    svg: { type: 'string' },
    trace: { type: 'boolean', default: false },
    gate: { type: 'boolean', default: false },
    load: { type: 'string', default: '0' },
  },
});
const count = whole('count', values.count, 1, 10_000);
const takeovers = whole(
  'takeovers',
  values.takeovers ?? String(Math.max(4, Math.min(50, Math.ceil(count / 10)))),
  0,
  10_000,
);
// They open the tty themselves, which a gate has.
const peers = values.gate ? 0 : whole('peers', values.peers, 0, 10_000);
const load = whole('load', values.load, 0, 64);

const say = (text: string) => process.stderr.write(`${text}\n`);
const interrupt = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => interrupt.abort(new Error(`stopped by ${name}`)));
}
const scope = new Scope();
const machine = new Machine();
const directory = await createRunDirectory();
const rounds: Round[] = [];
let failed = 0;
const taken: Record<'killed' | 'hung', Takeover[]> = { killed: [], hung: [] };
const flown: Record<Scheme, Judged[]> = { restart: [], overlap: [], 'close-open': [] };
let panel: PanelClient | undefined;
let eventsSeen = 0;
try {
  const world = new World({
    scope,
    directory,
    signal: interrupt.signal,
    device: `bench-${process.pid}`,
    gate: values.gate,
  });
  const client = await prepare(world);
  panel = client;
  for (let i = 0; i < load; i += 1)
    await scope.use('busy loop', busyLoop, (child) => void child.kill('SIGKILL'));
  let to = 'v2';
  while (rounds.length < count) {
    let round: Round;
    try {
      round = await handOver(world, to);
    } catch (error) {
      if (!(error instanceof WorldError) || error.code !== 'UPDATE_FAILED' || failed === FAILED_MAX)
        throw error;
      failed += 1;
      process.exitCode = 1;
      say(`to ${to}: ${(error as Error).message}; ${other(to)} flies on`);
      continue;
    }
    rounds.push(round);
    const { during, ordinary, tookMs } = round;
    say(
      `${String(rounds.length).padStart(String(count).length)}/${count} to ${to}: gap ${ms(during.gapMsMax)}, ordinary ` +
        `${ms(ordinary.gapMsMax)}, missed ${during.missedCycles}, from release to grant ${ms(tookMs)}`,
    );
    to = other(to);
  }
  client.close();
  await takeOvers(world, to);
  await flyPeers(world);
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
  const dockerfile = readFileSync(join(PACKAGE_ROOT, 'apps', 'drone', 'Dockerfile'), 'utf8');
  app.write(
    'Dockerfile',
    dockerfile.replace(
      '\n',
      `\nLABEL io.midair.probation-ms=${PROBATION_MS} io.midair.heartbeat-ms=${HEARTBEAT_MS}\n`,
    ),
  );
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

/** A program of normal priority that never waits, until this one has ended. */
async function busyLoop(): Promise<ChildProcess> {
  return spawn(process.execPath, ['-e', 'for (const by = process.ppid; process.ppid === by; );'], {
    stdio: 'ignore',
  });
}

async function takeOvers(world: World, first: string): Promise<void> {
  let to = first;
  for (const [name, signal] of [
    ['killed', 'SIGKILL'],
    ['hung', 'SIGSTOP'],
  ] as const) {
    for (let i = 0; i < takeovers; i += 1) {
      const one = await takeOver(world, to, signal, values.trace ? say : undefined);
      taken[name].push(one);
      const { gapMsMax, missedCycles, failsafes } = one.during;
      say(
        `${name} ${i + 1}/${takeovers}: gap ${ms(gapMsMax)}, missed ${missedCycles}, failsafes ${failsafes}`,
      );
      to = other(to);
    }
  }
}

/** Without the agent and its containers; the drone lands by itself, and each peer takes it up again. */
async function flyPeers(world: World): Promise<void> {
  if (peers === 0) return;
  const imageId = (await world.current())?.owner?.imageId;
  if (imageId === undefined) throw new Error('nobody flies');
  await world.killAgent();
  await world.removeContainers();
  for (const scheme of SCHEMES) {
    for (let i = 0; i < peers; i += 1) {
      const judged = await flyPeer(world, imageId, world.rotors, scheme);
      flown[scheme].push(judged);
      const { gapMsMax, missedCycles, stale, doubled, failsafes } = judged;
      say(
        `${scheme} ${i + 1}/${peers}: gap ${ms(gapMsMax)}, missed ${missedCycles}, stale ${stale}, doubled ${doubled}, failsafes ${failsafes}`,
      );
    }
  }
}

function other(version: string): string {
  return version === 'v2' ? 'v1' : 'v2';
}

async function handOver(world: World, to: string): Promise<Round> {
  // An hour of handovers is longer than a battery lasts.
  await world.sim.setBattery(100);
  const host = new Machine();
  await world.pause(CALM_MS);
  eventsSeen = (await world.hub.events(eventsSeen)).at(-1)?.id ?? eventsSeen;
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
  const tookMs = (times.rotorsGrantedUs - times.releaseUs) / 1000;
  return { to, tookMs, during, ordinary, whole, stealShare: host.use().stealShare };
}

function ms(value: number | null): string {
  return value === null ? '–' : `${value.toFixed(2)} ms`;
}

function share({ busyShare, stealShare }: MachineUse): string {
  return `${(100 * busyShare).toFixed(0)} %, ${(100 * stealShare).toFixed(1)} %`;
}

function tell(): void {
  const sum = (figure: (round: Round) => number) => rounds.reduce((all, round) => all + figure(round), 0);
  const gapOf = ({ gapMsMax }: Judged) => gapMsMax;
  const gaps = (all: readonly { during: Judged }[]) => all.map(({ during }) => during.gapMsMax);
  const ofTakeovers = (all: readonly Takeover[]) => ({
    count: all.length,
    gapMs: spread(gaps(all)),
    attitudeDeg: spread(all.map(({ during }) => during.attitudeDegMax)),
    failsafes: all.reduce((many, { whole }) => many + whole.failsafes, 0),
    staleCommands: all.reduce((many, { whole }) => many + whole.stale, 0),
    doubledCommands: all.reduce((many, { whole }) => many + whole.doubled, 0),
  });
  const ofPeer = (all: readonly Judged[]) => ({
    count: all.length,
    gapMs: spread(all.map(({ gapMsMax }) => gapMsMax)),
    attitudeDeg: spread(all.map(({ attitudeDegMax }) => attitudeDegMax)),
    missedCycles: all.reduce((many, { missedCycles }) => many + missedCycles, 0),
    failsafes: all.reduce((many, { failsafes }) => many + failsafes, 0),
    staleCommands: all.reduce((many, { stale }) => many + stale, 0),
    doubledCommands: all.reduce((many, { doubled }) => many + doubled, 0),
  });
  const withoutMiss = (all: readonly Judged[]) => all.filter(({ missedCycles }) => missedCycles === 0).length;
  // A core that the host has taken runs nobody, real time or not.
  const quiet = rounds.filter(({ stealShare }) => stealShare === 0);
  const [quietHandovers, quietSpans] = [
    quiet.map(({ during }) => during),
    quiet.map(({ ordinary: calm }) => calm),
  ];
  const undisturbed = {
    count: quiet.length,
    ordinary: { gapMs: spread(quietSpans.map(gapOf)), withoutMiss: withoutMiss(quietSpans) },
    cooperative: { gapMs: spread(quietHandovers.map(gapOf)), withoutMiss: withoutMiss(quietHandovers) },
  };
  const cooperative = {
    count: rounds.length,
    gapMs: spread(gaps(rounds)),
    tookMs: spread(rounds.map(({ tookMs }) => tookMs)),
    attitudeDeg: spread(rounds.map(({ during }) => during.attitudeDegMax)),
    withoutMiss: withoutMiss(rounds.map(({ during }) => during)),
    /** Beside `count`: V1 flew on. */
    failed,
  };
  const ordinary = {
    gapMs: spread(rounds.map(({ ordinary: calm }) => calm.gapMsMax)),
    attitudeDeg: spread(rounds.map(({ ordinary: calm }) => calm.attitudeDegMax)),
    missedCycles: sum(({ ordinary: calm }) => calm.missedCycles),
    withoutMiss: withoutMiss(rounds.map(({ ordinary: calm }) => calm)),
  };
  // From the hub's choice to V1's end: also while V2 starts and warms up, and while the kernel takes V1 apart.
  const update = {
    gapMs: spread(rounds.map(({ whole }) => whole.gapMsMax)),
    missedCycles: sum(({ whole }) => whole.missedCycles),
  };
  const result = {
    periodMs: PERIOD_MS,
    machine: machine.use(),
    heartbeatMsMax: HEARTBEAT_MS,
    load,
    ordinary,
    cooperative,
    undisturbed,
    update,
    killed: ofTakeovers(taken.killed),
    hung: ofTakeovers(taken.hung),
    missedCycles: sum(({ during }) => during.missedCycles),
    missedCyclesMax: Math.max(...rounds.map(({ during }) => during.missedCycles)),
    missedCyclesBoardLate: sum(({ during }) => during.missedCyclesBoardLate),
    framesLost: seen.framesLost ?? 0,
    framesRepeated: seen.framesRepeated ?? 0,
    socketsClosed: seen.closes ?? 0,
    staleCommands: sum(({ whole: all }) => all.stale),
    doubledCommands: sum(({ whole: all }) => all.doubled),
    failsafes: sum(({ whole: all }) => all.failsafes),
    peers: {
      restart: ofPeer(flown.restart),
      overlap: ofPeer(flown.overlap),
      closeOpen: ofPeer(flown['close-open']),
    },
  };
  const { killed, hung, peers: others } = result;
  const ratio = (cooperative.gapMs.p99 ?? Number.NaN) / (ordinary.gapMs.p99 ?? Number.NaN);
  const counted = (name: string, one: ReturnType<typeof ofPeer>) => [
    name,
    String(one.count),
    `${one.staleCommands}, ${one.doubledCommands}`,
    String(one.failsafes),
  ];
  process.stdout.write(
    [
      spreadTable(`largest gap between commands, ms; period ${PERIOD_MS} ms`, [
        spreadRow('ordinary flight', ordinary.gapMs),
        spreadRow(`handover (${cooperative.count})`, cooperative.gapMs),
        spreadRow(
          `ordinary flight, the host took nothing (${undisturbed.count})`,
          undisturbed.ordinary.gapMs,
        ),
        spreadRow(`handover, the host took nothing (${undisturbed.count})`, undisturbed.cooperative.gapMs),
        spreadRow('the whole update around it', update.gapMs),
        spreadRow(`V1 killed, V2 stands by (${killed.count})`, killed.gapMs),
        spreadRow(`V1 stopped, heartbeat limit ${HEARTBEAT_MS} ms (${hung.count})`, hung.gapMs),
        spreadRow(`without Midair: V1 closes, V2 opens (${others.closeOpen.count})`, others.closeOpen.gapMs),
        spreadRow(`without Midair: start V2, kill V1 (${others.overlap.count})`, others.overlap.gapMs),
        spreadRow(`without Midair: stop V1, start V2 (${others.restart.count})`, others.restart.gapMs),
      ]),
      spreadTable('and', [
        spreadRow('first release to rotors granted, ms', cooperative.tookMs),
        spreadRow('largest tilt, ordinary flight, degrees', ordinary.attitudeDeg),
        spreadRow('largest tilt, handover', cooperative.attitudeDeg),
        spreadRow('largest tilt, V1 killed', killed.attitudeDeg),
        spreadRow('largest tilt, V1 stopped', hung.attitudeDeg),
      ]),
      table(
        ['counted', 'of', 'commands stale, doubled', 'failsafes'],
        [
          [
            'handover',
            String(cooperative.count),
            `${result.staleCommands}, ${result.doubledCommands}`,
            String(result.failsafes),
          ],
          ...[
            counted('V1 killed', { ...killed, missedCycles: 0 }),
            counted('V1 stopped', { ...hung, missedCycles: 0 }),
            counted('V1 closes, V2 opens', others.closeOpen),
            counted('start V2, kill V1', others.overlap),
            counted('stop V1, start V2', others.restart),
          ],
        ],
      ),
      table(
        ['handovers', ''],
        [
          ['without a missed cycle', `${cooperative.withoutMiss} of ${cooperative.count}`],
          ['beside these, updates that failed: V1 flew on', String(cooperative.failed)],
          ['spans of ordinary flight without one', `${ordinary.withoutMiss} of ${cooperative.count}`],
          [
            'the same two, of those in which the host took no core away',
            `${undisturbed.cooperative.withoutMiss} and ${undisturbed.ordinary.withoutMiss} of ${undisturbed.count}`,
          ],
          [
            'missed cycles, most in one, by the board itself',
            `${result.missedCycles}, ${result.missedCyclesMax}, ${result.missedCyclesBoardLate}`,
          ],
          ['frames lost, repeated', `${result.framesLost}, ${result.framesRepeated}`],
          ['websockets closed', String(result.socketsClosed)],
          ['p99 of the gap, handover to ordinary', ratio.toFixed(2)],
          ['of the processors: busy, taken by the host', share(result.machine)],
        ],
      ),
    ].join('\n'),
  );
  if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  if (values.svg !== undefined) {
    const known = (all: (number | null)[]) => all.filter((one) => one !== null);
    const peerGaps = (all: Judged[]) => known(all.map(({ gapMsMax }) => gapMsMax));
    const series = [
      { name: 'ordinary flight', values: known(rounds.map(({ ordinary: calm }) => calm.gapMsMax)) },
      { name: 'handover', values: known(gaps(rounds)) },
      { name: 'V1 killed, V2 stands by', values: known(gaps(taken.killed)) },
      { name: 'V1 stopped, V2 stands by', values: known(gaps(taken.hung)) },
      { name: 'V1 closes, exits, V2 opens', values: peerGaps(flown['close-open']) },
      { name: 'start V2, wait, kill V1', values: peerGaps(flown.overlap) },
      { name: 'stop V1, start V2', values: peerGaps(flown.restart) },
    ].filter(({ values: some }) => some.length > 0);
    writeFileSync(values.svg, gapsSvg('Without a command while V2 replaces V1', series, FAILSAFE_MS));
  }
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
