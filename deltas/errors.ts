/**
 * What can go wrong with a delta, by whose fault. The text says what was seen; the `code` never changes.
 *
 * A caller on a device needs one rule: after any DeltaError, throw away what was yielded and take the layer whole.
 */

/**
 * - `BASIS_MISMATCH` the basis at hand is not the image that the delta was made from (or was changed by hand)
 * - `CORRUPT`        the artifact's bytes are not what a maker wrote, or contradict themselves
 * - `TRUNCATED`      the artifact ends early
 * - `TOO_LARGE`      the artifact asks for more than `limits.ts` or the caller allows
 * - `UNSUPPORTED`    a version, codec or feature that this reader does not know, named in the text
 * - `NOT_FOUND`      the delta holds no such layer
 * - `BAD_INPUT`      makeDelta: a layer is not what its diffID or length says, or an id is not one
 * - `READ_FAILED`    reading the basis, an input layer or the artifact failed; see `cause`
 */
export type DeltaErrorCode = keyof typeof BLAME;

const BLAME = {
  BASIS_MISMATCH: 'basis',
  CORRUPT: 'artifact',
  TRUNCATED: 'artifact',
  TOO_LARGE: 'artifact',
  UNSUPPORTED: 'artifact',
  NOT_FOUND: 'caller',
  BAD_INPUT: 'caller',
  READ_FAILED: 'device',
} as const;

export class DeltaError extends Error {
  override readonly name = 'DeltaError';
  readonly code: DeltaErrorCode;
  readonly blame: 'basis' | 'artifact' | 'caller' | 'device';

  constructor(code: DeltaErrorCode, text: string, cause?: unknown) {
    super(text, cause === undefined ? undefined : { cause });
    this.code = code;
    this.blame = BLAME[code];
  }
}

/** Passes a DeltaError on as it is; anything else becomes one with `code`, and stays its cause. */
export function asDeltaError(error: unknown, code: DeltaErrorCode, text: string): DeltaError {
  if (error instanceof DeltaError) return error;
  return new DeltaError(code, `${text}: ${error instanceof Error ? error.message : String(error)}`, error);
}
