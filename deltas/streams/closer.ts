/**
 * Writes the deflate streams of a file anew, from its opened form and a plan.
 *
 * Invariant: memory is fixed: a window of content, a block's tokens (`blockTokensMax`) and what is written of them. Work is bounded by a
 * budget that the maker kept to as well: content written anew, and candidates looked at in searching for matches.
 */
import { crc32 } from 'node:zlib';
import { ByteSource } from '#deltas/byte-source.ts';
import { DeltaError } from '#deltas/errors.ts';
import { LIMITS } from '#deltas/limits.ts';
import { BitWriter } from '#deltas/streams/bits.ts';
import { BLOCK_TYPE, choose, TokenBlock, writeTrees } from '#deltas/streams/blocks.ts';
import { treesFor } from '#deltas/streams/huffman.ts';
import {
  type BlockPlan,
  FRAME_EDGE,
  type NewStream,
  type OldStream,
  type PlanReader,
} from '#deltas/streams/plan.ts';
import { LOOKAHEAD, Predictor } from '#deltas/streams/predictor.ts';
import {
  FIXED_DISTANCES,
  FIXED_LITERALS,
  LITERAL,
  tokenDistance,
  tokenLength,
} from '#deltas/streams/symbols.ts';

/** What may still be written anew in a layer. */
export class Budget {
  bytes: number = LIMITS.closedBytesMax;
  steps: number = LIMITS.closedStepsMax;

  /** @throws DeltaError `TOO_LARGE` */
  spend(bytes: number, steps: number): void {
    this.bytes -= bytes;
    this.steps -= steps;
    if (this.bytes < 0 || this.steps < 0)
      throw new DeltaError('TOO_LARGE', 'a layer has more compressed content than is written anew');
  }
}

/** What opening those counts as. */
export function openingSteps(olds: readonly OldStream[]): number {
  const bytes = olds.reduce((sum, { rawBytes }) => sum + rawBytes, 0);
  return olds.length * LIMITS.streamSteps + Math.ceil(bytes / LIMITS.openedBytesPerStep);
}

/** One stream's content on its way through the predictor. */
class Content {
  readonly predictor: Predictor;
  readonly #source: ByteSource;
  /** Not yet with the predictor. */
  #unread: number;

  constructor(source: ByteSource, bytes: number, predictor: Predictor) {
    this.#source = source;
    this.#unread = bytes;
    this.predictor = predictor;
    predictor.ended = bytes === 0;
  }

  get left(): number {
    return this.#unread + this.predictor.left;
  }

  async feed(): Promise<void> {
    const { predictor } = this;
    while (predictor.hungry) {
      const some = await this.#source.take(Math.min(this.#unread, predictor.room, LIMITS.chunkBytes));
      if (some.length === 0) throw new DeltaError('CORRUPT', 'streams: content ends early');
      predictor.feed(some);
      this.#unread -= some.length;
      predictor.ended = this.#unread === 0;
    }
  }
}

async function writeStored(out: BitWriter, content: Content, count: number): Promise<void> {
  const { predictor } = content;
  if (count > 0xffff || count > content.left)
    throw new DeltaError('CORRUPT', 'streams: a stored block of more than there is');
  out.align();
  for (const value of [count, count ^ 0xffff]) out.bits(value, 16);
  for (let left = count; left > 0; ) {
    await content.feed();
    const some = Math.min(left, predictor.ended ? predictor.left : predictor.left - LOOKAHEAD / 2);
    out.bytes(predictor.next(some));
    predictor.skip(some);
    left -= some;
  }
}

/** The block's tokens. @param count undefined: until it is full */
async function fill(
  block: TokenBlock,
  content: Content,
  count: number | undefined,
  full: number,
  plan: PlanReader,
): Promise<void> {
  const { predictor } = content;
  block.clear();
  for (let left = count ?? full; left > 0; left -= 1) {
    if (predictor.hungry) await content.feed();
    if (predictor.left === 0) {
      if (count === undefined) return;
      throw new DeltaError('CORRUPT', 'streams: a block of more than there is');
    }
    const token = plan.token(predictor.predict());
    if (
      token !== LITERAL &&
      (tokenLength(token) > predictor.left || tokenDistance(token) > predictor.position)
    )
      throw new DeltaError('CORRUPT', 'streams: a match outside its content');
    block.push(token, predictor.byte(0));
    predictor.accept(token);
  }
}

function writeBlock(
  out: BitWriter,
  block: TokenBlock,
  { kind, trees: given }: BlockPlan,
  last: boolean,
): void {
  const own = (): ReturnType<typeof choose> => treesFor(block.literalCounts, block.distanceCounts);
  const trees = kind === 'fixed' ? undefined : kind === 'chosen' ? choose(block) : (given ?? own());
  out.bits(last ? 1 : 0, 1);
  out.bits(trees === undefined ? BLOCK_TYPE.fixed : BLOCK_TYPE.dynamic, 2);
  if (trees === undefined) {
    block.write(out, FIXED_LITERALS, FIXED_DISTANCES);
  } else {
    writeTrees(out, trees);
    block.write(out, trees.literals, trees.distances);
  }
}

async function* closeStream(
  content: Content,
  full: number,
  plan: PlanReader,
  block: TokenBlock,
): AsyncGenerator<Buffer> {
  const out = new BitWriter();
  for (let last = false; !last; ) {
    const how = plan.block();
    const { kind, count, lastDiffers } = how;
    content.predictor.steps += LIMITS.blockSteps;
    if (kind === 'stored') {
      const bytes = count ?? Math.min(0xffff, content.left);
      last = (bytes === content.left) !== lastDiffers;
      out.bits(last ? 1 : 0, 3);
      await writeStored(out, content, bytes);
    } else {
      await fill(block, content, count, full, plan);
      last = (content.left === 0) !== lastDiffers;
      writeBlock(out, block, how, last);
    }
    if (out.length >= LIMITS.chunkBytes) yield out.take();
  }
  if (content.left > 0) throw new DeltaError('CORRUPT', 'streams: content behind the last block');
  out.align();
  yield out.take();
}

/** Cuts into a PNG's IDAT chunks. */
async function* framed(pieces: AsyncIterable<Buffer>, frame: number): AsyncGenerator<Buffer> {
  let waiting: Buffer = Buffer.alloc(0);
  const chunk = (data: Buffer): Buffer => {
    const out = Buffer.alloc(data.length + 12);
    out.writeUInt32BE(data.length, 0);
    out.write('IDAT', 4, 'latin1');
    data.copy(out, 8);
    out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length);
    return out;
  };
  for await (const piece of pieces) {
    waiting = Buffer.concat([waiting, piece]);
    for (; waiting.length >= frame; waiting = waiting.subarray(frame))
      yield chunk(waiting.subarray(0, frame));
  }
  if (waiting.length > 0) yield chunk(waiting);
}

/** ByteSource holds on to a piece while it asks for the next, by which a piece may have been overwritten. */
async function* copies(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) yield Uint8Array.from(piece);
}

async function* joined(...parts: AsyncIterable<Buffer>[]): AsyncGenerator<Buffer> {
  for (const part of parts) yield* part;
}

/**
 * @param opened the new file with its streams opened, `openedBytes` in all
 * @yields the new file
 * @throws DeltaError `CORRUPT`, `TOO_LARGE`
 */
export async function* closeStreams(
  opened: AsyncIterable<Uint8Array>,
  openedBytes: number,
  plan: PlanReader,
  budget: Budget,
): AsyncGenerator<Uint8Array> {
  const source = new ByteSource(copies(opened));
  const block = new TokenBlock();
  // The last one's, which is most often the next one's: some 600 kB.
  let kept: { model: number; predictor: Predictor } | undefined;
  const predictorFor = ({ model }: NewStream): Predictor => {
    if (kept?.model !== model) {
      budget.spend(0, LIMITS.streamSteps);
      kept = { model, predictor: new Predictor(plan.models[model] as PlanReader['models'][number]) };
    }
    kept.predictor.reset();
    return kept.predictor;
  };
  try {
    for (const stream of plan.news) {
      yield* source.pieces(stream.gap);
      const full = (plan.models[stream.model] as PlanReader['models'][number]).blockTokens;
      const predictor = predictorFor(stream);
      budget.spend(stream.rawBytes, 0);
      predictor.stepsMax = budget.steps;
      const { before, after } = FRAME_EDGE;
      const head = stream.frame === 0 ? [] : [source.pieces(before)];
      const tail = stream.frame === 0 ? [] : [source.pieces(after)];
      const body = closeStream(new Content(source, stream.rawBytes, predictor), full, plan, block);
      const all = joined(...head, body, ...tail);
      yield* stream.frame === 0 ? all : framed(all, stream.frame);
      budget.spend(0, predictor.steps);
    }
    yield* source.pieces(openedBytes - source.position);
    if (source.position !== openedBytes) throw new DeltaError('CORRUPT', 'streams: content ends early');
    plan.finish();
  } finally {
    await source.close();
  }
}
