/**
 * Opens the deflate streams of a new file and its old one, where the new one's can be closed again to the same bytes.
 *
 * Invariant: what is returned was closed by the reader's own code and compared. Streams that both files have are left closed: they are
 * copied as they are, whoever wrote them.
 */
import { LIMITS } from '#deltas/limits.ts';
import { type Analysis, analyse } from '#deltas/streams/analysis.ts';
import { Budget, closeStreams, openingSteps } from '#deltas/streams/closer.ts';
import { type FoundStream, findStreams, isContainer } from '#deltas/streams/finder.ts';
import { FRAME_EDGE, PlanReader, PlanWriter, placeBytes } from '#deltas/streams/plan.ts';
import type { Model } from '#deltas/streams/predictor.ts';

export interface OpenedFiles {
  young: Buffer;
  /** The old file's bytes as they are when it has nothing to open. */
  old: Buffer;
  plan: Buffer;
  streams: number;
  /** Of the young file's, as they were. */
  packedBytes: number;
  /** What closing took. */
  spent: { bytes: number; steps: number };
}

/** The file with those streams opened. */
function openedBytes(bytes: Buffer, streams: readonly FoundStream[]): Buffer {
  const parts: Buffer[] = [];
  let end = 0;
  for (const { offset, packedBytes, frame, raw } of streams) {
    parts.push(bytes.subarray(end, offset));
    end = offset + placeBytes(packedBytes, frame);
    if (frame === 0) {
      parts.push(raw);
      continue;
    }
    // zlib's header is behind the first chunk's, its checksum the last of the last chunk, which may be cut.
    const { before, after } = FRAME_EDGE;
    const tail: number[] = [];
    for (let at = packedBytes + before; tail.length < after; at += 1)
      tail.push(bytes[offset + Math.floor(at / frame) * 12 + 8 + at] as number);
    const head = [0, 1].map((at) => bytes[offset + Math.floor(at / frame) * 12 + 8 + at] as number);
    parts.push(Buffer.from(head), raw, Buffer.from(tail));
  }
  parts.push(bytes.subarray(end));
  return Buffer.concat(parts);
}

const key = (model: Model): string => Object.values(model).join();

/** @returns undefined when there is nothing that could be opened */
export async function openStreams(
  young: Buffer,
  old: Buffer,
  left: Budget,
): Promise<OpenedFiles | undefined> {
  if (!isContainer(young) || young.length + old.length > LIMITS.openedFilesBytesMax) return undefined;
  const ours = findStreams(young, Math.min(left.bytes, LIMITS.openedFilesBytesMax));
  const theirs = findStreams(old, LIMITS.openedFilesBytesMax);
  const digests = (streams: readonly FoundStream[]): Set<string> =>
    new Set(streams.map(({ digest }) => digest));
  const [known, kept] = [digests(theirs), digests(ours)];
  const olds = theirs.filter(({ digest }) => !kept.has(digest)).slice(0, LIMITS.streamsMax);

  const writer = new PlanWriter();
  const models = new Map<string, number>();
  const opened: FoundStream[] = [];
  let likely: Model | undefined;
  let end = 0;
  let steps = 0;
  for (const stream of ours) {
    if (known.has(stream.digest) || opened.length === LIMITS.streamsMax) continue;
    const analysis = analyse(stream, likely);
    if (analysis === undefined || writer.length > LIMITS.streamsPlanBytesMax / 2) continue;
    if (steps + analysis.steps > left.steps) continue;
    steps += analysis.steps;
    const { model } = analysis;
    let id = models.get(key(model));
    if (id === undefined && models.size === LIMITS.streamModelsMax) continue;
    if (id === undefined) {
      id = models.size;
      models.set(key(model), id);
      writer.model(model);
    }
    likely = model;
    const { offset, packedBytes, rawBytes, frame } = stream;
    writer.young({ gap: offset - end, rawBytes, frame, model: id });
    write(writer, analysis);
    end = offset + placeBytes(packedBytes, frame);
    opened.push(stream);
  }
  if (opened.length === 0) return undefined;
  for (const stream of olds) writer.old(stream);
  const plan = writer.finish();
  const files = {
    young: openedBytes(young, opened),
    old: olds.length === 0 ? old : openedBytes(old, olds),
    plan,
  };
  if (plan.length > LIMITS.streamsPlanBytesMax) return undefined;
  const spent = await closes(files, young, old.length, left);
  const packedBytes = opened.reduce((sum, stream) => sum + stream.packedBytes, 0);
  return spent === undefined ? undefined : { ...files, streams: opened.length, packedBytes, spent };
}

function write(writer: PlanWriter, { blocks, wrong, right }: Analysis): void {
  for (const block of blocks) writer.block(block);
  for (const one of wrong) {
    writer.right(one.right);
    writer.wrong(one.token);
  }
  writer.right(right);
}

/** What closing took, if it gave the file back within what is left. */
async function closes(
  files: Pick<OpenedFiles, 'young' | 'plan'>,
  young: Buffer,
  oldBytes: number,
  left: Budget,
): Promise<OpenedFiles['spent'] | undefined> {
  const budget = new Budget();
  budget.bytes = left.bytes;
  budget.steps = left.steps;
  let at = 0;
  try {
    const plan = new PlanReader(files.plan, oldBytes, files.young.length);
    budget.spend(0, openingSteps(plan.olds));
    for await (const piece of closeStreams(once(files.young), files.young.length, plan, budget)) {
      if (!young.subarray(at, at + piece.length).equals(piece)) return undefined;
      at += piece.length;
    }
  } catch {
    return undefined;
  }
  if (at !== young.length) return undefined;
  return { bytes: left.bytes - budget.bytes, steps: left.steps - budget.steps };
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
