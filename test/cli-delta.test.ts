/** `midair delta` as a user runs it: images in every form they come in, a delta, its picture, and what is said when it goes wrong. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { squarify, tilesOf, treemapSvg } from '#cli/delta/treemap.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import type { Inspection } from '#deltas/index.ts';
import { noise, sha256, source, tarOf } from '#test/deltas-kit.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'midair-cli-delta-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const midair = (...args: string[]): { status: number | null; out: string; err: string } => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(PACKAGE_ROOT, 'cli/bin.ts'), 'delta', ...args],
    {
      encoding: 'utf8',
      cwd: folder,
    },
  );
  return { status, out: stdout, err: stderr };
};

const files = (changed: boolean): { name: string; content: string | Buffer }[] => [
  { name: 'app/kept.bin', content: noise(50_000, 'kept') },
  { name: 'app/main.js', content: `${source(400, 'main')}${changed ? '// more\n' : ''}` },
  ...(changed ? [{ name: 'app/new.js', content: source(40, 'new') }] : []),
];
const layerTar = (changed: boolean): Buffer => tarOf(files(changed));
const hex = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
const configOf = (layer: Buffer): Buffer =>
  Buffer.from(JSON.stringify({ rootfs: { type: 'layers', diff_ids: [sha256(layer)] } }));

/** As `docker save` writes it. */
const saved = (changed: boolean): Buffer => {
  const layer = layerTar(changed);
  const config = configOf(layer);
  const manifest = [{ Config: `${hex(config)}.json`, RepoTags: ['app:1'], Layers: ['abc/layer.tar'] }];
  return tarOf([
    { name: 'abc/layer.tar', content: layer },
    { name: `${hex(config)}.json`, content: config },
    { name: 'manifest.json', content: JSON.stringify(manifest) },
  ]);
};

/** As skopeo and buildkit write it, its layer compressed. */
const layout = (path: string, changed: boolean): void => {
  const layer = layerTar(changed);
  const blobs = join(path, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const put = (bytes: Buffer): string => {
    writeFileSync(join(blobs, hex(bytes)), bytes);
    return sha256(bytes);
  };
  const manifest = put(
    Buffer.from(
      JSON.stringify({
        config: { digest: put(configOf(layer)), mediaType: 'application/vnd.oci.image.config.v1+json' },
        layers: [{ digest: put(gzipSync(layer)), mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip' }],
      }),
    ),
  );
  writeFileSync(join(path, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(join(path, 'index.json'), JSON.stringify({ manifests: [{ digest: manifest }] }));
};

describe('midair delta', () => {
  it('makes, explains, checks and applies a delta from a docker save file to an OCI layout', () => {
    writeFileSync(join(folder, 'old.tar'), saved(false));
    layout(join(folder, 'new'), true);
    const made = midair('create', 'old.tar', 'new', '-o', 'app.delta');
    expect(made).toMatchObject({ status: 0, err: '' });
    expect(made.out).toMatch(/^app\.delta: [\d.]+ k?B for 1 layer of \d+\.\d kB, 1 in \d+, in /);
    expect(readFileSync(join(folder, 'app.delta')).length).toBeLessThan(2_000);

    const inspected = midair('inspect', 'app.delta', 'old.tar', '--svg', 'app.svg');
    expect(inspected.out).toMatch(/app\/new\.js .* grouped/);
    expect(readFileSync(join(folder, 'app.svg'), 'utf8')).toContain('<title>app/new.js: ');
    expect(JSON.parse(midair('inspect', 'app.delta', '--json').out)).toMatchObject({
      version: 1,
      layers: [{ diffId: sha256(layerTar(true)) }],
    });

    expect(midair('verify', 'old.tar', 'app.delta')).toMatchObject({
      status: 0,
      out: expect.stringContaining('right'),
    });
    expect(midair('apply', 'old.tar', 'app.delta', '-o', 'out')).toMatchObject({ status: 0, err: '' });
    expect(readFileSync(join(folder, 'out', `${hex(layerTar(true))}.tar`)).equals(layerTar(true))).toBe(true);
    expect(readdirSync(join(folder, 'out'))).toHaveLength(1);
    expect(readdirSync(folder).filter((name) => name.startsWith('.'))).toEqual([]);
  }, 60_000);

  it('takes plain tars, compressed or not, and says so when there is nothing to rebuild', () => {
    writeFileSync(join(folder, 'a.tar'), layerTar(false));
    writeFileSync(join(folder, 'b.tar.gz'), gzipSync(layerTar(true)));
    expect(midair('create', 'a.tar', 'b.tar.gz', '-o', 'ab.delta')).toMatchObject({ status: 0 });
    expect(midair('verify', 'a.tar', 'ab.delta', '--json').out).toContain(sha256(layerTar(true)));
    expect(midair('create', 'a.tar', 'a.tar', '-o', 'none.delta').out).toContain('nothing to rebuild');
  }, 60_000);

  it('names what is wrong, and leaves nothing behind', () => {
    expect(midair('apply', 'b.tar.gz', 'ab.delta', '-o', 'wrong')).toMatchObject({
      status: 1,
      err: expect.stringContaining('Give the image it was made from (BASIS_MISMATCH)'),
    });
    expect(readdirSync(join(folder, 'wrong'))).toEqual([]);
    const broken = readFileSync(join(folder, 'ab.delta'));
    broken[broken.length - 3] = (broken.at(-3) as number) ^ 1;
    writeFileSync(join(folder, 'broken.delta'), broken);
    expect(midair('verify', 'a.tar', 'broken.delta')).toMatchObject({
      status: 1,
      err: expect.stringContaining('(CORRUPT)'),
    });
    const nowhere = midair(
      'create',
      'nothing:1',
      'a.tar',
      '-o',
      'x.delta',
      '--engine',
      'unix:///nowhere.sock',
    );
    expect(nowhere).toMatchObject({ status: 1, err: expect.stringContaining('(NO_ENGINE)') });
    mkdirSync(join(folder, 'empty'), { recursive: true });
    expect(midair('create', 'empty', 'a.tar', '-o', 'x.delta')).toMatchObject({
      status: 1,
      err: expect.stringContaining('(NOT_AN_IMAGE)'),
    });
    expect(midair('create', 'a.tar').status).toBe(2);
    expect(existsSync(join(folder, 'x.delta'))).toBe(false);
  }, 60_000);
});

describe('the treemap', () => {
  const tiles = [6, 6, 4, 3, 2, 2, 1].map((bytes, at) => ({ label: `${at}`, bytes, how: 'copy' }));

  it('gives each its area, within the whole, as in the paper on squarified treemaps', () => {
    const places = squarify(tiles, { x: 0, y: 0, width: 6, height: 4 });
    expect(places.map(({ width, height }) => Math.round(1e6 * width * height) / 1e6)).toEqual([
      6, 6, 4, 3, 2, 2, 1,
    ]);
    expect(places[0]).toEqual({ x: 0, y: 0, width: 3, height: 2 });
    for (const { x, y, width, height } of places) {
      expect([x >= 0, y >= 0, x + width <= 6 + 1e-9, y + height <= 4 + 1e-9]).toEqual([
        true,
        true,
        true,
        true,
      ]);
    }
  });

  it('adds small files up, and shows names as text only', () => {
    const file = (path: string, bytes: number) => ({
      path,
      bytes,
      how: 'literal' as const,
      codecs: [],
      from: [],
      storedBytesEstimate: bytes,
    });
    const none = { storedBytes: 0, rawBytes: 0 };
    const inspection: Inspection = {
      version: 1,
      basisId: '',
      targetId: '',
      bytes: 100_000,
      headerBytes: 100,
      needsList: false,
      codecs: [],
      layers: [
        {
          diffId: '',
          bytes: 1,
          storedBytes: 99_900,
          sections: {
            index: none,
            solid: none,
            patches: none,
            frames: none,
            moves: none,
            streams: none,
            groups: none,
          },
          files: [file('<script>', 99_000), ...Array.from({ length: 30 }, (_, at) => file(`${at}`, 30))],
        },
      ],
    };
    expect(
      tilesOf(inspection)
        .map(({ label, bytes }) => [label, bytes])
        .slice(0, 2),
    ).toEqual([
      ['<script>', 99_000],
      ['30 smaller files', 900],
    ]);
    expect(treemapSvg(inspection)).not.toContain('<script>');
  });
});
