/**
 * The files of the image that a delta starts from.
 *
 * Invariant: what is read is the image's own content, whatever containers did with it since.
 * Two ways, one interface: the engine's layer directories where this process can see them (overlay.ts), else one
 * streaming export of a container that is made for it and never started (export.ts).
 */
import type Docker from 'dockerode';
import { engineError } from '#agent/images/errors.ts';
import { exportBasis } from '#agent/images/export.ts';
import { ask, short } from '#agent/images/inventory.ts';
import { overlayBasis } from '#agent/images/overlay.ts';
import type { Basis } from '#deltas/index.ts';

export interface OpenBasis extends Basis {
  how: 'overlay' | 'export';
  close(): Promise<void>;
}

/** What the engine says about where an image's layers lie. */
export interface BasisFacts {
  image: Pick<Docker.ImageInspectInfo, 'GraphDriver' | 'RootFS'>;
  engineRoot: string;
}

export interface BasisOptions {
  /** Only asked for where the layer directories cannot be seen: its client is large. */
  docker: () => Promise<Docker>;
  imageId: string;
  facts: BasisFacts;
  /** Paths that will be asked for, as the delta says; it may need the basis's listing to say so. */
  paths: (listing: Pick<Basis, 'list'>) => Promise<Iterable<string>>;
  needsList: boolean;
  /** Where an export may spool; emptied by `close`. */
  directory: string;
  /** Label of the container to export, so that a killed process's one is found again. */
  label: string;
  /** `auto` prefers the layer directories. */
  how: 'auto' | 'overlay' | 'export';
  signal: AbortSignal;
}

/** @throws ImageError `ENGINE`, `ABORTED` */
export async function basisFacts(docker: Docker, imageId: string, signal: AbortSignal): Promise<BasisFacts> {
  const image = await ask(`inspecting image ${short(imageId)}`, () => docker.getImage(imageId).inspect(), {
    signal,
  });
  const { DockerRootDir } = await ask('asking the engine about itself', () => docker.info(), { signal });
  const { GraphDriver, RootFS } = image;
  return { image: { GraphDriver, RootFS }, engineRoot: String(DockerRootDir) };
}

/** @throws ImageError `ENGINE`, `DISK_FULL`, `DISK`, `ABORTED` */
export async function openBasis(options: BasisOptions): Promise<OpenBasis> {
  const { imageId, facts, how } = options;
  if (how !== 'export') {
    const overlay = await overlayBasis(facts.image, facts.engineRoot);
    if (overlay) return overlay;
    if (how === 'overlay') {
      throw engineError(
        new Error('its layer directories cannot be seen from here'),
        `reading ${short(imageId)}`,
      );
    }
  }
  return exportBasis({ ...options, docker: await options.docker() });
}
