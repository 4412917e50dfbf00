/**
 * One build on the container engine, told live.
 *
 * Invariant: it resolves with the image that the engine named, or throws an error that names the failed step.
 */

import type { Readable } from 'node:stream';
import type Docker from 'dockerode';
import * as v from 'valibot';
import { asFleetError, FleetError } from '#fleet/errors.ts';
import { LIMITS } from '#fleet/limits.ts';
import { countText, type Say, safeLines } from '#fleet/text.ts';

export interface BuildOptions {
  engine: Docker;
  context: Readable;
  dockerfile: string;
  /** The Dockerfile's own base images, to name the missing one. */
  bases: string[];
  tag: string;
  /** Filled with the short ids of the images that the steps made, the result among them; to be removed at the end. */
  made: string[];
  say: Say;
  signal: AbortSignal;
}

/** What the builder says of its own images and containers, which are gone when the pusher reads it. */
const BOOKKEEPING =
  /^\s*$|^ ---> (?:Running in )?(?:[0-9a-f]{12})?$|^Removing intermediate container|^Successfully (?:built|tagged) /;

const answerSchema = v.object({
  stream: v.optional(v.string()),
  status: v.optional(v.string()),
  id: v.optional(v.string()),
  progress: v.optional(v.string()),
  error: v.optional(v.string()),
  aux: v.optional(v.object({ ID: v.optional(v.string()) })),
});

/**
 * @returns the image's id, `sha256:…`
 * @throws FleetError `BUILD_FAILED`, `BASE_IMAGE_MISSING`, `DOCKERFILE_INVALID`, `ENGINE_UNREACHABLE`, `DISK_FULL`
 */
export async function buildImage(options: BuildOptions): Promise<string> {
  try {
    return await build(options);
  } finally {
    // Whatever happened, git must not be left with a full pipe.
    options.context.destroy();
  }
}

async function build(options: BuildOptions): Promise<string> {
  const { engine, say, signal } = options;
  const missing = await missingImages(engine, options.bases);
  for (const image of missing)
    say(`base image ${image} is not on the hub's engine; the engine tries to pull it`);

  let step = '';
  let cached = false;
  let id = '';
  let failure = '';
  let lines = 0;
  const tell = (line: string) => {
    lines += 1;
    if (lines <= LIMITS.buildLinesMax) say(line);
  };
  try {
    const output = await engine.buildImage(options.context, {
      dockerfile: options.dockerfile,
      t: options.tag,
      networkmode: await networkMode(engine),
      // On a machine where something flies, too, it flies first.
      cpushares: LIMITS.buildCpuShares,
      rm: true,
      forcerm: true,
      abortSignal: signal,
    });
    for await (const answer of answers(output as Readable)) {
      if (answer.aux?.ID) id = answer.aux.ID;
      if (answer.error !== undefined) failure = answer.error;
      // Pull progress bars redraw themselves; only the lines without one are news.
      if (answer.status !== undefined && answer.progress === undefined && answer.id === undefined)
        tell(answer.status);
      for (const line of safeLines(answer.stream ?? '')) {
        if (/^Step \d+\/\d+ : /.test(line)) step = line;
        const [, made] = / ---> ([0-9a-f]{12})$/.exec(line) ?? [];
        if (made && !/^Step \d+\/\d+ : FROM/i.test(step) && !cached) options.made.push(made);
        cached = line.trim() === '---> Using cache' || (cached && line.trim() === '');
        if (!BOOKKEEPING.test(line)) tell(line);
      }
    }
  } catch (error) {
    // What went wrong with the context is the reason, not the engine's complaint about half a tar.
    const cause = options.context.errored ?? error;
    if (signal.aborted) throw signal.reason;
    const told = asFleetError(cause);
    if (told.code !== 'INTERNAL' && told.code !== 'ENGINE_ANSWER') throw told;
    failure = cause instanceof Error ? cause.message : told.message;
  }
  if (lines > LIMITS.buildLinesMax) say(`… ${countText(lines - LIMITS.buildLinesMax, 'line')} more`);
  if (signal.aborted) throw signal.reason;
  if (failure !== '') throw failed(failure, step, missing);
  if (!/^sha256:[0-9a-f]{64}$/.test(id)) {
    throw new FleetError(
      'ENGINE_ANSWER',
      'the engine ended the build without an image',
      "see the engine's log; push again",
    );
  }
  return id;
}

function failed(failure: string, step: string, missing: string[]): FleetError {
  const text = safeLines(failure).join(' ').trim();
  const at = step === '' ? '' : `${step.replace(' : ', ' (')}) failed: `;
  if (/no space left on device/i.test(text)) return asFleetError(new Error(text));
  const image = missing.find((candidate) => step.includes(candidate)) ?? missing[0];
  if (image !== undefined && /^Step \d+\/\d+ : FROM/i.test(step)) {
    return new FleetError(
      'BASE_IMAGE_MISSING',
      `the base image ${image} is not on the hub's engine and could not be pulled: ${text}`,
      `bring it to the hub's engine (docker pull ${image}, or docker load from a file, or build it there), then push again`,
    );
  }
  if (/dockerfile parse error|unknown instruction|Dockerfile cannot be empty|no build stage/i.test(text)) {
    return new FleetError('DOCKERFILE_INVALID', `${at}${text}`, 'correct the Dockerfile, commit, push again');
  }
  return new FleetError(
    'BUILD_FAILED',
    `${at}${text}`,
    'correct it, commit, push again; the output above says more',
  );
}

/** Those of the images that the engine does not have. */
async function missingImages(engine: Docker, images: string[]): Promise<string[]> {
  const missing: string[] = [];
  for (const image of images) {
    try {
      await engine.getImage(image).inspect();
    } catch (error) {
      if ((error as { statusCode?: number }).statusCode !== 404) throw error;
      missing.push(image);
    }
  }
  return missing;
}

/** The engine's own bridge where it has one; an engine started without can build on the host's network only. */
async function networkMode(engine: Docker): Promise<string> {
  const networks = await engine.listNetworks();
  return networks.some((network) => network.Driver === 'bridge') ? 'default' : 'host';
}

/** The engine's answer, one JSON object a line. */
async function* answers(output: Readable): AsyncGenerator<v.InferOutput<typeof answerSchema>> {
  let rest = '';
  output.setEncoding('utf8');
  for await (const chunk of output) {
    const lines = (rest + String(chunk)).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > LIMITS.engineLineBytesMax) break;
    for (const line of lines) {
      if (line.trim() === '') continue;
      const parsed = v.safeParse(answerSchema, parseJson(line));
      if (parsed.success) yield parsed.output;
    }
  }
  if (rest.trim() !== '') {
    throw new FleetError(
      'ENGINE_ANSWER',
      'the engine broke off its answer',
      "see the engine's log; push again",
    );
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
