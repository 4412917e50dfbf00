/**
 * The program that makes one delta, or applies one to nothing, for `deltas.ts`: one job in, one result out, then it ends.
 *
 * Two processes for one delta: the second is started as a device's is, so that its figures are a device's.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  type Cost,
  fileAccess,
  type LayerSource,
  makeDelta,
  openDelta,
  openSpooled,
  type SpooledBasis,
  spoolBasis,
  tryDelta,
} from '#deltas/index.ts';
import { openZstd } from '#fleet/blobs.ts';
import { surveyFiles } from '#fleet/surveys.ts';

export interface LayerFile {
  diffId: string;
  bytes: number;
  /** Of the zstd-compressed tar. */
  path: string;
}

export type DeltaJob =
  | {
      do: 'make';
      basisId: string;
      basisLayers: LayerFile[];
      targetId: string;
      targetLayers: LayerFile[];
      /** File that is written. */
      output: string;
      scratch: string;
      /** Directory that surveys of layers are kept in. */
      surveys: string;
      /** The basis files that it names are left here, for `try`. */
      spooled: string;
    }
  | { do: 'try'; delta: string; spooled: string };

export type DeltaResult = { ok: true; cost?: Cost } | { ok: false; text: string };

const layerSource = ({ diffId, bytes, path }: LayerFile): LayerSource => ({
  diffId,
  bytes,
  open: () => openZstd(path) as AsyncIterable<Uint8Array>,
});

async function make(job: Extract<DeltaJob, { do: 'make' }>): Promise<DeltaResult> {
  await mkdir(job.scratch, { recursive: true });
  const basisLayers = job.basisLayers.map(layerSource);
  const surveys = surveyFiles(job.surveys, job.scratch);
  await makeDelta({
    basisId: job.basisId,
    basisLayers,
    targetId: job.targetId,
    targetLayers: job.targetLayers.map(layerSource),
    scratchDirectory: job.scratch,
    output: job.output,
    surveys,
  });
  const file = await fileAccess(job.output);
  const path = join(job.scratch, 'basis-files');
  const spooled = await spoolBasis(basisLayers, await openDelta(file), path, { surveys });
  await file.close();
  await writeFile(job.spooled, JSON.stringify(spooled));
  return { ok: true };
}

async function attempt(job: Extract<DeltaJob, { do: 'try' }>): Promise<DeltaResult> {
  const file = await fileAccess(job.delta);
  const spooled = JSON.parse(await readFile(job.spooled, 'utf8')) as SpooledBasis;
  const cost = await tryDelta(await openDelta(file), await openSpooled(spooled), {
    scratchDirectory: dirname(job.spooled),
  });
  return { ok: true, cost: { ...cost, basisBytes: spooled.bytes } };
}

// Without the hub there is nobody to work for.
process.on('disconnect', () => process.exit(1));
process.once('message', async (job: DeltaJob) => {
  let result: DeltaResult;
  try {
    result = await (job.do === 'try' ? attempt(job) : make(job));
  } catch (error) {
    result = { ok: false, text: error instanceof Error ? error.message : String(error) };
  }
  process.send?.(result, () => process.exit(0));
});
