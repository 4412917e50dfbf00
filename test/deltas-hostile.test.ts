import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { ByteReader, ByteWriter } from '#deltas/bytes.ts';
import {
  applyLayer,
  type Basis,
  DeltaError,
  type DeltaSummary,
  memoryAccess,
  openDelta,
} from '#deltas/index.ts';
import { COLUMNS } from '#deltas/index-format.ts';
import { Xdelta3 } from '#deltas/xdelta3.ts';
import {
  apply,
  changeColumn,
  codeOf,
  type HandEntry,
  type Made,
  make,
  memoryBasis,
  noise,
  type OpenSection,
  replaceColumn,
  reseal,
  sha256,
  source,
  tarOf,
} from '#test/deltas-kit.ts';

/** Code that only few bytes keep in common, so that zstd's dictionary wins; and text, where VCDIFF does. */
function shuffled(text: string): string {
  return text
    .split('\n')
    .map((line, at) => (at % 3 === 0 ? line.split(' ').reverse().join(' ') : line))
    .join('\n');
}
const OLD: Record<string, Buffer> = {
  'app/copy.js': Buffer.from(source(100, 'copy')),
  'app/patch.js': Buffer.from(source(400, 'patch')),
  'app/frame.js': Buffer.from(source(400, 'frame')),
  'app/large.bin': noise(1_400_000, 'large'),
  'app/page.js.gz': gzipSync(source(300, 'page')),
  ...Object.fromEntries(
    Array.from({ length: 260 }, (_, at) => [
      `app/lib/${at}-${noise(6, `${at}`).toString('hex')}.js`,
      Buffer.from(source(8, `m${at}`)),
    ]),
  ),
};
const large = Buffer.from(OLD['app/large.bin'] as Buffer);
large[1_000_000] = (large[1_000_000] as number) ^ 1;
const NEW: HandEntry[] = Object.entries({
  ...OLD,
  'app/patch.js': `${source(200, 'patch')}// new line\n${source(400, 'patch')}`,
  'app/frame.js': shuffled(source(400, 'frame')),
  'app/large.bin': large,
  'app/page.js.gz': gzipSync(`// new line\n${source(300, 'page')}`),
  'app/added.js.gz': gzipSync(source(300, 'added')),
  'app/new.js': source(50, 'new'),
}).map(([name, content]) => ({ name, content, mtime: 1_700_000_000 }));

const basisTar = tarOf(Object.entries(OLD).map(([name, content]) => ({ name, content })));
const targetTar = tarOf(NEW);
const diffId = sha256(targetTar);
const basis = memoryBasis(OLD);
let artifact: Buffer;
let listed: Buffer;
/** Made of ranges what the others make of windows, and with compressed files opened. */
let moved: Buffer;

let plain: Made;

beforeAll(async () => {
  plain = await make([basisTar], [targetTar], 'never', 'never');
  artifact = plain.artifact;
  listed = (await make([basisTar], [targetTar], 'auto', 'never')).artifact;
  moved = (await make([basisTar], [targetTar], 'auto')).artifact;
});

test('the artifacts that follow have every codec and both kinds of names', async () => {
  const { windows, literal, copied } = plain.summary.layers[0] as DeltaSummary['layers'][number];
  for (const codec of ['copy', 'vcdiff', 'zstd-dictionary'] as const) {
    expect(windows[codec].count).toBeGreaterThan(0);
  }
  expect([literal.files > 0, copied.files > 0]).toEqual([true, true]);
  expect((await openDelta(memoryAccess(listed))).needsList).toBe(true);
  expect((await openDelta(memoryAccess(moved))).codecs).toContain('moves-1');
  expect((await openDelta(memoryAccess(moved))).codecs).toContain('streams-1');
});

/** The one allowed outcome beside success: a DeltaError. Wrong bytes, other errors and hanging are failures. */
async function outcome(bytes: Uint8Array, from: Basis = basis): Promise<string> {
  return codeOf(async () => {
    const rebuilt = await apply(bytes, diffId, from);
    if (!rebuilt.equals(targetTar)) throw new Error('wrong bytes were accepted');
  });
}

describe('a damaged artifact', () => {
  test('with any bit flipped is refused', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        fc.nat(7),
        async (at, bit) => {
          const bytes = Buffer.from(artifact);
          const place = Math.floor(at * bytes.length);
          bytes[place] = (bytes[place] as number) ^ (1 << bit);
          expect(await outcome(bytes)).toMatch(/^(CORRUPT|UNSUPPORTED|TOO_LARGE|TRUNCATED)$/);
        },
      ),
      { numRuns: 300 },
    );
  }, 120_000);

  test('is refused before any damaged byte is used, whatever section it is in', async () => {
    const { header, headerBytes } = await openDelta(memoryAccess(artifact));
    const sections = header.layers[0]?.sections ?? [];
    expect(sections.map(({ kind }) => kind)).toEqual(['index', 'solid', 'patches', 'frames']);
    for (const { offset, bytes } of sections) {
      const damaged = Buffer.from(artifact);
      const at = headerBytes + offset + (bytes >> 1);
      damaged[at] = (damaged[at] as number) ^ 0x10;
      await expect(apply(damaged, diffId, basis)).rejects.toMatchObject({
        code: 'CORRUPT',
        message: expect.stringContaining('is damaged near byte'),
      });
    }
  });

  test('cut at any place is refused as such', async () => {
    await fc.assert(
      fc.asyncProperty(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), async (at) => {
        expect(await outcome(artifact.subarray(0, Math.floor(at * artifact.length)))).toBe('TRUNCATED');
      }),
      { numRuns: 100 },
    );
  });

  test('with bytes behind it, other bytes before it, or of another kind', async () => {
    expect(await outcome(Buffer.concat([artifact, Buffer.from('x')]))).toBe('CORRUPT');
    expect(await outcome(Buffer.concat([Buffer.from('x'), artifact]))).toBe('CORRUPT');
    expect(await outcome(targetTar)).toBe('CORRUPT');
    expect(await outcome(Buffer.alloc(0))).toBe('TRUNCATED');
  });

  test('that shrinks while it is read', async () => {
    const delta = await openDelta({
      size: artifact.length,
      read: async (offset, length) =>
        artifact.subarray(0, artifact.length - 100).subarray(offset, offset + length),
    });
    const run = async (): Promise<void> => {
      for await (const _ of applyLayer(delta, diffId, basis));
    };
    expect(await codeOf(run)).toBe('TRUNCATED');
  });
});

describe('a hostile artifact, its digests all in order', () => {
  const mutate = fc.record({
    section: fc.nat(7),
    places: fc.array(fc.tuple(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), fc.nat(255)), {
      minLength: 1,
      maxLength: 4,
    }),
    cut: fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { freq: 4 }),
  });
  test('never gets wrong bytes accepted, nor breaks the reader', async () => {
    const codes = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(mutate, fc.nat(2), async ({ section, places, cut }, which) => {
        const bytes = await reseal([artifact, listed, moved][which] as Buffer, (sections) => {
          const chosen = sections[section % sections.length];
          if (chosen === undefined) return;
          for (const [at, value] of places) chosen.raw[Math.floor(at * chosen.raw.length)] = value;
          if (cut !== null) chosen.raw = chosen.raw.subarray(0, Math.floor(cut * chosen.raw.length));
        });
        const code = await outcome(bytes);
        codes.set(code, (codes.get(code) ?? 0) + 1);
      }),
      { numRuns: 600 },
    );
    // It would prove nothing if every case ended at the same door.
    expect(codes.get('CORRUPT')).toBeGreaterThan(20);
    expect(codes.get('BASIS_MISMATCH')).toBeGreaterThan(5);
  }, 180_000);

  test('in the index’s every column', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...COLUMNS),
        fc.nat(400),
        fc.uint8Array({ minLength: 1, maxLength: 9 }),
        fc.boolean(),
        async (column, place, bytes, insert) => {
          const hostile = await reseal(listed, (sections) => {
            const index = sections.find(({ kind }) => kind === 'index');
            if (index !== undefined) index.raw = changeColumn(index.raw, column, place, bytes, insert);
          });
          expect(await outcome(hostile)).toMatch(/^(none|CORRUPT|BASIS_MISMATCH|TOO_LARGE|UNSUPPORTED)$/);
        },
      ),
      { numRuns: 300 },
    );
  }, 180_000);

  test('that decompresses without end', async () => {
    const bomb = await reseal(artifact, (sections) => {
      const solid = sections.find(({ kind }) => kind === 'solid');
      if (solid !== undefined) solid.raw = Buffer.concat([solid.raw, Buffer.alloc(200_000_000)]);
    });
    expect(bomb.length).toBeLessThan(100_000);
    const before = process.memoryUsage.rss();
    expect(await outcome(bomb)).toBe('CORRUPT');
    expect(process.memoryUsage.rss() - before).toBeLessThan(100_000_000);

    const index = await reseal(artifact, (sections) => {
      for (const section of sections) if (section.kind === 'index') section.raw = Buffer.alloc(50_000_000);
    });
    expect(await outcome(index)).toBe('TOO_LARGE');
  });

  test('that lies about what a compressed file of the basis holds', async () => {
    const holding = (change: (bytes: number) => number): Promise<Buffer> =>
      reseal(moved, (sections) => {
        // The plan of app/page.js.gz is the first; its one old stream is told by four integers: place, bytes, what it holds, frame.
        const { raw } = sections.find(({ kind }) => kind === 'streams') as OpenSection;
        const reader = new ByteReader(raw, 'plan');
        expect([reader.integer(), reader.integer(), reader.integer()]).toEqual([1, 1, 1]);
        const [models, olds] = Array.from({ length: 9 }, () => reader.integer()) as [number, number];
        reader.bytes(models);
        const start = raw.length - reader.left;
        const [place, packed, held, frame] = Array.from({ length: 4 }, () => reader.integer()) as number[];
        const writer = new ByteWriter();
        for (const one of [place, packed, change(held as number), frame]) writer.integer(one as number);
        expect(writer.length).toBe(olds);
        writer.finish().copy(raw, start);
      });
    expect(await outcome(await holding((bytes) => bytes))).toBe('none');
    expect(await outcome(await holding((bytes) => bytes - 1))).toBe('CORRUPT');
    expect(await outcome(await holding((bytes) => bytes + 1))).toBe('CORRUPT');
    expect(await outcome(await holding(() => 2 ** 14 - 1))).toBe('CORRUPT');
  });

  test('that claims a layer of any length', async () => {
    const huge = await reseal(artifact, (_, layer) => {
      layer.bytes = 2 ** 50;
    });
    expect(await outcome(huge)).toBe('TOO_LARGE');
    const long = await reseal(artifact, (_, layer) => {
      layer.bytes += 512;
    });
    expect(await outcome(long)).toBe('CORRUPT');
    const short = await reseal(artifact, (_, layer) => {
      layer.bytes -= 512;
    });
    expect(await outcome(short)).toBe('CORRUPT');
    const delta = await openDelta(memoryAccess(artifact));
    const bounded = async (): Promise<void> => {
      for await (const _ of applyLayer(delta, diffId, basis, { outputBytesMax: targetTar.length - 1 }));
    };
    expect(await codeOf(bounded)).toBe('TOO_LARGE');
    expect(await codeOf(() => applyLayer(delta, sha256('none'), basis).next())).toBe('NOT_FOUND');
  });

  test('that makes work without bytes', async () => {
    for (const kind of [5, 0, 1, 2]) {
      const hostile = await reseal(artifact, (sections) => {
        const index = sections.find((section) => section.kind === 'index') as OpenSection;
        index.raw = replaceColumn(index.raw, 'kinds', Buffer.alloc(3_000_000, kind));
        index.raw = replaceColumn(index.raw, 'lengths', Buffer.alloc(1_000_000));
        for (let at = 0; at < 3; at += 1) sections.push(index);
      });
      const startMs = performance.now();
      expect(await outcome(hostile)).toBe('CORRUPT');
      expect(performance.now() - startMs).toBeLessThan(5_000);
    }
  });

  test('that passes one layer off as another', async () => {
    const other = sha256('another layer');
    const hostile = await reseal(artifact, (_, layer) => {
      layer.diffId = Buffer.from(other.slice('sha256:'.length), 'hex');
    });
    expect(await codeOf(() => apply(hostile, other, basis))).toMatch(/^(CORRUPT|BASIS_MISMATCH)$/);
  });

  test('that asks the basis for a path outside it', async () => {
    const asked: string[] = [];
    const spy: Basis = {
      open: async (path) => {
        asked.push(path);
        return undefined;
      },
    };
    for (const path of ['../../etc/shadow', '/etc/shadow', 'a/../../b', './a', 'a//b', 'a/', '', 'a\u0000']) {
      const elsewhere = tarOf([{ name: 'elsewhere', content: OLD['app/copy.js'] as Buffer }]);
      const made = await make([basisTar], [elsewhere]);
      const hostile = await reseal(made.artifact, (sections) => {
        const index = sections.find(({ kind }) => kind === 'index');
        if (index === undefined) throw new Error('no index');
        const references = new ByteWriter();
        references.byte(2);
        references.string(path);
        index.raw = replaceColumn(index.raw, 'references', references.finish());
      });
      const code = await codeOf(() => apply(hostile, sha256(elsewhere), spy));
      // Some of these are brought into the one form; none leaves it.
      expect(code).toMatch(/^(CORRUPT|BASIS_MISMATCH)$/);
    }
    for (const path of asked) expect(path).toMatch(/^(etc\/shadow|a|a\/b)$/);
  });
});

describe('another basis', () => {
  const changed = (path: string, bytes: Buffer | undefined): Basis => {
    const files = { ...OLD };
    if (bytes === undefined) delete files[path];
    else files[path] = bytes;
    return memoryBasis(files);
  };
  test('is noticed: a file gone, longer, or changed in one byte', async () => {
    for (const path of [
      'app/copy.js',
      'app/patch.js',
      'app/frame.js',
      'app/large.bin',
      Object.keys(OLD).at(77) as string,
    ]) {
      const old = OLD[path] as Buffer;
      const flipped = Buffer.from(old);
      flipped[old.length >> 1] = (flipped[old.length >> 1] as number) ^ 0x20;
      for (const [bytes, from] of [
        [artifact, changed(path, undefined)],
        [artifact, changed(path, Buffer.concat([old, Buffer.from('x')]))],
        [artifact, changed(path, flipped)],
        [listed, changed(path, flipped)],
        [listed, changed(path, undefined)],
      ] as const) {
        expect(await outcome(bytes, from), path).toBe('BASIS_MISMATCH');
      }
    }
  });
  test('is noticed within 4 MiB, not at the end', async () => {
    const files = Object.fromEntries(
      Array.from({ length: 40 }, (_, at) => [`f${at}`, noise(500_000, `f${at}`)]),
    );
    const tar = tarOf(Object.entries(files).map(([name, content]) => ({ name, content })));
    const target = tarOf(Object.entries(files).map(([name, content]) => ({ name, content, mtime: 1 })));
    const delta = await openDelta(memoryAccess((await make([tar], [target], 'never', 'never')).artifact));
    files.f3 = noise(500_000, 'changed by hand');
    let bytes = 0;
    const run = async (): Promise<void> => {
      for await (const chunk of applyLayer(delta, sha256(target), memoryBasis(files))) bytes += chunk.length;
    };
    await expect(run()).rejects.toMatchObject({
      code: 'BASIS_MISMATCH',
      message: expect.stringContaining('f0, f1'),
    });
    expect(bytes).toBeLessThan(5 * 1024 * 1024);
  });
  test('of other names is noticed before a byte is made', async () => {
    const delta = await openDelta(memoryAccess(listed));
    const more = memoryBasis({ ...OLD, 'app/other.js': Buffer.from('x') });
    expect(await codeOf(() => applyLayer(delta, diffId, more).next())).toBe('BASIS_MISMATCH');
    expect(await codeOf(() => applyLayer(delta, diffId, { open: (path) => basis.open(path) }).next())).toBe(
      'UNSUPPORTED',
    );
  });
  test('that cannot be read, or shrinks meanwhile', async () => {
    const failing: Basis = {
      open: async () => ({
        size: (OLD['app/copy.js'] as Buffer).length,
        read: async () => {
          throw new Error('EIO');
        },
      }),
    };
    expect(await outcome(artifact, failing)).toBe('READ_FAILED');
    const shrinking: Basis = {
      async open(path) {
        const file = await basis.open(path);
        return file && { size: file.size, read: async () => new Uint8Array(1) };
      },
    };
    expect(await outcome(artifact, shrinking)).toBe('BASIS_MISMATCH');
  });
  test('has its files closed, also on failure', async () => {
    let open = 0;
    const counting: Basis = {
      async open(path) {
        const file = await basis.open(path);
        if (file === undefined) return undefined;
        open += 1;
        return {
          size: file.size,
          read: async (offset, length) => {
            if (path === 'app/large.bin') throw new Error('EIO');
            return file.read(offset, length);
          },
          close: async () => {
            open -= 1;
          },
        };
      },
    };
    expect(await outcome(artifact, counting)).toBe('READ_FAILED');
    expect(open).toBe(0);
  });
});

describe('xdelta3', () => {
  test('stays within its memory for the largest windows, and says so beyond them', () => {
    const codec = new Xdelta3();
    const target = noise(512 * 1024, 'target');
    const old = noise(2 * 1024 * 1024, 'source');
    // Incompressible, so the patch would be larger than the target: no patch, and no damage.
    expect(codec.encode(target, old)).toBeUndefined();
    const young = Buffer.concat([old.subarray(1_000_000, 1_500_000), Buffer.from('new')]);
    const patch = codec.encode(young, old) as Buffer;
    expect(patch.length).toBeLessThan(100);
    expect(codec.decode(patch, old, young.length).equals(young)).toBe(true);
    const most = noise(4 * 1024 * 1024, 'most');
    const other = new Xdelta3().encode(most.subarray(0, 400_000), most.subarray(0, 2_000_000)) as Buffer;
    // A reader takes a larger source than the maker gives.
    expect(codec.decode(other, most, 400_000).equals(most.subarray(0, 400_000))).toBe(true);
    expect(() => codec.decode(patch, noise(4 * 1024 * 1024 + 1, 'x'), 10)).toThrow(
      expect.objectContaining({ code: 'TOO_LARGE' }),
    );
  });

  test('is not poisoned by a corrupted patch', () => {
    const codec = new Xdelta3();
    const old = Buffer.from(source(500, 'old'));
    const young = Buffer.from(`${source(100, 'x')}${source(500, 'old')}`);
    const patch = codec.encode(young, old) as Buffer;
    fc.assert(
      fc.property(fc.nat(patch.length - 1), fc.nat(255), fc.nat(patch.length), (at, value, cut) => {
        const bad = Buffer.from(patch.subarray(0, Math.max(1, cut)));
        bad[at % bad.length] = value;
        try {
          expect(codec.decode(bad, old, young.length).length).toBe(young.length);
        } catch (error) {
          if (!(error instanceof DeltaError)) throw error;
        }
        expect(codec.decode(patch, old, young.length).equals(young)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });
});
