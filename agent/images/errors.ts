/**
 * What can go wrong with an image, by stable code and by blame.
 *
 * Invariant: every text ends with what to do next, because it reaches a person far from the device.
 */

/** peer: the hub's or the target's fault. device: this machine's, worth a retry. ours: a bug or a misuse. */
export type Blame = 'peer' | 'device' | 'ours';

const BLAME = {
  /** No answer, or broken ones, for as long as LIMITS bears it. What was fetched is kept. */
  HUB_UNREACHABLE: 'peer',
  /** The hub answered that it will not give this blob (any 4xx but 404, 408, 429). */
  HUB_REFUSED: 'peer',
  BLOB_MISSING: 'peer',
  /** The bytes do not match the digest, twice from zero. */
  BLOB_CORRUPT: 'peer',
  /** The target contradicts itself, or the engine ended with another image than the one asked for. */
  WRONG_IMAGE: 'peer',
  DISK_FULL: 'device',
  /** Any other failure of a file: read-only, I/O error, permission. */
  DISK: 'device',
  /** The engine refused, failed or fell silent. */
  ENGINE: 'device',
  /** This engine keeps images under other identities (containerd image store). */
  ENGINE_UNSUPPORTED: 'device',
  IN_USE: 'ours',
  ABORTED: 'ours',
} as const satisfies Record<string, Blame>;

export type ImageCode = keyof typeof BLAME;

export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly code: ImageCode;
  readonly blame: Blame;
  constructor(code: ImageCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
    this.blame = BLAME[code];
  }
}

/** The `code` of a system error (`ENOSPC`), or undefined. */
export const errnoOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;

export const textOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).trim();

/** A failed file operation as ImageError: `DISK_FULL` for a full disk or quota, else `DISK`. */
export function diskError(error: unknown, doing: string): ImageError {
  if (error instanceof ImageError) return error;
  const errno = errnoOf(error);
  if (errno === 'ENOSPC' || errno === 'EDQUOT') {
    return new ImageError(
      'DISK_FULL',
      `no space left while ${doing}; free space on the device (old images, logs), then push or retry`,
      { cause: error },
    );
  }
  return new ImageError(
    'DISK',
    `${doing} failed (${textOf(error)}); check the device's storage, then retry`,
    {
      cause: error,
    },
  );
}

/** A failed call to the engine as ImageError `ENGINE`, or `DISK_FULL` when that is the engine's own reason. */
export function engineError(error: unknown, doing: string): ImageError {
  if (error instanceof ImageError) return error;
  const text = textOf(error);
  if (/no space left on device|disk quota exceeded/i.test(text)) {
    return new ImageError(
      'DISK_FULL',
      `the engine has no space left while ${doing}; free space on the device (old images, logs), then push or retry`,
      { cause: error },
    );
  }
  return new ImageError(
    'ENGINE',
    `${doing} failed (${text}); check that the engine runs (docker info), then retry`,
    {
      cause: error,
    },
  );
}

export const aborted = (signal: AbortSignal): ImageError =>
  new ImageError(
    'ABORTED',
    'the installation was called off; what was fetched is kept for the next attempt',
    {
      cause: signal.reason,
    },
  );
