/**
 * From a commit to a release: choose the Dockerfile, build, take the image in, make deltas.
 *
 * Invariant: nothing is left on the engine but base images; a release names only blobs that are durable.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import type Docker from 'dockerode';
import type { BaseLogger } from 'pino';
import type { Blobs } from '#fleet/blobs.ts';
import { buildImage } from '#fleet/build.ts';
import { buildContext } from '#fleet/context.ts';
import { addDeltas } from '#fleet/deltas.ts';
import { baseImages, chooseDockerfile, type DeviceType, renderTemplate } from '#fleet/dockerfile.ts';
import { FleetError } from '#fleet/errors.ts';
import { takeImage } from '#fleet/images.ts';
import { LIMITS } from '#fleet/limits.ts';
import type { Release } from '#fleet/protocol.ts';
import type { MakeRelease } from '#fleet/pushes.ts';
import type { Repositories, TreeEntry } from '#fleet/repositories.ts';
import type { Store } from '#fleet/store.ts';
import { countText, durationText, type Say, safeLines, shortText, sizeText } from '#fleet/text.ts';

/** balena's name for the one service of a release without a composition. */
const SERVICE = 'main';

export interface ReleasesOptions {
  engine: Docker;
  repositories: Repositories;
  store: Store;
  blobs: Blobs;
  fleet: string;
  deviceType: (engine: Docker) => Promise<DeviceType>;
  log: BaseLogger;
}

export const releaseMaker =
  (options: ReleasesOptions): MakeRelease =>
  async ({ app, commit, environment, say, signal }) => {
    const { engine, repositories, store, blobs, log } = options;
    const startMs = Date.now();
    const source = { environment, signal };
    const entries = await repositories.root(app, commit, source);
    const device = await options.deviceType(engine);
    const choice = chooseDockerfile(
      entries.map((entry) => entry.name),
      device,
    );
    const id = store.nextReleaseId(app);
    const [subject = ''] = safeLines(await repositories.subject(app, commit, source));
    say(`${app} ${id} from ${shortText(commit)} "${subject}", with ${choice.name} for ${device.machine}`);
    if (entries.some((entry) => entry.kind === 'submodule'))
      say('note: submodules are not part of the build');

    const text = await rootFile(options, app, commit, entries, choice.name, source);
    const values = { ...device, app, commit, service: SERVICE };
    const dockerfile = choice.template ? renderTemplate(text, choice.name, values) : text;
    const ignores = entries.some((entry) => entry.name === '.dockerignore' && entry.kind === 'file');
    const ignored = ignores ? await repositories.file(app, commit, '.dockerignore', source) : null;

    const tag = `${buildTagPrefix(store)}/${randomBytes(8).toString('hex')}:build`;
    const made: string[] = [];
    try {
      const inTime = AbortSignal.timeout(LIMITS.buildMsMax);
      const imageId = await buildImage({
        engine,
        context: buildContext({
          repositories,
          app,
          commit,
          environment,
          replace: { name: choice.name, text: dockerfile },
          ignored,
          signal,
        }),
        dockerfile: choice.name,
        bases: baseImages(dockerfile),
        tag,
        made,
        say,
        signal: AbortSignal.any([signal, inTime]),
      }).catch((error: unknown) => {
        if (!inTime.aborted || signal.aborted) throw error;
        throw new FleetError(
          'BUILD_TIMEOUT',
          `the build took longer than ${durationText(LIMITS.buildMsMax)}`,
          'make it shorter (a base image that has the slow part), commit, push again',
          error,
        );
      });
      const builtMs = Date.now();
      const taken = await takeImage({ engine, imageId, blobs, store, signal });
      const { layers } = taken.image;
      const bytes = layers.reduce((sum, layer) => sum + layer.bytes, 0);
      const stored = layers.reduce((sum, layer) => sum + layer.blob.bytes, 0);
      say(
        `built ${shortText(imageId)} in ${durationText(builtMs - startMs)}: ${sizeText(bytes)} in ` +
          `${countText(layers.length, 'layer')}, ${sizeText(stored)} compressed; ` +
          `${countText(taken.newLayers, 'new layer')} stored in ${durationText(Date.now() - builtMs)}`,
      );
      const image = await addDeltas({ image: taken.image, app, id, store, blobs, say, signal, log });
      return {
        id,
        app,
        commit,
        createdAtMs: Date.now(),
        services: { [SERVICE]: { image, labels: taken.labels } },
      } satisfies Release;
    } finally {
      await removeImage(engine, tag, log);
      // Stages that are not part of the result, and the steps of a build that failed, the last one first.
      for (const step of made.reverse()) await removeUnnamed(engine, step, log);
    }
  };

async function rootFile(
  { repositories }: ReleasesOptions,
  app: string,
  commit: string,
  entries: TreeEntry[],
  name: string,
  source: { environment: NodeJS.ProcessEnv; signal: AbortSignal },
): Promise<string> {
  if (entries.find((entry) => entry.name === name)?.kind !== 'file') {
    throw new FleetError(
      'DOCKERFILE_INVALID',
      `${name} is not a regular file`,
      'commit it as a file, push again',
    );
  }
  const text = await repositories.file(app, commit, name, source);
  if (text.length > LIMITS.dockerfileBytesMax) {
    throw new FleetError(
      'DOCKERFILE_INVALID',
      `${name} is ${sizeText(text.length)} long`,
      'make it shorter, push again',
    );
  }
  return text;
}

/** Names what this hub built on an engine that it may share with other hubs, and with a device. */
const buildTagPrefix = (store: Store) => `midair-build-${store.hubId}`;

/**
 * Removes what a build step made, unless it has a name. The ids come from the build's output, in which a program
 * that the build runs can write what it likes: a named image is somebody's, so it is not touched.
 */
async function removeUnnamed(engine: Docker, id: string, log: BaseLogger): Promise<void> {
  const image = await engine
    .getImage(id)
    .inspect()
    .catch(() => undefined);
  const names = [...(image?.RepoTags ?? []), ...(image?.RepoDigests ?? [])];
  if (!image || names.length > 0) return;
  // After a build was given up, the engine takes a moment to end the step's container, and says 409 till then.
  const endMs = Date.now() + LIMITS.engineSettleMsMax;
  while ((await removeImage(engine, id, log, Date.now() < endMs)) === 'in use') {
    await setTimeout(LIMITS.engineSettlePollMs);
  }
}

/**
 * Takes the hub's name off an image: the engine deletes it and what it alone was made of, unless somebody else (a
 * device's agent) uses it.
 */
async function removeImage(
  engine: Docker,
  name: string,
  log: BaseLogger,
  mayWait = false,
): Promise<'in use' | 'done'> {
  try {
    await engine.getImage(name).remove();
  } catch (error) {
    const { statusCode } = error as { statusCode?: number };
    if (statusCode === 409 && mayWait) return 'in use';
    if (statusCode !== 404) log.warn({ err: error, name }, 'a built image stays on the engine');
  }
  return 'done';
}

/** Removes what a hub that was killed left on the engine. */
export async function removeLeftBuilds(engine: Docker, store: Store, log: BaseLogger): Promise<void> {
  try {
    const images = await engine.listImages({ filters: { reference: [`${buildTagPrefix(store)}/*`] } });
    for (const image of images) {
      for (const tag of image.RepoTags ?? []) {
        if (tag.startsWith(`${buildTagPrefix(store)}/`)) await removeImage(engine, tag, log);
      }
    }
  } catch (error) {
    log.warn({ err: error }, 'the engine does not answer; the hub serves, builds will fail until it does');
  }
}

export type { Say };
