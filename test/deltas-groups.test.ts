/** Small files that are compressed together: smaller than each alone, bit by bit, and nothing hostile gets far. */
import { beforeAll, describe, expect, test } from 'vitest';
import { compress, compressBehind, decompressBehind } from '#deltas/compression.ts';
import { GROUP } from '#deltas/group-reader.ts';
import { type Basis, basisFromLayers, inspectDelta, memoryAccess, openDelta } from '#deltas/index.ts';
import { LIMITS } from '#deltas/limits.ts';
import {
  apply,
  between,
  codeOf,
  columnsOf,
  layerOf,
  make,
  memoryBasis,
  noise,
  type OpenSection,
  replaceColumn,
  reseal,
  roundTrip,
  scratch,
  sha256,
  source,
  tarOf,
  tarOfFiles,
} from '#test/deltas-kit.ts';

type Texts = Record<string, string>;
const tree = (count: number, lines: number, seed = 'file'): Texts =>
  Object.fromEntries(
    Array.from({ length: count }, (_, at) => [`src/${seed}-${at}.ts`, source(lines, `${seed} ${at}`)]),
  );
/** The same few lines put into each file, and others into each its own. */
const edited = (files: Texts): Texts =>
  Object.fromEntries(
    Object.entries(files).map(([path, text]) => {
      const lines = text.split('\n');
      const middle = lines.length >> 1;
      return [
        path,
        [...lines.slice(0, middle), source(6, 'everywhere'), source(2, path), ...lines.slice(middle)].join(
          '\n',
        ),
      ];
    }),
  );

/** A letter of each line is the next one: told by what differs, not by what stayed. */
const counted = (files: Texts): Texts =>
  Object.fromEntries(
    Object.entries(files).map(([path, text]) => [
      path,
      text.replace(/ = (.)/g, (_, letter: string) => ` = ${String.fromCharCode(letter.charCodeAt(0) + 1)}`),
    ]),
  );

describe('small files that changed', () => {
  const files = tree(40, 60);

  test('take less together than each alone, with and without a listing', async () => {
    const all = await between(files, edited(files));
    expect(all.layer.grouped.files).toBe(40);
    const listed = await between(files, edited(files), 'auto');
    expect(listed.layer.grouped.files).toBe(40);
    const [one] = Object.entries(edited(files)) as [[string, string]];
    const alone = await between(files, { ...files, [one[0]]: one[1] });
    // What is put in everywhere is told once.
    expect(all.layer.sections.groups).toBeLessThan(40 * alone.layer.sections.groups * 0.6);
  });

  test('take a few new ones with them; many new ones do better in the solid section', async () => {
    const some = await between(files, { ...edited(files), ...tree(3, 60, 'new') });
    expect([some.layer.grouped.files, some.layer.literal.files, some.layer.sections.solid]).toEqual([
      43, 3, 0,
    ]);
    const many = await between(files, {
      ...files,
      ...tree(30, 60, 'new'),
      'src/file-3.ts': source(61, 'file 3'),
    });
    expect(many.layer.literal.files).toBe(30);
    expect(many.layer.grouped.files).toBeLessThanOrEqual(1);
  });

  test('are cut into groups that a reader can hold', async () => {
    const large = tree(60, 5_000);
    const { layer, artifact } = await between(large, edited(large));
    expect(layer.grouped.files).toBe(60);
    expect(layer.grouped.bytes).toBeGreaterThan(LIMITS.groupBytesMax);
    const delta = await openDelta(memoryAccess(artifact));
    expect(delta.codecs).toContain('grouped-1');
    const many = Object.fromEntries(
      Array.from({ length: LIMITS.groupFilesMax + 10 }, (_, at) => [
        `m/${at}`,
        `${at} ${source(2, `${at}`)}`,
      ]),
    );
    const changed = Object.fromEntries(
      Object.entries(many).map(([path, text]) => [path, `${text}// changed\n`]),
    );
    expect((await between(many, changed, 'auto')).layer.grouped.files).toBe(LIMITS.groupFilesMax + 10);
  }, 120_000);

  test('may come from one file, which is in the dictionary once', async () => {
    const text = source(200, 'origin');
    const young = { 'a.ts': `${text}// a\n`, 'b.ts': `// b\n${text}`, 'c.ts': text.replace('const', 'let') };
    const { layer, artifact } = await between({ 'origin.ts': text }, young);
    expect(layer.grouped.files).toBe(3);
    await reseal(artifact, (sections) => {
      expect((sections.find(({ kind }) => kind === 'groups') as OpenSection).raw.readUInt32LE(5)).toBe(
        text.length,
      );
    });
  });

  test('are not put together when zstd would take what they come from for a dictionary of its own', async () => {
    const magic = '\u0037\u00a4\u0030\u00ec';
    const old = { 'a.ts': source(80, 'a') };
    const bytes = Buffer.concat([Buffer.from(magic, 'latin1'), Buffer.from(old['a.ts'])]);
    const young = Buffer.concat([bytes, Buffer.from('more')]);
    const made = await roundTrip(
      [tarOf([{ name: 'a.ts', content: bytes }])],
      [tarOf([{ name: 'a.ts', content: young }])],
    );
    expect(made.same).toBe(true);
    expect(made.summary.layers[0]?.grouped.files).toBe(0);
  });

  test('are seen by whoever asks where the bytes go', async () => {
    const { artifact, layer } = await between(files, edited(files));
    const [inspected] = (await inspectDelta(memoryAccess(artifact))).layers;
    const told = inspected?.files ?? [];
    expect(told.map(({ how, codecs, from, path }) => [how, codecs, from, path])).toEqual(
      Object.keys(files).map((path) => ['patch', ['grouped'], [path], path]),
    );
    const sum = told.reduce((bytes, { storedBytesEstimate }) => bytes + storedBytesEstimate, 0);
    expect(Math.abs(sum - layer.sections.groups)).toBeLessThan(told.length);
  });

  test('are refused by a reader that is to do without', async () => {
    const { summary } = await make([tarOfFiles(files)], [tarOfFiles(edited(files))], 'never', 'never');
    expect(summary.layers[0]?.grouped.files).toBe(0);
  });
});

describe.each([
  ['of a frame', edited, GROUP.frame],
  ['of moves', counted, GROUP.moves],
  ['behind its files', edited, GROUP.behind],
] as const)('a group %s', (_form, change, form) => {
  const old = tree(6, 40);
  const young = change(old);
  const [basisTar, targetTar] = [tarOfFiles(old), tarOfFiles(young)];
  const basis = memoryBasis(
    Object.fromEntries(Object.entries(old).map(([path, text]) => [path, Buffer.from(text)])),
  );
  let artifact: Buffer;
  beforeAll(async () => {
    artifact = (await make([basisTar], [targetTar])).artifact;
    if (form !== GROUP.frame) return;
    // No maker makes one of files any more where brotli takes less.
    const [from, to] = [old, young].map((texts) => Buffer.from(Object.values(texts).join('')));
    const frame = await compress(to as Buffer, 19, from);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(frame.length);
    artifact = await changed((group) => {
      group.raw = Buffer.concat([Buffer.of(GROUP.frame), group.raw.subarray(1, 13), length, frame]);
    });
  });
  const outcome = (bytes: Buffer, from: Basis = basis): Promise<string> =>
    codeOf(() => apply(bytes, sha256(targetTar), from));
  const changed = (change: (group: OpenSection, sections: OpenSection[]) => void): Promise<Buffer> =>
    reseal(artifact, (sections) =>
      change(sections.find(({ kind }) => kind === 'groups') as OpenSection, sections),
    );

  test('comes back by the files of a basis alone', async () => {
    await changed(({ raw }) => expect(raw[0]).toBe(form));
    expect((await apply(artifact, sha256(targetTar), basis)).equals(targetTar)).toBe(true);
    using folder = scratch();
    const files = await basisFromLayers([layerOf(basisTar)], folder.path);
    expect((await apply(artifact, sha256(targetTar), files)).equals(targetTar)).toBe(true);
    await files.close();
  });

  test('that lies about its lengths is refused', async () => {
    // Of its contents, of its files, of its frame.
    for (const [place, more, code] of [
      [1, 1, 'CORRUPT'],
      [1, -1, 'CORRUPT'],
      [1, LIMITS.groupBytesMax, 'TOO_LARGE'],
      [5, 1, 'BASIS_MISMATCH'],
      [5, -1, 'BASIS_MISMATCH'],
      [5, LIMITS.groupBytesMax, 'TOO_LARGE'],
      [13, 1, 'CORRUPT'],
      [13, -1, 'CORRUPT'],
      [
        13,
        form === GROUP.moves ? LIMITS.movesChunkBytesMax : LIMITS.groupBytesMax + LIMITS.chunkBytes,
        'TOO_LARGE',
      ],
    ] as const) {
      const hostile = await changed(({ raw }) => raw.writeUInt32LE(raw.readUInt32LE(place) + more, place));
      expect([place, more, await outcome(hostile)]).toEqual([place, more, code]);
    }
    const large = await changed(({ raw }) => {
      for (const place of [1, 5]) raw.writeUInt32LE(7 * 1024 * 1024, place);
    });
    expect(await outcome(large)).toBe(form === GROUP.behind ? 'TOO_LARGE' : 'CORRUPT');
    for (const other of [0, 1, 2, 3].filter((one) => one !== form))
      expect(await outcome(await changed(({ raw }) => void raw.writeUInt8(other, 0)))).toMatch(
        /^(CORRUPT|TOO_LARGE)$/,
      );
    const empty = await changed(({ raw }) => raw.writeUInt32LE(0, 1));
    expect(await outcome(empty)).toBe('CORRUPT');
  });

  test('that is missing, cut, doubled, or followed by more is refused', async () => {
    expect(await outcome(await changed((_, sections) => void sections.pop()))).toBe('CORRUPT');
    const raw = (to: (bytes: Buffer) => Buffer): Promise<Buffer> =>
      changed((group) => {
        group.raw = to(group.raw);
      });
    expect(await outcome(await raw((bytes) => bytes.subarray(0, 15)))).toBe('CORRUPT');
    expect(await outcome(await raw((bytes) => Buffer.concat([bytes, bytes])))).toBe('CORRUPT');
    expect(await outcome(await changed((group, sections) => void sections.push(group)))).toBe('CORRUPT');
  });

  test('of too many contents is refused before any is made', async () => {
    const hostile = await changed((group, sections) => {
      const index = sections.find(({ kind }) => kind === 'index') as OpenSection;
      const count = LIMITS.groupFilesMax + 1;
      // Contents of one byte each, of nothing.
      index.raw = replaceColumn(index.raw, 'kinds', Buffer.alloc(count, 4));
      index.raw = replaceColumn(index.raw, 'operations', Buffer.alloc(count, 0x18));
      index.raw = replaceColumn(index.raw, 'lengths', Buffer.alloc(count, 1));
      index.raw = replaceColumn(index.raw, 'references', Buffer.alloc(count, 3));
      group.raw.writeUInt32LE(count, 1);
    });
    expect(await outcome(hostile)).toBe('CORRUPT');
  });

  test('made from a basis that was changed by hand is refused, and some of its files are named', async () => {
    const withFile = (path: string, bytes: Buffer | undefined): Basis => {
      const files: Record<string, Buffer> = Object.fromEntries(
        Object.entries(old).map(([name, text]) => [name, Buffer.from(text)]),
      );
      if (bytes === undefined) delete files[path];
      else files[path] = bytes;
      return memoryBasis(files);
    };
    const [path, text] = Object.entries(old)[3] as [string, string];
    const flipped = Buffer.from(text);
    flipped[7] = (flipped[7] as number) ^ 1;
    for (const bytes of [
      undefined,
      flipped,
      Buffer.from(`${text}x`),
      Buffer.from(text.slice(1)),
      noise(9_000_000, 'x'),
    ])
      expect(await outcome(artifact, withFile(path, bytes))).toBe('BASIS_MISMATCH');
    await expect(apply(artifact, sha256(targetTar), withFile(path, flipped))).rejects.toThrow(
      /one of these differs in the basis: src\/.* and 3 more/,
    );
  });

  test('refers to a file or to none, and no further way', async () => {
    const hostile = await changed((_, sections) => {
      const index = sections.find(({ kind }) => kind === 'index') as OpenSection;
      const references = Buffer.from(columnsOf(index.raw).get('references') as Buffer);
      references[0] = 4;
      index.raw = replaceColumn(index.raw, 'references', references);
    });
    expect(await outcome(hostile)).toBe('CORRUPT');
  });
});

describe('brotli behind an old file', () => {
  test.each([1, 2, 65_535, 65_536, 65_537, 1_048_576, 1_048_577, 2_000_000])(
    'of %i bytes comes back, for less than without it',
    async (bytes) => {
      const old = Buffer.from(
        source(bytes / 40, 'old')
          .padEnd(bytes, 'x')
          .slice(0, bytes),
      );
      const young = Buffer.concat([
        old.subarray(0, 3_000),
        Buffer.from('put in'),
        old.subarray(3_000, 40_000),
      ]);
      const packed = (await compressBehind(young, old)) as Buffer;
      expect((await decompressBehind(packed, young.length, 'it', old)).equals(young)).toBe(true);
      if (bytes > 60_000) expect(packed.length).toBeLessThan(200);
      for (const [wrong, length] of [
        [packed, young.length + 1],
        [packed, young.length - 1],
        [packed.subarray(0, packed.length - 1), young.length],
        [Buffer.alloc(0), young.length],
      ] as const)
        await expect(decompressBehind(wrong, length, 'it', old)).rejects.toMatchObject({ code: 'CORRUPT' });
    },
  );

  test('of which a bit is another gives other bytes, or is refused; never more than were asked for', async () => {
    const old = Buffer.from(source(500, 'old'));
    const young = Buffer.from(source(400, 'young') + source(500, 'old'));
    const packed = (await compressBehind(young, old)) as Buffer;
    const codes = new Set<string>();
    for (let at = 0; at < packed.length; at += 7) {
      const bad = Buffer.from(packed);
      bad[at] = (bad[at] as number) ^ (1 << (at & 7));
      codes.add(
        await codeOf(async () =>
          expect((await decompressBehind(bad, young.length, 'it', old)).length).toBe(young.length),
        ),
      );
    }
    expect([...codes]).toContain('CORRUPT');
    expect([...codes].every((code) => code === 'CORRUPT' || code === 'none')).toBe(true);
  });
});
