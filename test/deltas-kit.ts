/** What the delta tests share: tars made by hand and by GNU tar, images of them, and one way there and back. */
import { execFileSync } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';
import { bodyDigest, type Section, writeHeader } from '#deltas/artifact.ts';
import { ByteReader, ByteWriter } from '#deltas/bytes.ts';
import { compress, decompress } from '#deltas/compression.ts';
import {
  applyLayer,
  type Basis,
  basisFromLayers,
  DeltaError,
  type DeltaSummary,
  type LayerSource,
  makeDelta,
  memoryAccess,
  openDelta,
} from '#deltas/index.ts';
import { COLUMNS, type Column } from '#deltas/index-format.ts';

export const sha256 = (bytes: Uint8Array | string): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

export const BASIS_ID = sha256('basis');
export const TARGET_ID = sha256('target');

/** A layer whose stream is cut at odd places. */
export function layerOf(tar: Buffer): LayerSource {
  return {
    diffId: sha256(tar),
    bytes: tar.length,
    async *open() {
      for (let at = 0; at < tar.length; at += 65_521) yield tar.subarray(at, at + 65_521);
    },
  };
}

export interface HandEntry {
  name: string;
  type?: string;
  content?: Buffer | string;
  mode?: number;
  mtime?: number;
  link?: string;
  /** Whole magic and version, 8 bytes. */
  magic?: string;
  /** Octal size field that lies. */
  size?: number;
  prefix?: string;
}

const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, '0')}\0`;

/** One header and its content, as a careful ustar writer makes it. */
export function entry(options: HandEntry): Buffer {
  const content = Buffer.from(options.content ?? '');
  const block = Buffer.alloc(512);
  block.write(options.name, 0, 100, 'utf8');
  block.write(octal(options.mode ?? 0o644, 8), 100, 'latin1');
  block.write(octal(0, 8), 108, 'latin1');
  block.write(octal(0, 8), 116, 'latin1');
  block.write(octal(options.size ?? content.length, 12), 124, 'latin1');
  block.write(octal(options.mtime ?? 1_700_000_000, 12), 136, 'latin1');
  block.fill(' ', 148, 156);
  block.write(options.type ?? '0', 156, 'latin1');
  block.write(options.link ?? '', 157, 100, 'utf8');
  block.write(options.magic ?? 'ustar\x0000', 257, 'latin1');
  if (options.prefix !== undefined) block.write(options.prefix, 345, 155, 'utf8');
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return Buffer.concat([block, content, Buffer.alloc((512 - (content.length % 512)) % 512)]);
}

/** The body of a pax header. */
export function paxBody(records: Record<string, string>): string {
  return Object.entries(records)
    .map(([key, value]) => {
      const rest = ` ${key}=${value}\n`;
      let length = rest.length + 1;
      while (`${length}${rest}`.length !== length) length += 1;
      return `${length}${rest}`;
    })
    .join('');
}

export const END = Buffer.alloc(1024);

export function tarOf(entries: HandEntry[], end: Buffer = END): Buffer {
  return Buffer.concat([...entries.map(entry), end]);
}

/** GNU tar of what is in `directory`. */
export function gnuTar(directory: string, ...options: string[]): Buffer {
  return execFileSync('tar', ['-c', '-f', '-', '-C', directory, ...options, '.'], {
    maxBuffer: 1024 ** 3,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

/** A folder that goes away with the test. */
export function scratch(): { path: string; [Symbol.dispose](): void } {
  const path = mkdtempSync(join(tmpdir(), 'deltas-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

export interface Made {
  artifact: Buffer;
  summary: DeltaSummary;
}

export async function make(
  basis: Buffer[],
  target: Buffer[],
  listing: 'auto' | 'never' = 'never',
  moves: 'auto' | 'never' = 'auto',
): Promise<Made> {
  using folder = scratch();
  const output = join(folder.path, 'out.delta');
  const { summary, bytes, digest } = await makeDelta({
    basisId: BASIS_ID,
    basisLayers: basis.map(layerOf),
    targetId: TARGET_ID,
    targetLayers: target.map(layerOf),
    scratchDirectory: folder.path,
    output,
    listing,
    moves,
  });
  const artifact = readFileSync(output);
  if (artifact.length !== bytes || sha256(artifact) !== digest)
    throw new Error('makeDelta misstates its artifact');
  return { artifact, summary };
}

/** Rebuilds a layer; the bytes count only if nothing is thrown. */
export async function apply(artifact: Uint8Array, diffId: string, basis: Basis): Promise<Buffer> {
  const delta = await openDelta(memoryAccess(artifact));
  const chunks: Uint8Array[] = [];
  for await (const chunk of applyLayer(delta, diffId, basis)) {
    if (chunk.length > 65_536) throw new Error(`a chunk of ${chunk.length} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** A basis in memory, from paths to contents. */
export function memoryBasis(files: Record<string, Uint8Array>): Basis {
  return {
    async open(path) {
      const bytes = Object.hasOwn(files, path) ? files[path] : undefined;
      return bytes === undefined ? undefined : { ...memoryAccess(bytes) };
    },
    list: () => Object.entries(files).map(([path, bytes]) => ({ path, size: bytes.length })),
  };
}

/** There and back for every layer that the basis lacks; `same` when each is what it was, bit by bit. */
export async function roundTrip(
  basis: Buffer[],
  target: Buffer[],
  listing: 'auto' | 'never' = 'never',
): Promise<Made & { same: boolean }> {
  const made = await make(basis, target, listing);
  using folder = scratch();
  const files = await basisFromLayers(basis.map(layerOf), folder.path);
  let same = true;
  try {
    const known = new Set(basis.map(sha256));
    for (const tar of target) {
      if (!known.has(sha256(tar))) same &&= (await apply(made.artifact, sha256(tar), files)).equals(tar);
    }
  } finally {
    await files.close();
  }
  return { ...made, same };
}

export type Files = Record<string, string | Buffer>;

export const tarOfFiles = (files: Files): Buffer =>
  tarOf(Object.entries(files).map(([name, content]) => ({ name, content })));

/** There and back, which must be exact. */
export async function between(old: Files, young: Files, listing: 'auto' | 'never' = 'never') {
  const made = await roundTrip([tarOfFiles(old)], [tarOfFiles(young)], listing);
  const layer = made.summary.layers[0];
  if (!made.same || layer === undefined) throw new Error('it did not come back');
  return { ...made, layer, bytes: made.artifact.length };
}

/** The DeltaError that `run` ends with, as its code; anything else is thrown on. */
export async function codeOf(run: () => Promise<unknown>): Promise<string> {
  try {
    await run();
  } catch (error) {
    if (error instanceof DeltaError) return error.code;
    throw error;
  }
  return 'none';
}

/** One layer's sections, decompressed, in their order. */
export type OpenSection = Section & { raw: Buffer };

/**
 * Takes an artifact apart, lets `change` do what it likes to the first layer, and seals it again with right digests:
 * what a hostile maker could send.
 */
export async function reseal(
  artifact: Buffer,
  change: (sections: OpenSection[], layer: { bytes: number; diffId: Buffer }) => void,
): Promise<Buffer> {
  const { header } = await openDelta(memoryAccess(artifact));
  const delta = await openDelta(memoryAccess(artifact));
  const layer = header.layers[0];
  if (layer === undefined) throw new Error('no layer');
  const opened: OpenSection[] = [];
  for (const section of layer.sections) {
    const parts: Buffer[] = [];
    for await (const piece of delta.stream(section)) parts.push(piece);
    const stored = Buffer.concat(parts);
    const raw =
      section.codec === 'raw'
        ? stored
        : section.codec === 'brotli'
          ? brotliDecompressSync(stored)
          : await decompress(stored, section.rawBytes, 'section');
    opened.push({ ...section, raw: Buffer.from(raw) });
  }
  change(opened, layer);
  const bodies: Buffer[] = [];
  layer.sections = [];
  for (const section of opened) {
    const stored =
      section.codec === 'raw'
        ? section.raw
        : section.codec === 'brotli'
          ? brotliCompressSync(section.raw, { params: { [constants.BROTLI_PARAM_QUALITY]: 4 } })
          : await compress(section.raw, 3);
    bodies.push(stored);
    layer.sections.push({ ...section, bytes: stored.length, rawBytes: section.raw.length });
  }
  const body = Buffer.concat(bodies);
  header.layers.length = 1;
  header.bodyBytes = body.length;
  header.bodyDigests = [];
  for (let at = 0; at < body.length; at += 65_536)
    header.bodyDigests.push(bodyDigest(body.subarray(at, at + 65_536)));
  return Buffer.concat([writeHeader(header, header.codecs), body]);
}

/** The columns of a block of the index. */
export function columnsOf(raw: Buffer): Map<Column, Buffer> {
  const reader = new ByteReader(raw, 'index');
  const lengths = COLUMNS.map(() => reader.integer());
  return new Map(COLUMNS.map((name, at) => [name, reader.bytes(lengths[at] as number)]));
}

export function replaceColumn(raw: Buffer, name: Column, bytes: Buffer): Buffer {
  const columns = columnsOf(raw).set(name, bytes);
  const out = new ByteWriter();
  for (const column of columns.values()) out.integer(column.length);
  for (const column of columns.values()) out.bytes(column);
  return out.finish();
}

/** `bytes` put into a column, or over what is there. */
export function changeColumn(
  raw: Buffer,
  name: Column,
  place: number,
  bytes: Uint8Array,
  insert: boolean,
): Buffer {
  const old = columnsOf(raw).get(name) ?? Buffer.alloc(0);
  const at = place % (old.length + 1);
  return replaceColumn(
    raw,
    name,
    Buffer.concat([old.subarray(0, at), bytes, old.subarray(insert ? at : at + bytes.length)]),
  );
}

/** Repeatable bytes that do not compress. */
export function noise(bytes: number, seed: string): Buffer {
  const key = createHash('sha256').update(seed).digest().subarray(0, 16);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(bytes));
}

/** Repeatable text that looks like source code. */
export function source(lines: number, seed: string): string {
  const bytes = noise(lines * 4, seed);
  const words = ['const', 'return', 'await', 'rotor', 'state', 'limit', 'epoch', 'camera', 'frame', 'value'];
  const word = (at: number): string => words[(bytes[at] as number) % words.length] as string;
  let text = `// ${seed}\n`;
  for (let at = 0; at < lines; at += 1) {
    text += `  ${word(4 * at)} ${word(4 * at + 1)}${bytes[4 * at + 2]} = ${word(4 * at + 3)}(${bytes[4 * at]});\n`;
  }
  return text;
}
