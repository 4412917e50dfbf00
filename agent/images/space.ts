/**
 * Whether an install fits, asked before the first byte is fetched.
 *
 * Invariant: needs on one disk are added up, whichever directories they fall into.
 */
import { ImageError } from '#agent/images/errors.ts';
import { LIMITS } from '#agent/images/limits.ts';
import { lackingBytes, type Plan } from '#agent/images/plan.ts';
import type { System } from '#agent/images/system.ts';

/**
 * @param downloads a directory of ours; the nearest one that exists is asked
 * @param engineRoot the engine's data root; not asked when it cannot be seen from here
 * @throws ImageError `DISK_FULL`
 */
export async function checkSpace(options: {
  system: System;
  plan: Plan;
  downloads: string;
  engineRoot: string;
}): Promise<void> {
  const { system, plan, downloads, engineRoot } = options;
  // Where the engine's root is out of sight, a basis is spooled, one after the other.
  const isSeen = (await system.freeSpace(engineRoot)) !== undefined;
  const spoolBytes = isSeen ? 0 : Math.max(0, ...plan.legs.map(({ delta }) => delta?.cost?.basisBytes ?? 0));
  const needs: [string, number][] = [
    [await nearest(downloads, system), plan.remainingBytes + spoolBytes],
    [engineRoot, lackingBytes(plan.legs) * LIMITS.engineCopiesOfLayer],
  ];
  const disks = new Map<number, { freeBytes: number; needBytes: number; path: string }>();
  for (const [path, bytes] of needs) {
    const free = await system.freeSpace(path);
    if (!free) continue;
    const disk = disks.get(free.disk) ?? { freeBytes: free.bytes, needBytes: LIMITS.spareBytesMin, path };
    disk.needBytes += bytes;
    disks.set(free.disk, disk);
  }
  for (const { freeBytes, needBytes, path } of disks.values()) {
    if (freeBytes >= needBytes) continue;
    throw new ImageError(
      'DISK_FULL',
      `${mib(needBytes)} are needed on the disk of ${path}, ${mib(freeBytes)} are free; free space on the device (old images, logs), then push or retry`,
    );
  }
}

async function nearest(path: string, system: System): Promise<string> {
  let at = path;
  while (at.length > 1 && !(await system.freeSpace(at))) at = at.slice(0, at.lastIndexOf('/')) || '/';
  return at;
}

const mib = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
