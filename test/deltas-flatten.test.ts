import { describe, expect, test } from 'vitest';
import { makeList } from '#deltas/basis.ts';
import { basisFromLayers, flatten } from '#deltas/index.ts';
import { type HandEntry, layerOf, paxBody, scratch, tarOf } from '#test/deltas-kit.ts';

async function paths(...layers: HandEntry[][]): Promise<string[]> {
  const image = await flatten(layers.map((entries) => layerOf(tarOf(entries))));
  return [...image.files()].map(([path]) => path).sort();
}

describe('a container sees', () => {
  const lower: HandEntry[] = [
    { name: 'a/', type: '5' },
    { name: 'a/one', content: '1' },
    { name: 'a/two', content: '2' },
    { name: 'a/deep/three', content: '3' },
    { name: 'b', content: 'b' },
  ];
  test('the later layer of a file', async () => {
    using folder = scratch();
    const basis = await basisFromLayers(
      [lower, [{ name: './a/one', content: 'new' }]].map((entries) => layerOf(tarOf(entries))),
      folder.path,
    );
    const file = await basis.open('a/one');
    expect(Buffer.from((await file?.read(0, 3)) ?? []).toString()).toBe('new');
    expect(await basis.open('a')).toBeUndefined();
    expect(await basis.open('../a/one')).toBeUndefined();
    await basis.close();
  });
  test('nothing under a whiteout', async () => {
    expect(await paths(lower, [{ name: 'a/.wh.one' }])).toEqual(['a/deep/three', 'a/two', 'b']);
    expect(await paths(lower, [{ name: '.wh.a' }])).toEqual(['b']);
  });
  test('what the whiteout’s own layer brings, before or after it', async () => {
    const brings = { name: 'a/new', content: 'n' };
    expect(await paths(lower, [{ name: '.wh.a' }, brings])).toEqual(['a/new', 'b']);
    expect(await paths(lower, [brings, { name: '.wh.a' }])).toEqual(['a/new', 'b']);
    expect(await paths(lower, [brings, { name: 'a/.wh..wh..opq' }])).toEqual(['a/new', 'b']);
    expect(await paths(lower, [{ name: 'a/.wh..wh..opq' }, brings])).toEqual(['a/new', 'b']);
  });
  test('a file in place of a folder, a folder in place of a file, and links', async () => {
    expect(await paths(lower, [{ name: 'a', content: 'x' }])).toEqual(['a', 'b']);
    expect(await paths(lower, [{ name: 'b/c', content: 'x' }])).toEqual([
      'a/deep/three',
      'a/one',
      'a/two',
      'b/c',
    ]);
    expect(await paths(lower, [{ name: 'b', type: '2', link: 'a/one' }])).not.toContain('b');
    expect(await paths(lower, [{ name: 'h', type: '1', link: 'a/one' }, { name: '.wh.a' }])).toEqual([
      'b',
      'h',
    ]);
  });
  test('no marker of older file systems, and none of the files that engines lay over', async () => {
    expect(
      await paths([{ name: '.wh..wh.plnk/1.2' }, { name: 'etc/hosts', content: 'x' }, { name: 'dev/x' }]),
    ).toEqual(['.wh..wh.plnk/1.2']);
  });
  test('the long name of a file, and no contents of a sparse one', async () => {
    using folder = scratch();
    const long = `${'d/'.repeat(150)}end`;
    const basis = await basisFromLayers(
      [
        layerOf(
          tarOf([
            { name: 'x', type: 'x', content: paxBody({ path: long }) },
            { name: 'd/end', content: 'long' },
            { name: '././@LongLink', type: 'L', content: `g/${long}\0` },
            { name: 'g/d/end', content: 'gnu' },
            {
              name: 'x',
              type: 'x',
              content: paxBody({
                'GNU.sparse.major': '1',
                'GNU.sparse.name': 's',
                'GNU.sparse.realsize': '4096',
              }),
            },
            { name: 'GNUSparseFile.0/s', content: '0\n' },
          ]),
        ),
      ],
      folder.path,
    );
    expect((await basis.open(long))?.size).toBe(4);
    expect((await basis.open(`g/${long}`))?.size).toBe(3);
    expect(await basis.open('s')).toBeUndefined();
    expect([...((basis.list?.() ?? []) as Iterable<{ path: string; size: number }>)]).toContainEqual({
      path: 's',
      size: 4096,
    });
    await basis.close();
  });
});

test('a listing is the same however it was come by, and not when anything differs', async () => {
  const files = [
    { path: 'a/b', size: 1 },
    { path: 'a-b', size: 2 },
    { path: 'a/c/d', size: 3 },
    { path: 'é', size: 4 },
  ];
  const one = await makeList(files);
  const two = await makeList(
    [...files, { path: '.dockerenv', size: 0 }, { path: '../x', size: 1 }].reverse(),
  );
  expect(one.digest).toEqual(two.digest);
  expect(one.entries.map(({ name }) => name)).toEqual(['a/', 'a/b', 'a/c/', 'a/c/d', 'a-b', 'Ã©']);
  const other = await makeList([{ path: 'a/b', size: 9 }, ...files.slice(1)]);
  expect(other.digest).not.toEqual(one.digest);
});
