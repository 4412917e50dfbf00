/**
 * Two versions of an image of any size, the same for the same size: noise for programs, text for sources, made as they are read, so
 * that nothing of it lies on the disk.
 *
 * The change is of the same kind at each size: all times fresh, one file in 300 changed in a few bytes, the largest file (a tenth of
 * the image) with pieces put in and taken out, one file in a hundred new.
 */
import { createCipheriv, createHash } from 'node:crypto';
import type { LayerSource } from '#deltas/index.ts';
import { END, entry, source } from '#test/deltas-kit.ts';

interface GrownFile {
  name: string;
  bytes: number;
  /** Of its content; `text` reads like source code. */
  seed: string;
  text: boolean;
  /** Pieces put in, as places in the old content. */
  inserts: { at: number; text: string }[];
}

const PIECE = 256 * 1024;
const TEXT = Buffer.from(source(20_000, 'a source'));

/** Of the content without what was put in. */
function* pieces({ seed, bytes, text }: GrownFile): Generator<Buffer> {
  const key = createHash('sha256').update(seed).digest().subarray(0, 16);
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
  const zeros = Buffer.alloc(Math.min(PIECE, bytes));
  const start = text ? key.readUInt32LE(0) % (TEXT.length >> 1) : 0;
  for (let at = 0; at < bytes; ) {
    const some = Math.min(text ? TEXT.length - start : PIECE, bytes - at);
    yield text ? TEXT.subarray(start, start + some) : cipher.update(zeros.subarray(0, some));
    at += some;
  }
}

function* content(file: GrownFile): Generator<Buffer> {
  let at = 0;
  let next = 0;
  for (const piece of pieces(file)) {
    let from = 0;
    for (
      let insert = file.inserts[next];
      insert !== undefined && insert.at < at + piece.length;
      insert = file.inserts[next]
    ) {
      yield piece.subarray(from, insert.at - at);
      yield Buffer.from(insert.text);
      from = insert.at - at;
      next += 1;
    }
    yield piece.subarray(from);
    at += piece.length;
  }
}

const lengthOf = ({ bytes, inserts }: GrownFile): number =>
  inserts.reduce((sum, { text }) => sum + text.length, bytes);

function filesOf(imageBytes: number, young: boolean): GrownFile[] {
  const files: GrownFile[] = [];
  const add = (name: string, bytes: number, change: boolean, text: boolean, every: number): void => {
    const inserts =
      young && change
        ? Array.from({ length: Math.ceil(bytes / every) }, (_, at) => ({
            at: at * every + 1_000,
            text: `<${name} ${at}>`,
          })).filter((insert) => insert.at < bytes)
        : [];
    files.push({ name, bytes, seed: name, text, inserts });
  };
  add('usr/bin/program', Math.round(imageBytes / 10), true, false, 200_000);
  // The number of files grows with the image and their lengths do not: from 2 kB to 1 MB, as in a real one.
  for (let left = imageBytes * 0.9, at = 0; left > 0; at += 1) {
    const bytes = Math.min(left, at % 8 === 0 ? 1_000_000 + (at % 97) * 1_000 : 2_000 + (at % 251) * 100);
    const kind = at % 8 === 0 ? 'lib' : 'src';
    const fresh = young && at % 100 === 99 ? '-new' : '';
    add(
      `app/${kind}/${at % 40}/file-${at}${fresh}`,
      Math.round(bytes),
      at % 7 === 0,
      kind === 'src',
      400_000,
    );
    left -= bytes;
  }
  return files;
}

function* tar(files: readonly GrownFile[], mtime: number): Generator<Buffer> {
  for (const file of files) {
    const size = lengthOf(file);
    yield entry({ name: file.name, size, mtime }).subarray(0, 512);
    yield* content(file);
    yield Buffer.alloc((512 - (size % 512)) % 512);
  }
  yield END;
}

/** @param bytes about how long the layer is to be */
export function grownLayer(bytes: number, version: 'old' | 'young'): LayerSource {
  const files = filesOf(bytes, version === 'young');
  const stream = (): Generator<Buffer> => tar(files, version === 'old' ? 1_700_000_000 : 1_710_000_000);
  const hash = createHash('sha256');
  let length = 0;
  for (const piece of stream()) {
    hash.update(piece);
    length += piece.length;
  }
  return {
    diffId: `sha256:${hash.digest('hex')}`,
    bytes: length,
    async *open() {
      yield* stream();
    },
  };
}
