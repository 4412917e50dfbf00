/**
 * The demo's base image `midair/node24`, made of this machine's own files and loaded into an engine.
 *
 * Invariant: the same files give the same image id on every engine; nothing is pulled, nothing runs in the
 * making. Three layers, from what changes rarely to what changes often: system, packages, SDK.
 */
import { createHash } from 'node:crypto';
import { createReadStream, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import type Docker from 'dockerode';
import tar from 'tar-stream';
import {
  type BaseLayer,
  keyOf,
  moduleEntries,
  sdkEntries,
  systemEntries,
  writeLayer,
} from '#cli/base-layers.ts';
import { buildPackage } from '#cli/build.ts';
import { BASE_IMAGE } from '#cli/engine-sweep.ts';
import { LIMITS } from '#cli/limits.ts';
import { PACKAGE_ROOT, stateDirectory } from '#cli/paths.ts';

export interface BaseImage {
  /** The config's digest. */
  id: string;
  /** Uncompressed, all layers. */
  bytes: number;
  layers: BaseLayer[];
  /** False when the engine had it already. */
  wasLoaded: boolean;
}

export class BaseImageError extends Error {
  readonly code = 'BASE_IMAGE';
}

/** Makes sure that `midair/node24:latest` on this engine is the image of this machine's files. */
export async function ensureBaseImage(docker: Docker): Promise<BaseImage> {
  const layers = await makeLayers();
  const config = JSON.stringify(configOf(layers));
  const id = `sha256:${createHash('sha256').update(config).digest('hex')}`;
  const bytes = layers.reduce((sum, layer) => sum + layer.bytes, 0);
  const tag = `${BASE_IMAGE}:latest`;
  if ((await idOf(docker, tag)) === id) return { id, bytes, layers, wasLoaded: false };
  const said = await text(
    await docker.loadImage(Readable.from(archive(layers, config, tag)), { quiet: true }),
  );
  if ((await idOf(docker, tag)) !== id) {
    throw new BaseImageError(`the engine did not take the base image as it was sent: ${said.trim()}`);
  }
  return { id, bytes, layers, wasLoaded: true };
}

async function idOf(docker: Docker, tag: string): Promise<string | undefined> {
  try {
    return (await docker.getImage(tag).inspect()).Id;
  } catch (error) {
    if ((error as { statusCode?: number }).statusCode === 404) return undefined;
    throw error;
  }
}

async function makeLayers(): Promise<BaseLayer[]> {
  const cache = stateDirectory('base');
  const system = systemEntries();
  const modules = moduleEntries();
  const sdkKey = keyOf(sdkSources());
  const keys = [keyOf(system), keyOf(modules), sdkKey] as const;
  const layers = [
    await writeLayer(system, keys[0], cache),
    await writeLayer(modules, keys[1], cache),
    await sdkLayer(sdkKey, cache),
  ];
  for (const name of readdirSync(cache)) {
    // Layers of former files, and parts of killed runs; what is young may be in use by another checkout's run.
    const ageMs = Date.now() - statSync(join(cache, name)).mtimeMs;
    if (ageMs > LIMITS.layerKeptMsMax && !keys.some((key) => name.startsWith(key))) rmSync(join(cache, name));
  }
  return layers;
}

/** What the SDK's layer is built from, to know without building whether it changed. */
function sdkSources() {
  const root = join(PACKAGE_ROOT, 'handover');
  const names = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(ts|node)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name));
  const all = [...names, join(PACKAGE_ROOT, 'package.json'), join(PACKAGE_ROOT, 'tsconfig.build.json')];
  return all.map((from) => ({ path: from, mode: 0, from }));
}

async function sdkLayer(key: string, cache: string): Promise<BaseLayer> {
  const known = await writeKnown(key, cache);
  if (known !== undefined) return known;
  const built = mkdtempSync(join(tmpdir(), 'midair-build-'));
  try {
    buildPackage(built);
    return await writeLayer(sdkEntries(built), key, cache);
  } finally {
    rmSync(built, { recursive: true, force: true });
  }
}

async function writeKnown(key: string, cache: string): Promise<BaseLayer | undefined> {
  return readdirSync(cache).includes(`${key}.json`) ? writeLayer([], key, cache) : undefined;
}

/** An image config as the OCI image specification has it; the fixed date makes the id a function of the files. */
function configOf(layers: BaseLayer[]) {
  return {
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    config: { Cmd: ['node'], Env: ['PATH=/usr/bin:/bin', 'NODE_ENV=production'], WorkingDir: '/app' },
    created: new Date(0).toISOString(),
    history: ['system', 'packages', 'sdk'].map((name) => ({ created_by: `midair base: ${name}` })),
    os: 'linux',
    rootfs: { diff_ids: layers.map((layer) => layer.diffId), type: 'layers' },
  };
}

/** What `docker save` writes and `docker load` reads. */
function archive(layers: BaseLayer[], config: string, tag: string): tar.Pack {
  const pack = tar.pack();
  const names = layers.map((layer) => `${layer.diffId.slice('sha256:'.length)}.tar`);
  const fill = async () => {
    pack.entry({ name: 'config.json' }, config);
    pack.entry(
      { name: 'manifest.json' },
      JSON.stringify([{ Config: 'config.json', RepoTags: [tag], Layers: names }]),
    );
    for (const [i, layer] of layers.entries()) {
      const name = names[i] as string;
      await pipeline(createReadStream(layer.file), pack.entry({ name, size: statSync(layer.file).size }));
    }
    pack.finalize();
  };
  fill().catch((error: Error) => pack.destroy(error));
  return pack;
}
