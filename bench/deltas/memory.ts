/**
 * `npm run bench -- deltas --memory [--mb N]…`: how far applying raises a process's memory, for the same kind of change in images of
 * several lengths, by the kernel's own figure (VmHWM), in a process as the agent starts it.
 *
 * On disk while it runs: the basis files that the delta names, and the delta.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { APPLY_FLAGS, type Cost, fileAccess, makeDelta, openDelta, spoolBasis } from '#deltas/index.ts';
import { sha256 } from '#test/deltas-kit.ts';
import { grownLayer } from './grown-image.ts';
import { measured } from './run.ts';

export interface MemoryRow extends Cost {
  imageBytes: number;
  deltaBytes: number;
  /** By the clock. */
  ms: number;
}

/** @param flags of Node, for the process that applies */
export async function memoryOf(
  imageBytes: number,
  flags: readonly string[] = APPLY_FLAGS,
): Promise<MemoryRow> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-memory-'));
  try {
    const [old, young] = [grownLayer(imageBytes, 'old'), grownLayer(imageBytes, 'young')];
    const path = join(folder, 'delta');
    const { bytes } = await makeDelta({
      basisId: sha256(old.diffId),
      basisLayers: [old],
      targetId: sha256(young.diffId),
      targetLayers: [young],
      scratchDirectory: folder,
      output: path,
    });
    const file = await fileAccess(path);
    const spooled = await spoolBasis([old], await openDelta(file), join(folder, 'basis'));
    await file.close();
    writeFileSync(join(folder, 'spooled.json'), JSON.stringify(spooled));
    const script = join(import.meta.dirname, 'try.ts');
    const run = await measured(process.execPath, [...flags, script, path, join(folder, 'spooled.json')]);
    if (!run.ok) throw new Error('the delta does not apply');
    return {
      imageBytes: young.bytes,
      deltaBytes: bytes,
      ...(JSON.parse(run.stdout) as Cost & { ms: number }),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
