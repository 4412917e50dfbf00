/**
 * Deltas of a new image against the images that the fleet has.
 *
 * Invariant: a delta is an offer, and was applied once before it became one. One that fails, takes too long or is not
 * smaller than the layers that it stands for is left out, and the release goes on without it. The encoder runs in a process
 * of its own: it may use all of a core, or die, and the broker does not notice.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import { extname, join } from 'node:path';
import type { BaseLogger } from 'pino';
import { APPLY_FLAGS, type Cost } from '#deltas/index.ts';
import type { Blobs } from '#fleet/blobs.ts';
import type { DeltaJob, DeltaResult } from '#fleet/delta-process.ts';
import { FleetError } from '#fleet/errors.ts';
import { LIMITS } from '#fleet/limits.ts';
import type { DeltaOffer, Image } from '#fleet/protocol.ts';
import type { Store } from '#fleet/store.ts';
import { durationText, type Say, safeLines, sizeText } from '#fleet/text.ts';

const PROGRAM = join(import.meta.dirname, `delta-process${extname(import.meta.filename)}`);
/** Behind the broker, git and whatever else this machine runs. */
const NICE = 10;

export interface DeltaOptions {
  image: Image;
  app: string;
  /** The new release's id, for the pusher's eyes. */
  id: string;
  store: Store;
  blobs: Blobs;
  say: Say;
  signal: AbortSignal;
  log: BaseLogger;
}

/** The image with its deltas. Throws only if the signal aborts. */
export async function addDeltas(options: DeltaOptions): Promise<Image> {
  const { image, say, signal, log } = options;
  const deltas: Image['deltas'] = [];
  for (const basis of basesOf(options)) {
    const label = `delta ${basis.id} -> ${options.id}`;
    const whole = missingBytes(basis.image, image);
    if (whole === 0) {
      say(`${label}: not needed, the layers are the same`);
      continue;
    }
    const all = image.layers.reduce((sum, layer) => sum + layer.blob.bytes, 0);
    const startMs = Date.now();
    try {
      const { bytes, offer } = await makeOffer(basis.image, image, options);
      const sizes = `(layers ${sizeText(whole)}, image ${sizeText(all)})`;
      const took = `in ${durationText(Date.now() - startMs)}`;
      if (offer) {
        deltas.push(offer);
        say(`${label}: ${sizeText(bytes)} ${sizes} ${took}; ${costText(offer)}`);
      } else {
        say(`${label}: left out, ${sizeText(bytes)} is not smaller ${sizes}`);
      }
    } catch (error) {
      signal.throwIfAborted();
      log.warn({ err: error, basis: basis.image.id, target: image.id }, 'no delta');
      const [why = ''] = safeLines(error instanceof Error ? error.message : String(error));
      say(`${label}: failed, devices will fetch layers instead (${why})`);
    }
  }
  return { ...image, deltas };
}

interface Basis {
  id: string;
  image: Image;
}

/** What to make deltas against: the previous release, the target, and what devices say they have. */
function basesOf({ image, app, store }: DeltaOptions): Basis[] {
  const users = new Map<string, number>();
  for (const { current } of store.devices()) {
    const images = new Set(current?.images ?? []);
    if (current?.owner) images.add(current.owner.imageId);
    for (const id of images) users.set(id, (users.get(id) ?? 0) + 1);
  }
  const reported = [...users].sort((a, b) => b[1] - a[1]).map(([id]) => store.releaseOfImage(id));
  const bases = new Map<string, Basis>();
  for (const release of [store.latestRelease(app), store.target().release, ...reported]) {
    for (const service of Object.values(release?.services ?? {})) {
      if (service.image.id === image.id || bases.has(service.image.id)) continue;
      bases.set(service.image.id, { id: release?.id ?? '', image: service.image });
    }
  }
  return [...bases.values()].slice(0, LIMITS.deltasPerReleaseMax);
}

/** Stored length of the layers that a device with `basis` would fetch; 0: it needs none. */
export function missingBytes(basis: Image, target: Image): number {
  const has = new Set(basis.layers.map(({ diffId }) => diffId));
  return target.layers
    .filter(({ diffId }) => !has.has(diffId))
    .reduce((sum, { blob }) => sum + blob.bytes, 0);
}

/** `to apply: 9.0 MB out, 0.3 s here, 22 MB of memory` */
function costText({ cost }: DeltaOffer): string {
  if (!cost) return 'not tried';
  const memory = cost.memoryBytes === undefined ? '' : `, ${sizeText(cost.memoryBytes)} of memory`;
  return `to apply: ${sizeText(cost.outputBytes)} out, ${durationText(cost.cpuMs)} of a core here${memory}`;
}

/**
 * Makes one delta, applies it once, and keeps it, durably, if it is smaller than the layers that it stands for.
 * @throws FleetError `DELTA_FAILED`
 */
export async function makeOffer(
  basis: Image,
  target: Image,
  { blobs, signal }: Pick<DeltaOptions, 'blobs' | 'signal'>,
): Promise<{ bytes: number; offer: DeltaOffer | null }> {
  const scratch = blobs.temporary();
  const output = join(scratch, 'delta');
  const spooled = join(scratch, 'spooled.json');
  await mkdir(scratch);
  const files = (layers: Image['layers']) =>
    layers.map(({ diffId, bytes, blob }) => ({ diffId, bytes, path: blobs.path(blob.digest) }));
  const make: DeltaJob = {
    do: 'make',
    basisId: basis.id,
    basisLayers: files(basis.layers),
    targetId: target.id,
    targetLayers: files(target.layers),
    output,
    scratch: join(scratch, 'work'),
    surveys: blobs.derived('surveys'),
    spooled,
  };
  try {
    // Of a short job two thirds are the loading of the program.
    await done(make, { environment: { NODE_COMPILE_CACHE: blobs.derived('compiled') }, signal });
    const { size } = await stat(output);
    if (size >= missingBytes(basis, target)) return { bytes: size, offer: null };
    // As a device does it, which has nothing compiled: memory is counted from where the program is loaded.
    const cost = await done({ do: 'try', delta: output, spooled }, { flags: APPLY_FLAGS, signal });
    return { bytes: size, offer: { basis: basis.id, blob: await blobs.take(output), ...(cost && { cost }) } };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

interface RunOptions {
  /** Node's own. */
  flags?: readonly string[];
  environment?: NodeJS.ProcessEnv;
  signal: AbortSignal;
}

async function done(job: DeltaJob, options: RunOptions): Promise<Cost | undefined> {
  const result = await run(job, options);
  if (!result.ok) throw new FleetError('DELTA_FAILED', result.text, 'devices fetch the layers whole');
  return result.cost;
}

async function run(
  job: DeltaJob,
  { flags = [], environment = {}, signal }: RunOptions,
): Promise<DeltaResult> {
  const child = fork(PROGRAM, [], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    execArgv: [...flags],
    env: environment,
  });
  let words = '';
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    words = (words + chunk).slice(-2_000);
  });
  const timeout = AbortSignal.timeout(LIMITS.deltaMsMax);
  const end = () => child.kill('SIGKILL');
  const stop = AbortSignal.any([signal, timeout]);
  stop.addEventListener('abort', end, { once: true });
  try {
    if (child.pid !== undefined) os.setPriority(child.pid, NICE);
    let result: DeltaResult | undefined;
    child.on('message', (message) => {
      result = message as DeltaResult;
    });
    child.send(job);
    await once(child, 'close');
    if (timeout.aborted) return { ok: false, text: `it took longer than ${durationText(LIMITS.deltaMsMax)}` };
    return result ?? { ok: false, text: /^.*Error.*$/m.exec(words)?.[0] ?? 'the encoder died' };
  } finally {
    stop.removeEventListener('abort', end);
    child.kill('SIGKILL');
  }
}
