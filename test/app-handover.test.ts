/**
 * The example app is replaced in flight: two real processes of it, the real simulator, a browser's connection open.
 * Measures real time, so it runs alone: @flight
 */
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { nowUs } from '#handover/native.ts';
import { Bench, until, Viewer } from '#test/app-kit.ts';

const bench = new Bench();
const viewers: Viewer[] = [];
const look = (): Viewer => {
  const viewer = new Viewer(bench.panelUrl);
  viewers.push(viewer);
  return viewer;
};

beforeAll(async () => {
  await bench.open();
});
beforeEach(async () => {
  if (viewers.length > 0) await bench.calm();
});
afterAll(async () => {
  for (const { socket } of viewers) socket.terminate();
  await bench.close();
});

it('V1 takes off, hovers, and shows itself', async () => {
  expect(await bench.update('v1')).toMatchObject({ type: 'updated', owner: 'v1' });
  const viewer = look();
  await until('V1 hovers', () => viewer.last?.phase === 'hover');
  expect(viewer.hellos).toMatchObject([{ release: 'v1', views: [{ kind: 0, id: 'visible' }] }]);
  const calmUs = nowUs() + 2_000_000;
  await until('the climb has died away', () => nowUs() > calmUs);
  const fromUs = nowUs();
  await until('three seconds of hover', () => nowUs() - fromUs > 3_000_000);
  const judged = await bench.sim.judge(fromUs, nowUs());
  expect(judged).toMatchObject({ doubled: 0, stale: 0, ignored: 0, invalid: 0, failsafes: 0 });
  expect(judged.attitudeDegRms).toBeLessThan(0.4);
  expect(judged.altitudeErrorMMax).toBeLessThan(0.1);
  expect(viewer.frames[0].length).toBeGreaterThan(40);
  expect(viewer.frames[1]).toEqual([]);
  expect(viewer.gaps(0)).toEqual({ lost: 0, wrong: 0 });
});

it('V2 takes over in flight: no frame lost, no socket closed, no command doubled or stale', async () => {
  const [first] = viewers as [Viewer];
  const more = Array.from({ length: 5 }, look);
  await until('all are greeted', () => more.every((viewer) => viewer.hellos.length === 1));
  const fromUs = nowUs();
  expect(await bench.update('v2', 'drone-v2')).toMatchObject({ type: 'updated', owner: 'v2' });
  await until('V1 is stopped', () => bench.versions.get('v1')?.child.exitCode !== null);
  await until('a second of V2', () => (first.frames[1].length ?? 0) > 15);
  const judged = await bench.sim.judge(fromUs, nowUs());
  expect(judged).toMatchObject({ doubled: 0, stale: 0, ignored: 0, invalid: 0, failsafes: 0 });
  expect(judged.epochs.length).toBe(2);
  // How few cycles are missed depends on what else this machine does: the bench measures that, beside ordinary flight.
  expect(judged.attitudeDegMax).toBeLessThan(5);
  const warm = bench.reports.findLast(({ type }) => type === 'handover.ready')?.text ?? '';
  expect(Number(/(\d+) cycles/.exec(warm)?.[1])).toBeGreaterThanOrEqual(250);
  expect(Number(/divergence ([\d.e-]+)/.exec(warm)?.[1])).toBeLessThan(0.1);

  for (const viewer of viewers) {
    expect(viewer.closed).toBe(null);
    expect(viewer.hellos.map(({ release }) => release)).toEqual(['v1', 'v2']);
    expect(viewer.hellos[1]?.views.map(({ id }) => id)).toEqual(['visible', 'thermal']);
    expect(viewer.gaps(0)).toEqual({ lost: 0, wrong: 0 });
    expect(viewer.gaps(1)).toEqual({ lost: 0, wrong: 0 });
    expect(viewer.last?.release).toBe('v2');
  }
  // The gyro's trace has no hole at the handover: V2 had the samples from its shadow.
  const times = first.telemetry.flatMap(({ trace }) => trace.map(([us]) => us));
  const seen = [...new Set(times)].sort((a, b) => a - b).filter((us) => us > fromUs);
  const holes = seen.slice(1).filter((us, i) => us - (seen[i] as number) > 12_000);
  expect(holes.length).toBeLessThanOrEqual(judged.missedCyclesBoardLate);

  const page = await fetch(new URL('/views/thermal.js', bench.panelUrl));
  expect(page.status).toBe(200);
  expect((await fetch(new URL('/../package.json', bench.panelUrl))).status).toBe(404);
});

it.each([
  ['exits-at-start', 'leaves before it says a word', /./, null],
  // It has spoken with the browsers: nobody knows any more where in a message each stands.
  [
    'crashes-after-grant',
    'dies while it flies, and says why',
    /^CRASHED: .*a bug that no warm-up shows/,
    1012,
  ],
])('a successor that %s: %s, and V2 flies on', async (broken, _what, why, closedWith) => {
  const [before] = viewers as [Viewer];
  const fromUs = nowUs();
  const outcome = await bench.update(broken, `broken/${broken}`);
  expect(outcome).toMatchObject({ type: 'failed', owner: 'v2' });
  const { failure } = outcome as { failure: { code: string; text: string } };
  expect(`${failure.code}: ${failure.text}`).toMatch(why);
  if (closedWith !== null) {
    await until('all are told to come again', () => viewers.every(({ closed }) => closed === closedWith));
    viewers.length = 0;
    look();
  }
  const [viewer] = viewers as [Viewer];
  const told = viewer.telemetry.length;
  await until('V2 tells of its flight', () =>
    viewer.telemetry.slice(told).some(({ release }) => release === 'v2'),
  );
  const judged = await bench.sim.judge(fromUs, nowUs());
  expect(judged).toMatchObject({ doubled: 0, stale: 0, failsafes: 0 });
  expect(judged.attitudeDegMax).toBeLessThan(5);
  expect(before.closed).toBe(closedWith);
  expect(bench.versions.get('v2')?.child.exitCode).toBe(null);
});

it('a successor that is never ready is taken back, and V2 has not noticed', async () => {
  const fromUs = nowUs();
  const before = bench.outcomes.length;
  bench.start('never-ready', 'broken/never-ready');
  await until('it warms up', () =>
    bench.reports.some(({ type, atUs }) => type === 'handover.warming' && atUs > fromUs),
  );
  await until('two seconds', () => nowUs() - fromUs > 2_000_000);
  expect(bench.outcomes.length).toBe(before);
  bench.coordinator.abort({ code: 'WARM_TIMEOUT', text: 'not ready in time' });
  await until('settled', () => bench.outcomes.length > before);
  expect(bench.outcomes.at(-1)).toMatchObject({ type: 'failed', owner: 'v2' });
  const judged = await bench.sim.judge(fromUs, nowUs());
  expect(judged).toMatchObject({ doubled: 0, stale: 0, failsafes: 0 });
  expect(judged.epochs.length).toBe(1);
});

it('a successor that is taken back in its probation returns all: no frame lost, no socket closed', async () => {
  const [viewer] = viewers as [Viewer];
  const fromUs = nowUs();
  const before = bench.outcomes.length;
  const frames = viewer.frames.map((numbers) => numbers.length);
  // On the coordinator's own clock: well within the two seconds of probation, however busy this machine is.
  const withdraw = () => bench.coordinator.abort({ code: 'CANCELLED', text: 'the release was withdrawn' });
  bench.onReport = ({ type, data }) => {
    if (type !== 'handover.granted' || data.resource !== 'rotors') return;
    bench.onReport = () => {};
    setTimeout(withdraw, 500);
  };
  bench.start('undone', 'drone-v2');
  await until('settled', () => bench.outcomes.length > before);
  expect(bench.outcomes.at(-1)).toMatchObject({ type: 'failed', owner: 'v2' });
  await until('V2 tells of its flight', () => viewer.last?.release === 'v2');
  await until('both cameras go on', () =>
    viewer.frames.every((numbers, i) => numbers.length > (frames[i] ?? 0) + 20),
  );
  const judged = await bench.sim.judge(fromUs, nowUs());
  expect(judged).toMatchObject({ doubled: 0, stale: 0, failsafes: 0 });
  expect(judged.epochs.length).toBe(3);
  for (const kind of [0, 1] as const) {
    const numbers = viewer.frames[kind].slice(frames[kind]);
    expect(numbers).toEqual(numbers.map((_, i) => (numbers[0] ?? 0) + i));
  }
  expect(viewer.hellos.slice(-2).map(({ release }) => release)).toEqual(['undone', 'v2']);
  expect(viewer.closed).toBe(null);
});

it('and the next good one still takes over', async () => {
  const [viewer] = viewers as [Viewer];
  expect(await bench.update('v3', 'drone-v2')).toMatchObject({ type: 'updated', owner: 'v3' });
  await until('V3 tells of its flight', () => viewer.last?.release === 'v3' && viewer.last.phase === 'hover');
  expect(viewer.closed).toBe(null);
});
