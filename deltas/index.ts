/** Image deltas: make, apply, inspect. Bytes in, bytes out, no network. The format is in docs/delta-format.md. */

export { type ApplyLimits, applyLayer } from '#deltas/apply.ts';
export { type DeltaLayer, DeltaReader, openDelta } from '#deltas/artifact.ts';
export type { Basis, BasisFile, ListedFile } from '#deltas/basis.ts';
export { DeltaError, type DeltaErrorCode } from '#deltas/errors.ts';
export { basisFromLayers, type FlatFile, FlatImage, flatten } from '#deltas/flatten.ts';
export {
  type InspectedFile,
  type InspectedLayer,
  type Inspection,
  inspectDelta,
  renderInspection,
} from '#deltas/inspect.ts';
export type { LayerSource } from '#deltas/layer.ts';
export { LIMITS as DELTA_LIMITS } from '#deltas/limits.ts';
export {
  type DeltaSummary,
  type MadeDelta,
  type MakeDeltaOptions,
  type MakeProgress,
  makeDelta,
} from '#deltas/make.ts';
export { fileAccess, memoryAccess, type RandomAccess, readAt } from '#deltas/random-access.ts';
export { openSpooled, type SpooledBasis, spoolBasis } from '#deltas/spooled-basis.ts';
export type { SurveyOptions, SurveyStore } from '#deltas/survey.ts';
export { APPLY_FLAGS, type Cost, tryDelta } from '#deltas/trial.ts';
