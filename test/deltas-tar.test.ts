import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ByteSource } from '#deltas/byte-source.ts';
import { walkTar } from '#deltas/tar.ts';
import { splitHeader } from '#deltas/tar-header.ts';
import {
  END,
  entry,
  gnuTar,
  type HandEntry,
  layerOf,
  noise,
  paxBody,
  roundTrip,
  scratch,
  source,
  tarOf,
} from '#test/deltas-kit.ts';

/** Everything GNU tar can meet in a folder without being root. */
function fill(directory: string): void {
  const at = (...parts: string[]): string => join(directory, ...parts);
  mkdirSync(at('app', 'src'), { recursive: true });
  mkdirSync(at('empty'));
  writeFileSync(at('app', 'src', 'main.ts'), source(200, 'main'));
  writeFileSync(at('app', 'exact.bin'), noise(1024, 'exact'));
  writeFileSync(at('app', 'nothing'), '');
  writeFileSync(at('app', 'ünïcode näme'), 'x');
  linkSync(at('app', 'exact.bin'), at('app', 'hard'));
  symlinkSync('src/main.ts', at('app', 'soft'));
  execFileSync('mkfifo', [at('app', 'pipe')]);
  writeFileSync(at('sparse'), 'start');
  truncateSync(at('sparse'), 3_000_000);
  execFileSync(
    'dd',
    ['if=/dev/urandom', `of=${at('sparse')}`, 'bs=4096', 'seek=500', 'count=3', 'conv=notrunc'],
    {
      stdio: 'ignore',
    },
  );
}

function fillLong(directory: string): void {
  const long = join(directory, 'd'.repeat(60), 'e'.repeat(60), 'f'.repeat(60));
  mkdirSync(long, { recursive: true });
  writeFileSync(join(long, 'in-ustar-reach'), 'a');
  const longer = join(long, 'g'.repeat(90));
  mkdirSync(longer);
  writeFileSync(join(longer, 'h'.repeat(120)), 'beyond what ustar can name');
  symlinkSync('t'.repeat(150), join(directory, 'long-target'));
}

describe('tars as GNU tar writes them', () => {
  const formats: [string, string[], boolean][] = [
    ['gnu', ['--format=gnu'], true],
    ['gnu, sparse', ['--format=gnu', '-S'], true],
    ['pax', ['--format=pax'], true],
    ['pax, sparse 1.0', ['--format=pax', '-S', '--sparse-version=1.0'], true],
    ['pax, sparse 0.1', ['--format=pax', '-S', '--sparse-version=0.1'], true],
    ['pax without times', ['--format=pax', '--pax-option=delete=atime,delete=ctime'], true],
    ['oldgnu', ['--format=oldgnu'], true],
    ['ustar', ['--format=ustar'], false],
    ['v7', ['--format=v7', '--exclude=pipe'], false],
    ['incremental', ['--format=gnu', '--incremental'], true],
    ['numeric owner', ['--format=gnu', '--numeric-owner', '--owner=4294967290', '--mtime=@-5'], false],
    ['odd blocking', ['--format=gnu', '-b', '7'], false],
  ];
  test.each(formats)('%s', async (_, options, long) => {
    using folder = scratch();
    fill(folder.path);
    const basis = gnuTar(folder.path, ...options);
    if (long) fillLong(folder.path);
    writeFileSync(join(folder.path, 'app', 'src', 'main.ts'), `${source(200, 'main')}// more\n`);
    const target = gnuTar(folder.path, ...options);
    for (const listing of ['never', 'auto'] as const) {
      expect((await roundTrip([basis], [target], listing)).same).toBe(true);
      expect((await roundTrip([], [target], listing)).same).toBe(true);
    }
  });

  test('headers of the usual dialects are taken apart', async () => {
    using folder = scratch();
    mkdirSync(join(folder.path, 'app'));
    for (let at = 0; at < 10; at += 1) writeFileSync(join(folder.path, 'app', `file${at}`), `${at}`);
    for (const format of ['gnu', 'pax', 'ustar', 'v7']) {
      const tar = gnuTar(folder.path, `--format=${format}`);
      const layer = layerOf(tar);
      for await (const item of walkTar(new ByteSource(layer.open()), layer.bytes)) {
        if (item.kind === 'header') expect(splitHeader(item.block), format).toBeDefined();
        if (item.kind === 'content') for await (const _ of item.pieces);
        expect(item.kind, format).not.toBe('run');
      }
    }
  });
});

describe('tars as nobody should write them', () => {
  const file: HandEntry = { name: 'app/a.txt', content: 'hello' };
  const bad = entry(file);
  bad[200] = 0xff;
  const dirtyPad = entry(file);
  dirtyPad.fill(0xaa, 512 + 5);
  const cases: Record<string, Buffer> = {
    'no bytes at all': Buffer.alloc(0),
    'one byte': Buffer.from('x'),
    'only zeros': Buffer.alloc(10_240),
    'zeros of odd length': Buffer.alloc(1_537),
    'not a tar': noise(100_000, 'not a tar'),
    'no trailer': entry(file),
    'odd trailer': tarOf([file], Buffer.alloc(512 * 3 + 17)),
    'bytes after the trailer': tarOf([file], Buffer.concat([END, Buffer.from('and more')])),
    'two archives in one': Buffer.concat([tarOf([file]), tarOf([{ ...file, name: 'b' }])]),
    'a wrong checksum': Buffer.concat([entry(file), bad, END]),
    'padding that is not zero': Buffer.concat([dirtyPad, entry(file), END]),
    'cut in a header': entry(file).subarray(0, 300),
    'cut in a content': entry({ name: 'a', content: noise(5_000, 'cut') }).subarray(0, 3_000),
    'cut in its padding': entry(file).subarray(0, 600),
    'a size beyond the end': tarOf([{ ...file, size: 1_000_000 }]),
    'a hard link with a size': tarOf([file, { name: 'b', type: '1', link: 'app/a.txt', size: 5 }, file]),
    'a directory with a size': tarOf([{ name: 'd/', type: '5', size: 700 }, file]),
    devices: tarOf([
      { name: 'dev/null', type: '3' },
      { name: 'dev/sda', type: '4' },
      { name: 'fifo', type: '6' },
    ]),
    whiteouts: tarOf([
      { name: 'app/.wh.a.txt', content: '' },
      { name: 'app/.wh..wh..opq', content: '' },
    ]),
    'unknown types': tarOf([
      { ...file, type: 'Z' },
      { ...file, type: '7' },
      { ...file, type: '\0' },
    ]),
    'names that leave': tarOf([
      { ...file, name: '../../etc/passwd' },
      { ...file, name: '/etc/passwd' },
      { ...file, name: 'a/./b//c' },
    ]),
    'a name of all 100 bytes': tarOf([{ ...file, name: 'n'.repeat(100) }]),
    'a prefix and a short name': tarOf([{ ...file, name: 'short', prefix: 'some/prefix' }]),
    'a pax header cut short': tarOf([{ name: 'x', type: 'x', content: '99 path=oh' }, file]),
    'a pax header without a file': tarOf([{ name: 'x', type: 'x', content: paxBody({ path: 'y' }) }]),
    'pax of pax': tarOf([
      { name: 'PaxHeaders/x', type: 'x', content: paxBody({ path: 'y' }) },
      { name: 'PaxHeaders/x', type: 'x', content: paxBody({ path: 'z' }) },
      { name: './././@LongLink', type: 'L', content: 'w\0' },
      file,
    ]),
    'a size by pax': tarOf([
      { name: 'PaxHeaders.0/a.txt', type: 'x', content: paxBody({ size: '5' }) },
      { ...file, size: 0 },
    ]),
    'a size by pax that lies': tarOf([
      { name: 'PaxHeaders.0/a.txt', type: 'x', content: paxBody({ size: '99999999999' }) },
      file,
      file,
    ]),
    'extended attributes': tarOf([
      {
        name: 'app/PaxHeaders.0/ping',
        type: 'x',
        content: paxBody({
          'SCHILY.xattr.security.capability': '\u0001\u0002',
          mtime: '1700000000.123456789',
        }),
      },
      { name: 'app/ping', content: noise(700, 'ping'), mode: 0o4755 },
    ]),
  };
  test.each(Object.entries(cases))('%s', async (_, tar) => {
    expect((await roundTrip([], [tar], 'auto')).same).toBe(true);
    expect(
      (await roundTrip([tarOf([file, { name: 'b', content: source(50, 'b') }])], [tar], 'auto')).same,
    ).toBe(true);
  });

  test('any bytes, and any bytes behind a header', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 3_000 }),
        fc.boolean(),
        fc.integer({ min: 0, max: 511 }),
        fc.integer({ min: 0, max: 255 }),
        async (bytes, header, place, value) => {
          const head = entry(file);
          if (place % 3 === 0) head[place] = value;
          const tar = header ? Buffer.concat([head, bytes]) : Buffer.from(bytes);
          expect((await roundTrip([], [tar])).same).toBe(true);
        },
      ),
      { numRuns: 150 },
    );
  });
});

test('a pax header beside every file costs next to nothing when names are listed', async () => {
  const tree = (mtime: number): Buffer =>
    tarOf(
      Array.from({ length: 500 }, (_, at) => [
        {
          name: `app/modules/PaxHeaders.0/file-${at}.js`,
          type: 'x',
          content: paxBody({ mtime: `${mtime}.5` }),
          mtime: 0,
        },
        { name: `app/modules/file-${at}.js`, content: source(10, `${at}`), mtime },
      ]).flat(),
    );
  const { artifact, same } = await roundTrip([tree(1_700_000_000)], [tree(1_700_100_000)], 'auto');
  expect(same).toBe(true);
  expect(artifact.length).toBeLessThan(1_000);
});
