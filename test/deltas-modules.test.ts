/** WebAssembly modules told by ranges with predicted references: what is found is there, they come small, and any bytes come back. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { DeltaError } from '#deltas/errors.ts';
import { findRanges } from '#deltas/moves/covers.ts';
import { decodeMoves } from '#deltas/moves/decoder.ts';
import { encodeMoves } from '#deltas/moves/encoder.ts';
import { readProgram } from '#deltas/moves/read-program.ts';
import { KIND, References } from '#deltas/moves/references.ts';
import { FUNCTIONS, TYPES } from '#deltas/moves/wasm-sweep.ts';
import {
  bytesOf,
  comesBack,
  constant,
  DATA_AT,
  fileOf,
  HEAD,
  integer,
  list,
  moduleOf,
  RECORD_BYTES,
  section,
  sources,
  thereAndBack,
} from '#test/deltas-moves-kit.ts';

const { validate } = (globalThis as unknown as { WebAssembly: { validate: (bytes: Uint8Array) => boolean } })
  .WebAssembly;

/** Of the whole file. */
async function referencesIn(bytes: Buffer): Promise<{ at: number; target: number; kind: number }[]> {
  const read = fileOf(bytes).read;
  const program = await readProgram(read, bytes.length);
  if (program === undefined) throw new Error('not a module');
  const references = new References(program, read, bytes.length);
  const all: { at: number; target: number; kind: number }[] = [];
  for (let block = 0; block * 16_384 < bytes.length; block += 1) {
    const { count, offsets, targets, kinds } = await references.block(block);
    for (let at = 0; at < count; at += 1)
      all.push({ at: offsets[at] as number, target: targets[at] as number, kind: kinds[at] as number });
  }
  return all;
}

describe('references in modules', () => {
  /** Of compiled C and C++, by the tools of others. */
  it.each([
    ['xdelta3-wasm/src/native/xdelta3.wasm', 800],
    ['playwright-core/lib/webp_codec.wasm', 8_000],
  ])('%s: those in code are those that wasm-objdump lists', async (name, least) => {
    const path = new URL(`../node_modules/${name}`, import.meta.url).pathname;
    const bytes = readFileSync(path);
    const program = await readProgram(fileOf(bytes).read, bytes.length);
    const { low, high } = program?.module ?? { low: 0, high: 0 };
    const listed = execFileSync('wasm-objdump', ['-d', path], { encoding: 'utf8', maxBuffer: 1 << 28 });
    const expected: string[] = [];
    for (const [, place, hex = '', what = ''] of listed.matchAll(
      /^ ([0-9a-f]+): ((?:[0-9a-f]{2} )+) *\| *(.*)$/gm,
    )) {
      const at = Number.parseInt(place as string, 16);
      const raw = Buffer.from(hex.replaceAll(' ', ''), 'hex');
      const [, call] = /^call (\d+)/.exec(what) ?? [];
      const [, type] = /^call_indirect .*\(type (\d+)\)/.exec(what) ?? [];
      const [, value] = /^i32\.const (\d+)/.exec(what) ?? [];
      const [, offset] = /\.(?:load|store)\S* \d+ (\d+)(?: \d+)?$/.exec(what) ?? [];
      const isAddress = (some: string | undefined): boolean => Number(some) >= low && Number(some) < high;
      if (call !== undefined) expected.push(`${at + 1} ${FUNCTIONS + Number(call)}`);
      else if (type !== undefined) expected.push(`${at + 1} ${TYPES + Number(type)}`);
      else if (value !== undefined && isAddress(value)) expected.push(`${at + 1} ${value}`);
      else if (offset !== undefined && isAddress(offset)) {
        // It is the last number, or, where there is a lane, the last but one.
        let field = raw.length - 1 - (/lane/.test(what) ? 1 : 0);
        while (((raw[field - 1] as number) & 0x80) !== 0) field -= 1;
        expected.push(`${at + field} ${offset}`);
      }
    }
    const found = (await referencesIn(bytes))
      .filter(({ kind }) => kind >= KIND.leb1)
      // Heads of segments are listed elsewhere.
      .filter(({ at }) => {
        const code = program?.parts.find(({ form }) => form === 'module-code');
        return code !== undefined && at >= code.offset && at < code.offset + code.bytes;
      })
      .map(({ at, target }) => `${at} ${target}`);
    expect(expected.length).toBeGreaterThan(least);
    expect(found.filter((one) => !expected.includes(one)).slice(0, 5)).toEqual([]);
    const had = new Set(found);
    // In the midst of a body a block begins out of step, for a few instructions before it.
    expect(expected.filter((one) => !had.has(one)).slice(0, 5)).toEqual([]);
  });

  test.each([false, true])('in data there are words and heads of segments; Go: %s', async (isGo) => {
    const bytes = moduleOf({ added: 0, isGo });
    expect(validate(bytes)).toBe(true);
    const found = await referencesIn(bytes);
    const words = found.filter(({ kind }) => kind === (isGo ? KIND.absolute64 : KIND.absolute32));
    expect(words.length).toBeGreaterThanOrEqual(isGo ? 1200 : 600);
    for (const address of [DATA_AT, DATA_AT + 100 * RECORD_BYTES]) {
      const at = bytes.indexOf(Buffer.concat([Buffer.of(0x41), constant(address), Buffer.of(0x0b)]));
      expect(found).toContainEqual({ at: at + 1, target: address, kind: KIND.leb1 + 1 });
    }
  });
});

describe('modules', () => {
  test.each([false, true])(
    'functions and data put in: nearly all that moved is predicted; Go: %s',
    async (isGo) => {
      const [old, young] = [moduleOf({ added: 0, isGo }), moduleOf({ added: 3, isGo })];
      expect(validate(young)).toBe(true);
      const made = await thereAndBack(old, young);
      expect([...made.needs]).toContain('modules-1');
      expect(made.references.count).toBeGreaterThan(600 * 8 * 3);
      expect(made.references.wrong).toBeLessThan(0.01 * made.references.count);
      const plain = await thereAndBack(old, young, findRanges(old, young, 'data'));
      expect(bytesOf(made)).toBeLessThan(0.2 * bytesOf(plain));
    },
  );

  it('come back whatever became of either', async () => {
    const change = fc.record({
      isGo: fc.boolean(),
      cut: fc.nat(25_000),
      dropped: fc.nat(40),
      put: fc.uint8Array({ maxLength: 40 }),
      keepsLength: fc.boolean(),
      whichOne: fc.boolean(),
    });
    const modules = [false, true].map((isGo) => [
      moduleOf({ added: 0, isGo, count: 200 }),
      moduleOf({ added: 3, isGo, count: 200 }),
    ]) as [Buffer, Buffer][];
    let predicted = 0;
    await fc.assert(
      fc.asyncProperty(change, async ({ isGo, cut, dropped, put, keepsLength, whichOne }) => {
        const [old, young] = modules[isGo ? 1 : 0] as [Buffer, Buffer];
        // Where lengths stay as they are it mostly is a module still.
        const mend = (whole: Buffer): Buffer => {
          const bytes = Buffer.from(whole);
          if (!keepsLength)
            return Buffer.concat([bytes.subarray(0, cut), put, bytes.subarray(cut + dropped)]);
          bytes.set(put.slice(0, Math.max(0, bytes.length - cut)), cut);
          return bytes;
        };
        const made = whichOne ? await thereAndBack(mend(old), young) : await thereAndBack(old, mend(young));
        if (made.needs.has('modules-1')) predicted += 1;
      }),
      { numRuns: 40 },
    );
    expect(predicted).toBeGreaterThan(5);
  });

  it('of heads that lie are none, and soon seen as such', async () => {
    const read = async (bytes: Buffer) => await readProgram(fileOf(bytes).read, bytes.length);
    const good = moduleOf({ added: 0, isGo: false });
    expect((await read(good))?.module?.functions).toBe(600);
    const endless = Buffer.alloc(100_000, 0x80);
    for (const bytes of [
      HEAD,
      Buffer.concat([HEAD, endless]),
      Buffer.concat([HEAD, section(10, endless)]),
      Buffer.concat([HEAD, section(10, Buffer.of(1, 0xff, 0xff, 0xff, 0x7f))]),
      Buffer.concat([HEAD, section(10, list([])), section(11, list([Buffer.of(7)]))]),
      Buffer.concat([HEAD, ...Array.from({ length: 5_000 }, () => section(0))]),
      good.subarray(0, good.length - 1),
    ])
      expect(await read(bytes)).toBeUndefined();
    // A memory of more pages than a number holds.
    const pages = Buffer.concat([Buffer.alloc(2_000, 0xff), Buffer.of(1)]);
    const imports = section(2, list([Buffer.concat([integer(0), integer(0), Buffer.of(2, 0), pages])]));
    const vast = Buffer.concat([good.subarray(0, 8), imports, good.subarray(8)]);
    expect(await comesBack(vast, Buffer.concat([vast, good]))).toBe(true);
    // More locals than there are bytes; and bodies of nothing.
    const bodies = [
      Buffer.concat([integer(7), integer(2 ** 32 - 1), Buffer.of(1, 1)]),
      ...Array(40_000).fill(Buffer.of(0)),
    ];
    const odd = Buffer.concat([
      HEAD,
      section(3, list([])),
      section(10, list(bodies)),
      section(11, list([Buffer.of(1, 0)])),
    ]);
    expect(await read(odd)).toBeDefined();
    expect(await comesBack(odd, Buffer.concat([odd, good]))).toBe(true);
  });

  it('of hostile ranges are refused or give other bytes, never another error', async () => {
    const [old, young] = [moduleOf({ added: 0, isGo: true }), moduleOf({ added: 3, isGo: true })];
    const made = await encodeMoves(old, young);
    if (made === undefined) throw new Error('too many ranges');
    const [chunks, literals] = [Buffer.concat(made.chunks), Buffer.concat(made.literals)];
    const codes = new Set<string>();
    await fc.assert(
      fc.asyncProperty(
        fc.nat(chunks.length - 1),
        fc.uint8Array({ minLength: 1, maxLength: 6 }),
        async (at, bytes) => {
          const bad = Buffer.from(chunks);
          bad.set(bytes.subarray(0, chunks.length - at), at);
          let count = 0;
          try {
            for await (const piece of decodeMoves(fileOf(old), young.length, sources(bad, literals)))
              count += piece.length;
          } catch (error) {
            if (!(error instanceof DeltaError)) throw error;
            codes.add(error.code);
          }
          expect(count).toBeLessThanOrEqual(young.length);
        },
      ),
      { numRuns: 100 },
    );
    expect([...codes]).toContain('CORRUPT');
  });
});
