/** The store's promises, on a real SQLite file. */
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Release } from '#fleet/protocol.ts';
import { openSqliteStore } from '#fleet/sqlite.ts';
import type { Store } from '#fleet/store.ts';
import { Cleanup, currentState, fakeDigest, temporaryDirectory } from '#test/fleet-kit.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

let path: string;
let store: Store;
beforeEach(async () => {
  path = join(await temporaryDirectory(cleanup), 'hub.sqlite');
  store = openSqliteStore(path);
  cleanup.add(() => {
    try {
      store.close();
    } catch {
      // The test closed it.
    }
  });
});

const release = (id: string, app = 'hover', image = fakeDigest('1')): Release => ({
  id,
  app,
  commit: 'c'.repeat(40),
  createdAtMs: 1,
  services: {
    main: { image: { id: image, config: { digest: image, bytes: 2 }, layers: [], deltas: [] }, labels: {} },
  },
});

const reopen = () => {
  store.close();
  store = openSqliteStore(path);
};

test('releases are counted per app, and are not seen before they are accepted', () => {
  expect(store.nextReleaseId('hover')).toBe('v1');
  store.putPending(release('v1'));
  expect(store.pending('hover')).toEqual([release('v1')]);
  expect(store.releases(10)).toEqual([]);
  expect(store.target()).toEqual({ generation: 0, release: null, changedAtMs: 0 });

  expect(store.acceptPending('hover', 'v1', 5)).toEqual({
    generation: 1,
    release: release('v1'),
    changedAtMs: 5,
  });
  expect(store.pending('hover')).toEqual([]);
  expect(store.nextReleaseId('hover')).toBe('v2');
  expect(store.nextReleaseId('other')).toBe('v1');
  store.putPending(release('v2', 'hover', fakeDigest('2')));
  store.dropPending('hover', 'v2');
  expect(store.nextReleaseId('hover')).toBe('v2');
  // An accepted one cannot be dropped.
  store.dropPending('hover', 'v1');
  expect(store.latestRelease('hover')?.id).toBe('v1');
  expect(store.releaseOfImage(fakeDigest('1'))?.id).toBe('v1');
  expect(store.releaseOfImage(fakeDigest('2'))).toBeUndefined();
});

test('generations rise with every change, also across a restart and back to an older release', () => {
  for (const id of ['v1', 'v2']) {
    store.putPending(release(id));
    store.acceptPending('hover', id, 1);
  }
  expect(store.setTarget('hover', 'v1', 2)).toMatchObject({ generation: 3, release: { id: 'v1' } });
  reopen();
  expect(store.target()).toMatchObject({ generation: 3, release: { id: 'v1' } });
  expect(store.setTarget('hover', 'v1', 2).generation).toBe(4);
  expect(() => store.setTarget('hover', 'v9', 2)).toThrow('no release');
  expect(store.target().generation).toBe(4);
});

test('the current state never goes back: not in its sequence, not to an earlier boot', () => {
  store.seen('d1', 1);
  const take = (bootId: string, sequence: number) => store.current(currentState({ bootId, sequence }), 1);
  expect(take('boot-1', 5)).toBe('new');
  expect(take('boot-1', 5)).toBe('stale');
  expect(take('boot-1', 4)).toBe('stale');
  expect(take('boot-2', 1)).toBe('new');
  expect(take('boot-1', 6)).toBe('stale');
  expect(take('boot-2', 2)).toBe('new');
  expect(store.devices()[0]?.current).toMatchObject({ bootId: 'boot-2', sequence: 2 });
});

test('the will of an earlier session does not take a device offline', () => {
  store.presence({ device: 'd1', session: 'a', online: true }, 1);
  store.presence({ device: 'd1', session: 'b', online: true }, 2);
  expect(store.presence({ device: 'd1', session: 'a', online: false }, 3)).toBe('stale');
  expect(store.devices()).toMatchObject([{ name: 'd1', online: true, session: 'b' }]);
  expect(store.presence({ device: 'd1', session: 'b', online: false }, 4)).toBe('new');
  expect(store.devices()).toMatchObject([{ online: false }]);
  store.presence({ device: 'd1', session: 'c', online: true }, 5);
  store.allOffline();
  expect(store.devices()).toMatchObject([{ online: false }]);
});

test('an event counts once; the newest are kept and are read in order', () => {
  const event = (key: string, device = 'd1') => ({
    device,
    key,
    atMs: 1,
    type: 't',
    text: key,
    data: { n: 1 },
  });
  expect(store.event(event('k1'), 1)).toBe('new');
  expect(store.event(event('k1'), 2)).toBe('stale');
  expect(store.event(event('k1', 'd2'), 2)).toBe('new');
  expect(store.event(event('k2'), 3)).toBe('new');
  expect(store.events({ limit: 10 }).map((one) => [one.device, one.key])).toEqual([
    ['d1', 'k1'],
    ['d2', 'k1'],
    ['d1', 'k2'],
  ]);
  const [first] = store.events({ device: 'd1', limit: 10 });
  expect(first).toMatchObject({ key: 'k1', data: { n: 1 }, receivedAtMs: 1 });
  expect(store.events({ device: 'd1', afterId: first?.id ?? 0, limit: 10 }).map((one) => one.key)).toEqual([
    'k2',
  ]);
  expect(store.events({ limit: 1 }).map((one) => one.key)).toEqual(['k2']);
});

test('a second hub on the same store is refused with the reason', () => {
  expect(() => openSqliteStore(path)).toThrow(expect.objectContaining({ code: 'HUB_RUNNING' }));
  reopen();
});

test('the identity stays, and a store of a newer Midair is refused', () => {
  const { hubId } = store;
  reopen();
  expect(store.hubId).toBe(hubId);
  store.close();
  const database = new DatabaseSync(path);
  database.exec('PRAGMA user_version = 99');
  database.close();
  expect(() => openSqliteStore(path)).toThrow(expect.objectContaining({ code: 'STORE_NEWER' }));
});

test('writes are synced: WAL with synchronous FULL', () => {
  store.seen('d1', 1);
  store.close();
  const database = new DatabaseSync(path);
  expect(database.prepare('PRAGMA journal_mode').get()).toEqual({ journal_mode: 'wal' });
  database.close();
});
