/** The program that encodes one delta, for `deltas.ts`: one job in, one result out, then it ends. */
import { mkdir } from 'node:fs/promises';
import { type LayerSource, makeDelta } from '#deltas/index.ts';
import { openZstd } from '#fleet/blobs.ts';

export interface LayerFile {
  diffId: string;
  bytes: number;
  /** Of the zstd-compressed tar. */
  path: string;
}

export interface DeltaJob {
  basisId: string;
  basisLayers: LayerFile[];
  targetId: string;
  targetLayers: LayerFile[];
  /** File that is written. */
  output: string;
  scratch: string;
}

export type DeltaResult = { ok: true } | { ok: false; text: string };

const layerSource = ({ diffId, bytes, path }: LayerFile): LayerSource => ({
  diffId,
  bytes,
  open: () => openZstd(path) as AsyncIterable<Uint8Array>,
});

async function encode(job: DeltaJob): Promise<void> {
  await mkdir(job.scratch, { recursive: true });
  await makeDelta({
    basisId: job.basisId,
    basisLayers: job.basisLayers.map(layerSource),
    targetId: job.targetId,
    targetLayers: job.targetLayers.map(layerSource),
    scratchDirectory: job.scratch,
    output: job.output,
  });
}

// Without the hub there is nobody to encode for.
process.on('disconnect', () => process.exit(1));
process.once('message', async (job: DeltaJob) => {
  let result: DeltaResult;
  try {
    await encode(job);
    result = { ok: true };
  } catch (error) {
    result = { ok: false, text: error instanceof Error ? error.message : String(error) };
  }
  process.send?.(result, () => process.exit(0));
});
