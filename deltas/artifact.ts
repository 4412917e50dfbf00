/**
 * The artifact: a prelude, a header that says what is in it, and a body of sections. docs/delta-format.md §2 and §3.
 *
 * Invariant: no byte of it is used before its digest was checked: the prelude's digest covers the header, the header
 * has one for each 64 KiB of the body. What a caller gets after that is what a maker wrote, though not always an
 * honest maker: every length in it is still only a claim.
 */
import { createHash } from 'node:crypto';
import type { Basis } from '#deltas/basis.ts';
import { ByteReader, ByteWriter } from '#deltas/bytes.ts';
import {
  CODECS,
  type Codec,
  codecName,
  isUnnamed,
  packs,
  SECTIONS,
  type SectionKind,
  sectionKind,
} from '#deltas/codecs.ts';
import { asDeltaError, DeltaError } from '#deltas/errors.ts';
import { basisPaths } from '#deltas/index-blocks.ts';
import { digestText } from '#deltas/layer.ts';
import { LIMITS } from '#deltas/limits.ts';
import type { RandomAccess } from '#deltas/random-access.ts';

/** Not text (high bit), and damaged by any transfer that converts line ends. */
export const MAGIC = Buffer.from([0x89, 0x4d, 0x44, 0x4c, 0x54, 0x0d, 0x0a, 0x1a]);
export const VERSION = 1;
export const PRELUDE_BYTES = 48;
const COVERED_BYTES = 16;

export interface Section {
  kind: SectionKind;
  codec: Codec;
  /** In the body. */
  offset: number;
  bytes: number;
  rawBytes: number;
}

export interface HeaderLayer {
  diffId: Buffer;
  bytes: number;
  sections: Section[];
}

export interface Header {
  basisId: Buffer;
  targetId: Buffer;
  codecs: Codec[];
  /** First bytes of the basis listing's digest, when the index refers to it. */
  listDigest: Buffer | undefined;
  layers: HeaderLayer[];
  bodyBytes: number;
  bodyDigests: Buffer[];
}

const sha256 = (...parts: Uint8Array[]): Buffer => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};

export function bodyDigest(piece: Uint8Array): Buffer {
  return sha256(piece).subarray(0, LIMITS.digestBytes);
}

/**
 * Prelude and header.
 * @param needs codecs beside those that follow from the sections
 */
export function writeHeader(header: Omit<Header, 'codecs'>, needs: Iterable<Codec> = []): Buffer {
  const out = new ByteWriter();
  out.bytes(header.basisId);
  out.bytes(header.targetId);
  const used = new Set<Codec>(['columns-1', 'zstd', ...needs]);
  for (const { sections } of header.layers) {
    for (const section of sections) {
      used.add(section.codec);
      if (section.kind === 'patches') used.add('vcdiff');
      if (section.kind === 'frames') used.add('zstd-dictionary');
      if (section.kind === 'moves') used.add('moves-1');
      if (section.kind === 'streams') used.add('streams-1');
      if (section.kind === 'groups') used.add('grouped-1');
    }
  }
  const codecs = (Object.keys(CODECS) as Codec[]).filter((codec) => used.has(codec));
  out.integer(codecs.length);
  for (const codec of codecs) {
    out.integer(CODECS[codec]);
    out.string(isUnnamed(CODECS[codec]) ? '' : codec);
  }
  out.byte(header.listDigest === undefined ? 0 : 1);
  if (header.listDigest !== undefined) out.bytes(header.listDigest);
  out.integer(header.layers.length);
  for (const layer of header.layers) {
    out.bytes(layer.diffId);
    out.integer(layer.bytes);
    out.integer(layer.sections.length);
    for (const section of layer.sections) {
      out.integer(SECTIONS[section.kind]);
      out.integer(CODECS[section.codec]);
      out.integer(section.bytes);
      out.integer(section.rawBytes);
    }
  }
  for (const digest of header.bodyDigests) out.bytes(digest);
  const body = out.finish();
  const prelude = Buffer.alloc(PRELUDE_BYTES);
  MAGIC.copy(prelude);
  prelude.writeUInt16LE(VERSION, 8);
  prelude.writeUInt32LE(body.length, 12);
  sha256(prelude.subarray(0, COVERED_BYTES), body).copy(prelude, COVERED_BYTES);
  return Buffer.concat([prelude, body]);
}

function parseLayer(reader: ByteReader, bodyStart: number): { layer: HeaderLayer; end: number } {
  const diffId = reader.bytes(32);
  const bytes = reader.integer();
  const count = reader.integer(LIMITS.sectionsMax);
  const sections: Section[] = [];
  let offset = bodyStart;
  for (let at = 0; at < count; at += 1) {
    const kindId = reader.integer();
    const codecId = reader.integer();
    const section = { offset, bytes: reader.integer(), rawBytes: reader.integer() };
    const kind = sectionKind(kindId);
    const codec = codecName(codecId);
    if (kind === undefined) throw new DeltaError('UNSUPPORTED', `unknown kind of section ${kindId}`);
    if (codec === undefined || !packs(kind, codec))
      throw new DeltaError('UNSUPPORTED', `${kind} section in codec ${codecId}`);
    offset += section.bytes;
    if (!Number.isSafeInteger(offset)) throw new DeltaError('CORRUPT', 'header: sections too long');
    sections.push({ kind, codec, ...section });
  }
  return { layer: { diffId, bytes, sections }, end: offset };
}

function parseHeader(bytes: Buffer): Header {
  const reader = new ByteReader(bytes, 'header');
  const basisId = reader.bytes(32);
  const targetId = reader.bytes(32);
  const declared = reader.integer(LIMITS.codecsMax);
  const codecs: Codec[] = [];
  for (let at = 0; at < declared; at += 1) {
    const id = reader.integer();
    const name = reader.string();
    const codec = codecName(id);
    if (codec !== undefined && (codec === name || (name === '' && isUnnamed(id)))) {
      codecs.push(codec);
    } else {
      const readable = name.replace(/[^\x20-\x7e]/g, '?').slice(0, 64);
      const which = readable === '' ? id : `${readable} (${id})`;
      throw new DeltaError('UNSUPPORTED', `this delta needs codec ${which}, which this version lacks`);
    }
  }
  const listed = reader.byte();
  if (listed > 1) throw new DeltaError('UNSUPPORTED', `unknown kind of basis listing ${listed}`);
  const listDigest = listed === 1 ? reader.bytes(LIMITS.digestBytes) : undefined;
  const count = reader.integer(LIMITS.layersMax);
  const layers: HeaderLayer[] = [];
  let bodyBytes = 0;
  for (let at = 0; at < count; at += 1) {
    const { layer, end } = parseLayer(reader, bodyBytes);
    layers.push(layer);
    bodyBytes = end;
  }
  const pieces = Math.ceil(bodyBytes / LIMITS.bodyChunkBytes);
  if (reader.left !== pieces * LIMITS.digestBytes) {
    throw new DeltaError('CORRUPT', 'header: not one digest for each piece of the body');
  }
  const bodyDigests: Buffer[] = [];
  for (let at = 0; at < pieces; at += 1) bodyDigests.push(reader.bytes(LIMITS.digestBytes));
  return { basisId, targetId, codecs, listDigest, layers, bodyBytes, bodyDigests };
}

async function readExactly(source: RandomAccess, offset: number, length: number): Promise<Buffer> {
  let bytes: Uint8Array;
  try {
    bytes = await source.read(offset, length);
  } catch (error) {
    throw asDeltaError(error, 'READ_FAILED', 'the delta cannot be read');
  }
  if (bytes.length !== length)
    throw new DeltaError('TRUNCATED', `the delta ends at ${offset + bytes.length}`);
  return Buffer.from(bytes.buffer, bytes.byteOffset, length);
}

export interface DeltaLayer {
  /** `sha256:…` of the uncompressed tar. */
  diffId: string;
  /** Length of that tar; a claim until applyLayer has ended. */
  bytes: number;
  /** Length of its sections in the artifact. */
  storedBytes: number;
}

/** An artifact whose header was checked. */
export class DeltaReader {
  readonly basisId: string;
  readonly targetId: string;
  /** Length of the artifact. */
  readonly bytes: number;
  readonly headerBytes: number;
  /** True when applying asks for Basis.list. */
  readonly needsList: boolean;
  readonly codecs: readonly string[];
  readonly layers: readonly DeltaLayer[];
  /** For this folder's own files. */
  readonly header: Header;
  readonly #source: RandomAccess;
  readonly #cache = new Map<number, Buffer>();

  constructor(source: RandomAccess, header: Header, headerBytes: number) {
    this.#source = source;
    this.header = header;
    this.headerBytes = headerBytes;
    this.bytes = headerBytes + header.bodyBytes;
    this.basisId = digestText(header.basisId);
    this.targetId = digestText(header.targetId);
    this.codecs = header.codecs;
    this.needsList = header.listDigest !== undefined;
    this.layers = header.layers.map(({ diffId, bytes, sections }) => ({
      diffId: digestText(diffId),
      bytes,
      storedBytes: sections.reduce((sum, section) => sum + section.bytes, 0),
    }));
  }

  async #piece(at: number): Promise<Buffer> {
    const known = this.#cache.get(at);
    if (known !== undefined) return known;
    const start = at * LIMITS.bodyChunkBytes;
    const length = Math.min(LIMITS.bodyChunkBytes, this.header.bodyBytes - start);
    const piece = await readExactly(this.#source, this.headerBytes + start, length);
    if (!bodyDigest(piece).equals(this.header.bodyDigests[at] as Buffer)) {
      throw new DeltaError('CORRUPT', `the delta is damaged near byte ${this.headerBytes + start}`);
    }
    // One piece for each section that is being read, and some to spare.
    if (this.#cache.size >= 8) this.#cache.delete(this.#cache.keys().next().value as number);
    this.#cache.set(at, piece);
    return piece;
  }

  /**
   * The paths that applying will open in the basis, each once, for a basis that must fetch them beforehand.
   *
   * @param basis only for a delta whose `needsList` is true, which takes names from its `list`
   * @throws DeltaError as applyLayer does
   */
  async basisPaths(basis?: Pick<Basis, 'list'>): Promise<ReadonlySet<string>> {
    return basisPaths(this, basis);
  }

  /** The section's bytes as stored, each checked. */
  async *stream(section: Section): AsyncGenerator<Buffer> {
    let offset = section.offset;
    const end = section.offset + section.bytes;
    while (offset < end) {
      const at = Math.floor(offset / LIMITS.bodyChunkBytes);
      const start = offset - at * LIMITS.bodyChunkBytes;
      const piece = (await this.#piece(at)).subarray(start, start + end - offset);
      offset += piece.length;
      yield piece;
    }
  }
}

/**
 * Reads and checks an artifact's header. The body is read, and checked piece by piece, as layers are applied.
 * @throws DeltaError `TRUNCATED`, `CORRUPT`, `UNSUPPORTED`, `TOO_LARGE`, `READ_FAILED`
 */
export async function openDelta(source: RandomAccess): Promise<DeltaReader> {
  if (source.size < PRELUDE_BYTES)
    throw new DeltaError('TRUNCATED', `a delta has more than ${source.size} bytes`);
  const prelude = await readExactly(source, 0, PRELUDE_BYTES);
  if (!prelude.subarray(0, MAGIC.length).equals(MAGIC))
    throw new DeltaError('CORRUPT', 'this is not a delta');
  const version = prelude.readUInt16LE(8);
  const flags = prelude.readUInt16LE(10);
  if (version !== VERSION) throw new DeltaError('UNSUPPORTED', `delta format version ${version}`);
  if (flags !== 0) throw new DeltaError('UNSUPPORTED', `delta format flags ${flags}`);
  const length = prelude.readUInt32LE(12);
  if (length > LIMITS.headerBytesMax) throw new DeltaError('TOO_LARGE', `a header of ${length} bytes`);
  if (PRELUDE_BYTES + length > source.size) {
    throw new DeltaError('TRUNCATED', `the delta ends in its header, at ${source.size}`);
  }
  const bytes = await readExactly(source, PRELUDE_BYTES, length);
  if (!sha256(prelude.subarray(0, COVERED_BYTES), bytes).equals(prelude.subarray(COVERED_BYTES))) {
    throw new DeltaError('CORRUPT', "the delta's header is damaged");
  }
  const header = parseHeader(bytes);
  const expected = PRELUDE_BYTES + length + header.bodyBytes;
  if (source.size < expected)
    throw new DeltaError('TRUNCATED', `the delta ends at ${source.size} of ${expected}`);
  if (source.size > expected)
    throw new DeltaError('CORRUPT', `the delta is longer than its ${expected} bytes`);
  return new DeltaReader(source, header, PRELUDE_BYTES + length);
}
