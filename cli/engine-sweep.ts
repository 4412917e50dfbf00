/**
 * Takes away what a private engine holds or left: through the engine while it answers, else by hand.
 *
 * Invariant: touches only what names this engine's own directory (processes, mounts) or is listed in its data
 * root (containers). Safe to repeat, and with nothing there.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type Docker from 'dockerode';
import { killContainers } from '#cli/engine-cgroups.ts';
import { LIMITS } from '#cli/limits.ts';
import { processesNaming, stop } from '#cli/processes.ts';

/** The image that a private engine keeps from one run to the next. */
export const BASE_IMAGE = 'midair/node24';

/** Removes every container, and every image but the base. Only for private engines. */
export async function sweepEngine(docker: Docker): Promise<void> {
  const abortSignal = AbortSignal.timeout(LIMITS.sweepMsMax);
  for (const container of await docker.listContainers({ all: true, abortSignal })) {
    await docker.getContainer(container.Id).remove({ force: true, v: true, abortSignal }).catch(ignoreGone);
  }
  // An image goes only after those built on it: until a round removes nothing more.
  for (let removed = 1; removed > 0; ) {
    removed = 0;
    for (const { Id, RepoTags } of await docker.listImages({ abortSignal })) {
      const tags = RepoTags ?? [];
      const keeps = tags.includes(`${BASE_IMAGE}:latest`);
      for (const name of keeps ? tags.filter((tag) => tag !== `${BASE_IMAGE}:latest`) : [Id]) {
        try {
          await docker.getImage(name).remove({ force: true, abortSignal });
          removed += 1;
        } catch (error) {
          ignoreGone(error);
        }
      }
    }
  }
}

function statusOf(error: unknown): number {
  return (error as { statusCode?: number }).statusCode ?? 0;
}

function ignoreGone(error: unknown): void {
  if (![404, 409].includes(statusOf(error))) throw error;
}

/** Ends dockerd, containerd, shims and containers of this directory, unmounts, removes the run directory. */
export async function sweepDirectory(directory: string): Promise<void> {
  const left = processesNaming(directory);
  const daemons = left.filter(({ args }) => args[0]?.endsWith('dockerd'));
  await stop(daemons, LIMITS.engineStopMsMax, LIMITS.processGoneMsMax);
  // dockerd takes its containerd along; after a SIGKILL that and the shims stay behind.
  await stop(processesNaming(directory), LIMITS.processGoneMsMax, LIMITS.processGoneMsMax);
  await killContainers(containersOf(directory));
  unmountBelow(directory);
  rmSync(join(directory, 'run'), { recursive: true, force: true });
}

function containersOf(directory: string): string[] {
  try {
    return readdirSync(join(directory, 'data', 'containers'));
  } catch {
    return [];
  }
}

/** Deepest first. Never removes a directory below a mount that would not go. */
function unmountBelow(directory: string): void {
  const points = mountsBelow(directory).reverse();
  for (const point of points) {
    if (spawnSync('umount', [point]).status !== 0) spawnSync('umount', ['--lazy', point]);
  }
  const left = mountsBelow(directory);
  if (left.length > 0) throw new Error(`cannot unmount ${left.join(', ')}: unmount by hand, then try again`);
}

/** In the order in which they were mounted (proc(5), mountinfo field 5, octal escapes). */
export function mountsBelow(directory: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .map((point) =>
      point.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8))),
    )
    .filter((point) => point.startsWith(`${directory}/`));
}
