/** What a device that comes back after several releases is offered: a way over earlier images, and then a delta of its own. */
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Blobs } from '#fleet/blobs.ts';
import { Offers } from '#fleet/offers.ts';
import type { DeltaOffer, Image, Release } from '#fleet/protocol.ts';
import { openSqliteStore } from '#fleet/sqlite.ts';
import type { Store } from '#fleet/store.ts';
import { Cleanup, currentState, eventually, fakeDigest, temporaryDirectory } from '#test/fleet-kit.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

let store: Store;
beforeEach(async () => {
  store = openSqliteStore(join(await temporaryDirectory(cleanup), 'hub.sqlite'));
  cleanup.add(() => store.close());
});

const blob = (digit: string, bytes: number) => ({ digest: fakeDigest(digit), bytes });
const delta = (basis: string, digit: string): DeltaOffer => ({
  basis: fakeDigest(basis),
  blob: blob(digit, 100),
  cost: { outputBytes: 5_000, cpuMs: 20, memoryBytes: 9_000_000 },
});
const image = (digit: string, deltas: DeltaOffer[] = []): Image => ({
  id: fakeDigest(digit),
  config: blob(digit, 10),
  layers: [{ diffId: fakeDigest(digit), bytes: 5_000, blob: blob(digit, 3_000) }],
  deltas,
});

/** Pushes an app's images one after the other, each with a delta from the one before. */
function push(...digits: string[]): void {
  for (const [at, digit] of digits.entries()) {
    const before = digits[at - 1];
    const release: Release = {
      id: `v${at + 1}`,
      app: 'hover',
      commit: 'c'.repeat(40),
      createdAtMs: 1,
      services: { main: { image: image(digit, before ? [delta(before, 'd')] : []), labels: {} } },
    };
    store.putPending(release);
    store.acceptPending('hover', release.id, 1);
  }
}

interface Made {
  pairs: string[];
  told: string[];
}
function open(outcome: (basis: Image) => DeltaOffer | null | Error): Offers & Made {
  const made: Made = { pairs: [], told: [] };
  const offers = new Offers({
    store,
    blobs: {} as Blobs,
    log: pino({ level: 'silent' }),
    onOffer: async (basis) => void made.told.push(basis),
    async make(basis, target) {
      made.pairs.push(`${basis.id.at(-1)}>${target.id.at(-1)}`);
      const offer = outcome(basis);
      if (offer instanceof Error) throw offer;
      return { bytes: 100, offer };
    },
  });
  cleanup.add(() => offers.close());
  return Object.assign(offers, made);
}
const target = (): Release => store.target().release as Release;
const seen = (offers: Offers, ...has: string[]): Image =>
  offers.release(target(), new Set(has.map(fakeDigest))).services.main?.image as Image;
const ids = (images: Image[] | undefined) => images?.map(({ id }) => id.at(-1));

test('a way over earlier images is told to who has no direct one, and to nobody else', () => {
  push('1', '2', '3', '4');
  const offers = open(() => null);
  expect(ids(seen(offers, '1').bridges)).toEqual(['3', '2']);
  expect(ids(seen(offers, '2').bridges)).toEqual(['3']);
  // There is a delta from 3, 4 is there, and from an image that nobody knows no way leads.
  for (const has of ['3', '4', '9']) expect(seen(offers, has).bridges).toBeUndefined();
  expect(seen(offers).bridges).toBeUndefined();
});

test('a delta is made for what a device has, once, kept beside the release, and told', async () => {
  push('1', '2', '3');
  const offers = open((basis) => ({ ...delta('1', 'e'), basis: basis.id }));
  const current = currentState({ images: [fakeDigest('1'), fakeDigest('8')] });
  offers.consider(current);
  offers.consider(current);
  await eventually('the delta', () => offers.told.length > 0);
  expect(offers.told).toEqual([fakeDigest('1')]);
  expect(offers.pairs).toEqual(['1>3']);
  expect(seen(offers, '1').bridges).toBeUndefined();
  expect(seen(offers, '1').deltas.map(({ basis }) => basis)).toEqual([fakeDigest('2'), fakeDigest('1')]);
  // The release itself is as it was pushed, and the next start of the hub knows the delta all the same.
  expect(target().services.main?.image.deltas).toHaveLength(1);
  expect(
    seen(
      open(() => null),
      '1',
    ).deltas,
  ).toHaveLength(2);
  offers.consider(current);
  expect(offers.pairs).toHaveLength(1);
});

test('nothing is made for who has the target, a basis of a delta, or images of others', async () => {
  push('1', '2');
  const offers = open(() => null);
  for (const has of [['2'], ['1'], ['9'], []]) offers.consider(currentState({ images: has.map(fakeDigest) }));
  await offers.close();
  expect(offers.pairs).toEqual([]);
});

test('what fails or does not pay is not tried again, and others follow', async () => {
  push('1', '2', '3', '4');
  const offers = open((basis) => (basis.id === fakeDigest('1') ? new Error('no') : null));
  for (let times = 0; times < 3; times += 1) {
    for (const has of ['1', '2']) offers.consider(currentState({ images: [fakeDigest(has)] }));
  }
  await eventually('both', () => offers.pairs.length === 2);
  await offers.close();
  expect(offers.pairs).toEqual(['1>4', '2>4']);
  expect(offers.told).toEqual([]);
});
