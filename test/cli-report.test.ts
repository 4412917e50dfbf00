/** The demo's verdict: each promise is broken by what breaks it, and by nothing else; and its clean-up. */
import { describe, expect, test } from 'vitest';
import { flightReport, handoverSpan, handoverTimes, type Measured } from '#cli/demo/flight-report.ts';
import { reportText } from '#cli/demo/report-text.ts';
import { Scope } from '#cli/demo/scope.ts';
import type { EventRecord, HubStatus } from '#cli/hub-client.ts';
import type { Judged } from '#cli/sim-client.ts';

const id = (digit: string) => `sha256:${digit.repeat(64)}`;
const layer = (digit: string, bytes: number) => ({
  diffId: id(digit),
  bytes: bytes * 3,
  blob: { digest: id(digit), bytes },
});
const image = (digit: string, layers: ReturnType<typeof layer>[]) => ({
  ...{ id: id(digit), config: { digest: id(digit), bytes: 10 }, layers, deltas: [] },
});
const release = (name: string, one: ReturnType<typeof image>): HubStatus['releases'][number] => ({
  ...{ id: name, app: 'hover', commit: 'c', createdAtMs: 0 },
  services: { main: { image: one, labels: {} } },
});
const judged: Judged = {
  ...{ commands: 1_000, gapMsP50: 4, gapMsP90: 4.1, gapMsP99: 4.2, gapMsMax: 5, missedCycles: 0 },
  ...{ missedCyclesBoardLate: 0, doubled: 0, stale: 0, ignored: 0, invalid: 0, failsafes: 0 },
  ...{ attitudeDegRms: 0.1, attitudeDegMax: 0.2, altitudeErrorMMax: 0.01, boardLateMsMax: 0.1, epochs: [] },
};
const base = layer('a', 1_000_000);

const good: Measured = {
  prior: release('v1', image('1', [base, layer('b', 30_000)])),
  candidate: release('v2', image('2', [base, layer('c', 31_000)])),
  current: {
    ...{ device: 'd', generation: 2, bootId: 'b', sequence: 1, atMs: 0, images: [] },
    owner: { release: 'v2', imageId: id('2'), container: 'c' },
    update: {
      ...{ status: 'done', release: 'v2', stagesMs: { fetch: 100, warm: 1_000 } },
      fetched: { as: 'delta', bytes: 2_600 },
    },
  },
  containerImageId: id('2'),
  ...{ before: judged, during: judged, whole: judged },
  ...{ framesLost: 0, framesRepeated: 0, framesDroppedAtSource: 0, socketsClosed: 0 },
  thermal: { frames: 20, lost: 0, repeated: 0 },
  ...{ panelUrl: 'http://127.0.0.1:8600', svg: '/tmp/x.svg', pushMs: 5_000 },
};

test('all held: the figures', () => {
  const report = flightReport(good);
  expect(report.held).toBe(true);
  expect(report).toMatchObject({
    owner: 'v2',
    imageIdMatches: true,
    bytes: { full: 31_000, delta: 2_600, image: 1_031_000, fetchedAs: 'delta' },
    handover: { periodMs: 4, gapMs: 5, missedCycles: 0, framesLost: 0, socketsClosed: 0 },
    attitude: { beforeDeg: 0.2, duringDeg: 0.2 },
    stagesMs: { fetch: 100, warm: 1_000 },
  });
  expect(reportText(report, '/logs')).toContain('All promises held.');
});

test.each<[string, Partial<Measured>]>([
  [
    'owns the drone',
    { current: { ...good.current, owner: { ...good.current.owner, release: 'v1' } as never } },
  ],
  ['image is the pushed build', { containerImageId: id('9') }],
  ['no command of a former owner', { whole: { ...judged, stale: 1 } }],
  ['none doubled', { whole: { ...judged, doubled: 1 } }],
  ['no failsafe', { whole: { ...judged, failsafes: 1 } }],
  ['no missed control cycle', { during: { ...judged, missedCycles: 4 } }],
  ['no missed control cycle', { during: { ...judged, gapMsMax: null } }],
  ['no camera frame lost', { framesLost: 1 }],
  ['no camera frame lost', { framesDroppedAtSource: 1 }],
  ['no camera frame lost', { framesRepeated: 1 }],
  ['no websocket closed', { socketsClosed: 1 }],
  ['the new view shows', { thermal: { frames: 0, lost: 0, repeated: 0 } }],
])('%s: broken by %j', (promise, change) => {
  const report = flightReport({ ...good, ...change });
  const broken = report.promises.filter(({ held }) => !held).map(({ text }) => text);
  expect(broken).toEqual([expect.stringContaining(promise)]);
  expect(report.held).toBe(false);
  expect(reportText(report, '/logs')).toContain('A promise was broken; logs: /logs');
});

describe('when the handover was', () => {
  const event = (type: string, resource: string, atUs: number): EventRecord => ({
    ...{ id: atUs, device: 'd', key: String(atUs), atMs: 0, receivedAtMs: 0, text: '', type },
    data: { resource, atUs },
  });
  const events = [
    event('handover.release', 'camera', 100),
    event('handover.granted', 'rotors', 200),
    event('handover.release', 'camera', 10_000),
    event('handover.release', 'rotors', 16_000),
    event('handover.granted', 'camera', 12_000),
    event('handover.granted', 'rotors', 19_000),
  ];
  test('the newest one, from its first release to the rotors’ grant', () => {
    const times = { releaseUs: 10_000, rotorsReleaseUs: 16_000, rotorsGrantedUs: 19_000 };
    expect(handoverTimes(events)).toEqual(times);
    expect(handoverSpan(times)).toEqual([2_000, 39_000]);
  });
  test('none, when nobody was granted the rotors after a release', () => {
    expect(handoverTimes([])).toBeUndefined();
    expect(handoverTimes([event('handover.granted', 'rotors', 5)])).toBeUndefined();
  });
});

describe('clean-up', () => {
  test('in reverse order, all of it, whatever fails', async () => {
    const said: string[] = [];
    const scope = new Scope();
    for (const name of ['one', 'two', 'three']) {
      await scope.use(
        name,
        () => Promise.resolve(name),
        (started) => {
          said.push(started);
          if (started === 'two') throw new Error('stuck');
        },
      );
    }
    const errors = await scope.close();
    expect(said).toEqual(['three', 'two', 'one']);
    expect(errors.map(({ message }) => message)).toEqual(['two: stuck']);
    expect(await scope.close()).toBe(errors);
  });

  test('what is still starting is waited for and ended; nothing starts any more', async () => {
    const scope = new Scope();
    let ended = false;
    let finish: (text: string) => void = () => {};
    const starting = scope.use(
      'slow',
      () => new Promise<string>((resolve) => (finish = resolve)),
      () => {
        ended = true;
      },
    );
    const closing = scope.close();
    await expect(
      scope.use(
        'late',
        () => Promise.resolve(1),
        () => {},
      ),
    ).rejects.toThrow('not started');
    expect(ended).toBe(false);
    finish('up');
    await closing;
    expect(await starting).toBe('up');
    expect(ended).toBe(true);
  });

  test('a start that failed has nothing to end', async () => {
    const scope = new Scope();
    let ended = false;
    const start = () => Promise.reject(new Error('no'));
    const end = () => {
      ended = true;
    };
    await expect(scope.use('bad', start, end)).rejects.toThrow('no');
    expect(await scope.close()).toEqual([]);
    expect(ended).toBe(false);
  });
});
