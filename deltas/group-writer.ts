/**
 * Compresses small contents together, by the basis files that they come from: what is alike in several is told once, and so are
 * the tables. As a zstd frame, as moves, or by brotli: whichever takes less. See group-reader.ts.
 *
 * Memory: about ten times a group.
 */
import { checkOf } from '#deltas/check.ts';
import type { Codec } from '#deltas/codecs.ts';
import { compress, compressBehind, compressBrotli, isPlain } from '#deltas/compression.ts';
import { GROUP } from '#deltas/group-reader.ts';
import { LIMITS } from '#deltas/limits.ts';
import { gradedMoves } from '#deltas/moves/encoder.ts';
import type { Spool } from '#deltas/spool.ts';

export class GroupWriter {
  readonly #spool: Spool;
  readonly #level: number;
  #contents: Buffer[] = [];
  readonly #files = new Map<string, Buffer>();
  /** Codecs that groups take beside their own. */
  readonly needs = new Set<Codec>();
  #bytes = 0;
  #oldBytes = 0;

  /** @param level of zstd */
  constructor(spool: Spool, level: number) {
    this.#spool = spool;
    this.#level = level;
  }

  static takes(bytes: Buffer): boolean {
    return bytes.length <= LIMITS.groupFileBytesMax && isPlain(bytes);
  }

  /** @param content which `takes` agrees to, as to the file that it comes from */
  async add(content: Buffer, basis?: { path: string; bytes: Buffer }): Promise<void> {
    const more = basis === undefined || this.#files.has(basis.path) ? 0 : basis.bytes.length;
    const isFull =
      this.#contents.length === LIMITS.groupFilesMax ||
      Math.max(this.#bytes + content.length, this.#oldBytes + more) > LIMITS.groupBytesMax;
    if (isFull) {
      await this.end();
      return await this.add(content, basis);
    }
    this.#contents.push(content);
    this.#bytes += content.length;
    if (basis !== undefined) this.#files.set(basis.path, basis.bytes);
    this.#oldBytes += more;
  }

  async end(): Promise<void> {
    if (this.#contents.length === 0) return;
    const old = Buffer.concat([...this.#files.values()]);
    const young = Buffer.concat(this.#contents);
    const head = Buffer.alloc(9);
    head.writeUInt32LE(young.length, 1);
    head.writeUInt32LE(old.length, 5);
    const check = await checkOf([old]);
    const tried = [await framed(old, young, this.#level), await moved(old, young), await behind(old, young)];
    const ways = tried.filter((way) => way !== undefined);
    const { form, parts, needs } = ways.reduce((best, way) => (bytesOf(way) < bytesOf(best) ? way : best));
    head[0] = GROUP[form];
    await this.#spool.append([head, check, ...parts]);
    for (const codec of needs) this.needs.add(codec);
    this.#contents = [];
    this.#files.clear();
    this.#bytes = 0;
    this.#oldBytes = 0;
  }
}

/** One way to make a group. */
interface Way {
  form: keyof typeof GROUP;
  parts: Buffer[];
  needs: Iterable<Codec>;
}

const bytesOf = ({ parts }: Way): number => parts.reduce((sum, { length }) => sum + length, 0);

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

async function framed(old: Buffer, young: Buffer, level: number): Promise<Way> {
  const frame = await compress(young, level, old.length === 0 ? undefined : old);
  return { form: 'frame', parts: [u32(frame.length), frame], needs: [] };
}

async function behind(old: Buffer, young: Buffer): Promise<Way | undefined> {
  if (old.length === 0 || old.length + young.length > LIMITS.groupBehindBytesMax) return undefined;
  const packed = await compressBehind(young, old);
  return packed && { form: 'behind', parts: [u32(packed.length), packed], needs: ['behind-1'] };
}

async function moved(old: Buffer, young: Buffer): Promise<Way | undefined> {
  let best: Way | undefined;
  for (const moves of await gradedMoves(old, young, ['data', 'coarse', 'sparse'])) {
    if (moves === undefined) continue;
    const parts: Buffer[] = [];
    for (const raw of [Buffer.concat(moves.chunks), Buffer.concat(moves.literals)]) {
      if (raw.length > LIMITS.movesChunkBytesMax) return best;
      const packed = await compressBrotli(raw);
      parts.push(u32(raw.length), u32(packed.length), packed);
    }
    const way: Way = { form: 'moves', parts, needs: moves.needs };
    if (best === undefined || bytesOf(way) < bytesOf(best)) best = way;
  }
  return best;
}
