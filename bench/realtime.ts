/**
 * `npm run bench -- realtime [--rounds N] [--json]`: does the control loop notice that a large delta is applied beside it?
 *
 * A real flight: simulator, app under SCHED_FIFO in a container, agent, engine. Each round pushes a release of which a fifth
 * of a 200 MB file has changed, and measures, as the flight controller sees it, the gaps between commands while the agent
 * fetches the delta, rebuilds the layer and the engine unpacks it; and in a span of the same length before the push. Building
 * and making the delta, the hub's work, is in neither.
 */
import { writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { createRunDirectory, emptyRunDirectory, endLeftovers } from '#cli/demo/run-directory.ts';
import { Scope } from '#cli/demo/scope.ts';
import { World } from '#cli/demo/world.ts';
import type { Judged } from '#cli/sim-client.ts';
import { bytesText, table } from '#cli/text.ts';
import { nowUs } from '#handover/native.ts';
import { commandLine } from '#scripts/command-line.ts';

const { values, whole } = commandLine('usage: npm run bench -- realtime [--rounds N] [--json]', {
  options: { rounds: { type: 'string', default: '3' }, json: { type: 'boolean', default: false } },
});
const rounds = whole('rounds', values.rounds, 1, 20);
/** Goal: the loop's p99 beside the work is at most this much of its p99 without. */
const RATIO_MAX = 1.2;
/** Of ordinary flight before a push, for the quiet span to lie in. */
const QUIET_MS = 6_000;
const POLL_MS = 20;
const FILE_MB = 200;
/** The hub makes the delta first, mostly of bytes that do not compress: minutes. */
const PULLED_MS_MAX = 900_000;

/** In the image's build: the same bytes for the same number, a fifth of the blocks others than for the number before. */
const GENERATOR = `import { createHash } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
const round = Number(process.argv[2]);
const BLOCK = 4096;
const file = openSync('/payload.bin', 'w');
const block = Buffer.alloc(BLOCK);
for (let at = 0; at < ${FILE_MB} * 256; at += 1) {
  // A block keeps its bytes for five rounds.
  const seed = createHash('sha256').update(at + ':' + Math.floor((round + (at % 5)) / 5)).digest();
  let [a, b] = [seed.readUInt32LE(0) | 1, seed.readUInt32LE(4)];
  for (let i = 0; i < BLOCK; i += 4) {
    a ^= a << 13; a ^= a >>> 17; a ^= a << 5;
    b = (b + 0x9e3779b9) | 0;
    block.writeInt32LE(a ^ b, i);
  }
  writeSync(file, block);
}
closeSync(file);
`;

interface Round {
  readonly quiet: Judged;
  readonly busy: Judged;
  readonly ms: number;
  readonly bytes: number;
}

const say = (text: string) => process.stderr.write(`${text}\n`);
const interrupt = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => interrupt.abort(new Error(`stopped by ${name}`)));
}
const scope = new Scope();
const directory = await createRunDirectory();
const flown: Round[] = [];
try {
  const world = new World({ scope, directory, signal: interrupt.signal, device: `realtime-${process.pid}` });
  say('preparing: engines, base image, hub, drone, agent; V1 with a large file in its image');
  await world.openEngines(say);
  await world.loadBase();
  await world.startHub();
  await world.startSim();
  await world.startAgent();
  const app = await world.repository('hover');
  app.overlay('drone');
  writeFileSync(join(app.directory, 'generate.mjs'), GENERATOR);
  const push = async (round: number): Promise<void> => {
    app.write(
      'Dockerfile',
      [
        'FROM midair/node24',
        'LABEL io.midair.realtime=fifo',
        'COPY generate.mjs /',
        `RUN ["node", "/generate.mjs", "${round}"]`,
        'COPY . /app/',
        'WORKDIR /app',
        'CMD ["node", "--single-threaded-gc", "/app/main.ts"]',
        '',
      ].join('\n'),
    );
    await app.commit(`Round ${round}`);
    await app.push(undefined, PULLED_MS_MAX);
  };
  await push(0);
  await world.updated('v1');
  await world.hovering();
  for (let round = 1; round <= rounds; round += 1) {
    await world.pause(QUIET_MS);
    const quietUs = nowUs();
    const release = `v${round + 1}`;
    const [{ fromUs, toUs }] = await Promise.all([watchPull(world, release), push(round)]);
    const quiet = await world.sim.judge(quietUs - Math.min(toUs - fromUs, QUIET_MS * 1000), quietUs);
    const busy = await world.sim.judge(fromUs, toUs);
    const { update } = await world.updated(release);
    const bytes = update.status === 'done' ? (update.fetched?.bytes ?? 0) : 0;
    flown.push({ quiet, busy, ms: (toUs - fromUs) / 1000, bytes });
    say(
      `${round}/${rounds}: ${bytesText(bytes)} fetched and applied in ${((toUs - fromUs) / 1e6).toFixed(1)} s; gap p99 ` +
        `${busy.gapMsP99?.toFixed(2)} ms, quiet ${quiet.gapMsP99?.toFixed(2)} ms`,
    );
  }
} catch (error) {
  say(`bench realtime: ${(error as Error).message}\nlogs: ${directory}/logs`);
  process.exitCode = 1;
}
for (const error of await scope.close()) {
  say(error.message);
  process.exitCode = 1;
}
await endLeftovers(directory);
emptyRunDirectory(directory);
if (flown.length > 0) tell();

/** From the moment that the device pulls this release to the moment that it has it. */
async function watchPull(world: World, release: string): Promise<{ fromUs: number; toUs: number }> {
  let fromUs: number | undefined;
  for (const untilMs = performance.now() + PULLED_MS_MAX; performance.now() < untilMs; ) {
    const update = (await world.current())?.update;
    const pulls =
      update?.status === 'updating' && update.release === release && ['fetch', 'pull'].includes(update.stage);
    if (pulls) fromUs ??= nowUs();
    else if (fromUs !== undefined) return { fromUs, toUs: nowUs() };
    await world.pause(POLL_MS);
  }
  throw new Error(`${release} was not pulled`);
}

function tell(): void {
  const cells = ({ gapMsP50, gapMsP90, gapMsP99, gapMsMax, missedCycles }: Judged) => [
    ...[gapMsP50, gapMsP90, gapMsP99, gapMsMax].map((figure) => figure?.toFixed(2) ?? '–'),
    String(missedCycles),
  ];
  process.stdout.write(
    table(
      ['gap between commands, ms', 'p50', 'p90', 'p99', 'max', 'missed'],
      flown.flatMap(({ quiet, busy }, at) => [
        [`${at + 1}: quiet`, ...cells(quiet)],
        [`${at + 1}: beside a large delta`, ...cells(busy)],
      ]),
    ),
  );
  const middle = (figures: (number | null)[]) =>
    figures.map((one) => one ?? Number.NaN).toSorted((a, b) => a - b)[Math.floor(figures.length / 2)] ??
    Number.NaN;
  const ratio =
    middle(flown.map(({ busy }) => busy.gapMsP99)) / middle(flown.map(({ quiet }) => quiet.gapMsP99));
  process.stdout.write(
    `p99 beside the delta to p99 without, medians of ${flown.length}: ${ratio.toFixed(2)}; goal at most ${RATIO_MAX}\n`,
  );
  if (values.json) process.stdout.write(`${JSON.stringify({ ratio, load: loadavg()[0], rounds: flown })}\n`);
}
