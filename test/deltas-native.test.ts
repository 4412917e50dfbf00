/** The hot loops in C give what those in TypeScript do, bit for bit, whatever they are given (deltas/moves/native.ts). */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { ByteWriter } from '#deltas/bytes.ts';
import { DeltaError } from '#deltas/errors.ts';
import { applyLayer, memoryAccess, openDelta } from '#deltas/index.ts';
import { joinColumns, writers } from '#deltas/moves/columns.ts';
import { decodeMoves } from '#deltas/moves/decoder.ts';
import { readElf } from '#deltas/moves/elf.ts';
import { encodeMoves } from '#deltas/moves/encoder.ts';
import { DATA_COLUMNS, PLAN_COLUMNS } from '#deltas/moves/format.ts';
import { NATIVE, type Native } from '#deltas/moves/native.ts';
import type { Part, Program } from '#deltas/moves/program.ts';
import { BLOCK_BYTES, type Found, References } from '#deltas/moves/references.ts';
import { ONE, TWO } from '#deltas/moves/x86-64.ts';
import { memoryBasis, noise } from '#test/deltas-kit.ts';

const fileOf = (bytes: Buffer) => ({
  size: bytes.length,
  read: async (offset: number, length: number) => bytes.subarray(offset, offset + length),
});

const listed = ({ count, offsets, kinds, targets, extras }: Found): Buffer =>
  Buffer.concat(
    [offsets, targets, extras, kinds].map((column) => {
      const { buffer, byteOffset, BYTES_PER_ELEMENT } = column;
      return Buffer.from(buffer as ArrayBuffer, byteOffset, count * BYTES_PER_ELEMENT);
    }),
  );

/** @returns how many references were found, in blocks that are the same by both; throws at the first that differs */
const sweptAlike = async (bytes: Buffer, elf: Program): Promise<number> => {
  const read = fileOf(bytes).read;
  const [ours, theirs] = [null, NATIVE].map((native) => new References(elf, read, bytes.length, native));
  let count = 0;
  for (let number = 0; number * BLOCK_BYTES < bytes.length; number += 1) {
    const [a, b] = [await (ours as References).block(number), await (theirs as References).block(number)];
    if (!listed(a).equals(listed(b))) throw new Error(`block ${number} differs`);
    count += a.count;
  }
  return count;
};

/** All of it code, but for what `parts` says. */
const codeOf = (
  bytes: Buffer,
  fixed: boolean,
  address: number,
  parts?: Part[],
  machine: Program['machine'] = 'x86-64',
): Program => ({
  machine,
  fixed,
  inPlace: true,
  segments: [{ offset: 0, fileBytes: bytes.length, address, memoryBytes: bytes.length }],
  parts: parts ?? [{ form: 'code', offset: 0, bytes: bytes.length, address, anchor: 0 }],
  anchors: [],
});

/** What was made, and why no more was. */
type Outcome = { bytes: Buffer; error?: string };
const decoded = async (
  old: Buffer,
  length: number,
  chunks: Buffer,
  literals: Buffer,
  native: Native | null,
): Promise<Outcome> => {
  let [chunkAt, literalAt] = [0, 0];
  const take = (bytes: Buffer, at: number, some: number): Buffer => {
    if (some > bytes.length - at) throw new DeltaError('CORRUPT', 'no more');
    return bytes.subarray(at, at + some);
  };
  const parts: Buffer[] = [];
  const sources = {
    chunk: async (some: number) => {
      const taken = take(chunks, chunkAt, some);
      chunkAt += some;
      return taken;
    },
    literalNow: () => undefined,
    async *literal(some: number) {
      yield take(literals, literalAt, some);
      literalAt += some;
    },
  };
  try {
    for await (const part of decodeMoves(fileOf(old), length, sources, native)) parts.push(Buffer.from(part));
  } catch (error) {
    if (!(error instanceof DeltaError)) throw error;
    return { bytes: Buffer.concat(parts), error: `${error.code}: ${error.message}` };
  }
  return { bytes: Buffer.concat(parts) };
};

const chunk = <Name extends string>(
  first: number,
  names: readonly Name[],
  columns: Record<Name, ByteWriter>,
): Buffer => {
  const [before, head] = [Buffer.alloc(4), new ByteWriter()];
  head.integer(first);
  const joined = joinColumns(head, names, columns);
  before.writeUInt32LE(joined.length);
  return Buffer.concat([before, joined]);
};

/** Of a seed, the same in every run. */
const dice = (seed: string): ((sides: number) => number) => {
  const bytes = noise(4 * 65_536, seed);
  let at = 0;
  return (sides) => {
    at = (at + 4) % bytes.length;
    return bytes.readUInt32LE(at) % sides;
  };
};

const folder = mkdtempSync(join(tmpdir(), 'midair-native-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** What compilers on any machine can make: calls, tables, pointers, frames; with changes here and there. */
const compiled = (flags: readonly string[], changed: boolean): Buffer => {
  const bodies = Array.from({ length: 200 }, (_, at) => {
    const [a = 0, b = 0] = noise(2, `body ${at}`);
    const call = at > 1 ? `sum += f${(a * 5 + b) % at}(sum);` : '';
    const more = changed && at % 9 === 7 ? 'puts("put in"); counter *= 3;' : '';
    return `__attribute__((noinline)) int f${at}(int x) { int sum = x * ${a}; ${more} ${call}
      switch (x % 7) { case 0: return table[x & 63]; case 1: puts(names[x & 7]); break; case 2: sum ^= ${b}; break;
        case 3: counter -= sum; break; case 4: sum <<= 2; break; case 5: return ${b}; } counter += sum; return sum; }`;
  });
  const names = Array.from({ length: 8 }, (_, at) => `"name ${at}"`).join(',');
  const text = `#include <stdio.h>
    ${changed ? 'int added[9] = {1};' : ''} int counter; int table[64] = {1}; const char *names[8] = {${names}};
    ${bodies.map((_, at) => `int f${at}(int);`).join('')} ${bodies.join('\n')}
    int (*all[200])(int) = {${bodies.map((_, at) => `f${at}`).join(',')}};
    int main(int n, char **v) { return all[n % 200](n); }`;
  const [source, made] = [join(folder, 'p.c'), join(folder, 'p')];
  writeFileSync(source, text);
  execFileSync('cc', ['-O1', ...flags, source, '-o', made]);
  return readFileSync(made);
};

/** Made once by a compiler for AArch64: such a machine, or its compiler, is not everywhere. */
const aarch64 = (): { old: Buffer; artifact: Buffer } => {
  const path = new URL('deltas-golden-v1.json', import.meta.url);
  const golden = JSON.parse(readFileSync(path, 'utf8')) as {
    name: string;
    basis: Record<string, string>;
    artifact: string;
  }[];
  const one = golden.find(({ name }) => name === 'moves, aarch64');
  if (one === undefined) throw new Error('no such golden artifact');
  const bytes = (text: string | undefined): Buffer => Buffer.from(text ?? '', 'base64');
  return { old: bytes(Object.values(one.basis)[0]), artifact: bytes(one.artifact) };
};
/** The program that the golden artifact gives. */
const golden = async (old: Buffer, artifact: Buffer): Promise<Buffer> => {
  const delta = await openDelta(memoryAccess(artifact));
  const parts: Buffer[] = [];
  for (const { diffId } of delta.layers)
    for await (const part of applyLayer(delta, diffId, memoryBasis({ 'lib/it.so': old })))
      parts.push(Buffer.from(part));
  // A tar of one file: its header, its bytes, what fills them up.
  const tar = Buffer.concat(parts);
  return tar.subarray(512, 512 + Number.parseInt(tar.toString('latin1', 124, 135), 8));
};
/** Instructions that refer to something, of any field, and what is between them. */
const words = (count: number, roll: (sides: number) => number, seed: string): Buffer => {
  const bytes = noise(4 * count, seed);
  // Branches, compares with them, ADR, ADRP, ADD, LDR and STR of all sizes, LDR of what is near, MOV, others.
  const kinds = [
    [0x14000000, 0x03ffffff],
    [0x94000000, 0x03ffffff],
    [0x54000000, 0x00ffffef],
    [0xb4000000, 0x01ffffff],
    [0x36000000, 0x810fffff],
    [0x10000000, 0x60ffffff],
    [0x90000000, 0x60ffffff],
    [0x90000000, 0x60000fff],
    [0x91000000, 0x003fffff],
    [0xf9400000, 0x003fffff],
    [0x39000000, 0xc4ffffff],
    [0x18000000, 0xc4ffffff],
    [0xaa0003e0, 0x001f001f],
    [0x00000000, 0xffffffff],
  ] as const;
  for (let at = 0; at < count; at += 1) {
    const [is, any] = kinds[roll(kinds.length)] as readonly [number, number];
    // Few registers, so that they are used, and short ways, so that some lead somewhere.
    const few = roll(3) === 0 ? any : any & 0x60ffff63;
    bytes.writeUInt32LE(((is & ~any) | (bytes.readUInt32LE(4 * at) & few) | (is & any)) >>> 0, 4 * at);
  }
  return bytes;
};

const libraries = (): string[] => {
  const place = '/usr/lib/x86_64-linux-gnu';
  if (!existsSync(place)) return [];
  return readdirSync(place)
    .filter((name) => /^lib(c|m|crypto|stdc\+\+|python3[.0-9]*|z)\.so/.test(name))
    .map((name) => realpathSync(join(place, name)));
};

const builds = (process.env.MIDAIR_MOVES ?? '') !== 'off';

it.runIf(builds)('is built here: what follows compares two things', () => {
  expect(NATIVE).not.toBeNull();
});

it.runIf(builds)('the door takes no arrays but those that it needs, nor numbers that do not fit them', () => {
  const path = fileURLToPath(new URL('../deltas/native/build/Release/moves.node', import.meta.url));
  const addon = createRequire(import.meta.url)(process.env.MIDAIR_MOVES ?? path) as Record<
    'begin' | 'sweep' | 'bind' | 'predict',
    (...given: unknown[]) => unknown
  >;
  const refused = { code: 'ERR_INVALID_ARG_VALUE' };
  const [bytes, memory] = [new Uint8Array(100), new Float64Array(25)];
  const job = (...numbers: number[]) => Float64Array.from({ length: 11 }, (_, at) => numbers[at] ?? 0);
  addon.begin(ONE, TWO);
  const searches = [0, 1, 2, 3, 4, 5, 6];
  for (const search of searches)
    expect(addon.sweep(bytes, memory, job(0, 0, 100, 0, 0, 100, 0, 0, 8), search)).toBe(0);
  const wrong: unknown[][] = [
    [bytes, memory],
    [memory, memory, job()],
    [bytes, new Float64Array(24), job()],
    [bytes, memory, new Float64Array(10)],
    [bytes, memory, job(-1)],
    [bytes, memory, job(0, 0.5)],
    [bytes, memory, job(0, 0, Number.NaN)],
    [bytes, memory, job(0, 0, 0, 0, 0, 0, 0, 0, 0.5)],
    [bytes, memory, job(0, 0, 0, 0, 0, 0, 0, 0, 8, -1)],
    [bytes, memory, job(0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 9)],
  ];
  for (const given of wrong)
    for (const search of searches)
      expect(() => addon.sweep(...given, search)).toThrow(expect.objectContaining(refused));
  for (const none of [undefined, 7, true])
    expect(() => addon.sweep(bytes, memory, job(), none)).toThrow(expect.objectContaining(refused));
  // Addresses of every 0 bytes would never end.
  expect(() => addon.sweep(bytes, memory, job(0, 0, 100), 2)).toThrow(expect.objectContaining(refused));
  // Of no end, and more than a block: what is told is bounded by the block and the bytes.
  for (const end of [1e6, 2 ** 53 - 1])
    for (const search of searches)
      expect(
        addon.sweep(new Uint8Array(100_000), memory, job(0, 0, end, 0, 0, 2 ** 53 - 1, 0, 0, 8), search),
      ).toBe(0);
  expect(() => addon.begin(ONE, TWO.subarray(1))).toThrow(expect.objectContaining(refused));
  expect(() => addon.bind({})).toThrow(expect.objectContaining(refused));
  expect(() => addon.predict({}, memory, bytes, bytes, bytes)).toThrow(expect.objectContaining(refused));
});

describe('references', () => {
  it.runIf(process.arch === 'x64')(
    'of real programs are the same, in each block',
    { timeout: 120_000 },
    async () => {
      const counts: number[] = [];
      for (const path of new Set([process.execPath, '/usr/bin/python3', '/bin/sh', ...libraries()])) {
        if (!existsSync(path)) continue;
        const bytes = readFileSync(path);
        const elf = await readElf(fileOf(bytes).read, bytes.length);
        if (elf?.machine === 'x86-64') counts.push(await sweptAlike(bytes, elf));
      }
      expect(Math.min(...counts)).toBeGreaterThan(100);
    },
  );

  it('of bytes that are no code are the same', async () => {
    const roll = dice('no code');
    for (let turn = 0; turn < 60; turn += 1) {
      const bytes = noise(1 + roll(5 * BLOCK_BYTES), `code ${turn}`);
      // Long runs of prefixes, of branches with nothing between them, of what begins many bytes.
      for (let run = 0; run < 40; run += 1) {
        const start = roll(bytes.length);
        const what = [0x66, 0x48, 0x0f, 0x62, 0xc4, 0xc5, 0xeb, 0x75, 0xe8, 0xa1, 0x81, 0xf7][
          roll(12)
        ] as number;
        bytes.fill(what, start, Math.min(bytes.length, start + roll(turn % 7 === 0 ? 20_000 : 60)));
      }
      const address = [0, 0x400000, 2 ** 47 - bytes.length, 2 ** 48 + 5, 2 ** 63, 2 ** 64 - 2 ** 20][roll(6)];
      await expect(
        sweptAlike(bytes, codeOf(bytes, roll(2) === 0, address as number)),
      ).resolves.toBeGreaterThanOrEqual(0);
    }
  });

  it('of words that are AArch64 code are the same, in parts that begin and end anywhere, too', async () => {
    const roll = dice('words');
    let found = 0;
    for (let turn = 0; turn < 80; turn += 1) {
      const bytes = words(1 + roll(2 * BLOCK_BYTES), roll, `words ${turn}`);
      const address = [0, 0x400000, 2 ** 47 - bytes.length, 2 ** 48 + 4, 0x401003][roll(5)] as number;
      const parts: Part[] = [];
      for (let offset = roll(100); turn % 2 === 0 && offset < bytes.length; ) {
        const some = Math.min(bytes.length - offset, 1 + roll(turn % 3 === 0 ? 90 : 30_000));
        const form = (['code', 'code', 'pointers', 'constants'] as const)[roll(4)] as Part['form'];
        parts.push({ form, offset, bytes: some, address: address + offset + roll(9), anchor: 0 });
        offset += some + roll(20);
      }
      const elf = codeOf(bytes, roll(2) === 0, address, parts.length > 0 ? parts : undefined, 'aarch64');
      found += await sweptAlike(bytes, elf);
    }
    expect(found).toBeGreaterThan(100_000);
    const { old } = aarch64();
    const elf = await readElf(fileOf(old).read, old.length);
    expect(elf?.machine).toBe('aarch64');
    expect(await sweptAlike(old, elf as Program)).toBeGreaterThan(500);
  });

  it('of code in many parts, that begin and end within instructions, are the same', async () => {
    const roll = dice('parts');
    const code = readFileSync(process.execPath).subarray(8_000_000, 8_000_000 + 6 * BLOCK_BYTES);
    for (let turn = 0; turn < 40; turn += 1) {
      const bytes = Buffer.from(code);
      for (let change = 0; change < 200; change += 1) bytes[roll(bytes.length)] = roll(256);
      const parts: Part[] = [];
      for (let offset = roll(100); offset < bytes.length; ) {
        const some = Math.min(bytes.length - offset, 1 + roll(turn % 3 === 0 ? 40 : 30_000));
        const form = (['code', 'code', 'pointers', 'constants'] as const)[roll(4)] as Part['form'];
        parts.push({ form, offset, bytes: some, address: 0x400000 + offset + roll(3), anchor: 0 });
        offset += some + roll(20);
      }
      expect(await sweptAlike(bytes, codeOf(bytes, turn % 2 === 0, 0x400000, parts))).toBeGreaterThan(0);
    }
  });
});

describe('a file that is made', () => {
  const alike = async (old: Buffer, length: number, chunks: Buffer, literals: Buffer): Promise<Outcome> => {
    const [ours, theirs] = [
      await decoded(old, length, chunks, literals, null),
      await decoded(old, length, chunks, literals, NATIVE),
    ];
    expect(theirs.error).toEqual(ours.error);
    if (!ours.bytes.equals(theirs.bytes)) throw new Error('they make different files');
    return ours;
  };

  it('from a real program is the same, and the right one; and from damaged ones, or of damaged patches', {
    timeout: 120_000,
  }, async () => {
    const roll = dice('damage');
    const outcomes = new Set<string>();
    for (const flags of [[], ['-s', '-no-pie'], ['-g', '-pie', '-fPIE'], ['-shared', '-fPIC']]) {
      const [old, young] = [compiled(flags, false), compiled(flags, true)];
      const made = await encodeMoves(old, young);
      if (made === undefined) throw new Error('too many ranges');
      const [chunks, literals] = [Buffer.concat(made.chunks), Buffer.concat(made.literals)];
      const right = await alike(old, young.length, chunks, literals);
      expect(right.error === undefined && right.bytes.equals(young), flags.join(' ')).toBe(true);
      for (let turn = 0; turn < 24; turn += 1) {
        const [basis, patch] = [Buffer.from(old), Buffer.from(chunks)];
        // In the headers, where segments, sections and what they point to are told; anywhere; or in the patch.
        const change = (bytes: Buffer, from: number, to: number): void => {
          for (let count = 1 + roll(4); count > 0; count -= 1)
            bytes[from + roll(to - from)] = [0, 0xff, 0x7f, 0x80, roll(256)][roll(5)] as number;
        };
        const sections = Number(old.readBigUInt64LE(40));
        if (turn % 3 === 0) change(basis, 64, 0x300);
        if (turn % 3 === 1) change(basis, sections, basis.length);
        if (turn % 2 === 0) change(basis, 0, basis.length);
        if (turn % 4 !== 0) change(patch, 4, turn % 8 === 1 ? Math.min(400, patch.length) : patch.length);
        const outcome = await alike(basis, young.length, patch, literals);
        outcomes.add(outcome.error?.replaceAll(/\d+/g, 'N') ?? 'made');
      }
    }
    // Not all of them stop at the door.
    expect(outcomes).toContain('made');
    expect(outcomes.size).toBeGreaterThan(4);
  });

  it('for AArch64 is the same, and the right one; and from damaged programs', {
    timeout: 120_000,
  }, async () => {
    const { old, artifact } = aarch64();
    const young = await golden(old, artifact);
    const roll = dice('aarch64');
    const made = await encodeMoves(old, young);
    if (made === undefined) throw new Error('too many ranges');
    expect(made.references.count).toBeGreaterThan(500);
    const [chunks, literals] = [Buffer.concat(made.chunks), Buffer.concat(made.literals)];
    const right = await alike(old, young.length, chunks, literals);
    expect(right.error === undefined && right.bytes.equals(young)).toBe(true);
    for (let turn = 0; turn < 60; turn += 1) {
      const basis = Buffer.from(old);
      for (let count = 1 + roll(200); count > 0; count -= 1) basis[roll(basis.length)] = roll(256);
      const patch = Buffer.from(chunks);
      if (turn % 2 === 0) patch[4 + roll(patch.length - 4)] = roll(256);
      await alike(basis, young.length, patch, literals);
    }
  });

  it('by any ranges and fixes is the same', { timeout: 120_000 }, async () => {
    const roll = dice('ranges');
    let made = 0;
    const olds = [compiled(['-g'], false), compiled(['-s', '-no-pie'], false), aarch64().old];
    for (let turn = 0; turn < 90; turn += 1) {
      const old = olds[turn % 3] as Buffer;
      const size = old.length;
      const plan = writers(PLAN_COLUMNS);
      const segments = (await readElf(fileOf(old).read, size))?.segments ?? [];
      for (const { offset, address, fileBytes, memoryBytes } of turn % 5 === 0
        ? segments.slice(1)
        : segments) {
        const [more, beyond] = turn % 3 === 0 ? [roll(5_000), roll(20_000)] : [0, 0];
        for (const value of [
          offset + roll(more + 1),
          address + 16 * roll(300),
          fileBytes + beyond,
          memoryBytes,
        ])
          plan.segments.integer(value);
      }
      for (let anchor = roll(40); anchor > 0; anchor -= 1) plan.anchors.signed(16 * (roll(400) - 200));
      // In order, with a little left out or told twice; now and then from somewhere else.
      const count = 20 + roll(2_000);
      let [from, length, copied] = [0, 0, 0];
      for (let range = 0; range < count; range += 1) {
        const start = roll(9) === 0 ? roll(size - 1) : Math.max(0, from + roll(200) - 100) % (size - 1);
        const some = Math.min(
          size - start,
          1 + roll(turn % 4 === 0 ? 20_000 : Math.ceil((2 * size) / count)),
        );
        const gap = roll(3) === 0 ? roll(60) : 0;
        plan.gaps.integer(gap);
        plan.lengths.integer(some);
        plan.seeks.signed(start - from);
        from = start + some;
        length += gap + some;
        copied += some;
      }
      const data = writers(DATA_COLUMNS);
      for (let fix = roll(2) === 0 ? 0 : roll(2_000); fix > 0; fix -= 1) {
        data.skips.integer(roll(12));
        data.fixes.signed(roll(6) === 0 ? (roll(2 ** 20) - 2 ** 19) * 2 ** roll(30) : 16 * (roll(64) - 32));
      }
      const chunks = Buffer.concat([chunk(count, PLAN_COLUMNS, plan), chunk(copied, DATA_COLUMNS, data)]);
      const { bytes } = await alike(old, length, chunks, noise(length, 'literals'));
      made += bytes.length;
    }
    expect(made).toBeGreaterThan(2 ** 20);
  });
});
