/**
 * A tar header taken apart into what differs from file to file, and a template that many headers share.
 *
 * Invariant: joinHeader(splitHeader(block)) is `block`, bit by bit; a header for which that does not hold is not split
 * but carried as it is. So any dialect works, and the usual ones (GNU, ustar, pax, v7, Go, Python) are small: name,
 * size, mtime and link target vary, the checksum is computed, and owner, mode, type and dialect are in the template.
 */
import { isZero } from '#deltas/bytes.ts';
import { BLOCK, checksum, parseNumber } from '#deltas/tar.ts';

export interface HeaderParts {
  /** 1 byte of styles, then the header with the fields below, and the checksum, zeroed. 513 bytes. */
  template: Buffer;
  /** latin1: one character a byte, as in the header: with `./` or a trailing slash where there is one. */
  name: string;
  size: number;
  mtime: number;
  link: string;
}

export const TEMPLATE_BYTES = 1 + BLOCK;

const NUMBER_STYLES: ((value: number, width: number) => string)[] = [
  (value, width) => `${value.toString(8).padStart(width - 1, '0')}\0`,
  (value, width) => `${value.toString(8).padStart(width - 1, '0')} `,
  (value, width) => value.toString(8).padStart(width, '0'),
  (value, width) => {
    const bytes = Buffer.alloc(width);
    bytes.writeBigUInt64BE(BigInt(value), width - 8);
    bytes[0] = 0x80;
    return bytes.toString('latin1');
  },
];
const CHECKSUM_STYLES: ((value: number) => string)[] = [
  (value) => `${value.toString(8).padStart(6, '0')}\0 `,
  (value) => `${value.toString(8).padStart(7, '0')}\0`,
  (value) => `${value.toString(8).padStart(6, '0')} \0`,
  (value) => value.toString(8).padStart(8, ' '),
];

const SIZE: [number, number] = [124, 136];
const MTIME: [number, number] = [136, 148];
const CHECKSUM: [number, number] = [148, 156];
const NAME: [number, number] = [0, 100];
const LINK: [number, number] = [157, 257];
const PREFIX: [number, number] = [345, 500];

/** Writes `text` and NULs after it; false when it does not fit. */
function put(block: Buffer, [start, end]: [number, number], text: string): boolean {
  if (text.length > end - start) return false;
  block.fill(0, start, end);
  block.write(text, start, 'latin1');
  return true;
}

/** Puts a name into the name field, or split at a slash as ustar does; undefined when it fits in neither. */
function putName(block: Buffer, name: string): boolean {
  if (name.length <= 100) return put(block, NAME, name);
  if (block.toString('latin1', 257, 263) !== 'ustar\0') return false;
  const slash = name.slice(0, Math.min(156, name.length - 1)).lastIndexOf('/');
  if (slash <= 0) return false;
  return put(block, PREFIX, name.slice(0, slash)) && put(block, NAME, name.slice(slash + 1));
}

/** @returns undefined when the parts do not make a header (only a hostile artifact has such parts) */
export function joinHeader(parts: HeaderParts): Buffer | undefined {
  const styles = parts.template[0] as number;
  const block = Buffer.from(parts.template.subarray(1));
  const sizeStyle = NUMBER_STYLES[styles & 3] as (value: number, width: number) => string;
  const mtimeStyle = NUMBER_STYLES[(styles >> 2) & 3] as (value: number, width: number) => string;
  const checksumStyle = CHECKSUM_STYLES[(styles >> 4) & 3] as (value: number) => string;
  const fits =
    putName(block, parts.name) &&
    put(block, LINK, parts.link) &&
    put(block, SIZE, sizeStyle(parts.size, 12)) &&
    put(block, MTIME, mtimeStyle(parts.mtime, 12)) &&
    put(block, CHECKSUM, checksumStyle(checksum(block)));
  return fits ? block : undefined;
}

function text(block: Buffer, [start, end]: [number, number]): string {
  const field = block.toString('latin1', start, end);
  const nul = field.indexOf('\0');
  return nul < 0 ? field : field.slice(0, nul);
}

function styleOf(block: Buffer, [start, end]: [number, number], value: number): number {
  const field = block.toString('latin1', start, end);
  return NUMBER_STYLES.findIndex((style) => style(value, end - start) === field);
}

export function splitHeader(block: Buffer): HeaderParts | undefined {
  const size = parseNumber(block.subarray(...SIZE));
  const mtime = parseNumber(block.subarray(...MTIME));
  if (size === undefined || mtime === undefined) return undefined;
  const sizeStyle = styleOf(block, SIZE, size);
  const mtimeStyle = styleOf(block, MTIME, mtime);
  const sum = checksum(block);
  const checksumStyle = CHECKSUM_STYLES.findIndex(
    (style) => style(sum) === block.toString('latin1', ...CHECKSUM),
  );
  if (sizeStyle < 0 || mtimeStyle < 0 || checksumStyle < 0) return undefined;

  const template = Buffer.alloc(TEMPLATE_BYTES);
  template[0] = sizeStyle | (mtimeStyle << 2) | (checksumStyle << 4);
  block.copy(template, 1);
  const zero = ([start, end]: [number, number]): void => void template.fill(0, start + 1, end + 1);
  for (const field of [NAME, SIZE, MTIME, CHECKSUM, LINK]) zero(field);
  let name = text(block, NAME);
  if (block.toString('latin1', 257, 263) === 'ustar\0' && !isZero(block.subarray(...PREFIX))) {
    name = `${text(block, PREFIX)}/${name}`;
    zero(PREFIX);
  }
  const parts = { template, name, size, mtime, link: text(block, LINK) };
  return joinHeader(parts)?.equals(block) === true ? parts : undefined;
}

/** The header's type flag. */
export function templateType(template: Buffer): string {
  return template.toString('latin1', 157, 158);
}
