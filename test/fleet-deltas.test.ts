/** The delta that a push makes is one that a device can use: applied here, digest by digest (MIDAIR_TEST_ENGINE). */
import { createHash, randomBytes } from 'node:crypto';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { afterEach, expect, test } from 'vitest';
import { applyLayer, basisFromLayers, type LayerSource, memoryAccess, openDelta } from '#deltas/index.ts';
import type { Image, Layer } from '#fleet/protocol.ts';
import {
  Checkout,
  Cleanup,
  Device,
  eventually,
  type TestHub,
  temporaryDirectory,
  testEngine,
  testHub,
} from '#test/fleet-kit.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

const blob = async (hub: TestHub, digest: string) =>
  Buffer.from(await (await fetch(`${hub.url}/v1/blobs/${digest}`)).arrayBuffer());

const imageAt = async (device: Device, generation: number): Promise<Image> => {
  const image = (await device.target(generation)).release?.services.main?.image;
  if (!image) throw new Error('no image');
  return image;
};

const source = (hub: TestHub, layer: Layer): LayerSource => ({
  diffId: layer.diffId,
  bytes: layer.bytes,
  async *open() {
    yield zstdDecompressSync(await blob(hub, layer.blob.digest));
  },
});

/** Rebuilds every layer of `target` that `basis` lacks, from the published delta, as a device would. */
async function rebuild(hub: TestHub, basis: Image, target: Image): Promise<string[]> {
  const delta = target.deltas.find((one) => one.basis === basis.id);
  if (!delta) throw new Error('no delta for this basis');
  const bytes = await blob(hub, delta.blob.digest);
  expect(bytes).toHaveLength(delta.blob.bytes);
  expect(`sha256:${createHash('sha256').update(bytes).digest('hex')}`).toBe(delta.blob.digest);
  const reader = await openDelta(memoryAccess(bytes));
  const files = await basisFromLayers(
    basis.layers.map((layer) => source(hub, layer)),
    await temporaryDirectory(cleanup),
  );
  const has = new Set(basis.layers.map((layer) => layer.diffId));
  const rebuilt: string[] = [];
  for (const layer of target.layers.filter((one) => !has.has(one.diffId))) {
    const hash = createHash('sha256');
    for await (const chunk of applyLayer(reader, layer.diffId, files)) hash.update(chunk);
    expect(`sha256:${hash.digest('hex')}`).toBe(layer.diffId);
    rebuilt.push(layer.diffId);
  }
  await files.close();
  return rebuilt;
}

const Dockerfile = 'FROM scratch\nCOPY fixed /\nCOPY app /app/\n';
const program = randomBytes(200_000).toString('hex');

test('a push makes a delta to the previous release and to what devices have, and each rebuilds the layers', async () => {
  const hub = await testHub(cleanup, testEngine());
  const device = await Device.connect(cleanup, hub, 'drone-1');
  const checkout = await Checkout.create(cleanup, `${hub.url}/git/hover.git`);
  await checkout.commit({ Dockerfile, fixed: 'x'.repeat(100_000), 'app/program': `${program}one` });
  expect(await checkout.push()).toMatchObject({ status: 0 });
  const v1 = await imageAt(device, 1);
  expect(v1.deltas).toEqual([]);
  await device.report({
    generation: 1,
    images: [v1.id],
    owner: { release: 'v1', imageId: v1.id, container: 'c' },
  });

  await checkout.commit({ 'app/program': `${program}two` });
  const second = await checkout.push();
  expect(second.text).toMatch(/delta v1 -> v2: [\d.]+ k?B \(layers \d+ kB, image \d+ kB\) in /);
  const v2 = await imageAt(device, 2);
  expect(v2.deltas.map((delta) => delta.basis)).toEqual([v1.id]);

  // The device stayed at v1, so v3 has one delta for it and one for who took v2.
  await checkout.commit({ 'app/program': `${program}three`, fixed: 'y'.repeat(100_000) });
  const third = await checkout.push();
  expect(third.text).toMatch(/delta v2 -> v3: /);
  expect(third.text).toMatch(/delta v1 -> v3: /);
  const v3 = await imageAt(device, 3);

  expect(await rebuild(hub, v1, v2)).toHaveLength(1);
  expect(await rebuild(hub, v2, v3)).toHaveLength(2);
  expect(await rebuild(hub, v1, v3)).toHaveLength(2);
  for (const { blob: one } of [...v2.deltas, ...v3.deltas]) expect(one.bytes).toBeLessThan(40_000);
  // Each was applied before it was offered, and says what that took.
  for (const { cost } of v3.deltas) {
    expect(cost?.outputBytes).toBe(v3.layers.reduce((sum, layer) => sum + layer.bytes, 0));
    expect(cost?.cpuMs).toBeGreaterThan(0);
    expect(cost?.memoryBytes).toBeGreaterThan(0);
    expect(cost?.memoryBytes).toBeLessThan(64 * 1024 ** 2);
  }
  expect(third.text).toMatch(/to apply: \d+ kB out, [\d.]+ s of a core here, [\d.]+ [kM]B of memory/);

  // Config only: the layers are the same, there is nothing to make.
  await checkout.commit({
    Dockerfile: `${Dockerfile}CMD ["/app/program"]\n`,
    'app/program': `${program}three`,
  });
  expect((await checkout.push()).text).toMatch(/delta v3 -> v4: not needed|delta v3 -> v4: \d/);
});

test('a device that was away for several releases gets a way over them, and then a delta of its own', async () => {
  const hub = await testHub(cleanup, testEngine());
  const early = await Device.connect(cleanup, hub, 'drone-1');
  const checkout = await Checkout.create(cleanup, `${hub.url}/git/hover.git`);
  const images: Image[] = [];
  for (const [at, version] of ['one', 'two', 'three'].entries()) {
    await checkout.commit({ Dockerfile, fixed: 'x'.repeat(100_000), 'app/program': `${program}${version}` });
    expect(await checkout.push()).toMatchObject({ status: 0 });
    images.push(await imageAt(early, at + 1));
  }
  const [v1, v2, v3] = images as [Image, Image, Image];
  expect(v3.deltas.map(({ basis }) => basis)).toEqual([v2.id]);

  const late = await Device.connect(cleanup, hub, 'drone-2');
  await late.report({ images: [v1.id], owner: { release: 'v1', imageId: v1.id, container: 'c' } });
  // It is made behind everything else, which on a busy machine takes long.
  const told = await eventually(
    'the delta from v1',
    () =>
      late.targets.find((one) =>
        one.release?.services.main?.image.deltas.some(({ basis }) => basis === v1.id),
      ),
    120_000,
  );
  expect(told.generation).toBe(3);
  expect(await rebuild(hub, v1, told.release?.services.main?.image as Image)).toHaveLength(1);
  // Who has something else was told nothing new.
  expect(early.targets.filter(({ generation }) => generation === 3)).toHaveLength(1);
}, 240_000);

test('a delta that does not pay or cannot be made is left out, and the release goes on', async () => {
  const hub = await testHub(cleanup, testEngine());
  const device = await Device.connect(cleanup, hub, 'drone-1');
  const checkout = await Checkout.create(cleanup, `${hub.url}/git/hover.git`);
  const random = randomBytes(50_000);
  await checkout.commit({ Dockerfile, fixed: random, 'app/program': 'x' });
  await checkout.push();
  const v1 = await imageAt(device, 1);
  await device.report({ owner: { release: 'v1', imageId: v1.id, container: 'c' } });

  // Nothing in common, and so little of it that the delta's own header does not pay.
  await checkout.commit({ Dockerfile: 'FROM scratch\nCOPY b /\n', b: '' });
  const left = await checkout.push();
  expect(left.status).toBe(0);
  const v2 = await imageAt(device, 2);
  expect(left.text).toMatch(/delta v1 -> v2: left out, \d+ B is not smaller/);
  expect(v2.deltas).toEqual([]);

  // The disk forgot a layer of v1, so nothing can be made from it.
  const digest = v1.layers[0]?.blob.digest.slice('sha256:'.length) ?? '';
  const path = join(hub.directory, 'blobs', 'sha256', digest.slice(0, 2), digest);
  await writeFile(path, Buffer.alloc((await readFile(path)).length, 1));
  await checkout.commit({ b: Buffer.concat([random, Buffer.from('more')]) });
  const failed = await checkout.push();
  expect(failed.status).toBe(0);
  expect(failed.text).toMatch(/delta v1 -> v3: failed, devices will fetch layers instead \(.+\)/);
  expect(hub.logged.some((line) => line.msg === 'no delta')).toBe(true);
  const v3 = await imageAt(device, 3);
  expect(v3.deltas.filter((delta) => delta.basis === v1.id)).toEqual([]);
  expect(v1.id).not.toBe(v3.id);

  // The next build that has that layer finds it spoilt, and puts it right.
  await checkout.commit({ Dockerfile });
  expect((await checkout.push()).status).toBe(0);
  const v4 = await imageAt(device, 4);
  expect(v4.layers[0]).toEqual(v1.layers[0]);
  for (const layer of v4.layers) {
    const tar = zstdDecompressSync(await blob(hub, layer.blob.digest));
    expect(`sha256:${createHash('sha256').update(tar).digest('hex')}`).toBe(layer.diffId);
  }
});

test('a push reads no layer that an earlier one read, and makes what it cannot read of surveys anew', async () => {
  const hub = await testHub(cleanup, testEngine());
  const device = await Device.connect(cleanup, hub, 'drone-1');
  const checkout = await Checkout.create(cleanup, `${hub.url}/git/hover.git`);
  const surveys = async () =>
    (await readdir(join(hub.directory, 'blobs', 'surveys'), { recursive: true })).filter((name) =>
      /[0-9a-f]{64}$/.test(name),
    );
  const push = async (at: number, files: Record<string, string | null>): Promise<Image> => {
    await checkout.commit(files);
    expect(await checkout.push()).toMatchObject({ status: 0 });
    return imageAt(device, at);
  };
  const fixed = randomBytes(50_000).toString('hex');
  const v1 = await push(1, { Dockerfile, fixed, 'app/program': `${program}one` });
  const v2 = await push(2, { 'app/program': `${program}two` });
  const ids = [...v1.layers, ...v2.layers].map(({ diffId }) => diffId.slice('sha256:'.length));
  expect((await surveys()).map((name) => basename(name)).sort()).toEqual([...new Set(ids)].sort());

  // The base is spoilt, and is not read; all that is known of it is in its survey.
  const base = v2.layers[0] as Layer;
  const blobPath = join(hub.directory, 'blobs', base.blob.digest.replace(/:(..)/, '/$1/$1'));
  const whole = await readFile(blobPath);
  await writeFile(blobPath, Buffer.alloc(whole.length, 1));
  await checkout.commit({ Dockerfile: 'FROM scratch\nCOPY app /app/\n', 'app/program': `${program}three` });
  const third = await checkout.push();
  expect(third.text).toMatch(/delta v2 -> v3: [\d.]+ k?B /);
  await writeFile(blobPath, whole);

  for (const name of await surveys()) await writeFile(join(hub.directory, 'blobs', 'surveys', name), 'x');
  const v4 = await push(4, { 'app/program': `${program}four` });
  expect(v4.deltas).toHaveLength(1);
  expect(await rebuild(hub, await imageAt(device, 3), v4)).toHaveLength(1);
  const [name = ''] = (await surveys()).filter((one) => one.endsWith(v4.layers[0]?.diffId.slice(-64) ?? ''));
  const { size } = await stat(join(hub.directory, 'blobs', 'surveys', name));
  expect(size).toBeGreaterThan(1_000);
});

test('the broker answers while a delta is made', async () => {
  const hub = await testHub(cleanup, testEngine());
  const device = await Device.connect(cleanup, hub, 'drone-1');
  const checkout = await Checkout.create(cleanup, `${hub.url}/git/hover.git`);
  const large = randomBytes(4 * 1024 ** 2);
  await checkout.commit({ Dockerfile, fixed: 'x', 'app/program': large });
  await checkout.push();
  large.write('changed', 1_000_000);
  await checkout.commit({ 'app/program': large });
  const push = checkout.startPush('main');
  let slowestMs = 0;
  let sequence = 0;
  let ended = false;
  void push.done.then(() => {
    ended = true;
  });
  while (!ended) {
    const startMs = performance.now();
    await device.report({ sequence: ++sequence });
    slowestMs = Math.max(slowestMs, performance.now() - startMs);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  expect(push.text()).toMatch(/delta v1 -> v2: \d/);
  expect(sequence).toBeGreaterThan(10);
  // A loop that encoded by itself would stand still for the seconds that it takes.
  expect(slowestMs).toBeLessThan(1_000);
});
