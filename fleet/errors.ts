/**
 * What can go wrong at the hub, each with a stable code, whose fault it is, and what to do next.
 *
 * Invariant: whatever reaches a person (the pusher's terminal, an API's answer) has a code, a text and a next step.
 */

/** `pusher`: fix the push. `caller`: fix the request. `hub`: see to the machine that the hub runs on. */
export type Blame = 'pusher' | 'caller' | 'hub';

const BLAME = {
  BAD_REQUEST: 'caller',
  NOT_FOUND: 'caller',
  AMBIGUOUS: 'caller',
  TOO_LARGE: 'caller',
  BAD_APP_NAME: 'pusher',
  BRANCH_DELETED: 'pusher',
  TWO_BRANCHES: 'pusher',
  TOO_MANY_REFS: 'pusher',
  PUSH_OVERTAKEN: 'pusher',
  NO_DOCKERFILE: 'pusher',
  COMPOSE_UNSUPPORTED: 'pusher',
  DOCKERFILE_INVALID: 'pusher',
  TEMPLATE_VARIABLE: 'pusher',
  BASE_IMAGE_MISSING: 'pusher',
  BUILD_FAILED: 'pusher',
  BUILD_TIMEOUT: 'pusher',
  PUSH_CANCELLED: 'pusher',
  IMAGE_TOO_LARGE: 'pusher',
  ENGINE_UNREACHABLE: 'hub',
  ENGINE_ANSWER: 'hub',
  IMAGE_MISMATCH: 'hub',
  BLOB_MISSING: 'hub',
  DELTA_FAILED: 'hub',
  GIT_FAILED: 'hub',
  DISK_FULL: 'hub',
  BUSY: 'hub',
  HUB_RUNNING: 'hub',
  ADDRESS_IN_USE: 'hub',
  STORE_NEWER: 'hub',
  INTERNAL: 'hub',
} as const satisfies Record<string, Blame>;
export type FleetErrorCode = keyof typeof BLAME;

export class FleetError extends Error {
  override readonly name = 'FleetError';
  readonly code: FleetErrorCode;
  readonly blame: Blame;
  /** What the reader can do about it, as a sentence. */
  readonly next: string;

  constructor(code: FleetErrorCode, text: string, next: string, cause?: unknown) {
    super(text, cause === undefined ? {} : { cause });
    this.code = code;
    this.blame = BLAME[code];
    this.next = next;
  }
}

/** `code` of a system or library error, '' if it has none. */
export function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null || !('code' in error)) return '';
  return typeof error.code === 'string' ? error.code : '';
}

/** SQLITE_FULL, as node:sqlite gives it. */
const SQLITE_FULL = 13;

/** Any thrown thing as a FleetError: those of ours unchanged, known system errors named, the rest INTERNAL. */
export function asFleetError(error: unknown): FleetError {
  if (error instanceof FleetError) return error;
  const text = error instanceof Error ? error.message : String(error);
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof FleetError) return cause;
    const full = 'errcode' in cause && cause.errcode === SQLITE_FULL;
    if (full || codeOf(cause) === 'ENOSPC' || /no space left on device/i.test(cause.message)) {
      return new FleetError(
        'DISK_FULL',
        "the hub's disk is full",
        'free space where the hub keeps its directory and where its engine keeps images, then push again; nothing was lost',
        error,
      );
    }
  }
  if (
    ['ECONNREFUSED', 'ENOENT', 'EACCES', 'ECONNRESET', 'EPIPE'].includes(codeOf(error)) &&
    isConnect(error)
  ) {
    return new FleetError(
      'ENGINE_UNREACHABLE',
      `the hub cannot reach its container engine: ${text}`,
      'start the engine, or give the hub the right one with --engine, then push again',
      error,
    );
  }
  if (typeof error === 'object' && error !== null && 'statusCode' in error) {
    return new FleetError(
      'ENGINE_ANSWER',
      `the container engine refused: ${text.trim()}`,
      "see the engine's log, then push again",
      error,
    );
  }
  return new FleetError('INTERNAL', text, "see the hub's log; this is a fault of the hub", error);
}

const isConnect = (error: unknown): boolean =>
  codeOf(error) === 'ECONNREFUSED' ||
  (typeof error === 'object' &&
    error !== null &&
    'syscall' in error &&
    ['connect', 'read', 'write'].includes(String(error.syscall)));
