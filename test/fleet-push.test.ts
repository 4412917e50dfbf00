/** A push, as the pusher sees it and as a device gets it. Real git, real engine (MIDAIR_TEST_ENGINE), real MQTT. */
import { createHash, randomBytes } from 'node:crypto';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync, zstdDecompressSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Image, Release } from '#fleet/protocol.ts';
import type { TargetRecord } from '#fleet/store.ts';
import {
  Checkout,
  Cleanup,
  Device,
  eventually,
  getJson,
  noEngine,
  run,
  type TestHub,
  temporaryDirectory,
  testEngine,
  testHub,
} from '#test/fleet-kit.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

const engine = testEngine();
/** On whatever these tests build, so that it is told from what others do on the same engine. */
const MARK = `midair-fleet-test=${randomBytes(6).toString('hex')}`;
const FROM_SCRATCH = `FROM scratch\nLABEL ${MARK}\n`;
const V1 = { Dockerfile: `${FROM_SCRATCH}COPY . /app/\nLABEL flies=yes\nCMD ["/app/main"]\n`, main: 'one\n' };

/** The base image that the test set-up makes; its program is what runs in a build here. */
const BASE = 'midair/node24';
const runs = (program: string) => `RUN ["node", "-e", ${JSON.stringify(program)}]\n`;
const FROM_BASE = `FROM ${BASE}\nLABEL ${MARK}\n`;
beforeAll(async () => {
  await engine.getImage(BASE).inspect();
});

const targetOf = async (hub: TestHub) =>
  (await getJson<{ target: TargetRecord }>(`${hub.url}/v1/status`)).target;
const releasesOf = async (hub: TestHub) =>
  (await getJson<{ releases: Release[] }>(`${hub.url}/v1/releases`)).releases;
const remote = (hub: TestHub, app = 'hover') => `${hub.url}/git/${app}.git`;
const imageOf = (target: { release: Release | null }): Image => {
  const image = target.release?.services.main?.image;
  if (!image) throw new Error('no image');
  return image;
};

async function blob(hub: TestHub, digest: string): Promise<Buffer> {
  const response = await fetch(`${hub.url}/v1/blobs/${digest}`);
  expect(response.status).toBe(200);
  const bytes = Buffer.from(await response.arrayBuffer());
  expect(sha256(bytes)).toBe(digest);
  return bytes;
}

const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Every byte that a device would fetch, checked as a device checks it. */
async function verify(hub: TestHub, image: Image): Promise<void> {
  const config = JSON.parse((await blob(hub, image.id)).toString()) as { rootfs: { diff_ids: string[] } };
  expect(image.config.digest).toBe(image.id);
  expect(config.rootfs.diff_ids).toEqual(image.layers.map((layer) => layer.diffId));
  for (const layer of image.layers) {
    const tar = zstdDecompressSync(await blob(hub, layer.blob.digest));
    expect(sha256(tar)).toBe(layer.diffId);
    expect(tar).toHaveLength(layer.bytes);
  }
}

/** Names of files in the image's last layer, as tar has them (enough of tar for these images). */
async function filesOf(hub: TestHub, image: Image): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const layer of image.layers) {
    const tar = zstdDecompressSync(await blob(hub, layer.blob.digest));
    for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
      const name = tar.toString('utf8', at, at + 100).replace(/\0.*$/s, '');
      const size = Number.parseInt(tar.toString('latin1', at + 124, at + 136), 8);
      files.set(name, tar.toString('utf8', at + 512, at + 512 + size));
      at += 512 + Math.ceil(size / 512) * 512;
    }
  }
  return files;
}

/** What is left on the engine of these tests' builds. */
const leftOnEngine = () => engine.listImages({ all: true, filters: { label: [MARK] } });

describe('a good push', () => {
  test('is built, told, stored whole, and becomes the target of a device that listens', async () => {
    const hub = await testHub(cleanup, engine);
    const device = await Device.connect(cleanup, hub, 'drone-1');
    const checkout = await Checkout.create(cleanup, remote(hub));
    const commit = await checkout.commit(
      { ...V1, '.dockerignore': 'notes\n', notes: 'x', 'sub/a': 'y' },
      'first flight',
    );

    const push = await checkout.push();
    expect(push).toMatchObject({ status: 0 });
    for (const words of [
      `remote: hover v1 from ${commit.slice(0, 12)} "first flight", with Dockerfile`,
      'remote: Step 3/5 : COPY . /app/',
      'remote: hover v1 is the target of fleet test-fleet (generation 1): 1 device told, 1 online',
    ]) {
      expect(push.text).toContain(words);
    }
    expect(push.text).not.toContain('midair-build');

    const target = await device.target(1);
    expect(target).toMatchObject({ generation: 1, release: { id: 'v1', app: 'hover', commit } });
    expect(target.release?.services.main?.labels).toMatchObject({ flies: 'yes' });
    await verify(hub, imageOf(target));
    const files = await filesOf(hub, imageOf(target));
    expect(files.get('app/main')).toBe('one\n');
    expect(files.get('app/sub/a')).toBe('y');
    expect(files.has('app/notes')).toBe(false);

    expect(await targetOf(hub)).toMatchObject({ generation: 1, release: target.release });
    expect(await releasesOf(hub)).toEqual([target.release]);
    expect(await leftOnEngine()).toEqual([]);

    // The same commit again is nothing new, and fetching works.
    expect((await checkout.push()).text).toContain('Everything up-to-date');
    const clone = await temporaryDirectory(cleanup);
    expect(await run('git', ['clone', '--quiet', remote(hub), '.'], clone)).toMatchObject({ status: 0 });
    expect(await readdir(clone)).toContain('main');
  });

  test('of a second version keeps the layers that it shares, and takes a 5 MB file in chunks', async () => {
    const hub = await testHub(cleanup, engine);
    const device = await Device.connect(cleanup, hub, 'drone-1');
    const checkout = await Checkout.create(cleanup, remote(hub));
    const large = randomBytes(5 * 1024 ** 2);
    const Dockerfile = `${FROM_SCRATCH}COPY large /\nCOPY main /\n`;
    await checkout.commit({ Dockerfile, large, main: 'one\n' });
    // Above this size git sends its pack in chunks, without a length.
    await checkout.git('config', 'http.postBuffer', '65536');
    expect(await checkout.push()).toMatchObject({ status: 0 });
    const first = imageOf(await device.target(1));
    await verify(hub, first);

    await checkout.git('config', 'http.postBuffer', String(64 * 1024 ** 2));
    await checkout.commit({ Dockerfile: `${Dockerfile}COPY more /\n`, more: randomBytes(3 * 1024 ** 2) });
    const push = await checkout.push();
    expect(push).toMatchObject({ status: 0 });
    expect(push.text).toMatch(/hover v2 is the target/);
    const second = imageOf(await device.target(2));
    await verify(hub, second);
    expect(second.layers.slice(0, 2)).toEqual(first.layers);
    expect(second.layers).toHaveLength(3);
    expect(push.text).toMatch(/; 1 new layer stored/);
  });

  test('tells a new layer from a known one of the same length, and puts a known one right', async () => {
    const hub = await testHub(cleanup, engine);
    const checkout = await Checkout.create(cleanup, remote(hub));
    const large = () => randomBytes(2 * 1024 ** 2);
    await checkout.commit({ Dockerfile: `${FROM_SCRATCH}COPY a /\n`, a: large() });
    expect(await checkout.push()).toMatchObject({ status: 0 });
    const v1 = imageOf(await targetOf(hub));

    await checkout.commit({ Dockerfile: `${FROM_SCRATCH}COPY a /\nCOPY b /\n`, b: large() });
    const second = await checkout.push();
    expect(second.text).toContain('1 new layer stored');
    const v2 = imageOf(await targetOf(hub));
    expect(v2.layers[1]?.bytes).toBe(v1.layers[0]?.bytes);
    expect(v2.layers[0]).toEqual(v1.layers[0]);
    await verify(hub, v2);

    const digest = v1.layers[0]?.blob.digest.slice('sha256:'.length) ?? '';
    const path = join(hub.directory, 'blobs', 'sha256', digest.slice(0, 2), digest);
    await writeFile(path, Buffer.alloc(v1.layers[0]?.blob.bytes ?? 0, 1));
    await checkout.commit({ Dockerfile: `${FROM_SCRATCH}COPY a /\nCOPY b /\nCMD ["/b"]\n` });
    expect((await checkout.push()).text).toContain('1 new layer stored');
    await verify(hub, imageOf(await targetOf(hub)));
  });

  test("may be of a template, with balena's variables and a file of its own for the architecture", async () => {
    const hub = await testHub(cleanup, engine);
    const checkout = await Checkout.create(cleanup, remote(hub));
    const template =
      'FROM scratch\nCOPY . /app/\nLABEL m=%%BALENA_MACHINE_NAME%% a=%%RESIN_ARCH%% n=%%BALENA_APP_NAME%%\n';
    const commit = await checkout.commit({
      'Dockerfile.template': `${template}LABEL s=%%BALENA_SERVICE_NAME%% h=%%BALENA_RELEASE_HASH%%\n`,
      Dockerfile: 'FROM nowhere\n',
    });
    expect(await checkout.push()).toMatchObject({ status: 0 });
    const [first] = await releasesOf(hub);
    const { m = '', a = '' } = first?.services.main?.labels ?? {};
    expect(first?.services.main?.labels).toEqual({ m, a, n: 'hover', s: 'main', h: commit });
    expect([m, a].join()).toMatch(/^[a-z0-9-]+,(amd64|aarch64|armv7hf)$/);
    // The rendered file stands where its source was; nothing was added.
    const files = await filesOf(hub, imageOf({ release: first ?? null }));
    expect(files.get('app/Dockerfile.template')).toContain(`h=${commit}`);
    expect(files.get('app/Dockerfile')).toBe('FROM nowhere\n');

    await checkout.commit({
      [`Dockerfile.${a}`]: 'FROM scratch\nCOPY Dockerfile /\nLABEL which=%%BALENA_ARCH%%\n',
    });
    expect(await checkout.push()).toMatchObject({ status: 0 });
    expect((await releasesOf(hub))[0]?.services.main?.labels).toEqual({ which: a });

    await checkout.commit({
      [`Dockerfile.${a}`]: null,
      'Dockerfile.template': 'FROM scratch\nLABEL a=%%BALENA_COLOR%%\n',
    });
    const push = await checkout.push();
    expect(push.status).not.toBe(0);
    expect(push.text).toContain(
      'remote: error TEMPLATE_VARIABLE: Dockerfile.template line 2: unknown variable %%BALENA_COLOR%%',
    );
  });

  test('to another branch is kept and not built; master is built like main', async () => {
    const hub = await testHub(cleanup, engine);
    const checkout = await Checkout.create(cleanup, remote(hub));
    await checkout.commit({ 'README.md': 'no Dockerfile at all' });
    const push = await checkout.push('main:try/this');
    expect(push).toMatchObject({ status: 0 });
    expect(push.text).toContain('remote: try/this is stored and not built: only main (or master) is built');
    expect(await targetOf(hub)).toEqual({ generation: 0, release: null, changedAtMs: 0 });
    expect((await checkout.git('ls-remote', 'hub')).text).toContain('refs/heads/try/this');

    await checkout.commit(V1);
    expect(await checkout.push('main:master')).toMatchObject({ status: 0 });
    expect(await targetOf(hub)).toMatchObject({ generation: 1, release: { id: 'v1' } });
    const clone = await temporaryDirectory(cleanup);
    await run('git', ['clone', '--quiet', remote(hub), '.'], clone);
    expect(await readdir(clone)).toContain('Dockerfile');
  });
});

const BAD_PUSHES: [
  what: string,
  code: string,
  words: (string | RegExp)[],
  files: Record<string, string | null>,
][] = [
  [
    'no Dockerfile',
    'NO_DOCKERFILE',
    ['no Dockerfile and no Dockerfile.template', /next: add one .*push again/],
    { Dockerfile: null },
  ],
  [
    'only a composition',
    'COMPOSE_UNSUPPORTED',
    ['not supported yet'],
    { Dockerfile: null, 'docker-compose.yml': 'services: {}\n' },
  ],
  [
    'a step that fails',
    'BUILD_FAILED',
    [/Step 6\/6 \(RUN make\) failed: /, '/bin/sh'],
    { Dockerfile: `${V1.Dockerfile}RUN make\n` },
  ],
  [
    'a program that fails, its words shown',
    'BUILD_FAILED',
    ['remote: made', 'remote: no such part', /returned a non-zero code: 3/],
    {
      Dockerfile:
        FROM_BASE + runs('console.log("made")') + runs('console.error("no such part"); process.exit(3)'),
    },
  ],
  ['a Dockerfile that is none', 'DOCKERFILE_INVALID', ['FLY'], { Dockerfile: 'FLY\n' }],
  [
    'a base image that nobody has',
    'BASE_IMAGE_MISSING',
    [
      '127.0.0.1:1/no/such:image is not on the hub',
      /next: bring it to the hub's engine \(docker pull 127.0.0.1:1\/no\/such:image/,
    ],
    { Dockerfile: 'FROM 127.0.0.1:1/no/such:image\nCMD ["x"]\n' },
  ],
  [
    'a copy of what is not there',
    'BUILD_FAILED',
    [/Step 3\/3 \(COPY nothing \/\) failed: /],
    { Dockerfile: `${FROM_SCRATCH}COPY nothing /\n` },
  ],
];

describe('refused in the terminal, with the next step, and the target stays', () => {
  const ofAll = new Cleanup();
  let hub: TestHub;
  let checkout: Checkout;
  let good: string;
  beforeAll(async () => {
    hub = await testHub(ofAll, engine);
    checkout = await Checkout.create(ofAll, remote(hub));
    good = await checkout.commit(V1);
    const push = await checkout.push();
    if (push.status !== 0) throw new Error(push.text);
  });
  afterAll(() => ofAll.run());

  test.each(BAD_PUSHES)('%s', async (_what, code, words, files) => {
    await checkout.git('reset', '--quiet', '--hard', good);
    await checkout.commit(files);
    const push = await checkout.push();
    expect(push.status).not.toBe(0);
    expect(push.text).toContain(`remote: error ${code}: `);
    expect(push.text).toMatch(/remote: {3}next: .+/);
    expect(push.text).toContain('remote:   nothing changed: hover v1 is still the target');
    expect(push.text).toContain('[remote rejected] main -> main (pre-receive hook declined)');
    for (const word of words) expect(push.text).toMatch(word);
    expect(await targetOf(hub)).toMatchObject({ generation: 1, release: { id: 'v1' } });
    expect(await leftOnEngine()).toEqual([]);
  });

  test('and the next good push works, and gets the number', async () => {
    await checkout.commit(V1);
    expect((await checkout.push()).text).toContain(
      'hover v2 is the target of fleet test-fleet (generation 2)',
    );
  });
});

test('a branch that is built cannot be deleted; a forced older commit is a new release', async () => {
  const hub = await testHub(cleanup, engine);
  const checkout = await Checkout.create(cleanup, remote(hub));
  await checkout.commit(V1);
  await checkout.push();
  await checkout.commit({ main: 'two\n' });
  await checkout.push();
  const deletion = await checkout.push('--delete', 'main');
  expect(deletion.status).not.toBe(0);
  expect(deletion.text).toContain('error BRANCH_DELETED');
  await checkout.git('reset', '--quiet', '--hard', 'HEAD~1');
  expect((await checkout.push()).status).not.toBe(0);
  expect(await checkout.push('--force', 'main')).toMatchObject({ status: 0 });
  expect(await targetOf(hub)).toMatchObject({ generation: 3, release: { id: 'v3' } });
});

test('progress is seen while the build goes on', async () => {
  const hub = await testHub(cleanup, engine);
  const checkout = await Checkout.create(cleanup, remote(hub));
  await checkout.commit({
    Dockerfile:
      FROM_BASE +
      runs('console.log("begun"); setTimeout(() => { console.log("ended"); process.exit(1) }, 3000)'),
  });
  const push = checkout.startPush('main');
  let ended = false;
  void push.done.then(() => {
    ended = true;
  });
  await eventually('the first words', () => push.text().includes('remote: begun'));
  expect(ended).toBe(false);
  expect(push.text()).not.toContain('remote: ended');
  expect((await push.done).status).not.toBe(0);
  expect(push.text()).toContain('remote: ended');
});

test('a pusher who gives up cancels his build, and the next one has his turn', async () => {
  const hub = await testHub(cleanup, engine);
  const checkout = await Checkout.create(cleanup, remote(hub));
  await checkout.commit({
    Dockerfile: FROM_BASE + runs('console.log("begun"); setTimeout(() => {}, 60000)'),
  });
  const push = checkout.startPush('main');
  await eventually('the build', () => push.text().includes('remote: begun'));
  push.stop();
  await push.done;
  await eventually('the hub to notice', () => hub.logged.some((line) => line.code === 'PUSH_CANCELLED'));
  await checkout.commit(V1);
  expect(await checkout.push()).toMatchObject({ status: 0 });
  expect(await targetOf(hub)).toMatchObject({ generation: 1, release: { id: 'v1' } });
  const running = await engine.listContainers();
  expect(running.filter((container) => container.Command.includes('begun'))).toEqual([]);
  await eventually('the engine to be as before', async () => (await leftOnEngine()).length === 0);
});

test('pushes at once are built one after another; the one that was overtaken is told', async () => {
  const hub = await testHub(cleanup, engine);
  const slow = await Checkout.create(cleanup, remote(hub));
  await slow.commit({
    ...V1,
    Dockerfile: `${FROM_BASE}${runs('console.log("begun"); setTimeout(() => {}, 2500)')}COPY main /\n`,
  });
  const late = await Checkout.create(cleanup, remote(hub));
  await late.commit(V1, 'from elsewhere');
  const other = await Checkout.create(cleanup, remote(hub, 'other'));
  await other.commit(V1);

  const first = slow.startPush('main');
  await eventually('the first build', () => first.text().includes('remote: begun'));
  const second = late.startPush('main');
  await eventually('the second to wait', () => second.text().includes('remote: another push is being built'));
  const third = other.startPush('main');
  await eventually('the third to wait', () => third.text().includes('2 pushes ahead'));

  expect(await first.done).toMatchObject({ status: 0 });
  const overtaken = await second.done;
  expect(overtaken.status).not.toBe(0);
  expect(overtaken.text).toMatch(/error PUSH_OVERTAKEN: another push moved main to [0-9a-f]{12}/);
  const last = await third.done;
  expect(last).toMatchObject({ status: 0 });
  expect(last.text).toContain("note: the fleet's target was hover v1; it is now another app's");
  expect((await releasesOf(hub)).map((one) => `${one.app} ${one.id}`)).toEqual(['other v1', 'hover v1']);
  expect(await targetOf(hub)).toMatchObject({ generation: 2, release: { app: 'other' } });
});

test('an app name that is none, a clone of nothing, an engine that is away: each with its reason', async () => {
  const hub = await testHub(cleanup, noEngine());
  const checkout = await Checkout.create(cleanup, remote(hub));
  await checkout.commit(V1);
  for (const name of ['Hover', '.hidden', '%2e%2e%2fetc']) {
    const push = await checkout.git('push', remote(hub, name), 'main');
    expect(push.status).not.toBe(0);
  }
  expect((await checkout.git('push', remote(hub, 'Hover'), 'main')).text).toMatch(
    /BAD_APP_NAME: "Hover" is not a name/,
  );
  expect((await checkout.git('ls-remote', remote(hub, 'none'))).text).toMatch(
    /there is no app "none" at this hub yet/,
  );
  expect(await readdir(join(hub.directory, 'git'))).toEqual([]);

  const push = await checkout.push();
  expect(push.status).not.toBe(0);
  expect(push.text).toContain('remote: error ENGINE_UNREACHABLE: the hub cannot reach its container engine');
  expect(push.text).toContain('next: start the engine');

  const direct = await checkout.git('push', join(hub.directory, 'git', 'hover.git'), 'main');
  expect(direct.status).not.toBe(0);
  expect(direct.text).toContain("push to the hub's address, not into its directory");
});

test('a request body may be compressed', async () => {
  const hub = await testHub(cleanup, engine);
  const checkout = await Checkout.create(cleanup, remote(hub));
  const commit = await checkout.commit(V1);
  await checkout.push('main:side');
  const lines = ['command=ls-refs\n', '0001', 'ref-prefix refs/heads/\n', '0000'].map((line) =>
    /^000\d$/.test(line) ? line : (line.length + 4).toString(16).padStart(4, '0') + line,
  );
  const response = await fetch(`${remote(hub)}/git-upload-pack`, {
    method: 'POST',
    headers: {
      'content-type': 'application/x-git-upload-pack-request',
      'content-encoding': 'gzip',
      'git-protocol': 'version=2',
    },
    body: gzipSync(lines.join('')),
  });
  expect(response.status).toBe(200);
  expect(await response.text()).toContain(`${commit} refs/heads/side`);
});

test.skipIf(process.getuid?.() !== 0)(
  'a full disk is told, loses nothing, and the push works once there is room',
  async () => {
    const directory = await temporaryDirectory(cleanup);
    const mount = (...args: string[]) => run('mount', ['-t', 'tmpfs', ...args, directory], '/');
    expect(await mount('-o', 'size=12m', 'tmpfs')).toMatchObject({ status: 0 });
    cleanup.add(() => run('umount', ['--lazy', directory], '/'));
    const hub = await testHub(cleanup, engine, directory);
    const checkout = await Checkout.create(cleanup, remote(hub));
    await checkout.commit(V1);
    expect(await checkout.push()).toMatchObject({ status: 0 });

    // Room for the pack, none for the image's layer beside it.
    await checkout.commit({ large: randomBytes(7 * 1024 ** 2) });
    const push = await checkout.push();
    expect(push.status).not.toBe(0);
    expect(push.text).toContain("remote: error DISK_FULL: the hub's disk is full");
    expect(push.text).toMatch(/next: free space .* push again/);
    expect(await targetOf(hub)).toMatchObject({ generation: 1, release: { id: 'v1' } });

    expect(await mount('-o', 'remount,size=64m', 'tmpfs')).toMatchObject({ status: 0 });
    expect(await checkout.push()).toMatchObject({ status: 0 });
    const target = await targetOf(hub);
    expect(target).toMatchObject({ generation: 2, release: { id: 'v2' } });
    await verify(hub, imageOf(target));
  },
);
