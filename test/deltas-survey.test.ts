/** A kept survey stands for the reading of a layer, and nothing shows whether there was one. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type LayerSource,
  makeDelta,
  memoryAccess,
  openDelta,
  type SurveyStore,
  spoolBasis,
} from '#deltas/index.ts';
import { below, SampleRate, Sampler } from '#deltas/sketch.ts';
import {
  BASIS_ID,
  codeOf,
  type HandEntry,
  layerOf,
  noise,
  paxBody,
  scratch,
  sha256,
  source,
  TARGET_ID,
  tarOf,
} from '#test/deltas-kit.ts';

/** In memory, and what was asked of it. */
function keeper(): SurveyStore & { kept: Map<string, Uint8Array> } {
  const kept = new Map<string, Uint8Array>();
  return {
    kept,
    get: async (diffId) => kept.get(diffId),
    put: async (diffId, bytes) => void kept.set(diffId, bytes),
  };
}

/** Layers that count how often each is read. */
function counted(tars: Buffer[], reads: string[]): LayerSource[] {
  return tars.map((tar, at) => {
    const layer = layerOf(tar);
    return {
      ...layer,
      open: () => {
        reads.push(String(at));
        return layer.open();
      },
    };
  });
}

async function artifact(
  basisLayers: LayerSource[],
  targetLayers: LayerSource[],
  surveys?: SurveyStore,
): Promise<Buffer> {
  using folder = scratch();
  const output = join(folder.path, 'out');
  await makeDelta({
    basisId: BASIS_ID,
    basisLayers,
    targetId: TARGET_ID,
    targetLayers,
    scratchDirectory: folder.path,
    output,
    ...(surveys && { surveys }),
  });
  return readFileSync(output);
}

const base = tarOf([
  { name: 'lib/', type: '5' },
  { name: 'lib/large', content: noise(400_000, 'large') },
  { name: 'lib/text', content: source(2_000, 'text') },
  { name: 'lib/hard', type: '1', link: 'lib/text' },
]);
const before = tarOf([
  { name: 'app/main.js', content: source(400, 'main') },
  { name: 'app/gone.js', content: source(300, 'gone') },
]);
const after = tarOf([
  { name: 'app/main.js', content: `${source(400, 'main')}// more\n` },
  { name: 'app/moved.js', content: `// moved\n${source(300, 'gone')}` },
  { name: 'app/copy', content: source(2_000, 'text') },
]);

describe('with a store of surveys', () => {
  test('each layer is surveyed once, and then read only for what is patched or new', async () => {
    const surveys = keeper();
    const [basis, target]: [string[], string[]] = [[], []];
    const run = () =>
      artifact(counted([base, before], basis), counted([base, after], target).slice(1), surveys);
    const first = await run();
    expect(basis).toEqual(['0', '1', '1']);
    expect(target).toEqual(['1', '1']);
    expect([...surveys.kept.keys()].sort()).toEqual([base, before, after].map(sha256).sort());
    basis.length = 0;
    target.length = 0;
    expect((await run()).equals(first)).toBe(true);
    expect(basis).toEqual(['1']);
    expect(target).toEqual(['1']);
    expect((await artifact([base, before].map(layerOf), [layerOf(after)])).equals(first)).toBe(true);
  });

  test('the artifact is the same for any images, whether surveys are kept, made or not there', async () => {
    const name = fc.constantFrom(
      'a',
      'a/b',
      'a/c',
      'd/e',
      'd/f.js',
      'd/g.js',
      'd/.wh.e',
      '.wh.a',
      'a/.wh..wh..opq',
    );
    const content = fc.constantFrom<string | Buffer>(
      '',
      'x',
      source(80, 'one'),
      `${source(80, 'one')}!`,
      source(80, 'one').replaceAll('return', 'throw'),
      noise(3_000, 'n'),
      Buffer.concat([noise(3_000, 'n'), noise(1_000, 'm')]),
    );
    const sparse = { 'GNU.sparse.major': '1', 'GNU.sparse.name': 'd/e', 'GNU.sparse.realsize': '4096' };
    const entry = fc.oneof(
      { weight: 8, arbitrary: fc.record({ name, content }) as fc.Arbitrary<HandEntry> },
      fc.record({ name, type: fc.constantFrom('1', '2'), link: name }) as fc.Arbitrary<HandEntry>,
      fc.constant<HandEntry>({ name: 'x', type: 'x', content: paxBody(sparse) }),
      fc.constant<HandEntry>({
        name: 'x',
        type: 'x',
        content: paxBody({ path: `d/${'long/'.repeat(30)}end` }),
      }),
      // Says more than the tar has.
      fc.constant<HandEntry>({ name: 'd/e', content: 'short', size: 1e9 }),
    );
    const image = fc.array(
      fc.array(entry, { maxLength: 8 }).map((entries) => tarOf(entries)),
      {
        minLength: 1,
        maxLength: 3,
      },
    );
    await fc.assert(
      fc.asyncProperty(image, image, async (old, young) => {
        const surveys = keeper();
        const run = (store?: SurveyStore) => artifact(old.map(layerOf), young.map(layerOf), store);
        const plain = await run();
        expect((await run(surveys)).equals(plain)).toBe(true);
        expect((await run(surveys)).equals(plain)).toBe(true);
      }),
      { numRuns: 40 },
    );
  }, 120_000);

  test('a basis is spooled as without', async () => {
    const surveys = keeper();
    const layers = [base, before].map(layerOf);
    const made = await artifact(layers, [layerOf(after)], surveys);
    const spooled = async (store?: SurveyStore) => {
      using folder = scratch();
      const path = join(folder.path, 'spooled');
      const { files, bytes } = await spoolBasis(layers, await openDelta(memoryAccess(made)), path, {
        surveys: store,
      });
      return { files, bytes, content: readFileSync(path) };
    };
    expect(await spooled(surveys)).toEqual(await spooled());
  });

  test('a damaged, foreign or older survey is as good as none, and replaced', async () => {
    const surveys = keeper();
    const basis: string[] = [];
    const run = () => artifact(counted([base, before], basis), [layerOf(after)], surveys);
    const made = await run();
    const id = sha256(base);
    const good = Buffer.from(surveys.kept.get(id) ?? []);
    const spoilt = (at: number): Buffer => {
      const bytes = Buffer.from(good);
      bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
      return bytes;
    };
    const older = Buffer.from(good);
    older.write('midair survey 0\n');
    for (const bytes of [
      Buffer.alloc(0),
      good.subarray(0, 20),
      good.subarray(0, -1),
      spoilt(0),
      spoilt(20),
      spoilt(50),
      spoilt(good.length - 1),
      older,
      surveys.kept.get(sha256(before)) as Uint8Array,
    ]) {
      surveys.kept.set(id, bytes);
      basis.length = 0;
      expect((await run()).equals(made)).toBe(true);
      expect(basis).toEqual(['0', '1']);
      expect(good.equals(surveys.kept.get(id) as Uint8Array)).toBe(true);
    }
  });

  test('what is read is still checked', async () => {
    const surveys = keeper();
    await artifact([base, before].map(layerOf), [layerOf(after)], surveys);
    const spoil = (tar: Buffer): LayerSource => ({
      ...layerOf(tar),
      async *open() {
        yield tar.subarray(0, -1);
        yield Buffer.from([1]);
      },
    });
    const code = (old: LayerSource[], young: LayerSource) => codeOf(() => artifact(old, [young], surveys));
    // To patch from, and to encode.
    expect(await code([layerOf(base), spoil(before)], layerOf(after))).toBe('BAD_INPUT');
    expect(await code([base, before].map(layerOf), spoil(after))).toBe('BAD_INPUT');
    // A layer that is not read at all does no harm.
    expect(await code([spoil(base), layerOf(before)], layerOf(after))).toBe('none');
    // Another length is another layer.
    const longer = { ...layerOf(base), bytes: base.length + 512 };
    expect(await code([longer, layerOf(before)], layerOf(after))).toBe('BAD_INPUT');
  });
});

test('features cut to a limit are those that are sampled at it', () => {
  // Runs of one value between others: what comes again in a row is kept once, and which that is depends on the limit.
  const bytes = Buffer.concat(
    Array.from({ length: 200 }, (_, at) => noise(at % 3 === 0 ? 900 : 150, `piece ${at % 7}`)),
  );
  const sample = (limit: number): Uint32Array => {
    const rate = new SampleRate();
    rate.lower(limit);
    const sampler = new Sampler(rate);
    sampler.update(bytes);
    return sampler.finish();
  };
  const all = sample(2 ** 32);
  expect(below(all, 2 ** 32)).toEqual(all);
  for (const limit of [2 ** 31, 2 ** 30, 2 ** 28]) expect(below(all, limit)).toEqual(sample(limit));
  expect(sample(2 ** 30).length).toBeGreaterThan(5);
  expect(sample(2 ** 30).length).toBeLessThan(all.length / 2);
});
