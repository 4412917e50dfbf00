/**
 * Finds the model that a deflate stream was written by, and in what the stream differs from what the model says. For the maker alone.
 *
 * A stream of zlib, GNU gzip or Node differs in nothing; one of another writer in so much that it is left as it is.
 */
import { DeltaError } from '#deltas/errors.ts';
import { LIMITS } from '#deltas/limits.ts';
import { BLOCK_TYPE, choose, TokenBlock } from '#deltas/streams/blocks.ts';
import type { FoundStream } from '#deltas/streams/finder.ts';
import { type Trees, treesFor } from '#deltas/streams/huffman.ts';
import type { BlockPlan } from '#deltas/streams/plan.ts';
import { LOOKAHEAD, type Model, Predictor } from '#deltas/streams/predictor.ts';
import { LITERAL, tokenDistance } from '#deltas/streams/symbols.ts';
import { type Block, readTokens, type Tokens } from '#deltas/streams/tokens.ts';

export interface Analysis {
  model: Model;
  blocks: BlockPlan[];
  /** In order: how many tokens were right before, and what the token is. */
  wrong: { right: number; token: number }[];
  /** Right ones behind the last wrong one. */
  right: number;
  steps: number;
}

/** Content that a model is tried on. */
const TRIAL_BYTES = 128 * 1024;
/** The right model has few wrong tokens there, if any; one of another writer's, of which a few are tried, may have many. */
const TRIAL_WRONG = 16;
const OTHERS_TRIED = 4;
/** A stream with more wrong tokens than one in so many bytes of it costs more than it is worth. */
const WRONG_SHARE = 16;
const LEVELS = [9, 6, 1, 7, 8, 5, 4, 3, 2] as const;
/** Those of zlib's memory levels 8 and 9, and Chromium's. */
const HASHES = [15, 16, 0] as const;
/** zlib's default: 16 Ki, less one. */
const BLOCK_TOKENS = 16_383;

function candidates({ blocks, tokens }: Tokens, windowBits: number): Model[] {
  const coded = blocks.filter(({ type, last }) => type !== BLOCK_TYPE.stored && !last);
  const blockTokens = Math.max(1, coded[0]?.count ?? BLOCK_TOKENS);
  const model = { level: 0, hashBits: 15, windowBits, strategy: 'default', blockTokens } as const;
  let matches = 0;
  let runs = 0;
  for (const token of tokens) {
    if (token === LITERAL) continue;
    matches += 1;
    if (tokenDistance(token) === 1) runs += 1;
  }
  if (matches === 0) return [model];
  // zlib's block has 2^(memory level + 6) - 1 tokens, and its hash a bit more.
  const memory = Math.log2(blockTokens + 1);
  const small = Number.isInteger(memory) && memory >= 7 && memory < 14 ? [memory + 1] : [];
  const hashes = [...small, ...HASHES];
  const all: Model[] = [];
  for (const strategy of ['default', 'filtered'] as const)
    for (const level of LEVELS)
      for (const hashBits of hashes)
        if (strategy === 'default' || level > 3) all.push({ ...model, level, hashBits, strategy });
  if (runs === matches) all.unshift({ ...model, level: 1, strategy: 'rle' });
  return all;
}

const same = (a: ArrayLike<number>, b: ArrayLike<number>): boolean => {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at += 1) if (a[at] !== b[at]) return false;
  return true;
};

function sameTrees(a: Trees, b: Trees): boolean {
  return (
    a.written === b.written &&
    same(a.lengths, b.lengths) &&
    same(a.symbols, b.symbols) &&
    same(a.literals, b.literals) &&
    same(a.distances, b.distances)
  );
}

function planOf(block: TokenBlock, { type, trees }: Block): Pick<BlockPlan, 'kind' | 'trees'> {
  const chosen = choose(block);
  if (type === BLOCK_TYPE.fixed) return { kind: chosen === undefined ? 'chosen' : 'fixed', trees: undefined };
  if (trees !== undefined && chosen !== undefined && sameTrees(chosen, trees))
    return { kind: 'chosen', trees: undefined };
  const own = treesFor(block.literalCounts, block.distanceCounts);
  return { kind: 'dynamic', trees: trees !== undefined && sameTrees(own, trees) ? undefined : trees };
}

/** @param bytesMax stops after so much of the content; @param wrongMax gives up beyond */
function compare(
  { raw }: FoundStream,
  { blocks, tokens }: Tokens,
  model: Model,
  bytesMax: number,
  wrongMax: number,
): Analysis | undefined {
  const predictor = new Predictor(model);
  const analysis: Analysis = { model, blocks: [], wrong: [], right: 0, steps: 0 };
  let fed = 0;
  const feed = (): void => {
    while (predictor.hungry) {
      const some = raw.subarray(fed, fed + predictor.room);
      predictor.feed(some);
      fed += some.length;
      predictor.ended = fed === raw.length;
    }
  };
  const block = new TokenBlock();
  let next = 0;
  feed();
  for (const one of blocks) {
    const { type, last, count } = one;
    predictor.steps += LIMITS.blockSteps;
    let plan: BlockPlan;
    if (type === BLOCK_TYPE.stored) {
      const expected = Math.min(0xffff, raw.length - predictor.position);
      for (let left = count; left > 0; ) {
        feed();
        const some = Math.min(left, predictor.ended ? predictor.left : predictor.left - LOOKAHEAD / 2);
        predictor.skip(some);
        left -= some;
      }
      plan = {
        kind: 'stored',
        trees: undefined,
        count: count === expected ? undefined : count,
        lastDiffers: false,
      };
    } else {
      block.clear();
      for (let left = count; left > 0; left -= 1) {
        if (predictor.hungry) feed();
        const token = tokens[next++] as number;
        if (predictor.predict() === token) {
          analysis.right += 1;
        } else {
          analysis.wrong.push({ right: analysis.right, token });
          analysis.right = 0;
          if (analysis.wrong.length > wrongMax) return undefined;
        }
        block.push(token, predictor.byte(0));
        predictor.accept(token);
        if (predictor.position >= bytesMax) return analysis;
      }
      const full =
        count === model.blockTokens || (predictor.position === raw.length && count < model.blockTokens);
      plan = { ...planOf(block, one), count: full ? undefined : count, lastDiffers: false };
    }
    plan.lastDiffers = last !== (predictor.position === raw.length);
    analysis.blocks.push(plan);
  }
  analysis.steps = predictor.steps;
  return analysis;
}

/**
 * @param likely a model that another stream of the same file had
 * @returns undefined when the stream is not such as can be written anew for less
 */
export function analyse(stream: FoundStream, likely: Model | undefined): Analysis | undefined {
  let tokens: Tokens;
  try {
    tokens = readTokens(stream.packed, stream.rawBytes);
  } catch (error) {
    if (error instanceof DeltaError) return undefined;
    throw error;
  }
  const all = candidates(tokens, stream.windowBits);
  if (likely !== undefined)
    all.unshift({ ...likely, blockTokens: all[0]?.blockTokens ?? likely.blockTokens });
  const wrongMax = Math.ceil(stream.packedBytes / WRONG_SHARE);
  const best =
    closest(stream, tokens, all, Math.min(TRIAL_WRONG, wrongMax)) ??
    closest(stream, tokens, all.slice(0, OTHERS_TRIED), wrongMax);
  return best === undefined ? undefined : compare(stream, tokens, best, Number.POSITIVE_INFINITY, wrongMax);
}

/** The first model with the fewest wrong tokens in the content's beginning. */
function closest(
  stream: FoundStream,
  tokens: Tokens,
  models: readonly Model[],
  wrongMax: number,
): Model | undefined {
  let best: Model | undefined;
  let least = wrongMax + 1;
  for (const model of models) {
    const trial = compare(stream, tokens, model, TRIAL_BYTES, least - 1);
    if (trial === undefined) continue;
    best = model;
    least = trial.wrong.length;
    if (least === 0) break;
  }
  return best;
}
