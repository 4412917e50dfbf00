/**
 * What failure injection refuses, each with a stable code and what to do next.
 *
 * Invariant: `status` is HTTP's: 4xx is the caller's, 5xx the injector's or the device's.
 */
export const STATUS = {
  INVALID_EXPERIMENT: 400,
  INVALID_REQUEST: 400,
  /** Something that the criteria match is not marked as a test device. */
  NOT_A_TEST_DEVICE: 403,
  /** From a browser's page: no experiment of ours comes that way. */
  FOREIGN_ORIGIN: 403,
  NO_SUCH_EXPERIMENT: 404,
  NOT_FOUND: 404,
  TOO_MANY_EXPERIMENTS: 409,
  TOO_LARGE: 413,
  /** The injector is on its way out. */
  CLOSING: 503,
  /** Another injector has this directory. */
  ALREADY_RUNNING: 409,
  /** It listens on this machine only. */
  NOT_LOOPBACK: 400,
  /** The directory of the ledger cannot be used. */
  DIRECTORY: 500,
  /** Nothing is injected that nobody would undo. */
  NO_WATCHDOG: 500,
  /** The target is gone, or another runs under its number. */
  TARGET_GONE: 409,
  /** Only a small disk of its own is filled. */
  NOT_A_SMALL_DISK: 409,
  /** The ledger would be on the disk that is filled. */
  LEDGER_ON_THAT_DISK: 409,
  /** The link's process does not answer. */
  WIRE_SILENT: 502,
  NAMESPACE: 500,
  INJECTOR_UNREACHABLE: 502,
  INTERNAL: 500,
} as const;

export type ChaosCode = keyof typeof STATUS;

export class ChaosError extends Error {
  override readonly name = 'ChaosError';
  readonly code: ChaosCode;
  constructor(code: ChaosCode, text: string, options?: ErrorOptions) {
    super(text, options);
    this.code = code;
  }
  get status(): (typeof STATUS)[ChaosCode] {
    return STATUS[this.code];
  }
}

export const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | null)?.code;
export const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
