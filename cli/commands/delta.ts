/** `midair delta`: makes, applies, explains and checks image deltas without hub or drone. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, mkdirSync } from 'node:fs';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { Command, Option } from 'commander';
import { DEFAULT_ENGINE, engineUrl, integer } from '#cli/commands/arguments.ts';
import { type DeltaImage, openImage } from '#cli/delta/image.ts';
import { treemapSvg } from '#cli/delta/treemap.ts';
import { bytesText, durationText } from '#cli/text.ts';
import {
  APPLY_FLAGS,
  applyLayer,
  type Basis,
  basisFromLayers,
  type DeltaReader,
  fileAccess,
  inspectDelta,
  makeDelta,
  openDelta,
  openSpooled,
  renderInspection,
  spoolBasis,
  tryDelta,
} from '#deltas/index.ts';

interface Common {
  engine: string;
  json?: true;
}

const IMAGES = `
An image is a "docker save" file, an OCI layout (folder or tar), the name of an image that the engine has, or a plain tar.`;

export function deltaCommand(): Command {
  const command = new Command('delta')
    .description('Makes, applies, explains and checks image deltas.')
    .addHelpText(
      'after',
      `${IMAGES}

Examples:
  $ midair delta create app-1.tar app-2.tar -o app.delta
  $ midair delta inspect app.delta app-1.tar --svg app.svg
  $ midair delta apply app-1.tar app.delta -o layers
  $ midair delta verify app-1.tar app.delta`,
    );
  command
    .command('create <old> <new>')
    .description('Makes the delta that rebuilds the layers of <new> which <old> lacks.')
    .requiredOption('-o, --output <file>', 'the delta; replaced as a whole')
    .addOption(
      new Option('--listing <when>', 'refer to files by their place in the old image')
        .choices(['auto', 'never'])
        .default('auto'),
    )
    .addOption(engine())
    .option('--json', 'the summary, for programs')
    .action(create);
  command
    .command('apply <old> <delta>')
    .description('Rebuilds the layers; each appears, as <diffID>.tar, only if every byte of it is right.')
    .requiredOption('-o, --output <folder>', 'where the layers go; made if it is not there')
    .addOption(engine())
    .option('--json', 'the layers, for programs')
    .action(bounded(apply));
  command
    .command('inspect <delta> [old]')
    .description('Shows where the bytes go, by section, codec and file.')
    .option('--files <count>', 'of the largest, per layer', integer, 20)
    .option('--svg <file>', 'as a picture, too: a treemap')
    .addOption(engine())
    .option('--json', 'everything, for programs')
    .action(inspect);
  command
    .command('verify <old> <delta>')
    .description('Rebuilds all layers and keeps none: status 0 if every digest agrees. Says what it took.')
    .addOption(engine())
    .option('--json', 'the layers, for programs')
    .action(bounded(verify));
  return command;
}

const engine = (): Option =>
  new Option('--engine <url>', 'for images given by name')
    .env('DOCKER_HOST')
    .argParser(engineUrl)
    .default(DEFAULT_ENGINE);

/**
 * A heap is bounded when its process starts: what applies a delta runs in another of this program, started as an agent's patcher is.
 * It has the terminal, and its status is this one's.
 */
const bounded =
  <Args extends unknown[]>(action: (...args: Args) => Promise<void>) =>
  async (...args: Args): Promise<void> => {
    if (APPLY_FLAGS.every((flag) => process.execArgv.includes(flag))) return await action(...args);
    const child = spawn(process.execPath, [...process.execArgv, ...APPLY_FLAGS, ...process.argv.slice(1)], {
      stdio: 'inherit',
    });
    // A terminal's Ctrl-C reaches both: this one waits for the other's end.
    const pass = (name: NodeJS.Signals): void => void child.kill(name);
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, pass);
    const [code, name] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    for (const each of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(each, pass);
    if (name) process.kill(process.pid, name);
    process.exitCode = code ?? 1;
  };

/** A folder that is gone afterwards, whatever happens. */
async function withScratch<Result>(near: string, use: (folder: string) => Promise<Result>): Promise<Result> {
  const folder = await mkdtemp(join(near, '.midair-delta-'));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** On a terminal, one line that is written over; else nothing. */
class Progress {
  readonly #shown = process.stderr.isTTY === true;
  #lastMs = 0;

  say(text: string): void {
    const nowMs = performance.now();
    if (!this.#shown || nowMs - this.#lastMs < 100) return;
    this.#lastMs = nowMs;
    process.stderr.write(`\r\u001b[K${text}`);
  }

  end(): void {
    if (this.#shown) process.stderr.write('\r\u001b[K');
  }
}

const STAGES = {
  'read-target': 'reading the new image',
  'read-basis': 'reading the old image',
  encode: 'encoding',
  write: 'writing',
} as const;
const print = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);

async function create(
  old: string,
  young: string,
  flags: Common & { output: string; listing: 'auto' | 'never' },
): Promise<void> {
  const folder = dirname(flags.output);
  mkdirSync(folder, { recursive: true });
  const startMs = performance.now();
  const progress = new Progress();
  const { bytes, digest, summary } = await withScratch(folder, async (scratch) => {
    const [basis, target] = [
      await openImage(old, scratch, flags.engine),
      await openImage(young, scratch, flags.engine),
    ];
    return await makeDelta({
      basisId: basis.id,
      basisLayers: basis.layers,
      targetId: target.id,
      targetLayers: target.layers,
      scratchDirectory: scratch,
      output: flags.output,
      listing: flags.listing,
      onProgress: ({ stage, doneBytes, allBytes }) =>
        progress.say(`${STAGES[stage]}: ${bytesText(doneBytes)} of ${bytesText(allBytes)}`),
    });
  });
  progress.end();
  const tookMs = Math.round(performance.now() - startMs);
  if (flags.json) {
    print({ path: flags.output, bytes, digest, tookMs, summary });
    return;
  }
  const layers = summary.layers.length;
  const ratio = bytes > 0 && summary.tarBytes > 0 ? `, 1 in ${Math.round(summary.tarBytes / bytes)}` : '';
  process.stdout.write(
    layers === 0
      ? `${flags.output}: nothing to rebuild, the old image has every layer of the new one\n`
      : `${flags.output}: ${bytesText(bytes)} for ${layers} ${layers === 1 ? 'layer' : 'layers'} of ${bytesText(summary.tarBytes)}${ratio}, in ${durationText(tookMs)}\n`,
  );
}

interface Rebuilt {
  diffId: string;
  bytes: number;
  path?: string;
}

/** The files of `basis` that the delta names, on disk for as long as `use` runs; of another image than the delta's: refused. */
async function withBasis<Result>(
  basis: DeltaImage,
  delta: DeltaReader,
  scratch: string,
  use: (files: Basis) => Promise<Result>,
): Promise<Result> {
  if (delta.basisId !== basis.id) {
    throw Object.assign(
      new Error(
        `this delta is for the image ${delta.basisId}; the one given is ${basis.id}. Give the image it was made from`,
      ),
      { code: 'BASIS_MISMATCH' },
    );
  }
  const files = await openSpooled(await spoolBasis(basis.layers, delta, join(scratch, 'basis')));
  try {
    return await use(files);
  } finally {
    await files.close();
  }
}

async function withDelta<Result>(
  path: string,
  use: (delta: DeltaReader) => Promise<Result>,
): Promise<Result> {
  const file = await fileAccess(path);
  try {
    return await use(await openDelta(file));
  } finally {
    await file.close();
  }
}

function report(rebuilt: Rebuilt[], flags: Common, done: string): void {
  if (flags.json) {
    print({ layers: rebuilt });
    return;
  }
  for (const { diffId, bytes, path } of rebuilt)
    process.stdout.write(`${path ?? diffId}  ${bytesText(bytes)}  ${done}\n`);
  if (rebuilt.length === 0) process.stdout.write('the delta holds no layers: there is nothing to rebuild\n');
}

async function apply(old: string, delta: string, flags: Common & { output: string }): Promise<void> {
  mkdirSync(flags.output, { recursive: true });
  const progress = new Progress();
  const keep = async (reader: DeltaReader, files: Basis, scratch: string): Promise<Rebuilt[]> => {
    const made: Rebuilt[] = [];
    for (const { diffId, bytes } of reader.layers) {
      let done = 0;
      const counted = async function* (): AsyncGenerator<Uint8Array> {
        for await (const chunk of applyLayer(reader, diffId, files, { scratchDirectory: scratch })) {
          done += chunk.length;
          progress.say(`layer ${diffId.slice(7, 19)}: ${bytesText(done)} of ${bytesText(bytes)}`);
          yield chunk;
        }
      };
      const name = `${diffId.slice('sha256:'.length)}.tar`;
      const part = join(scratch, name);
      await pipeline(counted(), createWriteStream(part, { flush: true }));
      await rename(part, join(flags.output, name));
      made.push({ diffId, bytes, path: join(flags.output, name) });
    }
    return made;
  };
  const rebuilt = await withScratch(flags.output, (scratch) =>
    withDelta(delta, async (reader) =>
      withBasis(await openImage(old, scratch, flags.engine), reader, scratch, (files) =>
        keep(reader, files, scratch),
      ),
    ),
  ).finally(() => progress.end());
  report(rebuilt, flags, 'rebuilt, digest right');
}

async function verify(old: string, delta: string, flags: Common): Promise<void> {
  const progress = new Progress();
  let done = 0;
  const { layers, cost } = await withScratch(tmpdir(), (scratch) =>
    withDelta(delta, async (reader) =>
      withBasis(await openImage(old, scratch, flags.engine), reader, scratch, async (files) => {
        const all = reader.layers.reduce((sum, { bytes }) => sum + bytes, 0);
        const took = await tryDelta(reader, files, { scratchDirectory: scratch }, (bytes) => {
          done += bytes;
          progress.say(`${bytesText(done)} of ${bytesText(all)}`);
        });
        return { layers: reader.layers.map(({ diffId, bytes }) => ({ diffId, bytes })), cost: took };
      }),
    ),
  ).finally(() => progress.end());
  if (flags.json) {
    print({ layers, cost });
    return;
  }
  report(layers, flags, 'right');
  const memory = cost.memoryBytes === undefined ? '' : `, ${bytesText(cost.memoryBytes)} of memory`;
  process.stdout.write(`it took ${durationText(cost.cpuMs)} of a core${memory}\n`);
}

async function inspect(
  path: string,
  old: string | undefined,
  flags: Common & { files: number; svg?: string },
): Promise<void> {
  const inspection = await withScratch(tmpdir(), (scratch) =>
    withDelta(path, async (reader) => {
      if (old === undefined) return await inspectDelta(reader);
      const basis = await basisFromLayers((await openImage(old, scratch, flags.engine)).layers, scratch);
      try {
        return await inspectDelta(reader, basis);
      } finally {
        await basis.close();
      }
    }),
  );
  if (flags.svg !== undefined) await writeFile(flags.svg, treemapSvg(inspection));
  if (flags.json) print(inspection);
  else process.stdout.write(renderInspection(inspection, flags.files));
  if (flags.svg !== undefined && existsSync(flags.svg) && !flags.json)
    process.stdout.write(`\npicture: ${flags.svg}\n`);
}
