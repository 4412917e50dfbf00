/**
 * One pull by the engine from a registry of our own.
 *
 * Invariant: what is thrown is the real cause if there is one here (a layer that could not be rebuilt), and the
 * engine's own words only otherwise; success means that the engine inspects to exactly `image.id`.
 */
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type Docker from 'dockerode';
import * as v from 'valibot';
import { aborted, engineError, ImageError } from '#agent/images/errors.ts';
import { ask, short } from '#agent/images/inventory.ts';
import { LIMITS } from '#agent/images/limits.ts';
import type { Registry } from '#agent/images/registry.ts';
import type { Image } from '#fleet/protocol.ts';

/** A registry that may be in another process. */
export interface Served extends Registry {
  /** Resolves when what has gone wrong there can be known here. */
  settle(): Promise<void>;
}

export interface PullOptions {
  docker: Docker;
  image: Image;
  /** Opens the registry to pull from; told what the engine took, and once if a layer could not be served. */
  serve: (told: { onServed: (bytes: number) => void; onFailure: () => void }) => Promise<Served>;
  config: Uint8Array;
  /** Uncompressed length of the layers that the engine is expected to ask for. */
  lackingBytes: number;
  onProgress?: (doneBytes: number, allBytes: number, stage: 'pull') => void;
  signal: AbortSignal;
}

/** @throws ImageError `WRONG_IMAGE`, `ENGINE`, `DISK_FULL`, `ABORTED`, or what a layer's source threw */
export async function pullImage(options: PullOptions): Promise<void> {
  const { docker, image, config, lackingBytes, onProgress, signal } = options;
  checkConfig(image, config);
  const stop = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  let servedBytes = 0;
  const registry = await options.serve({
    onServed(bytes) {
      timer?.refresh();
      servedBytes += bytes;
      onProgress?.(Math.min(servedBytes, lackingBytes), lackingBytes, 'pull');
    },
    // The engine would try again, with pauses of up to 20 s; there is no use in that.
    onFailure: () => stop.abort(new Error('a layer could not be served')),
  });
  try {
    timer = setTimeout(
      () => stop.abort(new Error(`no progress in ${LIMITS.pullStallMsMax} ms`)),
      LIMITS.pullStallMsMax,
    );
    onProgress?.(0, lackingBytes, 'pull');
    await pull(
      docker,
      `${registry.repository}@${registry.digest}`,
      AbortSignal.any([signal, stop.signal]),
      () => timer?.refresh(),
    );
    const found = await ask(`inspecting image ${short(image.id)}`, () =>
      docker.getImage(`${registry.repository}@${registry.digest}`).inspect(),
    );
    if (found.Id !== image.id) {
      throw new ImageError(
        'WRONG_IMAGE',
        `the engine made ${found.Id} of it, not ${image.id}; report this with the engine's version`,
      );
    }
    onProgress?.(lackingBytes, lackingBytes, 'pull');
  } catch (error) {
    if (!signal.aborted) await registry.settle();
    const failure = registry.failure();
    if (failure) throw failure.cause;
    if (signal.aborted) throw aborted(signal);
    throw engineError(stop.signal.aborted ? stop.signal.reason : error, `pulling image ${short(image.id)}`);
  } finally {
    clearTimeout(timer);
    await registry.close();
  }
}

const progressSchema = v.object({
  error: v.optional(v.string()),
  errorDetail: v.optional(v.object({ message: v.optional(v.string()) })),
});

/** Reads the engine's progress to its end. Leaving early closes the connection, upon which the engine gives up. */
async function pull(
  docker: Docker,
  reference: string,
  signal: AbortSignal,
  onAlive: () => void,
): Promise<void> {
  const stream = (await docker.pull(reference, { abortSignal: signal })) as Readable;
  const cancel = () =>
    stream.destroy(signal.reason instanceof Error ? signal.reason : new Error('called off'));
  if (signal.aborted) cancel();
  signal.addEventListener('abort', cancel, { once: true });
  const broken = Promise.withResolvers<never>();
  broken.promise.catch(() => undefined);
  stream.once('error', broken.reject);
  stream.once('aborted', () => broken.reject(new Error('the engine broke off')));
  const read = async () => {
    for await (const line of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
      onAlive();
      if (line.trim() === '') continue;
      const progress = v.parse(progressSchema, JSON.parse(line));
      if (progress.error !== undefined) throw new Error(progress.errorDetail?.message ?? progress.error);
    }
  };
  try {
    await Promise.race([read(), broken.promise]);
  } finally {
    signal.removeEventListener('abort', cancel);
    stream.destroy();
  }
}

const configSchema = v.object({ rootfs: v.object({ diff_ids: v.array(v.string()) }) });

/** The config is what the identity stands for: it must name the same layers as the target. */
function checkConfig(image: Image, config: Uint8Array): void {
  const refuse = (why: string) =>
    new ImageError('WRONG_IMAGE', `the target of ${image.id} contradicts itself: ${why}; push again`);
  if (config.byteLength > LIMITS.configBytesMax) throw refuse(`a config of ${config.byteLength} bytes`);
  const digest = `sha256:${createHash('sha256').update(config).digest('hex')}`;
  if (digest !== image.id) throw refuse(`its config is ${digest}`);
  let parsed: v.InferOutput<typeof configSchema>;
  try {
    parsed = v.parse(configSchema, JSON.parse(new TextDecoder().decode(config)));
  } catch (cause) {
    throw new ImageError('WRONG_IMAGE', `the config of ${image.id} is no image config; push again`, {
      cause,
    });
  }
  if (parsed.rootfs.diff_ids.join() !== image.layers.map(({ diffId }) => diffId).join()) {
    throw refuse('its config names other layers');
  }
}
