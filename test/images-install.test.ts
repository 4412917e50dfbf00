/** Images brought onto a real engine from a hub on loopback: whole, by delta, interrupted, and out of bad bytes. */
import { execFileSync, fork } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createImages, type Images, type ImagesOptions, type InstallOptions } from '#agent/images/index.ts';
import { VIA } from '#agent/images/inventory.ts';
import { standBack } from '#agent/patching.ts';
import { memoryAccess, openDelta } from '#deltas/index.ts';
import type { Image } from '#fleet/protocol.ts';
import {
  addDelta,
  type Hub,
  inFront,
  type Lab,
  noise,
  openHub,
  openLab,
  quiet,
  until,
} from '#test/images-lab.ts';

let lab: Lab;
let hub: Hub;
let directory: string;
let events: string[];
let planned: Record<string, unknown>[];
const open: Images[] = [];

beforeAll(async () => {
  lab = await openLab(process.env.MIDAIR_TEST_ENGINE ?? process.env.DOCKER_HOST);
});
afterAll(() => lab?.close());
beforeEach(async () => {
  hub = await openHub();
  directory = mkdtempSync(join(lab.directory, 'images-'));
  events = [];
  planned = [];
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((images) => images.close()));
  if (versions) for (const { id } of [(await versions).v1, (await versions).v2]) await lab.removeImage(id);
  if (third) await lab.removeImage((await third).v3.id);
  await hub.close();
});

async function openImages(more: Partial<ImagesOptions> = {}): Promise<Images> {
  const images = await createImages({
    engine: lab.docker,
    hubUrl: hub.url,
    directory,
    log: quiet,
    standBack: inFront,
    ...more,
  });
  open.push(images);
  return images;
}
const how = (more: Partial<InstallOptions> = {}): InstallOptions => ({
  app: lab.name,
  signal: new AbortController().signal,
  onEvent: (type, text, data) =>
    void (type === 'update.planned' ? planned.push(data) : events.push(`${type}: ${text}`)),
  ...more,
});
const inspect = (id: string) => lab.docker.getImage(id).inspect();
const isThere = (id: string) =>
  inspect(id).then(
    () => true,
    () => false,
  );
const downloads = () => readdirSync(join(directory, 'downloads'));
const leftContainers = () => {
  const label = `io.midair.images.${readFileSync(join(directory, 'instance'), 'utf8')}`;
  return lab.docker.listContainers({ all: true, filters: { label: [label] } });
};

/** Two builds of an app on a common base, taken off the engine as a hub does; made once, put at each test's hub. */
async function twoVersions(): Promise<{ v1: Image; v2: Image }> {
  versions ??= (async () => {
    const base = { program: lab.program, 'lib/shared.so': noise('base', 400_000) };
    const code = noise('code', 300_000);
    const changed = Buffer.concat([code.subarray(0, 100_000), noise('new', 500), code.subarray(100_000)]);
    const many = Array.from({ length: 100 }, (_, index): [string, string] => {
      const name = noise(`name ${index}`, 24).toString('hex');
      return [`app/modules/${name}.js`, `export const n = ${index};`];
    });
    const one = {
      ...Object.fromEntries(many),
      'app/main.js': code,
      'app/unchanged.js': noise('same', 200_000),
      'app/name': 'one',
    };
    const ids = [
      await lab.build([base, one]),
      await lab.build([base, { ...one, 'app/main.js': changed, 'app/name': 'two' }]),
    ] as const;
    const [v1, v2] = [await lab.take(ids[0], hub), await lab.take(ids[1], hub)];
    for (const id of ids) await lab.removeImage(id);
    const blobs = [v1, v2].flatMap(({ config, layers }) => [config, ...layers.map(({ blob }) => blob)]);
    return { v1, v2, bytes: blobs.map(({ digest }) => hub.get(digest)) };
  })();
  const { v1, v2, bytes } = await versions;
  for (const each of bytes) hub.add(each);
  return { v1, v2 };
}
/** The delta between them at the hub; made once. */
async function withDelta(listing: 'auto' | 'never' = 'never'): Promise<{ v1: Image; target: Image }> {
  const { v1, v2 } = await twoVersions();
  let made = deltas.get(listing);
  if (!made) {
    made = hub.get((await addDelta(v1, v2, hub, lab, listing)).deltas[0]?.blob.digest ?? '');
    deltas.set(listing, made);
  }
  return { v1, target: { ...v2, deltas: [{ basis: v1.id, blob: hub.add(made) }] } };
}
/** A third version, with deltas from the first to the second and from that to the third, and none straight. */
async function inARow(): Promise<{ v1: Image; v2: Image; target: Image }> {
  const { v1, target: v2 } = await withDelta();
  third ??= (async () => {
    const base = { program: lab.program, 'lib/shared.so': noise('base', 400_000) };
    const id = await lab.build([
      base,
      {
        'app/main.js': noise('code', 300_000),
        'app/unchanged.js': noise('same', 200_000),
        'app/name': 'three',
      },
    ]);
    const taken = await lab.take(id, hub);
    await lab.removeImage(id);
    const v3 = await addDelta(v2, taken, hub, lab);
    const blobs = [v3.config, ...v3.layers.map(({ blob }) => blob), ...v3.deltas.map(({ blob }) => blob)];
    return { v3, bytes: blobs.map(({ digest }) => hub.get(digest)) };
  })();
  const { v3, bytes } = await third;
  for (const each of bytes) hub.add(each);
  return { v1, v2, target: { ...v3, bridges: [v2] } };
}
let third: Promise<{ v3: Image; bytes: Buffer[] }> | undefined;
const deltas = new Map<string, Buffer>();
let versions: Promise<{ v1: Image; v2: Image; bytes: Buffer[] }> | undefined;

describe('whole layers', () => {
  test('give exactly the image that was built, under our name alone, and nothing is left on the disk', async () => {
    const { v1 } = await twoVersions();
    const images = await openImages();
    expect(await isThere(v1.id)).toBe(false);
    const progress: string[] = [];
    const fetched = await images.install(
      v1,
      how({ release: 'v1', onProgress: (done, all, stage) => void progress.push(`${stage} ${done}/${all}`) }),
    );
    const bytes = v1.config.bytes + v1.layers.reduce((sum, { blob }) => sum + blob.bytes, 0);
    expect(fetched).toEqual({ as: 'layers', bytes });
    expect(hub.sentAll()).toBe(bytes);
    const found = await inspect(v1.id);
    expect(found.Id).toBe(v1.id);
    expect(found.RootFS.Layers).toEqual(v1.layers.map(({ diffId }) => diffId));
    expect(found.RepoTags).toEqual([`midair/${lab.name}:v1-${v1.id.slice(7, 19)}`]);
    expect(found.RepoDigests ?? []).toEqual([]);
    expect(await images.list()).toContain(v1.id);
    expect(downloads()).toEqual([]);
    expect(progress[0]).toBe(`fetch 0/${bytes}`);
    expect(progress).toContain(`fetch ${bytes}/${bytes}`);
    const layerBytes = v1.layers.reduce((sum, layer) => sum + layer.bytes, 0);
    expect(progress.at(-1)).toBe(`pull ${layerBytes}/${layerBytes}`);
    // And the image runs.
    const container = await lab.docker.createContainer({ Image: v1.id, Labels: { [lab.name]: '' } });
    await container.start();
    await container.remove({ force: true });
  });

  test('are not fetched when the image is there, nor those that another image shares', async () => {
    const { v1, v2 } = await twoVersions();
    const images = await openImages();
    await images.install(v1, how());
    expect(await images.install(v1, how())).toEqual({ as: 'nothing', bytes: 0 });
    const before = hub.sentAll();
    const fetched = await images.install(v2, how());
    expect(fetched).toEqual({ as: 'layers', bytes: v2.config.bytes + (v2.layers[1]?.blob.bytes ?? 0) });
    expect(hub.sentAll() - before).toBe(fetched.bytes);
    expect((await inspect(v2.id)).Id).toBe(v2.id);
  });

  test('that the engine holds, but never pulled, or on other layers, come from the engine itself', async () => {
    const common = { 'common.bin': noise('common', 150_000) };
    const localId = await lab.build([{ 'a.txt': 'a' }, common]);
    const targetId = await lab.build([{ 'b.txt': 'b' }, common]);
    const target = await lab.take(targetId, hub);
    await lab.removeImage(targetId);
    const images = await openImages();
    const fetched = await images.install(target, how());
    expect(fetched).toEqual({
      as: 'layers',
      bytes: target.config.bytes + (target.layers[0]?.blob.bytes ?? 0),
    });
    expect((await inspect(target.id)).Id).toBe(target.id);
    expect(await isThere(localId)).toBe(true);
  });

  test('come on two installs at once one after the other', async () => {
    const { v1, v2 } = await twoVersions();
    const images = await openImages();
    await Promise.all([images.install(v1, how()), images.install(v2, how())]);
    expect(await isThere(v1.id)).toBe(true);
    expect(await isThere(v2.id)).toBe(true);
    expect(hub.sentBytes.get(v1.layers[0]?.blob.digest ?? '')).toBe(v1.layers[0]?.blob.bytes);
  });
});

describe('a delta', () => {
  test.each([
    ['overlay', 'never'],
    ['export', 'never'],
    ['overlay', 'auto'],
    ['export', 'auto'],
  ] as const)('from a basis read by %s (listing: %s) gives exactly the image', async (basis, listing) => {
    const { v1, target } = await withDelta(listing);
    const reader = await openDelta(memoryAccess(hub.get(target.deltas[0]?.blob.digest ?? '')));
    expect(reader.needsList).toBe(listing === 'auto');
    const images = await openImages({ basis });
    await images.install(v1, how());
    const before = hub.sentAll();
    const fetched = await images.install(target, how());
    const deltaBytes = target.deltas[0]?.blob.bytes ?? 0;
    expect(events).toEqual([]);
    expect(fetched).toEqual({ as: 'delta', bytes: target.config.bytes + deltaBytes });
    expect(hub.sentAll() - before).toBe(fetched.bytes);
    expect(deltaBytes).toBeLessThan((target.layers[1]?.blob.bytes ?? 0) / 20);
    // It was said before, with what else there was.
    expect(planned.at(-1)).toMatchObject({ as: 'delta', from: [v1.id], bytes: fetched.bytes });
    expect(planned.at(-1)?.candidates).toMatchObject([{ as: 'delta' }, { as: 'layers' }]);
    expect((await inspect(target.id)).Id).toBe(target.id);
    expect(await leftContainers()).toEqual([]);
    expect(existsSync(join(directory, 'spool'))).toBe(false);
  });

  test.each([
    ['a file that is patched', 'app/main.js'],
    ['a file that is copied', 'app/unchanged.js'],
  ])(
    'whose basis was changed by hand, in %s, is noticed, and whole layers come instead',
    async (_what, path) => {
      const { v1, target } = await withDelta();
      const images = await openImages({ basis: 'overlay' });
      await images.install(v1, how());
      const { UpperDir = '' } = ((await inspect(v1.id)).GraphDriver.Data ?? {}) as { UpperDir?: string };
      const file = join(UpperDir, path);
      const bytes = readFileSync(file);
      bytes[1_000] = (bytes[1_000] ?? 0) ^ 1;
      writeFileSync(file, bytes);
      expect(await images.install(target, how())).toMatchObject({ as: 'layers' });
      expect(events).toEqual([expect.stringMatching(/^image\.delta-failed: .*the basis.*whole layers/)]);
      expect((await inspect(target.id)).Id).toBe(target.id);
    },
  );

  test('is not used without its basis, nor when it is larger than the layers', async () => {
    const { v1, target } = await withDelta();
    const images = await openImages();
    expect(await images.install(target, how())).toMatchObject({ as: 'layers' });
    await images.remove(target.id);
    await images.install(v1, how());
    const [delta] = target.deltas;
    if (!delta) throw new Error('no delta');
    const large = { ...target, deltas: [{ ...delta, blob: { ...delta.blob, bytes: 10 ** 9 } }] };
    expect(await images.install(large, how())).toMatchObject({ as: 'layers' });
  });

  test.each([
    ['damaged at the hub', (target: Image) => hub.fault({ do: 'flip' }, 2, target.deltas[0]?.blob.digest)],
    ['gone from the hub', (target: Image) => hub.drop(target.deltas[0]?.blob.digest ?? '')],
  ])('%s gives way to whole layers, and says so', async (_what, harm) => {
    const { v1, target } = await withDelta();
    const images = await openImages();
    await images.install(v1, how());
    harm(target);
    expect(await images.install(target, how())).toMatchObject({ as: 'layers' });
    expect(events).toEqual([expect.stringMatching(/^image\.delta-failed: .*whole layers/)]);
    expect((await inspect(target.id)).Id).toBe(target.id);
  });

  test('of nonsense, of another image, or damaged inside, gives way too', async () => {
    const { v1, target: v2 } = await withDelta();
    const bytes = hub.get(v2.deltas[0]?.blob.digest ?? '');
    const damaged = Buffer.from(bytes);
    damaged[Math.floor(bytes.length * 0.9)] = (damaged[Math.floor(bytes.length * 0.9)] ?? 0) ^ 0x55;
    const other = await addDelta(v2, v1, hub, lab);
    const bad = [noise('nonsense', 2_000), damaged, bytes.subarray(0, bytes.length - 7), new Uint8Array()];
    const images = await openImages();
    await images.install(v1, how());
    for (const blob of [...bad.map((each) => hub.add(each)), other.deltas[0]?.blob]) {
      if (!blob) throw new Error('no delta');
      events = [];
      const target = { ...v2, deltas: [{ basis: v1.id, blob }] };
      expect(await images.install(target, how())).toMatchObject({ as: 'layers' });
      expect(events).toHaveLength(1);
      expect((await inspect(target.id)).Id).toBe(target.id);
      await images.remove(target.id);
    }
    expect(await leftContainers()).toEqual([]);
  });

  test('and another after it bring a device over an image that is gone again at the end', async () => {
    const { v1, v2, target } = await inARow();
    const images = await openImages();
    await images.install(v1, how());
    const before = hub.sentAll();
    const fetched = await images.install(target, how());
    const bytes = [v2.config, v2.deltas[0]?.blob, target.config, target.deltas[0]?.blob].reduce(
      (sum, blob) => sum + (blob?.bytes ?? 0),
      0,
    );
    expect(events).toEqual([]);
    expect(planned.at(-1)).toMatchObject({ as: 'delta', from: [v1.id, v2.id], bytes });
    expect(fetched).toEqual({ as: 'delta', bytes });
    expect(hub.sentAll() - before).toBe(bytes);
    expect((await inspect(target.id)).Id).toBe(target.id);
    expect(await isThere(v2.id)).toBe(false);
    expect(downloads()).toEqual([]);
    expect(await leftContainers()).toEqual([]);
  });

  test('in a row that fails in its second gives way to whole layers, and leaves nothing on the way', async () => {
    const { v1, v2, target } = await inARow();
    const images = await openImages();
    await images.install(v1, how());
    const blob = hub.add(noise('nonsense', 2_000));
    const bad = { ...target, deltas: [{ basis: v2.id, blob }] };
    expect(await images.install(bad, how())).toMatchObject({ as: 'layers' });
    expect(events).toEqual([expect.stringMatching(/^image\.delta-failed: .*whole layers/)]);
    expect((await inspect(target.id)).Id).toBe(target.id);
    expect(await isThere(v2.id)).toBe(false);
  });

  test('that failed by its own fault is not fetched a second time', async () => {
    const { v1, v2 } = await twoVersions();
    const blob = hub.add(noise('nonsense', 2_000));
    const target = { ...v2, deltas: [{ basis: v1.id, blob }] };
    const images = await openImages();
    await images.install(v1, how());
    hub.fault({ do: 'status', status: 403 }, 1, v2.layers[1]?.blob.digest);
    await expect(images.install(target, how())).rejects.toMatchObject({ code: 'HUB_REFUSED' });
    expect(await images.install(target, how())).toMatchObject({ as: 'layers' });
    expect(hub.requests.filter(({ digest }) => digest === blob.digest)).toHaveLength(1);
  });
});

describe('what cannot be installed', () => {
  test('because the hub is away, says so, and leaves the engine as it was', async () => {
    const { v1 } = await twoVersions();
    const images = await openImages({ hubUrl: 'http://127.0.0.1:9', system: impatient });
    await expect(images.install(v1, how())).rejects.toMatchObject({ code: 'HUB_UNREACHABLE' });
    expect(await isThere(v1.id)).toBe(false);
  });

  test('because a layer is corrupt, names the blob', async () => {
    const { v1 } = await twoVersions();
    hub.fault({ do: 'flip' }, 2, v1.layers[0]?.blob.digest);
    const images = await openImages();
    await expect(images.install(v1, how())).rejects.toMatchObject({ code: 'BLOB_CORRUPT' });
    // The fault was the hub's and is over.
    expect(await images.install(v1, how())).toMatchObject({ as: 'layers' });
  });

  test('because a layer blob is no such layer, gives the real cause and not the engine’s', async () => {
    const { v1, v2 } = await twoVersions();
    const [layer, ...rest] = v1.layers;
    if (!layer || !v2.layers[1]) throw new Error('no layers');
    const images = await openImages();
    const notZstd = { ...v1, layers: [{ ...layer, blob: hub.add(noise('no zstd', 5_000)) }, ...rest] };
    await expect(images.install(notZstd, how())).rejects.toMatchObject({ code: 'BLOB_CORRUPT' });
    const shorter = { ...v1, layers: [{ ...layer, blob: v2.layers[1].blob }, ...rest] };
    await expect(images.install(shorter, how())).rejects.toMatchObject({ code: 'WRONG_IMAGE' });
    const otherBytes = {
      ...v1,
      layers: [{ ...layer, blob: hub.addZstd(Buffer.alloc(layer.bytes)) }, ...rest],
    };
    await expect(images.install(otherBytes, how())).rejects.toMatchObject({ code: 'WRONG_IMAGE' });
    expect(await isThere(v1.id)).toBe(false);
    expect(await images.install(v1, how())).toMatchObject({ as: 'layers' });
  });

  test('because the target contradicts itself, is refused before the engine is asked', async () => {
    const { v1, v2 } = await twoVersions();
    const images = await openImages();
    await expect(images.install({ ...v1, layers: v2.layers }, how())).rejects.toMatchObject({
      code: 'WRONG_IMAGE',
    });
    await expect(images.install({ ...v1, config: v2.config }, how())).rejects.toMatchObject({
      code: 'WRONG_IMAGE',
    });
    await expect(images.install({ ...v1, config: hub.add(Buffer.from('{}')) }, how())).rejects.toMatchObject({
      code: 'WRONG_IMAGE',
    });
  });

  test('because the disk has no room for it, fetches nothing', async () => {
    const { v1 } = await twoVersions();
    const images = await openImages({
      system: { ...impatient, freeSpace: async () => ({ disk: 1, bytes: 1_000_000 }) },
    });
    await expect(images.install(v1, how())).rejects.toMatchObject({ code: 'DISK_FULL' });
    expect(hub.requests).toEqual([]);
  });

  test('because it is called off, in the middle of the pull too, can go on later', async () => {
    const { v1 } = await twoVersions();
    const images = await openImages();
    const abort = new AbortController();
    const calledOff = images.install(
      v1,
      how({
        signal: abort.signal,
        onProgress: (done, _all, stage) => {
          if (stage === 'pull' && done > 0) abort.abort();
        },
      }),
    );
    await expect(calledOff).rejects.toMatchObject({ code: 'ABORTED' });
    expect(downloads().length).toBeGreaterThan(0);
    expect(await images.install(v1, how())).toEqual({ as: 'layers', bytes: 0 });
    expect((await inspect(v1.id)).Id).toBe(v1.id);
  });
});

describe('a process that is killed', () => {
  test('while fetching: the next one fetches only what is missing', async () => {
    const { v1 } = await twoVersions();
    const child = fork(join(import.meta.dirname, 'images-child.ts'), [], { execArgv: [], stdio: 'inherit' });
    const last = v1.layers.at(-1)?.blob.digest ?? '';
    hub.fault({ do: 'slow', bytesPerSecond: 100_000 }, 1, last);
    child.send({ engineUrl: lab.engineUrl, hubUrl: hub.url, directory, image: v1, app: lab.name });
    await until(
      'half of the last layer is on the disk',
      () => {
        const part = join(directory, 'downloads', `${last.slice(7)}.part`);
        return existsSync(part) && readFileSync(part).length > 100_000;
      },
      120_000,
    );
    child.kill('SIGKILL');
    await once(child, 'exit');
    const images = await openImages();
    const fetched = await images.install(v1, how());
    expect(hub.sentBytes.get(v1.layers[0]?.blob.digest ?? '')).toBe(v1.layers[0]?.blob.bytes);
    expect(fetched.bytes).toBeLessThan((v1.layers.at(-1)?.blob.bytes ?? 0) - 100_000 + 1);
    expect(fetched.bytes).toBeGreaterThan(0);
    expect((await inspect(v1.id)).Id).toBe(v1.id);
  });

  test('while the engine pulls: the next one fetches nothing', async () => {
    const { v1, target } = await withDelta();
    await (await openImages()).install(v1, how());
    const child = fork(join(import.meta.dirname, 'images-child.ts'), [], { execArgv: [], stdio: 'inherit' });
    const sentBytes = hub.sentAll();
    child.send({ engineUrl: lab.engineUrl, hubUrl: hub.url, directory, image: target, app: lab.name });
    expect((await once(child, 'message'))[0]).toBe('pulling');
    child.kill('SIGKILL');
    await once(child, 'exit');
    const bytes = target.config.bytes + (target.deltas[0]?.blob.bytes ?? 0);
    expect(hub.sentAll() - sentBytes).toBe(bytes);
    const fetched = await (await openImages()).install(target, how());
    expect(fetched.bytes).toBe(0);
    expect((await inspect(target.id)).Id).toBe(target.id);
    expect(downloads()).toEqual([]);
  });

  test('between two deltas in a row: the next one goes on from there, and fetches nothing', async () => {
    const { v1, v2, target } = await inARow();
    await (await openImages()).install(v1, how());
    const child = fork(join(import.meta.dirname, 'images-child.ts'), [], { execArgv: [], stdio: 'inherit' });
    child.send({ engineUrl: lab.engineUrl, hubUrl: hub.url, directory, image: target, app: lab.name });
    await until('the image on the way is there', () => isThere(v2.id), 120_000);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const sentBytes = hub.sentAll();
    const fetched = await (await openImages()).install(target, how());
    expect(fetched.bytes).toBe(0);
    expect(hub.sentAll()).toBe(sentBytes);
    expect((await inspect(target.id)).Id).toBe(target.id);
    expect(await isThere(v2.id)).toBe(false);
    expect(downloads()).toEqual([]);
  });

  test('between two deltas in a row, and the engine ends its pull behind the next one’s start', async () => {
    const { v1, v2, target } = await inARow();
    const images = await openImages();
    await images.install(v1, how());
    await images.install({ ...v2, deltas: [] }, how());
    const [given] = (await inspect(v2.id)).RepoTags;
    const repo = `127.0.0.1:1/midair-${readFileSync(join(directory, 'instance'), 'utf8')}/${VIA}${lab.name}`;
    await lab.docker.getImage(v2.id).tag({ repo, tag: 'pulled' });
    await lab.docker.getImage(given as string).remove();
    await images.install(target, how());
    expect((await inspect(target.id)).Id).toBe(target.id);
    expect(await isThere(v2.id)).toBe(false);
  });

  test('rebuilds in a process that stands back, while the agent does not', async () => {
    const { v1 } = await twoVersions();
    const seen: { pid: number; priority: number }[] = [];
    const images = await openImages({
      standBack(pid, log) {
        const undo = standBack(pid, log);
        seen.push({ pid, priority: os.getPriority(pid) });
        // Enough was seen: under the load of other tests the rest would take long.
        os.setPriority(pid, 0);
        undo();
        return undo;
      },
    });
    await images.install(v1, how());
    expect(seen).toEqual([{ pid: expect.any(Number), priority: 19 }]);
    expect(seen[0]?.pid).not.toBe(process.pid);
    expect(existsSync(`/proc/${seen[0]?.pid}`)).toBe(false);
  });

  test('takes the process that rebuilds layers with it, and one that dies alone breaks only the attempt', async () => {
    const { v1, target } = await withDelta();
    const images = await openImages();
    await images.install(v1, how());
    const patchers = (): number[] =>
      execFileSync('ps', ['-o', 'pid=,args=', '--ppid', String(process.pid)], { encoding: 'utf8' })
        .split('\n')
        .filter((line) => line.includes('patch-process'))
        .map((line) => Number.parseInt(line, 10));
    let killed = 0;
    const fetched = await images.install(
      target,
      how({
        onProgress: (_done, _all, stage) => {
          if (stage !== 'pull' || killed > 0) return;
          for (const pid of patchers()) {
            process.kill(pid, 'SIGKILL');
            killed += 1;
          }
        },
      }),
    );
    expect(killed).toBe(1);
    expect(events).toEqual([expect.stringMatching(/^image\.delta-failed: .*rebuilds layers ended/)]);
    expect(fetched).toMatchObject({ as: 'layers' });
    expect((await inspect(target.id)).Id).toBe(target.id);
    expect(patchers()).toEqual([]);
  });

  test('leaves names, containers and spools that the next one clears', async () => {
    const { v1 } = await twoVersions();
    const images = await openImages();
    await images.install(v1, how());
    const instance = readFileSync(join(directory, 'instance'), 'utf8');
    // As after a kill between pull and naming, and in the middle of an export.
    const image = lab.docker.getImage(v1.id);
    await image.tag({ repo: `127.0.0.1:1/midair-${instance}/${lab.name}`, tag: 'x' });
    await image.tag({ repo: `127.0.0.1:1/midair-000000000000/${lab.name}`, tag: 'other' });
    await lab.docker.getImage(`midair/${lab.name}:${v1.id.slice(7, 19)}`).remove();
    await lab.docker.createContainer({
      Image: v1.id,
      Labels: { [`io.midair.images.${instance}`]: '', [lab.name]: '' },
    });
    mkdirSync(join(directory, 'spool'));
    writeFileSync(join(directory, 'spool/basis'), 'x');
    await openImages();
    expect((await inspect(v1.id)).RepoTags?.toSorted()).toEqual([
      `127.0.0.1:1/midair-000000000000/${lab.name}:other`,
      `midair/${lab.name}:${v1.id.slice(7, 19)}`,
    ]);
    expect(await leftContainers()).toEqual([]);
    expect(existsSync(join(directory, 'spool'))).toBe(false);
  });
});

describe('removing', () => {
  test('never takes an image that a container uses, stopped or not', async () => {
    const { v1 } = await twoVersions();
    const images = await openImages();
    await images.install(v1, how());
    const container = await lab.docker.createContainer({ Image: v1.id, Labels: { [lab.name]: '' } });
    await expect(images.remove(v1.id)).rejects.toMatchObject({ code: 'IN_USE' });
    expect((await inspect(v1.id)).RepoTags).toHaveLength(1);
    await container.remove();
    await images.remove(v1.id);
    expect(await isThere(v1.id)).toBe(false);
    await images.remove(v1.id);
  });

  test('leaves an image that somebody else named too', async () => {
    const { v1 } = await twoVersions();
    const images = await openImages();
    await images.install(v1, how());
    await lab.docker.getImage(v1.id).tag({ repo: lab.name, tag: 'theirs' });
    await images.remove(v1.id);
    expect((await inspect(v1.id)).RepoTags).toEqual([`${lab.name}:theirs`]);
  });
});

test('an engine that keeps images under other identities is refused, with what to do', async () => {
  const info = {
    ...((await lab.docker.info()) as object),
    DriverStatus: [['driver-type', 'io.containerd.snapshotter.v1']],
  };
  const engine = Object.assign(Object.create(lab.docker) as typeof lab.docker, { info: async () => info });
  await expect(openImages({ engine })).rejects.toMatchObject({
    code: 'ENGINE_UNSUPPORTED',
    message: expect.stringContaining('"containerd-snapshotter": false'),
  });
});

const impatient = {
  fetch,
  sleep: async () => {},
  random: () => 0,
  freeSpace: async () => undefined,
};

test('another directory is another instance', async () => {
  await openImages();
  const second = join(directory, 'second');
  await openImages({ directory: second });
  expect(readFileSync(join(second, 'instance'), 'utf8')).not.toBe(
    readFileSync(join(directory, 'instance'), 'utf8'),
  );
  rmSync(second, { recursive: true });
});
