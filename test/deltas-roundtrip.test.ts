import { mkdtempSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type LayerSource, makeDelta } from '#deltas/index.ts';
import { normalise } from '#deltas/match.ts';
import {
  apply,
  BASIS_ID,
  codeOf,
  type HandEntry,
  layerOf,
  make,
  memoryBasis,
  noise,
  roundTrip,
  scratch,
  sha256,
  source,
  TARGET_ID,
  tarOf,
} from '#test/deltas-kit.ts';

/** An app of many source files, as `COPY . /app/` packs it. */
function app(
  files: number,
  mtime: (at: number) => number,
  change: (at: number, text: string) => string,
): Buffer {
  const entries: HandEntry[] = [{ name: 'app/', type: '5', mode: 0o755, mtime: mtime(0) }];
  let folder = '';
  for (let at = 0; at < files; at += 1) {
    const next = `app/node_modules/package-${String(Math.floor(at / 12)).padStart(4, '0')}/`;
    if (next !== folder) entries.push({ name: next, type: '5', mode: 0o755, mtime: mtime(at) });
    folder = next;
    const content = change(at, source(20 + ((at * 7) % 90), `file ${at}`));
    entries.push({ name: `${next}file-${String(at).padStart(5, '0')}.js`, content, mtime: mtime(at) });
  }
  return tarOf(entries);
}

describe('sizes', () => {
  test('an app update: 2,000 files, 5 changed, every mtime fresh', async () => {
    const before = app(
      2_000,
      (at) => 1_690_000_000 + (at % 13),
      (_, text) => text,
    );
    const after = app(
      2_000,
      (at) => 1_700_000_000 + Math.floor(at / 400),
      (at, text) => (at % 400 === 7 ? text.replace('const', 'let   rotor = 3; const') : text),
    );
    const listed = await roundTrip([before], [after], 'auto');
    const plain = await roundTrip([before], [after]);
    expect([listed.same, plain.same]).toEqual([true, true]);
    expect(listed.summary.needsList).toBe(true);
    expect(plain.summary.needsList).toBe(false);
    expect(listed.artifact.length).toBeLessThan(2_000);
    expect(plain.artifact.length).toBeLessThan(16_000);
    expect(listed.summary.layers[0]?.patched.files).toBe(5);
    expect(listed.summary.layers[0]?.literal.files).toBe(0);
  });

  test('a small app does not ask for the listing', async () => {
    const before = app(
      20,
      () => 1,
      (_, text) => text,
    );
    const after = app(
      20,
      () => 2,
      (_, text) => `${text}\n`,
    );
    const { summary, artifact, same } = await roundTrip([before], [after], 'auto');
    expect(same).toBe(true);
    expect(summary.needsList).toBe(false);
    expect(artifact.length).toBeLessThan(1_500);
  });

  test('a 24 MB file with a few bytes put in, taken out and changed', async () => {
    const old = noise(24_000_000, 'weights');
    const young = Buffer.concat([
      old.subarray(0, 5_000_000),
      Buffer.from('put in'),
      old.subarray(5_000_000, 12_345_678),
      old.subarray(12_345_778, 20_000_000),
      Buffer.from('other'),
      old.subarray(20_000_005),
    ]);
    const { artifact, summary, same } = await roundTrip(
      [tarOf([{ name: 'model.bin', content: old }])],
      [tarOf([{ name: 'model.bin', content: young }])],
    );
    expect(same).toBe(true);
    expect(artifact.length).toBeLessThan(4_000);
    expect(summary.layers[0]?.windows.literal.count).toBe(0);
  });

  test('a moved and changed file is made from the one it was', async () => {
    const text = source(2_000, 'moved');
    const { artifact, same } = await roundTrip(
      [tarOf([{ name: 'lib/libcore.so.1.2.3', content: text }])],
      [tarOf([{ name: 'opt/new/lib/libcore.so.1.3.0', content: `${text}// new\n` }])],
    );
    expect(same).toBe(true);
    expect(artifact.length).toBeLessThan(600);
    expect(normalise('dist/chunk-3f9a2c1b.js')).toBe(normalise('dist/chunk-77e0a1d2.js'));
    expect(normalise('libfoo.so.1.2.3')).toBe(normalise('libfoo.so.1.3.0'));
  });

  test('many new small files are compressed together', async () => {
    const entries = Array.from({ length: 300 }, (_, at) => ({
      name: `n/${at}.js`,
      content: source(30, `${at % 3}`),
    }));
    const { artifact, same } = await roundTrip([], [tarOf(entries)]);
    expect(same).toBe(true);
    expect(artifact.length).toBeLessThan(6_000);
  });
});

describe('any image from any other', () => {
  const name = fc
    .array(fc.constantFrom('a', 'b', 'lib', '.wh.a', 'ü', 'x'.repeat(60), 'file-1.2.js', '..'), {
      minLength: 1,
      maxLength: 4,
    })
    .map((parts) => parts.join('/').slice(0, 100));
  const content = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.constantFrom(
        '',
        'x',
        source(5, 'p'),
        source(300, 'q'),
        `${source(300, 'q')}tail`,
        `head${source(300, 'q')}`,
      ),
    },
    { weight: 4, arbitrary: fc.uint8Array({ maxLength: 1_500 }).map((bytes) => Buffer.from(bytes)) },
    {
      weight: 1,
      arbitrary: fc.integer({ min: 0, max: 3 }).map((seed) => {
        // Above one window, and with a place that differs.
        const bytes = noise(700_000, 'large');
        bytes[seed * 100_000] = seed;
        return bytes;
      }),
    },
  );
  const anEntry = fc.record({
    name,
    content,
    type: fc.constantFrom('0', '0', '0', '0', '\0', '5', '2', '1'),
    mtime: fc.integer({ min: 0, max: 2 ** 33 - 1 }),
    mode: fc.constantFrom(0o644, 0o755, 0o4755),
    magic: fc.constantFrom('ustar\x0000', 'ustar  \0', '\0\0\0\0\0\0\0\0'),
  });
  const layer = fc
    .array(anEntry, { maxLength: 12 })
    .map((entries) =>
      tarOf(
        entries.map((one) =>
          one.type === '0' || one.type === '\0'
            ? one
            : { ...one, content: '', link: one.type === '5' ? '' : 'a/b' },
        ),
      ),
    );
  test('is the same bit by bit', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(layer, { maxLength: 3 }),
        fc.array(layer, { minLength: 1, maxLength: 2 }),
        fc.constantFrom('auto' as const, 'never' as const),
        async (basis, target, listing) => {
          expect((await roundTrip(basis, target, listing)).same).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  }, 120_000);
});

describe('makeDelta', () => {
  const tar = tarOf([{ name: 'a', content: source(100, 'a') }]);
  const run = async (target: LayerSource, more: object = {}): Promise<string> => {
    using folder = scratch();
    const work = mkdtempSync(join(folder.path, 'work-'));
    try {
      return await codeOf(() =>
        makeDelta({
          basisId: BASIS_ID,
          basisLayers: [],
          targetId: TARGET_ID,
          targetLayers: [target],
          scratchDirectory: work,
          output: join(folder.path, 'out'),
          ...more,
        }),
      );
    } finally {
      expect(readdirSync(work)).toEqual([]);
    }
  };
  test('refuses a layer that is not what it says, and leaves nothing behind', async () => {
    const good = layerOf(tar);
    expect(await run(good)).toBe('none');
    expect(await run({ ...good, diffId: sha256('other') })).toBe('BAD_INPUT');
    expect(await run({ ...good, bytes: tar.length + 1 })).toBe('BAD_INPUT');
    expect(await run({ ...good, bytes: tar.length - 1 })).toBe('BAD_INPUT');
    expect(await run({ ...good, diffId: 'sha512:aa' })).toBe('BAD_INPUT');
    expect(await run(good, { basisId: 'latest' })).toBe('BAD_INPUT');
    const broken: LayerSource = {
      ...good,
      async *open() {
        yield tar.subarray(0, 700);
        throw new Error('disk on fire');
      },
    };
    expect(await run(broken)).toBe('READ_FAILED');
  });
  test('stops when it is told to', async () => {
    const controller = new AbortController();
    controller.abort(new Error('enough'));
    await expect(run(layerOf(tar), { signal: controller.signal })).rejects.toThrow('enough');
  });
  test('leaves out layers that the basis has, and writes a layer once', async () => {
    const other = tarOf([{ name: 'b', content: 'b' }]);
    const { summary } = await make([tar], [tar, other, other]);
    expect(summary.layers.map(({ diffId }) => diffId)).toEqual([sha256(other)]);
    expect((await make([tar], [tar])).summary.layers).toEqual([]);
  });
  test('tells how far it is', async () => {
    using folder = scratch();
    const seen = new Map<string, number>();
    const target = app(
      50,
      () => 1,
      (_, text) => text,
    );
    await makeDelta({
      basisId: BASIS_ID,
      basisLayers: [layerOf(tar)],
      targetId: TARGET_ID,
      targetLayers: [layerOf(target)],
      scratchDirectory: folder.path,
      output: join(folder.path, 'out'),
      onProgress: ({ stage, doneBytes, allBytes }) => {
        expect(doneBytes).toBeLessThanOrEqual(allBytes);
        expect(doneBytes).toBeGreaterThanOrEqual(seen.get(stage) ?? 0);
        seen.set(stage, doneBytes);
      },
    });
    expect([...seen.keys()]).toEqual(['read-basis', 'read-target', 'encode', 'write']);
    expect(seen.get('encode')).toBe(target.length);
  });
});

test('a consumer that stops early leaves nothing open', async () => {
  const target = tarOf([{ name: 'n', content: noise(5_000_000, 'n') }]);
  const { artifact } = await make([], [target]);
  const { openDelta, applyLayer, memoryAccess } = await import('#deltas/index.ts');
  const delta = await openDelta(memoryAccess(artifact));
  for await (const chunk of applyLayer(delta, sha256(target), memoryBasis({}))) {
    expect(chunk.length).toBe(65_536);
    break;
  }
  expect((await apply(artifact, sha256(target), memoryBasis({}))).equals(target)).toBe(true);
});
