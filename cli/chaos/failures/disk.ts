/**
 * The disk of a device's directory is full, but for a floor.
 *
 * Invariant: only a small disk that was made for it (a tmpfs, a loop image) is filled, never the machine's own; the ballast is
 * one file of ours, in the ledger before it is there, and the ledger is on another disk.
 */
import { statfsSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ChaosError, codeOf } from '#cli/chaos/errors.ts';
import type { Inject } from '#cli/chaos/failures/deed.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { thingText } from '#cli/chaos/targets.ts';
import { BALLAST } from '#cli/chaos/undo.ts';

export const disk: Inject = async ({ id, target, parameters, note, leftMs, ledgerDirectory }) => {
  if (target.kind !== 'part') throw new ChaosError('INTERNAL', `${thingText(target)} has no directory`);
  const { directory } = target;
  assertSmall(directory);
  if (statSync(directory).dev === statSync(ledgerDirectory).dev) {
    throw new ChaosError(
      'LEDGER_ON_THAT_DISK',
      `${ledgerDirectory} is on the disk of ${directory}: give midair chaos serve a --dir elsewhere`,
    );
  }
  const file = join(directory, `${BALLAST}${id}`);
  note({ type: 'remove', file }, `fill the disk of ${thingText(target)}`);
  const bytes = await fill(file, parameters.floorBytes, leftMs);
  return `${bytes} bytes written to ${file}, ${freeBytes(directory)} are left`;
};

const freeBytes = (directory: string): number => {
  const { bfree, bsize } = statfsSync(directory);
  return bfree * bsize;
};

/** A disk of its own, of a size on which nobody keeps anything else. */
function assertSmall(directory: string): void {
  const { blocks, bsize } = statfsSync(directory);
  const bytes = blocks * bsize;
  const isTheMachines = statSync(directory).dev === statSync('/').dev;
  if (isTheMachines || bytes > CHAOS.diskBytesMax) {
    const whose = isTheMachines ? 'the machine’s own disk' : `a disk of ${Math.round(bytes / 1e6)} MB`;
    throw new ChaosError(
      'NOT_A_SMALL_DISK',
      `${directory} is on ${whose}: put it on one of at most ${Math.floor(CHAOS.diskBytesMax / 1e6)} MB that was made ` +
        `for it (mount -t tmpfs -o size=64m midair ${directory})`,
    );
  }
}

async function fill(file: string, floorBytes: number, leftMs: () => number): Promise<number> {
  const chunk = Buffer.alloc(CHAOS.diskChunkBytes);
  const ballast = await open(file, 'wx', 0o600);
  let bytes = 0;
  try {
    for (let wanted = chunk.length; wanted > 0 && leftMs() > 0; ) {
      wanted = Math.min(chunk.length, freeBytes(dirname(file)) - floorBytes);
      if (wanted <= 0) break;
      bytes += (await ballast.write(chunk, 0, wanted)).bytesWritten;
    }
  } catch (error) {
    // Full, which is what was wanted.
    if (codeOf(error) !== 'ENOSPC') throw error;
  } finally {
    await ballast.close();
  }
  return bytes;
}
