/**
 * The engine's images as the agent sees them: which are there, of which layers, under which of our names.
 *
 * Invariant: a name is given before one is taken away, so an image is never without a name in between; and only
 * names that this project gave are ever taken away.
 */
import type Docker from 'dockerode';
import { aborted, engineError, errnoOf, ImageError } from '#agent/images/errors.ts';
import { LIMITS } from '#agent/images/limits.ts';
import type { Held } from '#agent/images/plan.ts';

const OURS = /^midair\/[^@]+:[^:@]+$/;
/** Images on the way to another, see plan.ts. */
export const VIA = 'via-';
const ON_THE_WAY = /^midair\/via-[^@]+:[^:@]+$/;
/** Names of a pull: `127.0.0.1:PORT/midair-INSTANCE/app@sha256:…`. */
const PULLED = /^127\.0\.0\.1:\d+\/(midair-[0-9a-f]+)\/([^@:]+)(?:@sha256:[0-9a-f]{64}|:[^:@]+)$/;

export const statusOf = (error: unknown): number | undefined =>
  error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number'
    ? error.statusCode
    : undefined;

export const isUnreachable = (error: unknown): boolean =>
  ['ECONNREFUSED', 'ENOENT', 'EACCES', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT'].includes(errnoOf(error) ?? '');

/** Twelve digits of an id or digest, as the engine's own command line shows it. */
export const short = (id: string): string => id.replace('sha256:', '').slice(0, 12);

/**
 * Asks the engine, with a bound: a call whose engine dies in the middle of its answer would never settle.
 * @throws ImageError `ENGINE`, `DISK_FULL`, `ABORTED`
 */
export async function ask<T>(
  doing: string,
  call: (signal: AbortSignal) => Promise<T>,
  options: { signal?: AbortSignal; msMax?: number } = {},
): Promise<T> {
  const msMax = options.msMax ?? LIMITS.engineCallMsMax;
  const late = AbortSignal.timeout(msMax);
  const signal = options.signal ? AbortSignal.any([options.signal, late]) : late;
  const { promise: ended, reject } = Promise.withResolvers<never>();
  const end = () => reject(new Error(late.aborted ? `no answer in ${msMax} ms` : 'called off'));
  if (signal.aborted) end();
  signal.addEventListener('abort', end, { once: true });
  try {
    return await Promise.race([call(signal), ended]);
  } catch (error) {
    if (options.signal?.aborted) throw aborted(options.signal);
    throw engineError(error, doing);
  } finally {
    signal.removeEventListener('abort', end);
  }
}

export interface Inventory {
  ids(): Promise<string[]>;
  has(id: string): Promise<boolean>;
  held(signal: AbortSignal): Promise<Held[]>;
  /** Gives the image its name `midair/app:tag`, then takes away what pulls of this instance called it. */
  name(id: string, app: string, tag: string): Promise<void>;
  /** Takes the names off images that were only on the way, also those of an earlier process. */
  dropVia(): Promise<void>;
  /** Removes an image that nobody named and nobody uses; any other stays. */
  dropUnnamed(id: string): Promise<void>;
  /** Names that a pull left when its process was killed. */
  prune(): Promise<void>;
  remove(id: string): Promise<void>;
}

/** @param pullPrefix first part of the repository in this instance's pulls: `midair-INSTANCE` */
export function openInventory(docker: Docker, pullPrefix: string): Inventory {
  const layersById = new Map<string, Held>();

  const inspect = async (id: string) => {
    try {
      return await docker.getImage(id).inspect();
    } catch (error) {
      if (statusOf(error) === 404) return undefined;
      throw error;
    }
  };
  const list = () =>
    ask('listing the images', (abortSignal) =>
      docker.listImages({ abortSignal } as Docker.ListImagesOptions),
    );
  const namesOf = (image: { RepoTags?: string[] | undefined; RepoDigests?: string[] | undefined }) =>
    [...(image.RepoTags ?? []), ...(image.RepoDigests ?? [])].filter((each) => !each.startsWith('<none>'));

  async function untag(name: string): Promise<void> {
    await ask(`removing the name ${name}`, async () => {
      try {
        await docker.getImage(name).remove();
      } catch (error) {
        if (statusOf(error) === 409) {
          throw new ImageError('IN_USE', `a container uses ${name}; remove that first`, { cause: error });
        }
        if (statusOf(error) !== 404) throw error;
      }
    });
  }

  /** The app that a pull of this instance gave that name for; undefined: none did. */
  const pulledFor = (name: string): string | undefined => {
    const [, prefix, app] = PULLED.exec(name) ?? [];
    return prefix === pullPrefix ? app : undefined;
  };

  async function dropPulled(names: readonly string[]): Promise<void> {
    for (const name of names) if (pulledFor(name) !== undefined) await untag(name);
  }

  const inventory: Inventory = {
    async ids() {
      return (await list()).map(({ Id }) => Id);
    },

    async has(id) {
      return (await ask(`looking for image ${short(id)}`, () => inspect(id))) !== undefined;
    },

    async held(signal) {
      const ids = (await inventory.ids()).slice(0, LIMITS.imagesMax);
      for (const id of layersById.keys()) if (!ids.includes(id)) layersById.delete(id);
      for (const id of ids) {
        if (layersById.has(id)) continue;
        const found = await ask(`inspecting image ${short(id)}`, () => inspect(id), { signal });
        if (found) layersById.set(id, { id, diffIds: found.RootFS?.Layers ?? [] });
      }
      return [...layersById.values()];
    },

    async name(id, app, tag) {
      const repo = `midair/${app}`;
      await ask(`naming image ${short(id)}`, (abortSignal) =>
        docker.getImage(id).tag({ repo, tag, abortSignal }),
      );
      const found = await ask(`inspecting image ${short(id)}`, () => inspect(id));
      if (found) await dropPulled(namesOf(found));
    },

    async dropVia() {
      // An engine that was left in a pull ends it all the same, and names the image only after `prune` has looked.
      const isVia = (name: string) => ON_THE_WAY.test(name) || pulledFor(name)?.startsWith(VIA) === true;
      for (const image of await list()) for (const name of namesOf(image)) if (isVia(name)) await untag(name);
    },

    async dropUnnamed(id) {
      const found = await ask(`inspecting image ${short(id)}`, () => inspect(id));
      if (found === undefined || namesOf(found).length > 0) return;
      try {
        await untag(id);
      } catch (error) {
        if (!(error instanceof ImageError && error.code === 'IN_USE')) throw error;
      }
    },

    async prune() {
      for (const image of await list()) {
        const names = namesOf(image);
        const app = names.map(pulledFor).find((found) => found !== undefined);
        if (app === undefined) continue;
        if (names.some((name) => OURS.test(name))) await dropPulled(names);
        else await inventory.name(image.Id, app, short(image.Id));
      }
    },

    async remove(id) {
      const users = await ask('listing the containers', (abortSignal) =>
        docker.listContainers({ all: true, abortSignal }),
      );
      const user = users.find(({ ImageID }) => ImageID === id);
      if (user) {
        throw new ImageError(
          'IN_USE',
          `image ${short(id)} is used by container ${user.Names[0]?.slice(1) ?? user.Id}; remove that first`,
        );
      }
      const found = await ask(`inspecting image ${short(id)}`, () => inspect(id));
      if (!found) return;
      const names = namesOf(found);
      const ours = names.filter((name) => OURS.test(name) || pulledFor(name) !== undefined);
      // A name that somebody else gave keeps the image, as it should.
      for (const name of ours) await untag(name);
      if (names.length === 0) await untag(id);
      layersById.delete(id);
    },
  };
  return inventory;
}
