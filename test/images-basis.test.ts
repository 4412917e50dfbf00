/**
 * A basis image's files, read three ways that share no code: the engine's layer directories, an export by the
 * engine, and the layers' tars (deltas/flatten.ts). All must show the same files.
 */
import { once } from 'node:events';
import { mkdtempSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { Pack } from 'tar-stream';
import { pack } from 'tar-stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { basisFacts, type OpenBasis, openBasis } from '#agent/images/basis.ts';
import { chainIds, overlayBasis } from '#agent/images/overlay.ts';
import { type Basis, basisFromLayers } from '#deltas/index.ts';
import { type Lab, noise, openLab, sha256 } from '#test/images-lab.ts';

type Entry =
  | { path: string; content: string | Buffer }
  | { path: string; link: string }
  | { path: string; symlink: string }
  | { path: string; directory: true };
const file = (path: string, content: string | Buffer = `content of ${path}`): Entry => ({ path, content });
const gone = (path: string): Entry => file(path.replace(/([^/]+)$/, '.wh.$1'), '');
const opaque = (path: string): Entry => file(`${path}/.wh..wh..opq`, '');
const folder = (path: string): Entry => ({ path, directory: true });

const LAYERS: Entry[][] = [
  [
    folder('a'),
    file('a/one'),
    file('a/two'),
    folder('b'),
    folder('b/x'),
    file('b/x/deep'),
    file('b/y'),
    file('c', 'a file that becomes a folder'),
    folder('d'),
    file('d/only', 'in a folder that becomes a file'),
    folder('e'),
    file('e/f', 'in a folder that becomes a symbolic link'),
    file('k', 'a file that becomes a folder and stays one'),
    folder('h'),
    file('h/first', 'shared by hard links'),
    { path: 'h/second', link: 'h/first' },
    { path: 'h/a', link: 'h/first' },
    { path: 's', symlink: 'a' },
    folder('u'),
    file('u/großer Name, ganz/ohne Not', noise('large', 300_000)),
    file('u/empty', ''),
    folder('deep'),
    ...Array.from({ length: 70 }, (_, index) => file(`deep/${index}`)),
  ],
  [
    gone('a/two'),
    folder('b'),
    opaque('b'),
    file('b/new'),
    folder('c'),
    file('c/inner'),
    file('d', 'now a file'),
    { path: 'e', symlink: 'a' },
    folder('k'),
    file('k/inner'),
    folder('s'),
    file('s/real', 'in a folder that was a symbolic link'),
    gone('deep/7'),
  ],
  [
    file('a/two', 'again'),
    folder('b'),
    folder('b/x'),
    file('b/x/again'),
    gone('c'),
    folder('deep'),
    file('deep/7', 'back'),
  ],
];

const PRESENT = [
  'a/one',
  'a/two',
  'b/new',
  'b/x/again',
  'd',
  'h/a',
  'h/first',
  'h/second',
  'k/inner',
  's/real',
  'u/empty',
];
const ABSENT = [
  'b/y',
  'b/x/deep',
  'c',
  'c/inner',
  'd/only',
  'k',
  'e',
  'e/f',
  'e/one',
  's',
  's/one',
  'a',
  '',
  'nothing',
  'nothing/at/all',
  '/a/one',
  'a//one',
  'a/./one',
  'b/../a/one',
  '../etc/passwd',
  'a/one/below',
  'a/.wh.two',
];

let lab: Lab;
let imageId: string;
let tars: Buffer[];
let reference: Basis & { close(): Promise<void> };

beforeAll(async () => {
  lab = await openLab(process.env.MIDAIR_TEST_ENGINE ?? process.env.DOCKER_HOST);
  tars = await Promise.all(LAYERS.map(tarOf));
  imageId = await load(tars);
  reference = await basisFromLayers(
    tars.map((tar) => ({
      diffId: sha256(tar),
      bytes: tar.length,
      open: async function* () {
        yield tar;
      },
    })),
    lab.directory,
  );
});
afterAll(async () => {
  await reference?.close();
  await lab?.close();
});

async function tarOf(entries: Entry[]): Promise<Buffer> {
  const tar = pack();
  const bytes = buffer(Readable.from(tar));
  for (const entry of entries) {
    const common = { name: entry.path, mode: 0o755, mtime: new Date(0) };
    if ('content' in entry) tar.entry(common, Buffer.from(entry.content));
    else if ('link' in entry) tar.entry({ ...common, type: 'link', linkname: entry.link });
    else if ('symlink' in entry) tar.entry({ ...common, type: 'symlink', linkname: entry.symlink });
    else tar.entry({ ...common, type: 'directory' });
  }
  tar.finalize();
  return bytes;
}

/** As `docker load` takes it: whiteouts and opaque markers cannot be built without a shell. */
async function load(layers: Buffer[]): Promise<string> {
  const config = Buffer.from(
    JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      config: { Labels: { [lab.name]: '' } },
      rootfs: { type: 'layers', diff_ids: layers.map(sha256) },
      history: layers.map(() => ({ created: '1970-01-01T00:00:00Z' })),
    }),
  );
  const id = sha256(config);
  const archive: Pack = pack();
  archive.entry({ name: `${id.slice(7)}.json` }, config);
  for (const [index, layer] of layers.entries()) archive.entry({ name: `${index}/layer.tar` }, layer);
  const manifest = [
    {
      Config: `${id.slice(7)}.json`,
      RepoTags: [`${lab.name}:basis`],
      Layers: layers.map((_layer, index) => `${index}/layer.tar`),
    },
  ];
  archive.entry({ name: 'manifest.json' }, JSON.stringify(manifest));
  archive.finalize();
  const answer = (await lab.docker.loadImage(Readable.from(archive))) as Readable;
  answer.resume();
  await once(answer, 'end');
  expect((await lab.docker.getImage(`${lab.name}:basis`).inspect()).Id).toBe(id);
  return id;
}

async function listOf(basis: Basis): Promise<string[]> {
  const files: string[] = [];
  for await (const { path, size } of basis.list?.() ?? []) {
    // The engine's own, over every container.
    if (!/^(\.dockerenv|dev\/|proc\/|sys\/|etc\/(hosts|hostname|mtab|resolv\.conf)$)/.test(path)) {
      files.push(`${path} ${size}`);
    }
  }
  return files.toSorted();
}

async function contentOf(basis: Basis, path: string): Promise<Buffer | undefined> {
  const opened = await basis.open(path);
  if (!opened) return undefined;
  const parts: Uint8Array[] = [];
  for (let at = 0; at < opened.size; at += 70_001) parts.push(await opened.read(at, 70_001));
  expect((await opened.read(opened.size, 10)).length).toBe(0);
  await opened.close?.();
  return Buffer.concat(parts);
}

const open = async (how: 'overlay' | 'export', signal = new AbortController().signal): Promise<OpenBasis> =>
  openBasis({
    docker: async () => lab.docker,
    imageId,
    facts: await basisFacts(lab.docker, imageId, signal),
    how,
    needsList: true,
    paths: async ({ list }) => {
      const all: string[] = [...ABSENT];
      for await (const { path } of list?.() ?? []) all.push(path);
      return all;
    },
    directory: mkdtempSync(join(lab.directory, 'spool-')),
    label: `${lab.name}.basis`,
    signal,
  });

describe.each(['overlay', 'export'] as const)('by %s', (how) => {
  test('the same files as in the layers’ tars, in the same bytes', async () => {
    const basis = await open(how);
    try {
      expect(basis.how).toBe(how);
      const files = await listOf(basis);
      expect(files).toEqual(await listOf(reference));
      expect(files.length).toBeGreaterThan(70);
      for (const entry of files) {
        const path = entry.replace(/ \d+$/, '');
        const content = await contentOf(basis, path);
        expect(content, path).toBeDefined();
        expect(content?.equals((await contentOf(reference, path)) ?? Buffer.from('?')), path).toBe(true);
      }
      const paths = files.map((entry) => entry.replace(/ \d+$/, ''));
      for (const path of PRESENT) expect(paths).toContain(path);
      for (const path of ABSENT) expect(await basis.open(path), path).toBeUndefined();
      expect((await contentOf(basis, 'a/two'))?.toString()).toBe('again');
      expect((await contentOf(basis, 'deep/7'))?.toString()).toBe('back');
      expect((await contentOf(basis, 'h/a'))?.toString()).toBe('shared by hard links');
    } finally {
      await basis.close();
    }
  });
});

test('an export that is called off leaves no container and no spool', async () => {
  const abort = new AbortController();
  const directory = mkdtempSync(join(lab.directory, 'spool-'));
  const opening = openBasis({
    docker: async () => lab.docker,
    imageId,
    facts: await basisFacts(lab.docker, imageId, abort.signal),
    how: 'export',
    needsList: true,
    paths: async () => {
      abort.abort();
      return ['a/one'];
    },
    directory,
    label: `${lab.name}.basis`,
    signal: abort.signal,
  });
  await expect(opening).rejects.toMatchObject({ code: 'ABORTED' });
  expect(await lab.docker.listContainers({ all: true, filters: { label: [`${lab.name}.basis`] } })).toEqual(
    [],
  );
  expect(readdirSync(directory)).toEqual([]);
});

test('layer directories that cannot be seen, or another storage driver, are no overlay basis', async () => {
  const image = await lab.docker.getImage(imageId).inspect();
  const { DockerRootDir } = (await lab.docker.info()) as { DockerRootDir: string };
  expect(await overlayBasis(image, DockerRootDir)).toBeDefined();
  expect(await overlayBasis(image, '/nonexistent')).toBeUndefined();
  const elsewhere = { ...image, GraphDriver: { ...image.GraphDriver, Data: { UpperDir: '/nonexistent' } } };
  expect(await overlayBasis(elsewhere as unknown as typeof image, DockerRootDir)).toBeUndefined();
  const vfs = { ...image, GraphDriver: { Name: 'vfs', Data: null } };
  expect(await overlayBasis(vfs as unknown as typeof image, DockerRootDir)).toBeUndefined();
});

test('chain ids are those of the OCI image specification', () => {
  const [a, b] = [sha256(Buffer.from('a')), sha256(Buffer.from('b'))];
  expect(chainIds([])).toEqual([]);
  expect(chainIds([a, b])).toEqual([a, sha256(Buffer.from(`${a} ${b}`))]);
});
