/** Which targets are news: a generation never goes back, and the same one may bring more deltas. */
import { expect, test } from 'vitest';
import { newsOf } from '#agent/news.ts';
import type { DeltaOffer, Target } from '#fleet/protocol.ts';
import { fakeDigest } from '#test/fleet-kit.ts';

const blob = { digest: fakeDigest('b'), bytes: 5 };
const delta = (basis: string): DeltaOffer => ({ basis: fakeDigest(basis), blob });
const target = (generation: number, id: string, deltas: DeltaOffer[] = [], imageId = '1'): Target => ({
  fleet: 'fleet',
  generation,
  release: {
    id,
    app: 'hover',
    commit: '',
    createdAtMs: 1,
    services: { main: { image: { id: fakeDigest(imageId), config: blob, layers: [], deltas }, labels: {} } },
  },
});
const known = target(3, 'v3', [delta('2')]);

test('a higher generation is another target, also with the same release', () => {
  expect(newsOf(null, known)).toBe('target');
  expect(newsOf(known, target(4, 'v3', [delta('2')]))).toBe('target');
  expect(newsOf(known, { ...target(4, 'v3'), release: null })).toBe('target');
});

test('an older one, and the same again, are nothing', () => {
  expect(newsOf(known, target(2, 'v9'))).toBe('old');
  expect(newsOf(known, structuredClone(known))).toBe('old');
});

test('the same with other deltas or ways is an offer, but never another release or image', () => {
  expect(newsOf(known, target(3, 'v3', [delta('2'), delta('1')]))).toBe('offers');
  const over = structuredClone(known);
  const image = over.release?.services.main?.image;
  if (image) image.bridges = [{ id: fakeDigest('2'), config: blob, layers: [], deltas: [delta('1')] }];
  expect(newsOf(known, over)).toBe('offers');
  expect(newsOf(over, known)).toBe('offers');
  expect(newsOf(known, target(3, 'v4', [delta('1')]))).toBe('old');
  expect(newsOf(known, target(3, 'v3', [delta('1')], '7'))).toBe('old');
});
