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
import { basisFacts } from '#agent/images/basis.ts';
import { aborted, diskError, ImageError, textOf } from '#agent/images/errors.ts';
import { removeContainer } from '#agent/images/export.ts';
import { blobPath, bytesOnDisk, fetchBlob } from '#agent/images/fetch.ts';
import { ask, openInventory, short, VIA } from '#agent/images/inventory.ts';
import { LIMITS } from '#agent/images/limits.ts';
import { openPatcher } from '#agent/images/patcher.ts';
import {
  candidates,
  figuresOf,
  type Held,
  type Leg,
  lackingBytes,
  type Plan,
  plans,
  planText,
  withoutDeltas,
} from '#agent/images/plan.ts';
import { pullImage } from '#agent/images/pull.ts';
import { openPulls } from '#agent/images/pulls.ts';
import { checkSpace } from '#agent/images/space.ts';
import { system as realSystem, type System } from '#agent/images/system.ts';
import { standBack } from '#agent/patching.ts';
import { DeltaError } from '#deltas/index.ts';
import type { Blob, DeltaOffer, Image } from '#fleet/protocol.ts';

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
  /** Makes the process that rebuilds layers stand back; told its pid, gives what undoes it. Default: patching.ts. */
  standBack?: (pid: number, log: Log) => () => void;
}

export interface InstallOptions {
  /** Name of the app and its release, for the image's name on the engine: `midair/app:release-0123456789ab`. */
  app?: string;
  release?: string;
  /** `fetch`: bytes on the disk of those to fetch. `pull`: bytes of layers handed to the engine of those it lacks. */
  onProgress?: (doneBytes: number, allBytes: number, stage: 'fetch' | 'pull') => void;
  /**
   * `update.planned`: what will be fetched, before it is, with everything that was weighed (plan.ts, PlanFigures);
   * `image.delta-failed`: a delta gave way to whole layers, and why.
   */
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
  const pulls = openPulls(join(directory, 'pulls'));
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
      await inventory.dropVia();
      for (const id of await pulls.begun()) if (id !== image.id) await inventory.dropUnnamed(id);
      await pulls.end();
      await keepDownloads([]);
      return fetched;
    };
    if (await inventory.has(image.id)) return done({ as: 'nothing', bytes: 0 });

    const blobs = [image, ...(image.bridges ?? [])].flatMap((each) => [
      each.config,
      ...each.layers.map(({ blob }) => blob),
      ...each.deltas.map(({ blob }) => blob),
    ]);
    await keepDownloads(blobs);
    const held = await inventory.held(signal);
    const onDisk = new Map<string, number>();
    for (const blob of blobs) {
      onDisk.set(blob.digest, await bytesOnDisk(downloads, blob));
    }
    let receivedBytes = 0;
    const usable = withoutDeltas(image, useless);
    const haveBytes = (blob: Blob) => onDisk.get(blob.digest) ?? 0;
    const figures = candidates(usable, held, haveBytes).map(figuresOf);
    for (const plan of plans(usable, held, haveBytes)) {
      let tried: DeltaOffer | undefined;
      try {
        const data = { image: image.id, ...figuresOf(plan), candidates: figures };
        how.onEvent?.('update.planned', planText(plan), data);
        log.info(data, 'installing an image');
        await run(
          plan,
          held,
          app,
          { ...how, signal },
          {
            onReceived: (bytes) => {
              receivedBytes += bytes;
            },
            onLeg: ({ delta }) => {
              tried = delta;
            },
          },
        );
        return await done({ as: plan.as, bytes: receivedBytes });
      } catch (error) {
        await rm(spool, { recursive: true, force: true });
        if (plan.as === 'layers' || !mayFallBack(error)) throw error;
        // Whole layers are no help against an engine that is away, and cost the air that a delta saves.
        await ask('reaching the engine', () => docker.ping(), { signal });
        const failed: DeltaOffer | undefined = tried ?? plan.legs.find(({ delta }) => delta)?.delta;
        if (failed && isItsOwnFault(error)) useless.add(failed.blob.digest);
        if (failed) await rm(blobPath(downloads, failed.blob.digest), { force: true });
        const data = { image: image.id, basis: failed?.basis, code: codeOf(error) };
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

  /** Everything is fetched first, so that a link that fades leaves no image half-way; then one leg after the other is installed. */
  async function run(
    plan: Plan,
    held: readonly Held[],
    app: string,
    how: InstallOptions,
    told: { onReceived: (bytes: number) => void; onLeg: (leg: Leg) => void },
  ): Promise<void> {
    const { signal } = how;
    for (const { image } of plan.legs) {
      if (image.config.bytes > LIMITS.configBytesMax)
        throw new ImageError('WRONG_IMAGE', `a config of ${image.config.bytes} bytes is none; push again`);
    }
    await checkSpace({ system, plan, downloads, engineRoot });
    const fetchOne = (blob: Blob, onProgress?: (haveBytes: number) => void) =>
      fetchBlob(blob, {
        hubUrl,
        directory: downloads,
        system,
        signal,
        ...(onProgress && { onProgress }),
      }).then((fetched) => {
        told.onReceived(fetched.receivedBytes);
        return fetched.path;
      });
    const allBytes = plan.blobs.reduce((sum, blob) => sum + blob.bytes, 0);
    let doneBytes = 0;
    for (const blob of plan.blobs) {
      const leg = plan.legs.find(({ delta }) => delta?.blob.digest === blob.digest);
      if (leg) told.onLeg(leg);
      await fetchOne(blob, (haveBytes) => how.onProgress?.(doneBytes + haveBytes, allBytes, 'fetch'));
      doneBytes += blob.bytes;
    }
    for (const leg of plan.legs) {
      told.onLeg(leg);
      const isLast = leg === plan.legs.at(-1);
      await installLeg(
        leg,
        plan,
        isLast ? held : await inventory.held(signal),
        isLast ? app : `${VIA}${app}`,
        fetchOne,
        how,
      );
    }
  }

  async function installLeg(
    leg: Leg,
    plan: Plan,
    held: readonly Held[],
    app: string,
    fetchOne: (blob: Blob) => Promise<string>,
    how: InstallOptions,
  ): Promise<void> {
    const { image, delta } = leg;
    const { signal } = how;
    const config = blobPath(downloads, image.config.digest);
    const facts = delta && (await basisFacts(docker, delta.basis, signal));
    try {
      await pulls.begin(image.id);
      await pullImage({
        docker,
        image,
        serve: (handlers) =>
          openPatcher({
            docker,
            order: {
              image,
              fetched: plan.blobs.map(({ digest }) => digest),
              ...(delta && { delta }),
              ...(facts && { facts }),
              held,
              downloads,
              spool,
              label,
              basis: options.basis ?? 'auto',
              fetch: fetchOne,
              name: `midair-${instance}/${app}`,
              config,
            },
            ...handlers,
            standBack: (pid) => (options.standBack ?? standBack)(pid, log),
            signal,
          }),
        config: await readFile(config),
        lackingBytes: lackingBytes([leg]),
        ...(how.onProgress && { onProgress: how.onProgress }),
        signal,
      });
      if (leg !== plan.legs.at(-1)) await inventory.name(image.id, app, short(image.id));
    } catch (error) {
      // A file that does not give its layer is not to be trusted by the next attempt either.
      if (error instanceof ImageError && (error.code === 'BLOB_CORRUPT' || error.code === 'WRONG_IMAGE')) {
        await keepDownloads([]);
      }
      throw error;
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
