/** Deflate streams opened and closed again: by zlib, GNU gzip, Python, pako and Node, in gzip, zip and PNG files. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { constants, crc32, createDeflateRaw, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { deflateRaw } from 'pako';
import { beforeAll, describe, expect, test } from 'vitest';
import { applyLayer, inspectDelta, memoryAccess, openDelta, renderInspection } from '#deltas/index.ts';
import { LIMITS } from '#deltas/limits.ts';
import { Budget, closeStreams } from '#deltas/streams/closer.ts';
import { type OpenedFiles, openStreams } from '#deltas/streams/encoder.ts';
import { OpenedFile } from '#deltas/streams/opener.ts';
import { PlanReader } from '#deltas/streams/plan.ts';
import {
  apply,
  codeOf,
  type HandEntry,
  type Made,
  make,
  memoryBasis,
  noise,
  scratch,
  sha256,
  source,
  tarOf,
} from '#test/deltas-kit.ts';

const NOTHING = Buffer.alloc(0);

/** A gzip file of a raw stream, without name and time. */
function gzipOf(packed: Uint8Array, raw: Buffer): Buffer {
  const tail = Buffer.alloc(8);
  tail.writeUInt32LE(crc32(raw), 0);
  tail.writeUInt32LE(raw.length, 4);
  return Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]), packed, tail]);
}

/** A PNG with a picture of those bytes, in IDAT chunks of that many. */
function pngOf(raw: Buffer, chunkBytes: number, strategy: number = constants.Z_DEFAULT_STRATEGY): Buffer {
  const chunk = (type: string, data: Buffer): Buffer => {
    const out = Buffer.alloc(12 + data.length);
    out.writeUInt32BE(data.length, 0);
    out.write(type, 4, 'latin1');
    data.copy(out, 8);
    out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length);
    return out;
  };
  const data = deflateSync(raw, { level: 9, strategy });
  const chunks: Buffer[] = [];
  for (let at = 0; at < data.length; at += chunkBytes)
    chunks.push(chunk('IDAT', data.subarray(at, at + chunkBytes)));
  const head = Buffer.from([0, 0, 0, 64, 0, 0, 0, 64, 8, 2, 0, 0, 0]);
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', head),
    ...chunks,
    chunk('IEND', NOTHING),
  ]);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 50_021) yield bytes.subarray(at, at + 50_021);
}

/** The file, closed from what was opened by the reader's own code: opened bytes out of a file of the reader's. */
async function closed({ young, plan }: OpenedFiles, old: Buffer = NOTHING): Promise<Buffer> {
  const parts: Buffer[] = [];
  const reader = new PlanReader(plan, old.length, young.length);
  for await (const piece of closeStreams(once(young), young.length, reader, new Budget()))
    parts.push(Buffer.from(piece));
  return Buffer.concat(parts);
}

/** Opens what must be openable, and proves that it closes. @returns bytes that say how */
async function planBytes(file: Buffer, streams = 1): Promise<number> {
  const opened = await openStreams(file, NOTHING, new Budget());
  expect(opened?.streams).toBe(streams);
  expect((await closed(opened as OpenedFiles)).equals(file)).toBe(true);
  return opened?.plan.length ?? 0;
}

const TEXT = Buffer.from(source(4_000, 'text'));
/** Text, noise, a run, and repeats from far away. */
const MIXED = Buffer.concat([
  TEXT.subarray(0, 50_000),
  noise(30_000, 'mixed'),
  Buffer.alloc(5_000, 7),
  TEXT.subarray(10_000, 70_000),
]);

describe('a stream is closed to the same bytes, and nothing but its parameters needs to be told', () => {
  for (const level of [1, 2, 3, 4, 5, 6, 7, 8, 9]) {
    test(`zlib's and Node's level ${level}`, async () => {
      const zlib = Buffer.from(deflateRaw(MIXED, { level: level as 1, legacyHash: true }));
      expect(await planBytes(gzipOf(zlib, MIXED))).toBeLessThan(48);
      expect(await planBytes(gzipOf(deflateRawSync(MIXED, { level }), MIXED))).toBeLessThan(48);
    });
    test(`GNU gzip -${level}`, async () => {
      const raw = Buffer.concat([MIXED, TEXT, MIXED]);
      const file = execFileSync('gzip', [`-${level}`, '-n', '-c'], { input: raw, maxBuffer: 1e8 });
      expect(await planBytes(file)).toBeLessThan(150);
    });
  }
  for (const memLevel of [1, 2, 3, 4, 5, 6, 7, 8, 9]) {
    test(`zlib's memory level ${memLevel}`, async () => {
      const zlib = Buffer.from(deflateRaw(TEXT, { level: 6, memLevel, legacyHash: true }));
      // A byte for each block, which the smallest has a thousand of, and what a match has that crossed zlib's window as it slid.
      expect(await planBytes(gzipOf(zlib, TEXT))).toBeLessThan(48 + 1.1 * (TEXT.length / 2 ** memLevel / 60));
    });
  }
  for (const [name, strategy] of [
    ['filtered', 1],
    ['Huffman only', 2],
    ['runs', 3],
    ['fixed', 4],
  ] as const) {
    test(`zlib's strategy ${name}`, async () => {
      const zlib = Buffer.from(deflateRaw(MIXED, { level: 6, strategy, legacyHash: true }));
      expect(await planBytes(gzipOf(zlib, MIXED))).toBeLessThan(64);
    });
  }
  test('a file of one byte more or less than a window, and other edges', async () => {
    for (const bytes of [
      33, 257, 261, 262, 263, 32_505, 32_506, 32_507, 32_767, 32_768, 32_769, 65_535, 65_536, 65_274,
    ]) {
      const raw = Buffer.concat([noise(40, `${bytes}`), TEXT]).subarray(0, bytes);
      expect(await planBytes(gzipOf(deflateRaw(raw, { level: 9, legacyHash: true }), raw))).toBeLessThan(64);
    }
  });
});

test('any content by any writer: the same bytes, or left as it is', async () => {
  let opened = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.tuple(
          fc.constantFrom('text', 'noise', 'run', 'again'),
          fc.integer({ min: 1, max: 40_000 }),
          fc.nat(99),
        ),
        {
          minLength: 1,
          maxLength: 6,
        },
      ),
      fc.record({
        level: fc.integer({ min: 0, max: 9 }),
        memLevel: fc.integer({ min: 1, max: 9 }),
        windowBits: fc.integer({ min: 9, max: 15 }),
        strategy: fc.integer({ min: 0, max: 4 }),
      }),
      fc.constantFrom('zlib', 'pako', 'flushed', 'changing'),
      async (parts, options, writer) => {
        let raw: Buffer = NOTHING;
        for (const [kind, length, seed] of parts) {
          const part =
            kind === 'text'
              ? TEXT.subarray(seed * 100, seed * 100 + length)
              : kind === 'noise'
                ? noise(length, `${seed}`)
                : kind === 'run'
                  ? Buffer.alloc(length, seed)
                  : raw.subarray(Math.max(0, raw.length - seed * 999), raw.length - seed);
          raw = Buffer.concat([raw, part]);
        }
        const packed =
          writer === 'zlib'
            ? deflateRawSync(raw, options)
            : writer === 'pako'
              ? Buffer.from(
                  deflateRaw(raw, {
                    ...options,
                    level: options.level as 1,
                    strategy: options.strategy as 0,
                    legacyHash: true,
                  }),
                )
              : await inParts(raw, options, writer === 'changing');
        const file = gzipOf(packed, raw);
        const made = await openStreams(file, NOTHING, new Budget());
        if (made === undefined) return;
        opened += 1;
        expect((await closed(made)).equals(file)).toBe(true);
      },
    ),
    // What chance gives is counted below; other chances are the soak's.
    { numRuns: 80, seed: 1 },
  );
  expect(opened).toBeGreaterThan(50);
}, 120_000);

/** Written piece by piece, with each flushed; or with other parameters for each. */
async function inParts(
  raw: Buffer,
  options: { level: number; memLevel: number; windowBits: number; strategy: number },
  changing: boolean,
): Promise<Buffer> {
  const stream = createDeflateRaw(options);
  const parts: Buffer[] = [];
  stream.on('data', (part: Buffer) => parts.push(part));
  const size = Math.max(1, Math.ceil(raw.length / 3));
  for (let at = 0; at < raw.length; at += size) {
    await new Promise<void>((resolve) => void stream.write(raw.subarray(at, at + size), () => resolve()));
    await new Promise<void>((resolve) => {
      if (changing) stream.params((options.level + at) % 10, options.strategy, () => resolve());
      else stream.flush(constants.Z_SYNC_FLUSH, () => resolve());
    });
  }
  await new Promise<void>((resolve) => void stream.end(() => resolve()));
  if (!stream.readableEnded) await new Promise<void>((resolve) => void stream.once('end', () => resolve()));
  return Buffer.concat(parts);
}

describe('containers', () => {
  const MANUALS = '/usr/share/man/man1';
  const manuals = existsSync(MANUALS) ? readdirSync(MANUALS).filter((name) => name.endsWith('.gz')) : [];
  test.skipIf(manuals.length === 0)('a dozen of the gzip files that packages brought', async () => {
    for (let at = 0; at < manuals.length; at += Math.ceil(manuals.length / 12)) {
      const file = readFileSync(join(MANUALS, manuals[at] as string));
      if (file.length > 80) expect(await planBytes(file), manuals[at]).toBeLessThan(40 + file.length / 100);
    }
    expect(manuals.length).toBeGreaterThan(0);
  });

  test('members of gzip, one behind the other', async () => {
    const file = Buffer.concat([gzipSync(TEXT), gzipSync(MIXED, { level: 9 }), gzipSync(TEXT.subarray(9))]);
    expect(await planBytes(file, 3)).toBeLessThan(64);
  });

  test('zip files of Python: deflated, stored, with lengths behind the content', async () => {
    using folder = scratch();
    writeFileSync(join(folder.path, 'text'), TEXT);
    writeFileSync(join(folder.path, 'mixed'), MIXED);
    execFileSync('python3', ['-c', PYTHON_ZIP], { cwd: folder.path });
    expect(await planBytes(readFileSync(join(folder.path, 'a.zip')), 12)).toBeLessThan(250);
    expect(await planBytes(readFileSync(join(folder.path, 'b.zip')), 2)).toBeLessThan(80);
  });

  test('pictures, in one chunk or many', async () => {
    for (const chunkBytes of [999, 8192, 1_000_000])
      for (const strategy of chunkBytes > 999
        ? [constants.Z_FILTERED]
        : [constants.Z_DEFAULT_STRATEGY, constants.Z_FILTERED, constants.Z_RLE])
        expect(await planBytes(pngOf(MIXED, chunkBytes, strategy))).toBeLessThan(64);
  });

  test('what only begins like one is left alone', async () => {
    for (const magic of ['\x1f\x8b\x08', 'PK\x03\x04', '\x89PNG\r\n\x1a\n'])
      for (const rest of [
        NOTHING,
        noise(40, 'x'),
        noise(9_000, 'x'),
        Buffer.alloc(9_000),
        Buffer.alloc(9_000, 255),
      ])
        expect(
          await openStreams(Buffer.concat([Buffer.from(magic, 'latin1'), rest]), NOTHING, new Budget()),
        ).toBeUndefined();
    const torn = gzipSync(TEXT).subarray(0, 20_000);
    expect(await openStreams(torn, NOTHING, new Budget())).toBeUndefined();
  });
});

const PYTHON_ZIP = `
import zipfile, sys
text, mixed = open('text','rb').read(), open('mixed','rb').read()
with zipfile.ZipFile('a.zip','w',zipfile.ZIP_DEFLATED) as z:
    z.writestr(zipfile.ZipInfo('stored'), mixed)
    for level in range(1,10): z.writestr(zipfile.ZipInfo('l%d' % level), text[level*50:], zipfile.ZIP_DEFLATED, level)
    for n in range(3): z.writestr('n%d' % n, mixed[n*1000:], zipfile.ZIP_DEFLATED)
class Pipe:
    def __init__(self, f): self.f = f
    def write(self, b): return self.f.write(b)
    def flush(self): self.f.flush()
with open('b.zip','wb') as f, zipfile.ZipFile(Pipe(f),'w',zipfile.ZIP_DEFLATED) as z:
    z.writestr('one', text); z.writestr('two', mixed)
`;

describe('an old file', () => {
  const old = Buffer.concat([Buffer.from('head'), gzipOf(deflateRawSync(TEXT), TEXT), pngOf(MIXED, 1000)]);
  const at = old.indexOf('IDAT') - 4;
  const png = deflateSync(MIXED, { level: 9 });
  const streams = [
    { offset: 14, packedBytes: deflateRawSync(TEXT).length, rawBytes: TEXT.length, frame: 0 },
    { offset: at, packedBytes: png.length - 6, rawBytes: MIXED.length, frame: 1000 },
  ];
  const first = old.subarray(0, 14);
  const end = 14 + deflateRawSync(TEXT).length;
  const chunks = Math.ceil(png.length / 1000);
  const expected = Buffer.concat([
    first,
    TEXT,
    old.subarray(end, at),
    png.subarray(0, 2),
    MIXED,
    png.subarray(-4),
    old.subarray(at + png.length + 12 * chunks),
  ]);

  test('is read at any place once it is opened', async () => {
    using folder = scratch();
    const file = await OpenedFile.open(memoryAccess(old), streams, folder.path);
    expect(file.size).toBe(expected.length);
    expect(Buffer.from(await file.read(0, expected.length)).equals(expected)).toBe(true);
    for (let from = 0; from < expected.length; from += 7_919)
      expect(Buffer.from(await file.read(from, 9_000)).equals(expected.subarray(from, from + 9_000))).toBe(
        true,
      );
    expect(readdirSync(folder.path)).toEqual([]);
  });

  test('that holds much is opened into scratch, which goes away', async () => {
    using folder = scratch();
    const raw = Buffer.alloc(LIMITS.openedMemoryBytes + 1, TEXT);
    const packed = deflateRawSync(raw);
    const file = await OpenedFile.open(
      memoryAccess(packed),
      [{ offset: 0, packedBytes: packed.length, rawBytes: raw.length, frame: 0 }],
      folder.path,
    );
    expect(readdirSync(folder.path).length).toBe(1);
    expect(Buffer.from(await file.read(raw.length - 5_000, 9_000)).equals(raw.subarray(-5_000))).toBe(true);
    await file.close();
    expect(readdirSync(folder.path)).toEqual([]);
  });

  test('with other content than was said is refused, and nothing stays', async () => {
    using folder = scratch();
    const [text] = streams as [(typeof streams)[0]];
    const bomb = deflateRawSync(Buffer.alloc(100_000_000));
    const before = process.memoryUsage.rss();
    for (const [bytes, stream] of [
      [old, { ...text, rawBytes: text.rawBytes - 1 }],
      [old, { ...text, rawBytes: text.rawBytes + 1 }],
      [old, { ...text, packedBytes: text.packedBytes - 9 }],
      [old, { ...text, offset: 12 }],
      [bomb, { offset: 0, packedBytes: bomb.length, rawBytes: 1_000, frame: 0 }],
      [bomb, { offset: 0, packedBytes: bomb.length, rawBytes: 6_000_000, frame: 0 }],
    ] as const)
      expect(await codeOf(() => OpenedFile.open(memoryAccess(bytes), [stream], folder.path))).toBe('CORRUPT');
    const much = { offset: 0, packedBytes: bomb.length, rawBytes: LIMITS.openedBytesMax + 1, frame: 0 };
    expect(await codeOf(() => OpenedFile.open(memoryAccess(bomb), [much], folder.path))).toBe('TOO_LARGE');
    expect(process.memoryUsage.rss() - before).toBeLessThan(64_000_000);
    expect(readdirSync(folder.path)).toEqual([]);
  });
});

describe('whole images', () => {
  const changed = Buffer.from(TEXT.toString().replace('state', 'estate'));
  const gz = (raw: Buffer): Buffer =>
    execFileSync('gzip', ['-9', '-n', '-c'], { input: raw, maxBuffer: 1e8 });
  const large = Buffer.alloc(LIMITS.openedMemoryBytes + 999, TEXT);
  const OLD: Record<string, Buffer> = {
    'doc/changelog.gz': gz(TEXT),
    'img/a.png': pngOf(MIXED, 8192),
    'big/data.gz': gzipSync(large),
    'other/flushed.gz': gzipOf(deflateRawSync(MIXED, { level: 6 }), MIXED),
  };
  const mixed = Buffer.from(MIXED);
  mixed[1000] = 1;
  const other = Buffer.from(large);
  for (let at = 0; at < other.length; at += 20_000) other[at] = 99;
  const NEW: HandEntry[] = Object.entries({
    'doc/changelog.gz': gz(changed),
    'img/a.png': pngOf(mixed, 8192),
    'big/data.gz': gzipSync(other),
    'other/flushed.gz': gzipOf(deflateRawSync(MIXED, { level: 6 }), MIXED),
    'new/page.gz': gz(Buffer.from(source(500, 'page'))),
    'new/gzip-not': '\x1f\x8b\x08 no stream',
  }).map(([name, content]) => ({ name, content }));
  const basisTar = tarOf(Object.entries(OLD).map(([name, content]) => ({ name, content })));
  const targetTar = tarOf(NEW);

  let made: Made;
  beforeAll(async () => {
    made = await make([basisTar], [targetTar]);
  }, 120_000);

  test('the delta is of what compressed files hold', async () => {
    const { artifact, summary } = made;
    const plain = await make([basisTar], [targetTar], 'never', 'never');
    expect(artifact.length).toBeLessThan(6_000);
    expect(plain.artifact.length).toBeGreaterThan(4 * artifact.length);
    expect(summary.layers[0]?.streams).toMatchObject({ files: 4, streams: 4 });
    expect((await apply(artifact, sha256(targetTar), memoryBasis(OLD))).equals(targetTar)).toBe(true);
    const delta = await openDelta(memoryAccess(artifact));
    expect(delta.codecs).toContain('streams-1');
    expect([...(await delta.basisPaths())].sort()).toEqual(Object.keys(OLD).sort());
    const inspection = await inspectDelta(memoryAccess(artifact));
    const file = (path: string) => inspection.layers[0]?.files?.find((one) => one.path === path);
    expect(file('doc/changelog.gz')).toMatchObject({ how: 'patch', from: ['doc/changelog.gz'] });
    expect(file('doc/changelog.gz')?.codecs[0]).toBe('streams');
    expect(file('new/page.gz')).toMatchObject({ how: 'literal', from: [], codecs: ['streams'] });
    expect(renderInspection(inspection)).toMatch(/^streams +\d/m);
    // Every byte of the sections is some file's or the index's.
    const { sections, files } = inspection.layers[0] as (typeof inspection.layers)[0];
    const stored = Object.entries(sections).reduce(
      (sum, [kind, one]) => sum + (kind === 'index' ? 0 : one.storedBytes),
      0,
    );
    const estimate = (files ?? []).reduce((sum, one) => sum + one.storedBytesEstimate, 0);
    expect(Math.abs(estimate - stored)).toBeLessThan(200);
  });

  test('scratch is used where it was told, and left clean, also on failure', async () => {
    const { artifact } = made;
    using folder = scratch();
    const delta = await openDelta(memoryAccess(artifact));
    const seen = new Set<string>();
    for await (const _ of applyLayer(delta, sha256(targetTar), memoryBasis(OLD), {
      scratchDirectory: folder.path,
    }))
      for (const name of readdirSync(folder.path)) seen.add(name);
    expect(seen.size).toBe(1);
    expect(readdirSync(folder.path)).toEqual([]);
    const run = applyLayer(delta, sha256(targetTar), memoryBasis(OLD), { scratchDirectory: folder.path });
    for await (const _ of run) if (readdirSync(folder.path).length > 0) break;
    expect(readdirSync(folder.path)).toEqual([]);
  });

  test('another basis is noticed before it is opened', async () => {
    const { artifact } = made;
    for (const path of Object.keys(OLD)) {
      const files = { ...OLD, [path]: Buffer.from(OLD[path] as Buffer) };
      const bytes = files[path] as Buffer;
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 4;
      expect(await codeOf(() => apply(artifact, sha256(targetTar), memoryBasis(files)))).toBe(
        'BASIS_MISMATCH',
      );
    }
  });
});

describe('work is bounded', () => {
  test('a maker leaves closed what would take the reader too long, a reader refuses it', async () => {
    // Level 9 looks at 4,096 candidates for each byte of this.
    const slow = Buffer.concat(
      Array.from({ length: 3_000 }, (_, at) => Buffer.concat([Buffer.from('abcd'), noise(3, `${at}`)])),
    );
    const file = gzipOf(deflateRaw(slow, { level: 9, legacyHash: true }), slow);
    const budget = new Budget();
    const opened = (await openStreams(file, NOTHING, budget)) as OpenedFiles;
    expect(opened.spent.bytes).toBe(slow.length);
    budget.steps = opened.spent.steps - 1;
    expect(await openStreams(file, NOTHING, budget)).toBeUndefined();
    const run = async (change: (one: Budget) => void): Promise<void> => {
      const own = new Budget();
      change(own);
      const plan = new PlanReader(opened.plan, 0, opened.young.length);
      for await (const _ of closeStreams(once(opened.young), opened.young.length, plan, own));
    };
    expect(await codeOf(() => run((one) => Object.assign(one, { steps: opened.spent.steps })))).toBe('none');
    expect(await codeOf(() => run((one) => Object.assign(one, { steps: opened.spent.steps / 2 })))).toBe(
      'TOO_LARGE',
    );
    expect(await codeOf(() => run((one) => Object.assign(one, { bytes: slow.length - 1 })))).toBe(
      'TOO_LARGE',
    );
  });

  test('of a plan nothing is believed', async () => {
    const old = gzipSync(TEXT);
    const young = Buffer.concat([gzipSync(MIXED), Buffer.from('tail')]);
    const { plan, young: opened } = (await openStreams(young, old, new Budget())) as OpenedFiles;
    const codes = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(plan.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 }),
        fc.option(fc.nat(plan.length), { freq: 5 }),
        async (changes, cut) => {
          const bad = Buffer.from(plan.subarray(0, cut ?? plan.length));
          for (const [at, value] of changes) if (at < bad.length) bad[at] = value;
          const code = await codeOf(async () => {
            const reader = new PlanReader(bad, old.length, opened.length);
            let bytes = 0;
            for await (const piece of closeStreams(once(opened), opened.length, reader, new Budget()))
              bytes += piece.length;
            expect(bytes).toBeLessThan(2 * opened.length + 100_000);
          });
          codes.set(code, (codes.get(code) ?? 0) + 1);
        },
      ),
      { numRuns: 200, seed: 1 },
    );
    expect(codes.get('CORRUPT')).toBeGreaterThan(30);
    expect(codes.get('none')).toBeGreaterThan(0);
  }, 60_000);
});
