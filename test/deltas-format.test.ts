import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ByteReader, ByteWriter } from '#deltas/bytes.ts';
import { CODECS } from '#deltas/codecs.ts';
import { basisFromLayers, inspectDelta, memoryAccess, openDelta, renderInspection } from '#deltas/index.ts';
import { joinHeader, splitHeader } from '#deltas/tar-header.ts';
import {
  apply,
  codeOf,
  entry,
  layerOf,
  make,
  memoryBasis,
  scratch,
  sha256,
  source,
  tarOf,
} from '#test/deltas-kit.ts';

interface Golden {
  name: string;
  diffId: string;
  bytes: number;
  needsList: boolean;
  basis: Record<string, string>;
  artifact: string;
}

/** Made once and never again: format v1 stays readable. */
const GOLDEN = JSON.parse(
  readFileSync(new URL('deltas-golden-v1.json', import.meta.url), 'utf8'),
) as Golden[];

const decodeBasis = (files: Record<string, string>) =>
  memoryBasis(
    Object.fromEntries(Object.entries(files).map(([path, text]) => [path, Buffer.from(text, 'base64')])),
  );

describe('format v1', () => {
  for (const { name, diffId, bytes, needsList, basis, artifact } of GOLDEN) {
    test(`golden artifact: ${name}`, async () => {
      const delta = await openDelta(memoryAccess(Buffer.from(artifact, 'base64')));
      expect(delta.needsList).toBe(needsList);
      const tar = await apply(Buffer.from(artifact, 'base64'), diffId, decodeBasis(basis));
      expect(tar.length).toBe(bytes);
      expect(sha256(tar)).toBe(diffId);
    });
  }

  test('the golden artifacts have every codec between them', async () => {
    const codecs = new Set<string>();
    for (const { artifact } of GOLDEN) {
      for (const codec of (await openDelta(memoryAccess(Buffer.from(artifact, 'base64')))).codecs)
        codecs.add(codec);
    }
    expect([...codecs].sort()).toEqual(Object.keys(CODECS).sort());
  });

  test('the example in the documentation is one', async () => {
    const text = readFileSync(new URL('../docs/delta-format.md', import.meta.url), 'utf8');
    const dump = /```hex\n([\s\S]*?)```/.exec(text)?.[1] ?? '';
    const hex = dump.replace(/^[0-9a-f]{3} {2}/gm, '').replace(/\s/g, '');
    const artifact = Buffer.from(hex, 'hex');
    expect(artifact.length).toBe(0x146);
    const target = tarOf([
      { name: 'app/hello.txt', content: 'hello, world\n' },
      { name: 'app/new.txt', content: 'good day\n' },
    ]);
    const basis = memoryBasis({ 'app/hello.txt': Buffer.from('hello, world\n') });
    expect((await apply(artifact, sha256(target), basis)).equals(target)).toBe(true);
    // The places that the table names.
    expect(artifact.readUInt32LE(12)).toBe(0x90);
    expect(artifact.toString('latin1', 0x72, 0x76)).toBe('zstd');
    expect(`sha256:${artifact.toString('hex', 0x84, 0xa4)}`).toBe(sha256(target));
    expect(artifact.toString('hex', 0xa4, 0xa6)).toBe('8018');
    const pieces = createHash('sha256').update(artifact.subarray(0xc0)).digest().subarray(0, 16);
    expect(artifact.subarray(0xb0, 0xc0).equals(pieces)).toBe(true);
    expect(artifact.toString('hex', 0xc0, 0xc4)).toBe('28b52ffd');
    expect(artifact.toString('hex', 0x134, 0x138)).toBe('28b52ffd');
  });

  test('another version, flag or codec is refused by name', async () => {
    const artifact = Buffer.from(GOLDEN[0]?.artifact ?? '', 'base64');
    const change = (at: number, value: number | string): Buffer => {
      const bytes = Buffer.from(artifact);
      if (typeof value === 'number') bytes[at] = value;
      else bytes.write(value, at, 'latin1');
      createHash('sha256')
        .update(bytes.subarray(0, 16))
        .update(bytes.subarray(48, 0xc0))
        .digest()
        .copy(bytes, 16);
      return bytes;
    };
    const open = (bytes: Buffer) => openDelta(memoryAccess(bytes));
    await expect(open(change(8, 2))).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: 'delta format version 2',
    });
    await expect(open(change(10, 1))).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await expect(open(change(0x72, 'zzzz'))).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      blame: 'artifact',
      message: 'this delta needs codec zzzz (2), which this version lacks',
    });
    // Those of before a certain time are known by their number alone: here `columns-1`, 3, without its name.
    const unnamed = (id: number): Buffer => {
      const header = Buffer.concat([
        artifact.subarray(48, 0x77),
        Buffer.of(id, 0),
        artifact.subarray(0x82, 0xc0),
      ]);
      const head = Buffer.from(artifact.subarray(0, 48));
      head.writeUInt32LE(header.length, 12);
      createHash('sha256').update(head.subarray(0, 16)).update(header).digest().copy(head, 16);
      return Buffer.concat([head, header, artifact.subarray(0xc0)]);
    };
    expect((await open(unnamed(3))).codecs).toEqual(['zstd', 'columns-1']);
    await expect(open(unnamed(100))).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: 'this delta needs codec 100, which this version lacks',
    });
    await expect(open(change(0xa7, 9))).rejects.toThrow('unknown kind of section 9');
    await expect(open(change(0xa8, 9))).rejects.toThrow('index section in codec 9');
  });
});

describe('parts of the format', () => {
  test('integers, signed integers and strings come back', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.maxSafeNat(), fc.nat(300)), { maxLength: 20 }),
        fc.array(fc.integer(), { maxLength: 20 }),
        fc.string({ unit: 'binary-ascii' }).map((text) => text.replaceAll('\0', '')),
        (lengths, changes, text) => {
          const writer = new ByteWriter();
          for (const value of lengths) writer.integer(value);
          for (const value of changes) writer.signed(value);
          writer.string(text);
          const reader = new ByteReader(writer.finish(), 'test');
          for (const value of lengths) expect(reader.integer()).toBe(value);
          for (const value of changes) expect(reader.signed()).toBe(value);
          expect(reader.string()).toBe(text);
          expect(reader.left).toBe(0);
        },
      ),
    );
    const long = Buffer.alloc(9, 0xff);
    expect(() => new ByteReader(long, 'test').integer()).toThrow(
      expect.objectContaining({ code: 'CORRUPT' }),
    );
    expect(() => new ByteReader(Buffer.from('no end'), 'test').string()).toThrow(
      expect.objectContaining({ code: 'CORRUPT' }),
    );
  });

  test('a header that can be taken apart is put together the same', () => {
    let apart = 0;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(511), fc.nat(255)), { maxLength: 3 }),
        fc.string({ unit: fc.constantFrom('a', 'b', '/', '.', 'ü'), maxLength: 90 }),
        (changes, name) => {
          const block = entry({ name });
          for (const [at, value] of changes) block[at] = value;
          // Half of them with a checksum that is right all the same.
          if (name.length % 2 === 0) {
            let sum = 8 * 0x20;
            for (const [at, byte] of block.entries()) if (at < 148 || at >= 156) sum += byte;
            block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
          }
          const parts = splitHeader(block);
          if (parts === undefined) return;
          apart += 1;
          expect(joinHeader(parts)).toEqual(block);
        },
      ),
      { numRuns: 1_000 },
    );
    expect(apart).toBeGreaterThan(200);
  });
});

describe('inspectDelta', () => {
  const files = Array.from({ length: 200 }, (_, at) => ({
    name: `lib/${sha256(String(at)).slice(7, 20)}.js`,
    content: source(10, `${at}`),
  }));
  const basis = tarOf(files);
  const target = tarOf([
    ...files.map((file, at) => (at === 9 ? { ...file, content: `${file.content}// more\n` } : file)),
    { name: 'new\u001b[31m.js', content: source(30, 'new') },
  ]);

  test('says where the bytes are, in full', async () => {
    const { artifact, summary } = await make([basis], [target], 'auto');
    const [layer] = (await inspectDelta(memoryAccess(artifact))).layers;
    expect(layer?.files).toBeUndefined();
    expect(layer?.storedBytes).toBe(summary.layers[0]?.storedBytes);
    using folder = scratch();
    const files = await basisFromLayers([layerOf(basis)], folder.path);
    const inspection = await inspectDelta(memoryAccess(artifact), files);
    const [known] = inspection.layers;
    const sections = Object.values(known?.sections ?? {});
    expect(sections.reduce((sum, { storedBytes }) => sum + storedBytes, inspection.headerBytes)).toBe(
      artifact.length,
    );
    const by = (how: string): number => known?.files?.filter((file) => file.how === how).length ?? 0;
    expect([by('copy'), by('patch'), by('literal')]).toEqual([199, 1, 1]);
    const text = renderInspection(inspection);
    expect(text).toContain('new?[31m.js');
    expect(text).toMatch(/^copy +199 /m);
    await files.close();
  });

  test('the paths that will be asked for are known beforehand', async () => {
    const { artifact } = await make([basis], [target]);
    const delta = await openDelta(memoryAccess(artifact));
    expect((await delta.basisPaths()).size).toBe(200);
    const listed = await openDelta(memoryAccess((await make([basis], [target], 'auto')).artifact));
    expect(listed.needsList).toBe(true);
    expect(await codeOf(() => listed.basisPaths())).toBe('UNSUPPORTED');
    const all = memoryBasis(
      Object.fromEntries(files.map(({ name, content }) => [name, Buffer.from(content)])),
    );
    expect((await listed.basisPaths(all)).size).toBe(200);
  });
});
