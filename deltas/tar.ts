/**
 * Walks an uncompressed tar and says what each of its bytes is.
 *
 * Invariant: the items, written out in order, are the tar bit by bit, whatever the tar holds. Understanding a header
 * only makes a delta smaller: where a header's checksum does not hold, the rest of the tar is one `run`.
 *
 * An own walker, since tar libraries (tar-stream as well) give fields and contents but neither the exact header blocks
 * nor the padding, and refuse or repair what they do not like; POSIX.1-2017 pax and GNU's sparse files are read here.
 */

import type { ByteSource } from '#deltas/byte-source.ts';
import { isZero } from '#deltas/bytes.ts';
import { LIMITS } from '#deltas/limits.ts';
import { bytesToPath } from '#deltas/paths.ts';

export const BLOCK = 512;

/** What a header, with the pax and GNU long headers before it, says of one file. */
export interface TarEntry {
  /** The header's type flag: `0` or NUL file, `1` hard link, `2` symbolic link, `5` directory, … */
  type: string;
  /** undefined when it cannot be addressed (`..`, not UTF-8, too long). */
  path: string | undefined;
  linkPath: string | undefined;
  /** Length of the file once unpacked; for a sparse file not the length of its content in the tar. */
  bytes: number;
  sparse: boolean;
}

export type TarItem =
  | { kind: 'header'; block: Buffer }
  | { kind: 'entry'; entry: TarEntry; hasContent: boolean }
  | { kind: 'raw'; bytes: Buffer }
  | { kind: 'zeros'; length: number }
  /** `meta`: the body of a pax or GNU long header. `offset` is where in the tar the content starts. */
  | {
      kind: 'content';
      meta: boolean;
      length: number;
      offset: number;
      entry: TarEntry;
      pieces: AsyncIterable<Buffer>;
    }
  /** Zeros up to the next multiple of 512, possibly none. */
  | { kind: 'pad' }
  /** Everything from here to the end, not understood. */
  | { kind: 'run'; length: number; pieces: AsyncIterable<Buffer> };

/** Types whose size field counts no bytes in the archive. */
const WITHOUT_CONTENT = new Set(['1', '2', '3', '4', '5', '6']);
const META = new Set(['x', 'g', 'L', 'K']);

/** A numeric field: octal digits, or GNU's base-256. undefined when it is neither. */
export function parseNumber(field: Buffer): number | undefined {
  if (field[0] === 0x80) {
    let value = 0;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const text = field
    .toString('latin1')
    .replace(/^ +/, '')
    .replace(/[ \0].*$/s, '');
  if (!/^[0-7]*$/.test(text)) return undefined;
  return text === '' ? 0 : Number.parseInt(text, 8);
}

/** Sum of a header's bytes, its checksum field counted as spaces (POSIX.1-2017 pax, "ustar Interchange Format"). */
export function checksum(block: Buffer): number {
  let sum = 8 * 0x20;
  for (let at = 0; at < BLOCK; at += 1) if (at < 148 || at >= 156) sum += block[at] as number;
  return sum;
}

function untilNul(field: Buffer): Buffer {
  const end = field.indexOf(0);
  return end < 0 ? field : field.subarray(0, end);
}

/** Records of a pax header, "length key=value\n"; what is malformed ends the list. */
function parsePax(body: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  let at = 0;
  while (at < body.length) {
    const space = body.indexOf(0x20, at);
    if (space < 0 || space - at > 10) break;
    const length = Number(body.toString('latin1', at, space));
    const end = at + length;
    if (!Number.isInteger(length) || end <= space || end > body.length) break;
    const equals = body.indexOf(0x3d, space);
    if (equals < 0 || equals >= end) break;
    records.set(body.toString('latin1', space + 1, equals), body.subarray(equals + 1, end - 1));
    at = end;
  }
  return records;
}

interface Pending {
  pax: Map<string, Buffer>;
  longName?: Buffer;
  longLink?: Buffer;
}

function readEntry(block: Buffer, type: string, size: number, pending: Pending): TarEntry {
  const { pax } = pending;
  let name = untilNul(block.subarray(0, 100));
  const prefix = untilNul(block.subarray(345, 500));
  if (block.toString('latin1', 257, 263) === 'ustar\0' && prefix.length > 0) {
    name = Buffer.concat([prefix, Buffer.from('/'), name]);
  }
  const path = pax.get('GNU.sparse.name') ?? pax.get('path') ?? pending.longName ?? name;
  const link = pax.get('linkpath') ?? pending.longLink ?? untilNul(block.subarray(157, 257));
  const realSize = pax.get('GNU.sparse.realsize') ?? pax.get('GNU.sparse.size');
  const sparse = type === 'S' || realSize !== undefined || pax.has('GNU.sparse.major');
  let bytes = size;
  if (type === 'S') bytes = parseNumber(block.subarray(483, 495)) ?? size;
  else if (realSize !== undefined) bytes = Number(realSize.toString('latin1'));
  // Before ustar a folder was a file whose name ends with a slash.
  const folder = (type === '0' || type === '\0') && path.at(-1) === 0x2f;
  return {
    type: folder ? '5' : type,
    path: bytesToPath(path),
    linkPath: bytesToPath(link),
    bytes,
    sparse,
  };
}

/**
 * @param tarBytes length of the whole tar: contents that would reach beyond it are not believed
 * @yields every byte exactly once; `pieces` must be used up before the next item is asked for
 */
export async function* walkTar(source: ByteSource, tarBytes: number): AsyncGenerator<TarItem> {
  let pending: Pending = { pax: new Map() };
  const run = (): TarItem => {
    const length = tarBytes - source.position;
    return { kind: 'run', length, pieces: source.pieces(length) };
  };
  while (source.position < tarBytes) {
    let zeros = 0;
    let block = await source.peek(BLOCK);
    while (block.length === BLOCK && isZero(block)) {
      zeros += (await source.take(BLOCK)).length;
      block = await source.peek(BLOCK);
    }
    if (zeros > 0) yield { kind: 'zeros', length: zeros };
    if (source.position >= tarBytes) return;
    const sizeField = block.length === BLOCK ? parseNumber(block.subarray(124, 136)) : undefined;
    if (sizeField === undefined || parseNumber(block.subarray(148, 156)) !== checksum(block)) {
      yield run();
      return;
    }
    block = Buffer.from(await source.take(BLOCK));
    yield { kind: 'header', block };

    const type = block.toString('latin1', 156, 157);
    const meta = META.has(type) && sizeField <= LIMITS.metaBytesMax;
    const paxSize = meta ? undefined : pending.pax.get('size');
    const size = paxSize === undefined ? sizeField : Number(paxSize.toString('latin1'));
    const entry = readEntry(block, type, size, meta ? { pax: new Map() } : pending);
    const length = WITHOUT_CONTENT.has(type) ? 0 : size;
    if (!meta) {
      pending = { pax: new Map() };
      yield { kind: 'entry', entry, hasContent: length > 0 };
    }
    if (type === 'S') {
      // GNU's old sparse format: further blocks of the map stand between the header and the content.
      let more = block[482] === 1;
      while (more && (await source.peek(BLOCK)).length === BLOCK) {
        const extension = Buffer.from(await source.take(BLOCK));
        yield { kind: 'raw', bytes: extension };
        more = extension[504] === 1;
      }
    }
    if (length === 0) continue;
    const offset = source.position;
    if (!Number.isSafeInteger(length) || length < 0 || length > tarBytes - offset) {
      yield run();
      return;
    }
    if (meta) {
      const body = Buffer.from(await source.take(length));
      yield { kind: 'content', meta, length, offset, entry, pieces: once(body) };
      if (type === 'x') pending.pax = parsePax(body);
      if (type === 'L') pending.longName = untilNul(body);
      if (type === 'K') pending.longLink = untilNul(body);
    } else {
      yield { kind: 'content', meta, length, offset, entry, pieces: source.pieces(length) };
    }
    const padBytes = (BLOCK - (length % BLOCK)) % BLOCK;
    const pad = await source.take(padBytes);
    if (pad.length === padBytes && isZero(pad)) yield { kind: 'pad' };
    else if (pad.length > 0) yield { kind: 'raw', bytes: Buffer.from(pad) };
  }
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}
