/**
 * Brings an image onto an unmodified engine and keeps account of those that are there.
 *
 * Invariant: `install` resolves only when the engine itself says that it has exactly `image.id`. Downloads hold
 * what belongs to the image in progress and nothing else; a killed process's next attempt goes on from there.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type Docker from 'dockerode';
import { aborted, diskError, ImageError, textOf } from '#agent/images/errors.ts';
import { removeContainer } from '#agent/images/export.ts';
import { blobPath, bytesOnDisk, fetchBlob } from '#agent/images/fetch.ts';
import { ask, openInventory, short } from '#agent/images/inventory.ts';
import { LIMITS } from '#agent/images/limits.ts';
import { type Held, type Plan, plans } from '#agent/images/plan.ts';
import { pullImage } from '#agent/images/pull.ts';
import { openLayers } from '#agent/images/sources.ts';
import { checkSpace } from '#agent/images/space.ts';
import { system as realSystem, type System } from '#agent/images/system.ts';
import { DeltaError } from '#deltas/index.ts';
import type { Blob, Image } from '#fleet/protocol.ts';

/** `bytes`: what came over the network for it, in this call. */
export interface ImageFetch {
  as: 'delta' | 'layers' | 'nothing';
  bytes: number;
}

/** pino's shape. */
export interface Log {
  debug(data: object, text: string): void;
  info(data: object, text: string): void;
  warn(data: object, text: string): void;
}

export interface ImagesOptions {
  engine: Docker;
  hubUrl: string;
  /** This instance's own directory: downloads and spools. One process at a time. */
  directory: string;
  log: Log;
  system?: System;
  /** How to read a basis image's files; `auto` unless a test says otherwise. */
  basis?: 'auto' | 'overlay' | 'export';
}

export interface InstallOptions {
  /** Name of the app and its release, for the image's name on the engine: `midair/app:release-0123456789ab`. */
  app?: string;
  release?: string;
  /** `fetch`: bytes on the disk of those to fetch. `pull`: bytes of layers handed to the engine of those it lacks. */
  onProgress?: (doneBytes: number, allBytes: number, stage: 'fetch' | 'pull') => void;
  /** `image.delta-failed`: a delta gave way to whole layers, and why. */
  onEvent?: (type: string, text: string, data: Record<string, unknown>) => void;
  signal: AbortSignal;
}

export interface Images {
  /**
   * Brings the image onto the engine: nothing to do if it is there, else the smaller of a delta and the lacking
   * layers; a delta that fails for a reason of its own gives way to whole layers. One at a time, others wait.
   *
   * @throws ImageError see errors.ts; after any of them the engine is as before and what was fetched is kept
   *   (except after `DISK_FULL`)
   */
  install(image: Image, options: InstallOptions): Promise<ImageFetch>;
  /** Ids of all images on the engine. */
  list(): Promise<string[]>;
  /** Takes this project's names off an image; without any name left the engine removes it. @throws ImageError `IN_USE` */
  remove(id: string): Promise<void>;
  /** Calls off a running install and waits for its end. */
  close(): Promise<void>;
}

/**
 * Opens the account, after clearing what a killed process left: containers, names, spools.
 * @throws ImageError `ENGINE`, `ENGINE_UNSUPPORTED`, `DISK`, `DISK_FULL`
 */
export async function createImages(options: ImagesOptions): Promise<Images> {
  const { engine: docker, directory, hubUrl, log } = options;
  const system = options.system ?? realSystem;
  const downloads = join(directory, 'downloads');
  const spool = join(directory, 'spool');
  const instance = await instanceOf(directory);
  const label = `io.midair.images.${instance}`;
  const inventory = openInventory(docker, `midair-${instance}`);
  const closing = new AbortController();
  /** Deltas that failed by their own fault: an attempt after an interruption does not fetch them again. */
  const useless = new Set<string>();
  let last: Promise<unknown> = Promise.resolve();

  const info = await ask('asking the engine about itself', () => docker.info());
  refuseOtherStores(info);
  const engineRoot = String(info.DockerRootDir);
  await prune();

  async function prune(): Promise<void> {
    await rm(spool, { recursive: true, force: true });
    const left = await ask('listing the containers', (abortSignal) =>
      docker.listContainers({ all: true, filters: { label: [label] }, abortSignal }),
    );
    for (const { Id } of left) await removeContainer(docker.getContainer(Id));
    await inventory.prune();
  }

  async function install(image: Image, how: InstallOptions): Promise<ImageFetch> {
    const signal = AbortSignal.any([how.signal, closing.signal]);
    if (signal.aborted) throw aborted(signal);
    const app = repositoryPart(how.app ?? 'image');
    const tag = how.release ? `${how.release}-${short(image.id)}` : short(image.id);
    const done = async (fetched: ImageFetch) => {
      await inventory.name(image.id, app, tag);
      await keepDownloads([]);
      return fetched;
    };
    if (await inventory.has(image.id)) return done({ as: 'nothing', bytes: 0 });

    await keepDownloads([
      image.config,
      ...image.layers.map(({ blob }) => blob),
      ...image.deltas.map(({ blob }) => blob),
    ]);
    const held = await inventory.held(signal);
    const onDisk = new Map<string, number>();
    for (const blob of [
      image.config,
      ...image.layers.map((each) => each.blob),
      ...image.deltas.map((each) => each.blob),
    ]) {
      onDisk.set(blob.digest, await bytesOnDisk(downloads, blob));
    }
    let receivedBytes = 0;
    const usable = { ...image, deltas: image.deltas.filter(({ blob }) => !useless.has(blob.digest)) };
    const tries = plans(usable, held, (blob) => onDisk.get(blob.digest) ?? 0);
    for (const plan of tries) {
      try {
        log.info({ image: image.id, as: plan.as, bytes: plan.remainingBytes }, 'installing an image');
        await run(image, plan, held, app, { ...how, signal }, (bytes) => {
          receivedBytes += bytes;
        });
        return await done({ as: plan.as, bytes: receivedBytes });
      } catch (error) {
        await rm(spool, { recursive: true, force: true });
        if (!plan.delta || !mayFallBack(error)) throw error;
        // Whole layers are no help against an engine that is away, and cost the air that a delta saves.
        await ask('reaching the engine', () => docker.ping(), { signal });
        const { blob, basis } = plan.delta;
        if (isItsOwnFault(error)) useless.add(blob.digest);
        await rm(blobPath(downloads, blob.digest), { force: true });
        const data = { image: image.id, basis, code: codeOf(error) };
        log.warn({ ...data, error: textOf(error) }, 'a delta failed, fetching whole layers');
        how.onEvent?.(
          'image.delta-failed',
          `the delta to ${short(image.id)} could not be used (${textOf(error)}); whole layers are fetched instead`,
          data,
        );
      }
    }
    throw new Error('unreachable: the last plan returns or throws');
  }

  async function run(
    image: Image,
    plan: Plan,
    held: readonly Held[],
    app: string,
    how: InstallOptions,
    onReceived: (bytes: number) => void,
  ): Promise<void> {
    const { signal } = how;
    await checkSpace({ system, plan, downloads, engineRoot });
    const fetchOne = (blob: Blob, onProgress?: (haveBytes: number) => void) =>
      fetchBlob(blob, {
        hubUrl,
        directory: downloads,
        system,
        signal,
        ...(onProgress && { onProgress }),
      }).then((fetched) => {
        onReceived(fetched.receivedBytes);
        return fetched.path;
      });
    if (image.config.bytes > LIMITS.configBytesMax) {
      throw new ImageError('WRONG_IMAGE', `a config of ${image.config.bytes} bytes is none; push again`);
    }
    const allBytes = plan.blobs.reduce((sum, blob) => sum + blob.bytes, 0);
    let doneBytes = 0;
    for (const blob of plan.blobs) {
      await fetchOne(blob, (haveBytes) => how.onProgress?.(doneBytes + haveBytes, allBytes, 'fetch'));
      doneBytes += blob.bytes;
    }
    const layers = await openLayers({
      docker,
      image,
      plan,
      held,
      downloads,
      spool,
      label,
      basis: options.basis ?? 'auto',
      fetch: (blob) => fetchOne(blob),
      signal,
    });
    try {
      await pullImage({
        docker,
        image,
        name: `midair-${instance}/${app}`,
        layers: layers.served,
        config: await readFile(blobPath(downloads, image.config.digest)),
        lackingBytes: plan.lacking.reduce((sum, layer) => sum + layer.bytes, 0),
        ...(how.onProgress && { onProgress: how.onProgress }),
        signal,
      });
    } catch (error) {
      // A file that does not give its layer is not to be trusted by the next attempt either.
      if (error instanceof ImageError && (error.code === 'BLOB_CORRUPT' || error.code === 'WRONG_IMAGE')) {
        await keepDownloads([]);
      }
      throw error;
    } finally {
      await layers.close();
    }
  }

  /** Removes all downloads but those of these blobs. */
  async function keepDownloads(blobs: readonly Blob[]): Promise<void> {
    const keep = new Set(blobs.map(({ digest }) => digest.replace('sha256:', '')));
    try {
      for (const name of await readdir(downloads).catch(() => [])) {
        if (!keep.has(name.replace(/\.part$/, '')))
          await rm(join(downloads, name), { recursive: true, force: true });
      }
      if (keep.size === 0) await rm(spool, { recursive: true, force: true });
    } catch (error) {
      throw diskError(error, `clearing ${downloads}`);
    }
  }

  return {
    install(image, how) {
      const turn = last.then(() => install(image, how));
      last = turn.catch(() => undefined);
      return turn;
    },
    list: () => inventory.ids(),
    remove: (id) => inventory.remove(id),
    async close() {
      closing.abort(new Error('the agent is closing'));
      await last;
    },
  };
}

/** A delta's own faults, and the engine's while using it; not a hub out of reach, a full disk or a call-off. */
const mayFallBack = (error: unknown): boolean =>
  !(error instanceof ImageError) ||
  ['BLOB_MISSING', 'BLOB_CORRUPT', 'WRONG_IMAGE', 'ENGINE', 'DISK'].includes(error.code);

/** Engines allow separators in a repository's name only one by one, and inside. */
const repositoryPart = (app: string): string =>
  app
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '') || 'image';

const isItsOwnFault = (error: unknown): boolean =>
  error instanceof DeltaError
    ? error.blame !== 'device'
    : error instanceof ImageError && ['BLOB_CORRUPT', 'WRONG_IMAGE'].includes(error.code);

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'UNKNOWN';

/** A name of this directory's own, so that several instances share one engine without touching each other's things. */
async function instanceOf(directory: string): Promise<string> {
  const path = join(directory, 'instance');
  try {
    await mkdir(directory, { recursive: true });
    const known = await readFile(path, 'utf8').catch(() => '');
    if (/^[0-9a-f]{12}$/.test(known)) return known;
    const made = randomBytes(6).toString('hex');
    await writeFile(`${path}.new`, made, { mode: 0o600, flush: true });
    await rename(`${path}.new`, path);
    return made;
  } catch (error) {
    throw diskError(error, `preparing ${directory}`);
  }
}

/** With the containerd image store an image's id is its manifest's digest, which a rebuilt manifest need not match. */
function refuseOtherStores(info: { DriverStatus?: unknown }): void {
  if (!JSON.stringify(info.DriverStatus ?? []).includes('io.containerd.snapshotter')) return;
  throw new ImageError(
    'ENGINE_UNSUPPORTED',
    'this engine uses the containerd image store, whose image ids are not config digests; set "features": {"containerd-snapshotter": false} in the engine\'s daemon.json and restart it',
  );
}
