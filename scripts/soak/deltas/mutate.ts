/**
 * Artifacts that no honest maker writes: good ones, changed as a seed says, most of them with all digests put right again so that
 * the change is met by the reader behind the door and not at it.
 *
 * Invariant: a seed gives the same case for the same commit, on any machine.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import { bodyDigest, type Section, writeHeader } from '#deltas/artifact.ts';
import { ByteReader, ByteWriter } from '#deltas/bytes.ts';
import { CODECS, type Codec } from '#deltas/codecs.ts';
import { memoryAccess, openDelta } from '#deltas/index.ts';
import { COLUMNS } from '#deltas/index-format.ts';
import { DATA_COLUMNS, PLAN_COLUMNS } from '#deltas/moves/format.ts';
import { make, noise, type OpenSection, reseal, sha256, source, tarOf } from '#test/deltas-kit.ts';

export interface Subject {
  name: string;
  artifact: Buffer;
  diffId: string;
  /** Of the layer that it rebuilds. */
  bytes: number;
  basis: Record<string, Buffer>;
}

export interface Case {
  subject: Subject;
  mutation: string;
  artifact: Buffer;
  basis: Record<string, Buffer>;
}

/** Numbers that follow from a seed. */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = createHash('sha256').update(`deltas ${seed}`).digest().readUInt32LE(0);
  }

  /** In [0, 2^32): mulberry32. */
  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** In [0, end). */
  below(end: number): number {
    return end <= 0 ? 0 : Math.floor((this.#next() / 2 ** 32) * end);
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)] as Item;
  }
}

const golden = (): Subject[] => {
  const path = join(PACKAGE_ROOT, 'test', 'deltas-golden-v1.json');
  const all = JSON.parse(readFileSync(path, 'utf8')) as {
    name: string;
    diffId: string;
    bytes: number;
    basis: Record<string, string>;
    artifact: string;
  }[];
  return all.map(({ name, diffId, bytes, basis, artifact }) => ({
    name: `golden: ${name}`,
    artifact: Buffer.from(artifact, 'base64'),
    diffId,
    bytes,
    basis: Object.fromEntries(
      Object.entries(basis).map(([path, text]) => [path, Buffer.from(text, 'base64')]),
    ),
  }));
};

/** The golden artifacts, and what today's maker makes of an app with text, binaries, renames and a listing. */
export async function subjects(): Promise<Subject[]> {
  const old: Record<string, Buffer> = {
    'app/same.bin': noise(40_000, 'same'),
    'app/large.bin': noise(1_200_000, 'large'),
    'app/patch.js': Buffer.from(source(400, 'patch')),
    'lib/libfoo.so.1.2.3': noise(90_000, 'foo'),
    ...Object.fromEntries(
      Array.from({ length: 200 }, (_, at) => [
        `app/lib/${noise(6, `${at}`).toString('hex')}.js`,
        Buffer.from(source(6, `m${at}`)),
      ]),
    ),
  };
  const large = Buffer.from(old['app/large.bin'] as Buffer);
  for (let at = 5_000; at < large.length; at += 97_001) large[at] = (large[at] as number) ^ 0x21;
  const renamed = Buffer.concat([old['lib/libfoo.so.1.2.3'] as Buffer, noise(300, 'more')]);
  const { 'lib/libfoo.so.1.2.3': _, ...rest } = old;
  const young: Record<string, Buffer> = {
    ...rest,
    'app/large.bin': large,
    'app/patch.js': Buffer.from(`${source(100, 'patch')}// one more\n${source(400, 'patch')}`),
    'lib/libfoo.so.1.2.4': renamed,
    'app/new.js': Buffer.from(source(80, 'new')),
  };
  const tar = (files: Record<string, Buffer>, mtime: number): Buffer =>
    tarOf(Object.entries(files).map(([name, content]) => ({ name, content, mtime })));
  const [basis, target] = [tar(old, 1_600_000_000), tar(young, 1_700_000_000)];
  const made: Subject[] = [];
  for (const [listing, moves] of [
    ['auto', 'auto'],
    ['never', 'auto'],
    ['never', 'never'],
  ] as const) {
    const { artifact } = await make([basis], [target], listing, moves);
    made.push({
      name: `made: listing ${listing}, moves ${moves}`,
      artifact,
      diffId: sha256(target),
      bytes: target.length,
      basis: old,
    });
  }
  return [...golden(), ...made];
}

/** Bytes that a reader of integers may stumble over: 0, ends of ranges, one too long for any. */
const NUMBERS = [
  0,
  1,
  63,
  64,
  127,
  128,
  511,
  512,
  2 ** 16,
  2 ** 31,
  2 ** 32,
  2 ** 47,
  Number.MAX_SAFE_INTEGER,
];
const numberBytes = (chance: Chance): Buffer => {
  if (chance.below(12) === 0) return Buffer.alloc(9, 0xff);
  const writer = new ByteWriter();
  writer.integer(chance.pick(NUMBERS));
  return writer.finish();
};

/** One to four changes: bits, numbers, a piece gone, a piece twice, pieces of `other`. */
function damage(bytes: Buffer, chance: Chance, other: Buffer = bytes): Buffer {
  let result = Buffer.from(bytes);
  for (let left = 1 + chance.below(4); left > 0; left -= 1) {
    const at = chance.below(result.length + 1);
    const some = 1 + chance.below(chance.pick([4, 64, 4_096]));
    switch (chance.below(6)) {
      case 0:
      case 1:
        if (at < result.length) result[at] = (result[at] as number) ^ (1 << chance.below(8));
        break;
      case 2: {
        const number = numberBytes(chance);
        const kept = chance.below(2) === 0 ? at : at + number.length;
        result = Buffer.concat([result.subarray(0, at), number, result.subarray(kept)]);
        break;
      }
      case 3:
        result = Buffer.concat([result.subarray(0, at), result.subarray(at + some)]);
        break;
      case 4:
        result = Buffer.concat([result.subarray(0, at + some), result.subarray(at)]);
        break;
      default: {
        const from = chance.below(other.length);
        const piece = other.subarray(from, from + some);
        result = Buffer.concat([result.subarray(0, at), piece, result.subarray(at + piece.length)]);
      }
    }
  }
  return result;
}

/** Takes columns apart, lets `change` have one, and puts them together with lengths that are right again. */
function inColumns(raw: Buffer, count: number, before: number, chance: Chance): Buffer {
  const reader = new ByteReader(raw, 'columns');
  const head = Array.from({ length: before }, () => reader.integer());
  const lengths = Array.from({ length: count }, () => reader.integer());
  const columns = lengths.map((length) => reader.bytes(length));
  const filled = [...columns.keys()].filter((at) => (columns[at] as Buffer).length > 0);
  const chosen = chance.below(4) === 0 ? chance.below(count) : chance.pick(filled);
  columns[chosen] = damage(columns[chosen] as Buffer, chance, chance.pick(columns));
  if (before > 0 && chance.below(4) === 0) head[0] = chance.pick(NUMBERS);
  const writer = new ByteWriter();
  for (const value of [...head, ...columns.map((column) => column.length)]) writer.integer(value);
  for (const column of columns) writer.bytes(column);
  return writer.finish();
}

/** The chunks of a moves section: u32 length and bytes, the first of a file with other columns than the rest. */
function inChunks(raw: Buffer, chance: Chance): Buffer {
  const chunks: Buffer[] = [];
  for (let at = 0; at + 4 <= raw.length; ) {
    const length = raw.readUInt32LE(at);
    chunks.push(Buffer.from(raw.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  const chosen = chance.below(chunks.length);
  const chunk = chunks[chosen] as Buffer;
  const columns = chosen === 0 ? PLAN_COLUMNS.length : DATA_COLUMNS.length;
  try {
    chunks[chosen] = inColumns(chunk, columns, 1, chance);
  } catch {
    // The first chunk of a later file: as bytes, then.
    chunks[chosen] = damage(chunk, chance);
  }
  return Buffer.concat(
    chunks.flatMap((each) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(chance.below(20) === 0 ? chance.below(2 ** 32) : each.length);
      return [length, each];
    }),
  );
}

type Change = (sections: OpenSection[], layer: { bytes: number; diffId: Buffer }) => void;

/** As `reseal`, but the sections' stored bytes are changed: what the decompressors meet. */
async function resealStored(
  artifact: Buffer,
  change: (sections: (Section & { stored: Buffer })[], layer: { bytes: number }) => void,
): Promise<Buffer> {
  const delta = await openDelta(memoryAccess(artifact));
  const { header, headerBytes } = delta;
  const [layer] = header.layers;
  if (layer === undefined) throw new Error('no layer');
  const sections = layer.sections.map((section) => {
    const start = headerBytes + section.offset;
    return { ...section, stored: Buffer.from(artifact.subarray(start, start + section.bytes)) };
  });
  change(sections, layer);
  const body = Buffer.concat(sections.map(({ stored }) => stored));
  header.layers.length = 1;
  layer.sections = sections.map(({ stored, ...section }) => ({ ...section, bytes: stored.length }));
  header.bodyBytes = body.length;
  header.bodyDigests = [];
  for (let at = 0; at < body.length; at += 65_536)
    header.bodyDigests.push(bodyDigest(body.subarray(at, at + 65_536)));
  return Buffer.concat([writeHeader(header), body]);
}

const opened = async (artifact: Buffer): Promise<OpenSection[]> => {
  let all: OpenSection[] = [];
  await reseal(artifact, (sections) => {
    all = [...sections];
  });
  return all;
};

type Mutation = (subject: Subject, other: Subject, chance: Chance) => Promise<Buffer>;
const sealed =
  (change: (chance: Chance, sections: OpenSection[], layer: { bytes: number }) => void): Mutation =>
  async (subject, _other, chance) => {
    const how: Change = (sections, layer) => change(chance, sections, layer);
    return await reseal(subject.artifact, how);
  };

const MUTATIONS: Record<string, Mutation> = {
  'bits and pieces': async ({ artifact }, other, chance) => damage(artifact, chance, other.artifact),
  'cut or longer': async ({ artifact }, other, chance) =>
    chance.below(3) === 0
      ? Buffer.concat([artifact, other.artifact.subarray(0, 1 + chance.below(200))])
      : artifact.subarray(0, chance.below(artifact.length)),
  'header and body of two': async ({ artifact }, other, chance) => {
    const at = 48 + chance.below(Math.min(artifact.length, other.artifact.length) - 48);
    return Buffer.concat([artifact.subarray(0, at), other.artifact.subarray(at)]);
  },
  'sealed: a section’s bytes': sealed((chance, sections) => {
    const section = chance.pick(sections);
    section.raw = damage(section.raw, chance, chance.pick(sections).raw);
  }),
  'sealed: an index column': sealed((chance, sections) => {
    const index = chance.pick(sections.filter(({ kind }) => kind === 'index'));
    index.raw = inColumns(index.raw, COLUMNS.length, 0, chance);
  }),
  'sealed: a moves column': sealed((chance, sections) => {
    const moves = sections.find(({ kind }) => kind === 'moves');
    const section = moves ?? chance.pick(sections);
    section.raw = moves ? inChunks(moves.raw, chance) : damage(section.raw, chance);
  }),
  'sealed: sections swapped, dropped, twice': sealed((chance, sections) => {
    const [one, two] = [chance.below(sections.length), chance.below(sections.length)];
    const [first, second] = [sections[one] as OpenSection, sections[two] as OpenSection];
    switch (chance.below(4)) {
      case 0:
        [sections[one], sections[two]] = [second, first];
        break;
      case 1:
        [first.raw, second.raw] = [second.raw, first.raw];
        break;
      case 2:
        sections.splice(one, 1);
        break;
      default:
        sections.splice(two, 0, { ...first });
    }
  }),
  'sealed: another artifact’s section': async (subject, other, chance) => {
    const theirs = await opened(other.artifact);
    return await reseal(subject.artifact, (sections) => {
      const section = chance.pick(sections);
      const like = theirs.filter(({ kind }) => kind === section.kind);
      section.raw = (like.length > 0 ? chance.pick(like) : chance.pick(theirs)).raw;
    });
  },
  'sealed: lengths that lie': async (subject, _other, chance) =>
    await resealStored(subject.artifact, (sections, layer) => {
      const lie = (length: number): number =>
        chance.pick([Math.max(0, length - 1), length + 1, length * 2, ...NUMBERS]);
      if (chance.below(3) === 0) layer.bytes = lie(layer.bytes);
      else {
        const section = chance.pick(sections);
        section.rawBytes = lie(section.rawBytes);
      }
    }),
  'sealed: another codec': async (subject, _other, chance) =>
    await resealStored(subject.artifact, (sections) => {
      chance.pick(sections).codec = chance.pick(Object.keys(CODECS) as Codec[]);
    }),
  'sealed: compressed bytes': async (subject, _other, chance) =>
    await resealStored(subject.artifact, (sections) => {
      const section = chance.pick(sections);
      section.stored = damage(section.stored, chance, chance.pick(sections).stored);
    }),
  'sealed: much more than is told': sealed((chance, sections) => {
    const section = chance.pick(sections);
    section.raw = Buffer.concat([section.raw, Buffer.alloc(1 << (10 + chance.below(17)), chance.below(256))]);
  }),
};
export const MUTATION_NAMES = [...Object.keys(MUTATIONS), 'the basis changed by hand'];

/** One changed file of the basis: a byte, its length, or all of it. */
function changedBasis(basis: Record<string, Buffer>, chance: Chance): Record<string, Buffer> {
  const path = chance.pick(Object.keys(basis));
  const { [path]: file = Buffer.alloc(0), ...others } = basis;
  return chance.below(4) === 0 ? others : { ...others, [path]: damage(file, chance) };
}

export async function caseOf(all: readonly Subject[], seed: number): Promise<Case> {
  const chance = new Chance(seed);
  const [subject, other] = [chance.pick(all), chance.pick(all)];
  const mutation = chance.pick(MUTATION_NAMES);
  const change = MUTATIONS[mutation];
  return {
    subject,
    mutation,
    artifact: change === undefined ? subject.artifact : await change(subject, other, chance),
    basis: change === undefined ? changedBasis(subject.basis, chance) : subject.basis,
  };
}
