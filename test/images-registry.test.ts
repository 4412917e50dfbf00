/** The registry on loopback as a client sees it, and the choice of what to fetch. No engine here. */

import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import {
  candidates,
  figuresOf,
  type Held,
  type Plan,
  plans,
  planText,
  withoutDeltas,
} from '#agent/images/plan.ts';
import {
  openRegistry,
  type Registry,
  type RegistryOptions,
  type ServedLayer,
} from '#agent/images/registry.ts';
import type { Blob, Image } from '#fleet/protocol.ts';
import { noise, sha256, until } from '#test/images-lab.ts';

const BYTES = noise('layer', 200_000);
const CONFIG = Buffer.from('{"rootfs":{}}');
const layerOf = (bytes: Uint8Array, open?: ServedLayer['open']): ServedLayer => ({
  diffId: sha256(bytes),
  bytes: bytes.byteLength,
  open:
    open ??
    async function* () {
      for (let at = 0; at < bytes.byteLength; at += 50_000) yield bytes.subarray(at, at + 50_000);
    },
});

let registry: Registry | undefined;
afterEach(async () => {
  await registry?.close();
  registry = undefined;
});

async function serve(layers: ServedLayer[], more: Partial<RegistryOptions> = {}) {
  registry = await openRegistry({
    name: 'midair-0/app',
    configDigest: sha256(CONFIG),
    config: CONFIG,
    layers,
    ...more,
  });
  const root = `http://${registry.repository.replace('/midair-0/app', '')}/v2`;
  const get = (path: string, method = 'GET') => fetch(`${root}${path}`, { method });
  return {
    registry,
    get,
    blob: (digest: string, method?: string) => get(`/midair-0/app/blobs/${digest}`, method),
  };
}

describe('the registry', () => {
  test('serves a manifest that names config and uncompressed layers, by its digest alone', async () => {
    const layer = layerOf(BYTES);
    const {
      registry: { digest, repository },
      get,
    } = await serve([layer, layer]);
    expect(repository).toMatch(/^127\.0\.0\.1:\d+\/midair-0\/app$/);
    const answer = await get(`/midair-0/app/manifests/${digest}`);
    const text = await answer.text();
    expect(sha256(Buffer.from(text))).toBe(digest);
    expect(answer.headers.get('docker-content-digest')).toBe(digest);
    expect(answer.headers.get('content-type')).toBe('application/vnd.docker.distribution.manifest.v2+json');
    const served = {
      mediaType: 'application/vnd.docker.image.rootfs.diff.tar',
      size: 200_000,
      digest: layer.diffId,
    };
    expect(JSON.parse(text)).toMatchObject({
      schemaVersion: 2,
      config: { digest: sha256(CONFIG), size: CONFIG.length },
      layers: [served, served],
    });
    expect((await get('/midair-0/app/manifests/latest')).status).toBe(404);
  });

  test('serves config and layers, as often as asked, and says their length to HEAD', async () => {
    let served = 0;
    const layer = layerOf(BYTES);
    const { blob, get } = await serve([layer], { onServed: (bytes) => (served += bytes) });
    expect((await get('/')).status).toBe(200);
    expect(Buffer.from(await (await blob(sha256(CONFIG))).arrayBuffer()).equals(CONFIG)).toBe(true);
    for (const _ of [1, 2]) {
      expect(Buffer.from(await (await blob(layer.diffId)).arrayBuffer()).equals(BYTES)).toBe(true);
    }
    expect(served).toBe(400_000);
    const head = await blob(layer.diffId, 'HEAD');
    expect(head.headers.get('content-length')).toBe('200000');
    expect(head.headers.get('accept-ranges')).toBe('none');
    expect(await head.text()).toBe('');
    expect(served).toBe(400_000);
  });

  test.each([
    ['another repository', '/other/app/manifests/x', 'GET', 404],
    ['a blob of none of its layers', `/midair-0/app/blobs/sha256:${'0'.repeat(64)}`, 'GET', 404],
    ['a path outside', '/../etc/passwd', 'GET', 404],
    ['an upload', '/midair-0/app/blobs/uploads/', 'POST', 405],
    ['a removal', '/midair-0/app/manifests/x', 'DELETE', 405],
  ])('refuses %s', async (_what, path, method, status) => {
    const { get } = await serve([layerOf(BYTES)]);
    const answer = await get(path, method);
    expect(answer.status).toBe(status);
    expect(await answer.json()).toHaveProperty('errors');
  });

  test('answers a TLS greeting by hanging up, so that the client falls back', async () => {
    const {
      registry: { repository },
    } = await serve([]);
    const socket = connect(Number(/:(\d+)/.exec(repository)?.[1]), '127.0.0.1');
    socket.write(Buffer.from('160301020001', 'hex'));
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => void chunks.push(chunk));
    await once(socket, 'close');
    expect(chunks).toEqual([]);
  });

  test.each([
    ['fails', new Error('the disk broke'), 100_000],
    ['ends early', undefined, 100_000],
    ['goes on for too long', undefined, 200_001],
  ])(
    'breaks off a layer whose source %s, keeps the cause, and serves no layer any more',
    async (_what, cause, bytes) => {
      const causes: unknown[] = [];
      const good = layerOf(Buffer.from('good'));
      const bad = layerOf(BYTES, async function* () {
        yield Buffer.alloc(bytes);
        if (cause) throw cause;
      });
      const { registry, blob } = await serve([bad, good], { onFailure: (each) => causes.push(each) });
      await expect(blob(bad.diffId).then((answer) => answer.arrayBuffer())).rejects.toThrow(
        /terminated|fetch failed/,
      );
      await until('the failure is known', () => registry.failure() !== undefined);
      expect(causes).toHaveLength(1);
      if (cause) expect(causes).toEqual([cause]);
      else expect(causes[0]).toMatchObject({ code: 'WRONG_IMAGE' });
      expect(registry.failure()?.cause).toBe(causes[0]);
      expect((await blob(good.diffId)).status).toBe(404);
    },
  );

  test('does not read ahead of a slow client, and lets the source go when the client leaves', async () => {
    let given = 0;
    let ended = false;
    const large = 64 * 1024 * 1024;
    const layer: ServedLayer = {
      diffId: sha256(BYTES),
      bytes: large,
      async *open() {
        try {
          for (; given < large; given += 65_536) yield Buffer.alloc(65_536);
        } finally {
          ended = true;
        }
      },
    };
    const { registry } = await serve([layer]);
    const [, port] = /:(\d+)/.exec(registry.repository) ?? [];
    const socket = connect(Number(port), '127.0.0.1');
    socket.pause();
    socket.write(`GET /v2/midair-0/app/blobs/${layer.diffId} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await until('some was given', () => given > 0);
    let before = -1;
    await until('it stands still', async () => {
      before = given;
      await new Promise((done) => setTimeout(done, 100));
      return given === before;
    });
    // What the kernel's socket buffers hold is a few MiB.
    expect(given).toBeLessThan(large / 4);
    socket.destroy();
    await until('the source was let go', () => ended);
    expect(registry.failure()).toBeUndefined();
  });
});

describe('the choice', () => {
  const digest = (name: string) => sha256(Buffer.from(name));
  const blob = (name: string, bytes: number): Blob => ({ digest: digest(`blob ${name}`), bytes });
  const layer = (name: string, bytes = 1_000) => ({
    diffId: digest(name),
    bytes: bytes * 3,
    blob: blob(name, bytes),
  });
  const held = (name: string, ...layers: string[]): Held => ({
    id: digest(name),
    diffIds: layers.map(digest),
  });
  const image: Image = {
    id: digest('v2'),
    config: blob('config', 10),
    layers: [layer('base', 5_000), layer('lib'), layer('app')],
    deltas: [
      { basis: digest('v1'), blob: blob('from v1', 100) },
      { basis: digest('v0'), blob: blob('from v0', 300) },
      { basis: digest('vX'), blob: blob('from vX', 5) },
    ],
  };
  const choose = (engine: Held[], onDisk: Record<string, number> = {}) => {
    const have = new Map(Object.entries(onDisk).map(([name, bytes]) => [digest(`blob ${name}`), bytes]));
    return plans(image, engine, (each) => have.get(each.digest) ?? 0).map(({ as, legs, remainingBytes }) => ({
      as,
      basis: legs[0]?.delta?.basis,
      remainingBytes,
      lacking: legs.at(-1)?.lacking.length,
    }));
  };
  const layers = (remainingBytes: number, lacking: number) => ({
    as: 'layers',
    basis: undefined,
    remainingBytes,
    lacking,
  });
  const delta = (name: string, remainingBytes: number, lacking: number) => ({
    as: 'delta',
    basis: digest(name),
    remainingBytes,
    lacking,
  });

  test('on an empty engine is everything', () => {
    expect(choose([])).toEqual([layers(7_010, 3)]);
  });
  test('is the smallest delta whose basis is there, and whole layers after it', () => {
    expect(choose([held('v0', 'base', 'old')])).toEqual([delta('v0', 310, 2), layers(2_010, 2)]);
    expect(choose([held('v0', 'base'), held('v1', 'base')])).toEqual([delta('v1', 110, 2), layers(2_010, 2)]);
  });
  test('is whole layers where they are smaller, counting what is on the disk already', () => {
    expect(choose([held('v1', 'base', 'lib')], { app: 950 })).toEqual([layers(60, 1)]);
    expect(choose([held('v1', 'base', 'lib')], { app: 950, 'from v1': 90 })[0]).toEqual(delta('v1', 20, 1));
  });
  test('takes no layer over the air that some image holds, on whatever other layers', () => {
    expect(choose([held('other', 'lib', 'app')])).toEqual([layers(5_010, 3)]);
    expect(choose([held('v1', 'base', 'app', 'lib')])).toEqual([layers(10, 2)]);
  });

  describe('with images on the way', () => {
    const bridge = (name: string, basis: string, bytes: number) => ({
      id: digest(name),
      config: blob(`config ${name}`, 10),
      layers: [layer('base', 5_000), layer(`app ${name}`)],
      deltas: [
        {
          basis: digest(basis),
          blob: blob(`${basis} to ${name}`, bytes),
          cost: { outputBytes: 3_000, cpuMs: bytes, memoryBytes: bytes * 10 },
        },
      ],
    });
    const far: Image = {
      ...image,
      deltas: [
        {
          basis: digest('v1'),
          blob: blob('from v1', 100),
          cost: { outputBytes: 3_000, cpuMs: 7, memoryBytes: 70 },
        },
      ],
      bridges: [bridge('v1', 'v0', 200), bridge('v0', 'vA', 300)],
    };
    const rows = (target: Image, engine: Held[], onDisk = 0) =>
      candidates(target, engine, (each) => (each.digest === digest('blob vA to v0') ? onDisk : 0)).map(
        (plan) => [plan.as, plan.legs.map((leg) => leg.delta?.basis), plan.remainingBytes],
      );
    const row = (names: string[], bytes: number) => ['delta', names.map(digest), bytes];

    test('goes over them where that is smaller than whole layers, in order, and says so', () => {
      expect(rows(far, [held('vA', 'base')])).toEqual([
        row(['vA', 'v0', 'v1'], 630),
        ['layers', [undefined], 2_010],
      ]);
      expect(rows(far, [held('v0', 'base')])[0]).toEqual(row(['v0', 'v1'], 320));
      const [plan] = candidates(far, [held('vA', 'base')], () => 0);
      expect(plan?.blobs.map(({ bytes }) => bytes)).toEqual([10, 300, 10, 200, 10, 100]);
      expect(figuresOf(plan as Plan)).toEqual({
        as: 'delta',
        from: [digest('vA'), digest('v0'), digest('v1')],
        bytes: 630,
        outputBytes: 3_000 * 4,
        cpuMs: 507,
        memoryBytes: 3_000,
      });
      expect(planText(plan as Plan)).toMatch(/by 3 deltas in a row from .*0\.5 s of a core/);
    });
    test('goes straight where there is a delta, or they are no help', () => {
      expect(rows(far, [held('v1', 'base')])).toEqual([row(['v1'], 110), ['layers', [undefined], 2_010]]);
      expect(rows(far, [held('vB', 'base')])).toEqual([['layers', [undefined], 2_010]]);
      // A direct one that is the larger gives way to two that are smaller.
      const direct = { ...far, deltas: [...far.deltas, { basis: digest('v0'), blob: blob('from v0', 900) }] };
      expect(rows(direct, [held('v0', 'base')]).map(([, , bytes]) => bytes)).toEqual([320, 910, 2_010]);
    });
    test('counts what is on the disk, and is not led in circles', () => {
      expect(rows(far, [held('vA', 'base')], 290)[0]).toEqual(row(['vA', 'v0', 'v1'], 340));
      const circle = { ...far, bridges: [bridge('v1', 'v0', 200), bridge('v0', 'v1', 1)] };
      expect(rows(circle, [held('vA', 'base')])).toEqual([['layers', [undefined], 2_010]]);
    });
    test('leaves out what failed before, also on the way', () => {
      const left = withoutDeltas(far, new Set([digest('blob v0 to v1')]));
      expect(rows(left, [held('vA', 'base')])).toEqual([['layers', [undefined], 2_010]]);
      expect(far.bridges?.[0]?.deltas).toHaveLength(1);
    });
  });
});
