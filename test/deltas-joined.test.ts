/** Files that moved, were renamed, split or put together: found by what is in them, made of several, and nothing hostile gets far. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { ByteReader, ByteWriter } from '#deltas/bytes.ts';
import {
  applyLayer,
  type Basis,
  inspectDelta,
  memoryAccess,
  openDelta,
  renderInspection,
} from '#deltas/index.ts';
import { JoinedFile } from '#deltas/joined-file.ts';
import { LIMITS } from '#deltas/limits.ts';
import { SampleRate, Sampler, sorted } from '#deltas/sketch.ts';
import { Coverage, SketchIndex } from '#deltas/sketch-index.ts';
import {
  apply,
  between,
  changeColumn,
  codeOf,
  columnsOf,
  type Files,
  make,
  memoryBasis,
  noise,
  type OpenSection,
  replaceColumn,
  reseal,
  sha256,
  source,
  tarOfFiles,
} from '#test/deltas-kit.ts';

const lines = (text: string, from: number, to: number): string =>
  `${text.split('\n').slice(from, to).join('\n')}\n`;

describe('a sketch', () => {
  const sketch = (bytes: Uint8Array, cut = bytes.length, rate = new SampleRate()): Uint32Array => {
    const sampler = new Sampler(rate);
    for (let at = 0; at < bytes.length; at += cut) sampler.update(bytes.subarray(at, at + cut));
    return sampler.finish();
  };

  test('is the same however the bytes come', () => {
    const bytes = Buffer.from(source(600, 'cut'));
    const whole = sketch(bytes);
    expect(whole.length).toBeGreaterThan(bytes.length / 256);
    expect(whole.length).toBeLessThan(bytes.length / 64);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), (cut) => {
        expect(sketch(bytes, cut)).toEqual(whole);
      }),
      { numRuns: 40 },
    );
  });

  test('shares with another the part that the bytes share', () => {
    const [a, b] = [noise(400_000, 'a'), noise(400_000, 'b')];
    const both = sorted(sketch(Buffer.concat([b.subarray(0, 100_001), a.subarray(0, 300_000)])));
    const ofA = new Set(sketch(a));
    const shared = both.filter((feature) => ofA.has(feature)).length / both.length;
    expect(shared).toBeGreaterThan(0.7);
    expect(shared).toBeLessThan(0.8);
  });

  test('of one file says nothing of the one before', () => {
    const sampler = new Sampler(new SampleRate());
    sampler.update(noise(10_000, 'before'));
    sampler.finish();
    const bytes = noise(10_000, 'after');
    sampler.update(bytes);
    expect(sampler.finish()).toEqual(sketch(bytes));
  });

  test('holds fewer of each file when there are too many', () => {
    const rate = new SampleRate();
    rate.add(LIMITS.sketchFeaturesMax);
    expect(rate.limit).toBe(2 ** 32);
    rate.add(1);
    expect(rate.limit).toBe(2 ** 31);
    const bytes = noise(1_000_000, 'many');
    const all = sketch(bytes);
    expect(sketch(bytes, 4_096, rate)).toEqual(all.filter((feature) => feature < 2 ** 31));
  });

  test('of one value repeated is next to nothing', () => {
    for (let value = 0; value < 256; value += 1)
      expect(sketch(Buffer.alloc(20_000, value)).length).toBeLessThan(2);
  });

  test('tells runs: each from the file that has the longest', () => {
    const index = new SketchIndex([1, 2, 3].map((n) => Uint32Array.of(10 * n, 10 * n + 1, 10 * n + 2, 99)));
    const bytes = (file: number): number => 100 - file;
    const features = Uint32Array.of(10, 11, 7, 12, 20, 21, 22, 8, 9, 99);
    const coverage = new Coverage(index, features);
    expect([...coverage.runs(undefined, bytes, 1_000)]).toEqual([
      [0, 4],
      [1, 3],
      [2, 1],
    ]);
    // The first is preferred, if it is there; what is too long is not.
    expect([...coverage.runs(0, bytes, 1_000)]).toEqual([
      [0, 5],
      [1, 3],
    ]);
    expect([...coverage.runs(undefined, bytes, 99)]).toEqual([
      [1, 3],
      [2, 1],
    ]);
    expect([coverage.of(0), coverage.of(1), coverage.most(2, () => true)]).toEqual([4, 4, [0, 1]]);
  });
});

describe('a file that', () => {
  const texts = Array.from({ length: 12 }, (_, at) => source(120, `part ${at}`));
  const parts: Files = Object.fromEntries(
    texts.map((text, at) => [`src/part-${'abcdefghijkl'[at]}.js`, text]),
  );

  test('moved, has another name and a change is made from the one that it was', async () => {
    const { layer, bytes } = await between(parts, {
      'lib/x/core.mjs': texts[4]?.replace('const', 'let') as string,
    });
    expect(layer.patched.files).toBe(1);
    expect(bytes).toBeLessThan(500);
  });

  test('took the name of another is made from the one that it was', async () => {
    const young = {
      ...parts,
      'src/part-a.js': `${texts[7]}// moved\n`,
      'src/part-h.js': `${texts[0]}// moved\n`,
    };
    const { layer, bytes, artifact } = await between(parts, young);
    expect([layer.patched.files, layer.literal.files]).toEqual([2, 0]);
    expect(bytes).toBeLessThan(900);
    const [inspected] = (await inspectDelta(memoryAccess(artifact))).layers;
    const from = (path: string) => inspected?.files?.find((file) => file.path === path)?.from;
    expect([from('src/part-a.js'), from('src/part-h.js')]).toEqual([['src/part-h.js'], ['src/part-a.js']]);
  });

  test('stayed where it was is made from that, however alike another is', async () => {
    const changed = lines(texts[0] as string, 0, 119);
    const { artifact } = await between(
      { ...parts, 'src/twin.js': `${texts[0]}// twin\n` },
      { 'src/part-a.js': changed },
    );
    const [layer] = (await inspectDelta(memoryAccess(artifact))).layers;
    expect(layer?.files?.map(({ from }) => from)).toEqual([['src/part-a.js']]);
  });

  test.each(['never', 'auto'] as const)(
    'was put together from twelve takes little: listing %s',
    async (listing) => {
      const bundle = texts.map((text, at) => `// module ${at}\n${text}`).join('');
      const { layer, bytes, artifact } = await between(parts, { 'dist/bundle-0f3a77.js': bundle }, listing);
      expect(layer.joined).toEqual({ files: 1, bases: 12 });
      expect(bytes).toBeLessThan(900);
      const { codecs } = await openDelta(memoryAccess(artifact));
      expect(codecs).toContain('joined-1');
    },
  );

  test('was one and is several is made from that one', async () => {
    const young = Object.fromEntries(texts.map((text, at) => [`out/${at}.js`, `${text}// part\n`]));
    const { layer, bytes } = await between({ 'dist/all.js': texts.join('') }, young);
    expect([layer.patched.files, layer.literal.files]).toEqual([12, 0]);
    expect(bytes).toBeLessThan(1_600);
  });

  test('is made of two halves of others takes both', async () => {
    const young = { 'src/new.js': lines(texts[1] as string, 60, 119) + lines(texts[2] as string, 0, 60) };
    const { layer, bytes } = await between(parts, young);
    expect(layer.joined).toEqual({ files: 1, bases: 2 });
    expect(bytes).toBeLessThan(500);
  });

  test('has nothing in common with any is sent as it is', async () => {
    const { layer } = await between(parts, { 'src/other.txt': noise(5_000, 'other') });
    expect([layer.literal.files, layer.patched.files]).toEqual([1, 0]);
  });

  test('is made of pieces of others, in any order, comes back', async () => {
    const [a, b] = [noise(9_000, 'a'), noise(700, 'b')];
    const olds: Files = { ...parts, 'bin/a': a, 'bin/b': b, 'bin/again': a };
    const names = Object.keys(olds);
    const piece = fc.record({
      of: fc.constantFrom(...names),
      from: fc.double({ min: 0, max: 1, noNaN: true }),
      length: fc.nat(4_000),
      change: fc.boolean(),
    });
    const young = fc.array(piece, { maxLength: 9 }).map((pieces) =>
      Buffer.concat(
        pieces.map(({ of, from, length, change }) => {
          const bytes = Buffer.from(olds[of] as string | Buffer);
          const start = Math.floor(from * bytes.length);
          const some = Buffer.from(bytes.subarray(start, start + length));
          if (change && some.length > 0) some[some.length >> 1] = 0;
          return some;
        }),
      ),
    );
    const file = fc.tuple(fc.constantFrom(...names, 'new/x', 'src/part-z.js', './src/y.js', 'q'), young);
    let joined = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(file, { minLength: 1, maxLength: 4 }),
        fc.constantFrom('auto' as const, 'never' as const),
        async (files, listing) => {
          joined += (await between(olds, Object.fromEntries(files), listing)).layer.joined.files;
        },
      ),
      { numRuns: 20 },
    );
    expect(joined).toBeGreaterThan(5);
  }, 120_000);
});

test('a program that took in another file is still patched as a program', async () => {
  const golden = JSON.parse(readFileSync(new URL('deltas-golden-v1.json', import.meta.url), 'utf8')) as {
    name: string;
    basis: Record<string, string>;
  }[];
  const basis = golden.find(({ name }) => name.startsWith('moves'))?.basis ?? {};
  const program = Buffer.from(Object.values(basis)[0] as string, 'base64');
  const data = noise(30_000, 'taken in');
  const young = Buffer.concat([program, data.subarray(0, 20_000)]);
  young.write('changed', program.length >> 1);
  const { layer, bytes } = await between({ 'bin/tool': program, 'share/data': data }, { 'bin/tool': young });
  expect(layer.joined).toEqual({ files: 1, bases: 2 });
  expect(layer.moves.references).toBeGreaterThan(50);
  expect(bytes).toBeLessThan(900);
});

describe('names', () => {
  const files: Files = Object.fromEntries(
    Array.from({ length: 300 }, (_, at) => {
      const folder = noise(5, `folder ${at >> 4}`).toString('hex');
      return [
        `app/node_modules/${folder}/lib/${noise(7, `name ${at}`).toString('hex')}.js`,
        source(6, `f${at}`),
      ];
    }),
  );
  const moved = (to: (path: string) => string): Files =>
    Object.fromEntries(Object.entries(files).map(([path, text]) => [to(path), text]));

  test('of a tree that moved take next to nothing', async () => {
    const { artifact, bytes } = await between(
      files,
      moved((path) => path.replace('node_modules/', 'store/x/')),
      'auto',
    );
    expect((await openDelta(memoryAccess(artifact))).codecs).toContain('moved-names');
    expect(bytes).toBeLessThan(1_000);
  });

  test('that changed in any way come back', async () => {
    const part = fc.constantFrom('', '.', 'a', 'x/', '/y', '-1f2e3d', 'app/', 'lib/', 'ü');
    const change = fc.record({ at: fc.nat(60), cut: fc.nat(40), put: part, before: part });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 8 }), async (changes) => {
        let at = 0;
        const young = moved((path) => {
          const { at: place, cut, put, before } = changes[at++ % changes.length] as (typeof changes)[number];
          const name = before + path.slice(0, place) + put + path.slice(place + cut);
          return name.replace(/^\/+|\/+$/g, '').slice(0, 90) || 'empty';
        });
        expect((await between(files, young, 'auto')).same).toBe(true);
      }),
      { numRuns: 12 },
    );
  }, 120_000);
});

describe('several files as one', () => {
  const texts = [noise(1_000, 'a'), noise(1, 'b'), noise(70_000, 'c'), noise(33, 'd')];
  const whole = Buffer.concat(texts);
  const joined = (count = texts.length) => {
    const state = { open: 0, most: 0, opened: 0 };
    const parts = Array.from({ length: count }, (_, at) => ({
      path: `${at}`,
      bytes: (texts[at % 4] as Buffer).length,
    }));
    const file = new JoinedFile(parts, async ({ path }) => {
      state.open += 1;
      state.opened += 1;
      state.most = Math.max(state.most, state.open);
      return {
        ...memoryAccess(texts[Number(path) % 4] as Buffer),
        close: async () => {
          state.open -= 1;
        },
      };
    });
    return { file, state };
  };

  test('are read at any place', async () => {
    const { file } = joined();
    expect(file.size).toBe(whole.length);
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length + 5), fc.nat(2_500), async (offset, length) => {
        const some = Buffer.from(await file.read(offset, length));
        expect(some.equals(whole.subarray(offset, offset + length))).toBe(true);
      }),
    );
    expect(Buffer.from(await file.read(0, whole.length)).equals(whole)).toBe(true);
  });

  test('are open a few at a time, and closed at the end', async () => {
    const { file, state } = joined(200);
    expect((await file.read(0, file.size)).length).toBe(50 * whole.length);
    expect([state.most, state.opened]).toEqual([LIMITS.basisFilesOpenMax, 200]);
    await file.close();
    expect(state.open).toBe(0);
  });
});

describe('a hostile artifact', () => {
  const old: Record<string, Buffer> = Object.fromEntries(
    Array.from({ length: 5 }, (_, at) => [`src/${at}.js`, Buffer.from(source(150, `hostile ${at}`))]),
  );
  const young = tarOfFiles({ 'dist/all.js': `// all\n${Object.values(old).join('\n')}`, last: 'last' });
  const basis = memoryBasis(old);
  let artifact: Buffer;
  let listed: Buffer;
  beforeAll(async () => {
    artifact = (await make([tarOfFiles(old)], [young])).artifact;
    const more = Object.fromEntries(
      Array.from({ length: 300 }, (_, at) => [
        `src/${noise(9, `${at}`).toString('hex')}.js`,
        source(5, `${at}`),
      ]),
    );
    const files = { ...old, ...more };
    const target = tarOfFiles({ ...more, 'dist/all.js': Object.values(old).join('\n') });
    listed = (await make([tarOfFiles(files)], [target], 'auto')).artifact;
  });
  const outcome = (bytes: Buffer, from = basis): Promise<string> =>
    codeOf(async () => {
      if (!(await apply(bytes, sha256(young), from)).equals(young))
        throw new Error('wrong bytes were accepted');
    });
  const indexOf = (sections: OpenSection[]): OpenSection => {
    const index = sections.find(({ kind }) => kind === 'index');
    if (index === undefined) throw new Error('no index');
    return index;
  };
  /** The windows column of the one content: count, lengths, moves, literals. */
  const numbers = async (change: (numbers: number[]) => void): Promise<Buffer> =>
    reseal(artifact, (sections) => {
      const index = indexOf(sections);
      const reader = new ByteReader(columnsOf(index.raw).get('windows') as Buffer, 'test');
      const list: number[] = [];
      while (reader.left > 0) list.push(reader.integer());
      expect(list[0]).toBe(5);
      const lengths = Object.values(old).map((bytes) => bytes.length + 1);
      expect(new Set(list.slice(1, 6))).toEqual(new Set(lengths));
      change(list);
      const writer = new ByteWriter();
      for (const value of list) writer.integer(value);
      index.raw = replaceColumn(index.raw, 'windows', writer.finish());
    });

  test('whose numbers lie is refused', async () => {
    expect(await outcome(artifact)).toBe('none');
    expect((await openDelta(memoryAccess(listed))).needsList).toBe(true);
    const set = (at: number, value: number) => numbers((list) => void list.splice(at, 1, value));
    for (const count of [0, 1, 6, LIMITS.basisFilesMax + 1, 2 ** 50])
      expect(await outcome(await set(0, count)), `${count} parts`).toBe('CORRUPT');
    expect(await outcome(await set(0, 4))).toBe('BASIS_MISMATCH');
    for (const length of [0, 1, 2 ** 53 - 1]) expect(await outcome(await set(3, length))).toBe('CORRUPT');
    for (const length of [2, 5_000_000, 2 ** 52])
      expect(await outcome(await set(3, length))).toBe('BASIS_MISMATCH');
    for (const at of [6, 7]) {
      for (const value of [0, 1, 2 ** 40]) expect(await outcome(await set(at, value))).toBe('CORRUPT');
    }
  });

  test('whose references lie is refused, and asks for no path outside', async () => {
    const asked: string[] = [];
    const spy: Basis = {
      open: (path) => {
        asked.push(path);
        return basis.open(path);
      },
    };
    for (const path of ['../src/1.js', '/etc/shadow', 'src/0.js', 'none', '', 'src']) {
      const hostile = await reseal(artifact, (sections) => {
        const index = indexOf(sections);
        const writer = new ByteWriter();
        for (const name of ['src/0.js', path, 'src/2.js', 'src/3.js', 'src/4.js']) {
          writer.byte(2);
          writer.string(name);
        }
        index.raw = replaceColumn(index.raw, 'references', writer.finish());
      });
      expect(await outcome(hostile, spy), path).toMatch(/^(CORRUPT|BASIS_MISMATCH)$/);
    }
    for (const path of asked) expect(path).toMatch(/^(src\/\d\.js|etc\/shadow|none|src)$/);
  });

  test('with any bytes in any column is refused or gives the same', async () => {
    const codes = new Set<string>();
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(
          'references' as const,
          'windows' as const,
          'nameIds' as const,
          'nameModes' as const,
          'names' as const,
        ),
        fc.nat(40),
        fc.uint8Array({ minLength: 1, maxLength: 5 }),
        fc.boolean(),
        fc.boolean(),
        async (column, place, bytes, insert, long) => {
          const hostile = await reseal(long ? listed : artifact, (sections) => {
            const index = indexOf(sections);
            index.raw = changeColumn(index.raw, column, place, bytes, insert);
          });
          const { layers } = await openDelta(memoryAccess(hostile));
          const diffId = layers[0]?.diffId as string;
          codes.add(
            await codeOf(async () => {
              expect(sha256(await apply(hostile, diffId, basis))).toBe(diffId);
            }),
          );
        },
      ),
      { numRuns: 200 },
    );
    expect([...codes].every((code) => /^(none|CORRUPT|BASIS_MISMATCH|TOO_LARGE)$/.test(code))).toBe(true);
    expect(codes.size).toBeGreaterThan(1);
  }, 60_000);

  test('or another basis: any of the files gone, longer, changed or in another’s place', async () => {
    for (const path of Object.keys(old)) {
      const bytes = old[path] as Buffer;
      const flipped = Buffer.from(bytes);
      flipped[bytes.length >> 1] = (flipped[bytes.length >> 1] as number) ^ 1;
      const other = path === 'src/0.js' ? 'src/1.js' : 'src/0.js';
      const { [path]: _, ...without } = old;
      for (const files of [
        without,
        { ...old, [path]: flipped },
        { ...old, [path]: Buffer.concat([bytes, bytes]) },
        { ...old, [path]: old[other] as Buffer, [other]: bytes },
      ]) {
        const chunks: Uint8Array[] = [];
        const run = async (): Promise<void> => {
          const delta = await openDelta(memoryAccess(artifact));
          for await (const chunk of applyLayer(delta, sha256(young), memoryBasis(files))) chunks.push(chunk);
        };
        expect(await codeOf(run)).toBe('BASIS_MISMATCH');
        expect(chunks).toEqual([]);
      }
    }
  });
});

test('inspection shows every file that one is made from', async () => {
  const texts = Array.from({ length: 3 }, (_, at) => source(90, `shown ${at}`));
  const old = tarOfFiles(Object.fromEntries(texts.map((text, at) => [`src/${at}.js`, text])));
  const { artifact } = await make([old], [tarOfFiles({ 'all.js': texts.join('') })]);
  const delta = await openDelta(memoryAccess(artifact));
  expect([...(await delta.basisPaths())].sort()).toEqual(['src/0.js', 'src/1.js', 'src/2.js']);
  const inspection = await inspectDelta(delta);
  const [file] = inspection.layers[0]?.files ?? [];
  expect([file?.how, file?.codecs, file?.from.toSorted()]).toEqual([
    'patch',
    ['joined'],
    ['src/0.js', 'src/1.js', 'src/2.js'],
  ]);
  expect(renderInspection(inspection)).toMatch(/^all\.js .* joined +src\/\d\.js and 2 more$/m);
});
