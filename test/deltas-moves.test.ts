/** Files told by ranges with predicted references: any bytes come back, programs come small, and nothing hostile gets far. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DeltaError } from '#deltas/errors.ts';
import { findRanges, inPlace } from '#deltas/moves/covers.ts';
import { decodeMoves } from '#deltas/moves/decoder.ts';
import { readElf } from '#deltas/moves/elf.ts';
import { readField, writeField } from '#deltas/moves/fields.ts';
import { KIND, References } from '#deltas/moves/references.ts';
import { decode, fieldOf, kindOf, lengthOf, RELATIVE32 } from '#deltas/moves/x86-64.ts';
import { noise, source } from '#test/deltas-kit.ts';
import {
  bytesOf,
  comesBack,
  fileOf,
  rebuild,
  recordsOf,
  sources,
  thereAndBack,
} from '#test/deltas-moves-kit.ts';

/** A program large enough to have all that programs have: calls, tables, strings, data that points to both. */
const program = (changed: boolean): string => {
  const functions = Array.from({ length: 400 }, (_, at) => {
    const [a = 0, b = 0, c = 0] = noise(3, `function ${at}`);
    const calls =
      at > 2 ? `sum += f${(a * 7 + at) % at}(sum, ${b}); if (sum > ${c}) return f${b % at}(sum, y);` : '';
    const more = changed && at === 137 ? 'puts("put in"); counter += 3;' : '';
    return `__attribute__((noinline)) int f${at}(int x, int y) {
      int sum = x * ${a} + y; ${more}
      switch (x % 9) { case 0: sum += table[y & 63]; break; case 1: sum ^= ${b}; break; case 2: puts(names[y & 63]); break;
        case 3: sum -= counter; break; case 4: sum <<= 1; break; case 5: return ${c}; case 6: sum += y; break; }
      ${calls} counter += sum; return sum; }`;
  });
  const names = Array.from({ length: 64 }, (_, at) => `"name ${at} of many"`).join(',');
  const pointers = Array.from({ length: 400 }, (_, at) => `f${at}`).join(',');
  const before = Array.from({ length: 400 }, (_, at) => `int f${at}(int, int);`).join('\n');
  return `#include <stdio.h>
    ${changed ? 'int added[40] = {1};' : ''} int counter; int table[64] = {1, 2, 3}; const char *names[64] = {${names}};
    ${before} ${functions.join('\n')}
    int (*all[400])(int, int) = {${pointers}};
    int main(int n, char **v) { return all[n % 400](n, n); }`;
};

const folder = mkdtempSync(join(tmpdir(), 'midair-moves-'));
afterAll(() => rmSync(folder, { recursive: true }));
const compiled = (flags: string[], changed: boolean): Buffer => {
  const [text, made] = [join(folder, 'program.c'), join(folder, 'program')];
  writeFileSync(text, program(changed));
  execFileSync('cc', ['-O2', '-s', ...flags, text, '-o', made]);
  return readFileSync(made);
};

describe('any bytes', () => {
  it('come back from any others', async () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.nat(300).map((length) => new Uint8Array(length)),
      fc.tuple(fc.nat(9), fc.nat(2000)).map(([seed, length]) => noise(length, `${seed}`)),
    );
    const file = fc.array(piece, { maxLength: 8 }).map((parts) => Buffer.concat(parts));
    await fc.assert(
      fc.asyncProperty(file, file, async (old, young) => {
        expect(await comesBack(old, young)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('that only moved, or changed here and there, take few', async () => {
    const old = Buffer.from(source(4_000, 'old'));
    const cut = old.length >> 1;
    const young = Buffer.concat([old.subarray(cut), Buffer.from('put in between'), old.subarray(0, cut)]);
    young[1_000] = 0x21;
    const made = await thereAndBack(old, young);
    expect(bytesOf(made)).toBeLessThan(80);
  });

  // A database, a disk's image, a table of weights: written in place, a page or many at a time.
  it.each([1, 600, 1_024, 4_096, 4_097, 70_000])(
    'that were written over in place, %i bytes here and there, take what was written and little more',
    async (length) => {
      const old = Buffer.from(noise(600_000, 'pages'));
      const young = Buffer.from(old);
      const places = [0, 90_000, 200_000, 204_800, 420_000, 600_000 - length];
      let [written, end] = [0, 0];
      for (const at of places) {
        noise(length, `written at ${at}`).copy(young, at);
        written += Math.min(length, at + length - end);
        end = at + length;
      }
      const made = await thereAndBack(old, young);
      expect(bytesOf(made)).toBeLessThan(written * 1.01 + 200);
    },
  );

  describe('that are numbers, each changed by a little', () => {
    /** As many of a kind, some changed; behind `lead` bytes that are none. */
    const numbers = (kind: 'float32' | 'int16' | 'int32', lead: number, share: number, count = 50_000) => {
      const width = kind === 'int16' ? 2 : 4;
      const chance = noise(4 * count, `${kind} chance`);
      const random = noise(4 * count, `${kind} values`);
      const tables = [0, 1].map((turn) => {
        const table = Buffer.alloc(lead + width * count + 3, 7);
        for (let at = 0; at < count; at += 1) {
          const value = random.readInt32LE(4 * at) / 2 ** 31;
          const changed = turn === 1 && chance.readUInt32LE(4 * at) / 2 ** 32 < share;
          const place = lead + width * at;
          const step = changed ? 1 + random.readUInt8(4 * at) : 0;
          if (kind === 'float32') table.writeFloatLE(value * (1 + step * 1e-5), place);
          else if (kind === 'int16') table.writeInt16LE(Math.trunc(value * 2 ** 14) + step, place);
          else table.writeInt32LE(Math.trunc(value * 2 ** 30) + step * 3, place);
        }
        return table;
      });
      return tables as [Buffer, Buffer];
    };
    /** What is to be added, byte by byte, as bsdiff tells it. */
    const byBytes = (old: Buffer, young: Buffer): number =>
      brotliCompressSync(Buffer.from(young.map((byte, at) => byte - (old[at] as number)))).length;

    it.each([
      ['float32', 0, 0.2, 'found'],
      ['float32', 3, 1, 'in place'],
      ['int32', 1, 0.3, 'found'],
      ['int16', 1, 0.9, 'in place'],
    ] as const)(
      '%s behind %i bytes, %f of them, %s: told by words, in less',
      async (kind, lead, share, how) => {
        const [old, young] = numbers(kind, lead, share);
        const made = await thereAndBack(old, young, how === 'found' ? undefined : inPlace(old, young));
        expect(made.needs).toContain('words-1');
        expect(bytesOf(made)).toBeLessThan(0.95 * byBytes(old, young));
      },
    );

    it.each(['data', 'fine', 'coarse', 'sparse'] as const)('come back by %s ranges', async (grading) => {
      const lines = source(2_000, 'lines').split('\n');
      const [old, young] = [lines, lines.map((line, at) => (at % 9 === 0 ? lines[at * 7] : line))].map(
        (all) => Buffer.from(all.join('\n')),
      ) as [Buffer, Buffer];
      const made = await thereAndBack(old, young, findRanges(old, young, grading));
      expect(made.copiedBytes).toBeGreaterThan(young.length / 2);
    });

    it('that change by what kind of record they are in: told inline, in less', async () => {
      const [old, young] = [recordsOf(false), recordsOf(true)];
      const made = await thereAndBack(old, young);
      expect([...made.needs]).toEqual(['inline-1']);
      // Of one chunk, after the plan: its length, 0, 1, what it copies.
      const chunk = made.chunks[3] as Buffer;
      expect([...chunk.subarray(0, 2)]).toEqual([0, 1]);
      const bad = Buffer.concat([...made.chunks.slice(0, 3), chunk]);
      bad[bad.length - chunk.length + 1] = 3;
      await expect(rebuild(old, young.length, bad, Buffer.concat(made.literals))).rejects.toMatchObject({
        code: 'CORRUPT',
        message: 'moves: words of no width',
      });
    });

    it('come back whatever changed, and wherever a piece or a range ends within one', async () => {
      const change = fc.record({
        kind: fc.constantFrom('float32', 'int16', 'int32'),
        lead: fc.nat(9),
        share: fc.constantFrom(0.02, 0.3, 1),
        cut: fc.nat(60_000),
        added: fc.nat(5),
      });
      let told = 0;
      await fc.assert(
        fc.asyncProperty(change, async ({ kind, lead, share, cut, added }) => {
          const [old, young] = numbers(kind, lead, share, 20_000);
          const parts = [young.subarray(0, cut), noise(added, 'put in'), young.subarray(cut)];
          const made = await thereAndBack(old, Buffer.concat(parts));
          if (made.needs.has('words-1')) told += 1;
        }),
        { numRuns: 60 },
      );
      expect(told).toBeGreaterThan(20);
    }, 180_000);

    it('and are refused if they say what no maker says', async () => {
      const old = noise(64, 'old');
      const column = (...bytes: number[]): Buffer => Buffer.from(bytes);
      const plan = [1, 0, 0, 1, 1, 1, 0, 64, 0];
      const chunk = (head: number[], columns: Buffer[]): Buffer => {
        const body = Buffer.concat([column(...head, ...columns.map(({ length }) => length)), ...columns]);
        const sized = [Buffer.from(plan), body].flatMap((one) => {
          const length = Buffer.alloc(4);
          length.writeUInt32LE(one.length);
          return [length, one];
        });
        return Buffer.concat(sized);
      };
      const none = column();
      const one = [column(3), column(8), column(0), none, none];
      const good = await rebuild(old, 64, chunk([0, 2, 1, 64], one), none);
      const expected = Buffer.from(old);
      // Words of 2 bytes behind one of 1: the fourth begins at 5, and zigzag 8 is 4.
      expected.writeUInt16LE((old.readUInt16LE(5) + 4) & 0xffff, 5);
      expect(good.equals(expected)).toBe(true);
      for (const [head, columns] of [
        [[0, 3, 0, 64], one],
        [[0, 0, 0, 64], one],
        [[0, 2, 2, 64], one],
        [[0, 2, 1, 0], one],
        [[0, 2, 1, 63], one],
        [
          [0, 2, 1, 64],
          [column(3), column(0), column(0), none, none],
        ],
        [
          [0, 2, 1, 64],
          [column(3), column(8), none, none, none],
        ],
        [
          [0, 2, 1, 64],
          [column(3), column(8), column(0), column(1), none],
        ],
        [
          [0, 2, 1, 64],
          [column(33), column(8), column(0), none, none],
        ],
      ] as [number[], Buffer[]][]) {
        const refused = rebuild(old, 64, chunk(head, columns), none);
        await expect(refused, JSON.stringify(head)).rejects.toMatchObject({ code: 'CORRUPT' });
      }
    });
  });

  it('with a head that says they are a program, whatever follows', async () => {
    const golden = JSON.parse(readFileSync(new URL('deltas-golden-v1.json', import.meta.url), 'utf8')) as {
      name: string;
      basis: Record<string, string>;
    }[];
    const programs = golden
      .filter(({ name }) => name.startsWith('moves'))
      .map(({ basis }) => Buffer.from(Object.values(basis)[0] as string, 'base64'));
    expect(programs).toHaveLength(3);
    const damage = fc.record({
      seed: fc.string(),
      at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      length: fc.nat(3_000),
    });
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...programs), damage, damage, async (real, a, b) => {
        const broken = ({ seed, at, length }: typeof a): Buffer => {
          const bytes = Buffer.from(real);
          noise(length, seed).copy(bytes, Math.max(Math.floor(at * real.length), 64));
          return bytes;
        };
        expect(await comesBack(broken(a), broken(b))).toBe(true);
      }),
      { numRuns: 90 },
    );
  }, 60_000);
});

describe('a program built again after a small change', () => {
  it.each([
    ['for any address', ['-fPIE', '-pie']],
    ['for one address', ['-no-pie']],
    ['a library', ['-shared', '-fPIC']],
  ])('takes a fraction of what it takes without the prediction: %s', async (_, flags) => {
    const [old, young] = [compiled(flags, false), compiled(flags, true)];
    const made = await thereAndBack(old, young);
    const { count, wrong } = made.references;
    expect(count).toBeGreaterThan(2_000);
    expect(wrong / count).toBeLessThan(0.05);
    // The same bytes, which no longer say that they are a program.
    const [plainOld, plainYoung] = [Buffer.from(old), Buffer.from(young)];
    plainOld[0] = plainYoung[0] = 0;
    expect(bytesOf(made)).toBeLessThan(bytesOf(await thereAndBack(plainOld, plainYoung)) / 2);
  });
});

describe('a field', () => {
  const view = new DataView(new ArrayBuffer(8));
  /** In pairs of half words a branch of Thumb has more forms than one: those that it is written in. */
  const kinds = Object.entries(KIND).filter(([name]) => !name.startsWith('thumb'));

  it.each(kinds)('that is written as it was read stays: %s', (_name, kind) => {
    fc.assert(
      fc.property(fc.nat(2 ** 32 - 1), fc.nat(2 ** 21 - 1), (low, high) => {
        view.setUint32(0, low, true);
        view.setUint32(4, high, true);
        writeField(view, 0, kind, readField(view, 0, kind));
        expect([view.getUint32(0, true), view.getUint32(4, true)]).toEqual([low, high]);
      }),
      { numRuns: 2_000 },
    );
  });

  it('of AArch64 that points backward has its sign, and no more', () => {
    // ADRP x1, -18 pages: Arm's manual, C6.2.
    view.setUint32(0, 0x90000001, true);
    writeField(view, 0, KIND.page21, -18);
    expect(view.getUint32(0, true).toString(16)).toBe('d0ffff61');
    expect(readField(view, 0, KIND.page21)).toBe(-18);
  });
});

describe('what is in a program', () => {
  it('is found where objdump finds it: the targets of all calls', async () => {
    const path = join(folder, 'called');
    writeFileSync(path, compiled(['-no-pie'], false));
    const bytes = readFileSync(path);
    const listed = execFileSync('objdump', ['-d', '-j', '.text', path], {
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
    const calls = [...listed.matchAll(/^\s*([0-9a-f]+):.*\s(?:call|jmp)\s+([0-9a-f]+) </gm)];
    expect(calls.length).toBeGreaterThan(500);
    const read = fileOf(bytes).read;
    const elf = await readElf(read, bytes.length);
    if (elf === undefined) throw new Error('not a program');
    const references = new References(elf, read, bytes.length);
    const targets = new Set<number>();
    for (let block = 0; block * 16_384 < bytes.length; block += 1) {
      const { count, targets: some } = await references.block(block);
      for (let at = 0; at < count; at += 1) targets.add(some[at] as number);
    }
    const missed = calls.filter(([, , target]) => !targets.has(Number.parseInt(target as string, 16)));
    expect(missed.map(([line]) => line)).toEqual([]);
  });

  it.each([
    ['e8 78 56 34 12', 5, 1],
    ['0f 84 00 00 00 00', 6, 2],
    ['48 8d 3d 10 00 00 00', 7, 3],
    ['83 3d 00 00 00 00 07', 7, 2],
    ['c7 05 00 00 00 00 01 00 00 00', 10, 2],
    ['66 c7 05 00 00 00 00 01 00', 9, 3],
    ['c5 f8 28 05 00 00 00 00', 8, 4],
    ['c4 e3 71 0f 05 00 00 00 00 08', 10, 5],
    ['62 f1 7c 48 28 05 00 00 00 00', 10, 6],
    ['f6 05 00 00 00 00 01', 7, 2],
    ['0f f6 05 00 00 00 00', 7, 3],
  ])('x86-64: %s has %d bytes, the field at %d', (hex, length, at) => {
    const code = Buffer.concat([Buffer.from(hex.replaceAll(' ', ''), 'hex'), Buffer.alloc(32)]);
    // The first time it is decoded, then it is known.
    for (const decoded of [decode(code, 0), decode(code, 0)])
      expect([lengthOf(decoded), fieldOf(decoded), kindOf(decoded)]).toEqual([length, at, RELATIVE32]);
  });

  it.each([
    ['48 89 e5', 3],
    ['55', 1],
    ['48 b8 01 02 03 04 05 06 07 08', 10],
    ['48 83 ec 08', 4],
    ['c8 10 00 00', 4],
    ['f7 d8', 2],
    ['f7 c0 01 00 00 00', 6],
    ['66 0f 1f 44 00 00', 6],
    ['66 2e 0f 1f 84 00 00 00 00 00', 10],
    ['06', 1],
  ])('x86-64: %s has %d bytes', (hex, length) => {
    const code = Buffer.concat([Buffer.from(hex.replaceAll(' ', ''), 'hex'), Buffer.alloc(32)]);
    expect([lengthOf(decode(code, 0)), lengthOf(decode(code, 0))]).toEqual([length, length]);
  });
});

describe('hostile ranges', () => {
  let old: Buffer;
  let young: Buffer;
  let chunks: Buffer;
  let literals: Buffer;
  beforeAll(async () => {
    old = compiled([], false);
    young = compiled([], true);
    const made = await thereAndBack(old, young);
    chunks = Buffer.concat(made.chunks);
    literals = Buffer.concat(made.literals);
  });

  it('are refused or give other bytes, never more than were asked for, never another error', async () => {
    const codes = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(
        fc.nat(chunks.length - 1),
        fc.uint8Array({ minLength: 1, maxLength: 6 }),
        fc.boolean(),
        async (at, bytes, cut) => {
          const bad = cut ? chunks.subarray(0, at) : Buffer.from(chunks);
          if (!cut) bad.set(bytes.subarray(0, chunks.length - at), at);
          let made = 0;
          let code = 'none';
          try {
            for await (const piece of decodeMoves(fileOf(old), young.length, sources(bad, literals)))
              made += piece.length;
          } catch (error) {
            if (!(error instanceof DeltaError)) throw error;
            code = error.code;
          }
          expect(made).toBeLessThanOrEqual(young.length);
          codes.set(code, (codes.get(code) ?? 0) + 1);
        },
      ),
      { numRuns: 400 },
    );
    expect(codes.get('CORRUPT')).toBeGreaterThan(50);
    expect([...codes.keys()].filter((code) => !/^(none|CORRUPT|TOO_LARGE)$/.test(code))).toEqual([]);
  });

  it('that claim a chunk of any length are refused before it is read', async () => {
    const bad = Buffer.from(chunks);
    bad.writeUInt32LE(0x7fffffff, 0);
    await expect(rebuild(old, young.length, bad, literals)).rejects.toMatchObject({ code: 'TOO_LARGE' });
  });

  it('for a program, on a basis that is none', async () => {
    await expect(rebuild(noise(old.length, 'none'), young.length, chunks, literals)).rejects.toMatchObject({
      code: 'BASIS_MISMATCH',
    });
  });
});
