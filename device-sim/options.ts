/** The simulator's options and errors; parsed here once, for the command line, `midair sim` and the tests alike. */
import * as v from 'valibot';
import { BOARDS } from '#device-sim/boards/profile.ts';
import { LIMITS } from '#device-sim/limits.ts';

export type SimCode = 'INVALID_OPTIONS' | 'DIRECTORY' | 'ALREADY_RUNNING' | 'NO_START';

/** `code` says what; the message says what to do next. */
export class SimError extends Error {
  override readonly name = 'SimError';
  readonly code: SimCode;
  constructor(code: SimCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

const schema = v.strictObject({
  /** Where `rotors` and `camera` appear; made if missing. */
  dir: v.pipe(
    v.string('must name a directory'),
    v.minLength(1, 'must name a directory'),
    // The address of a unix socket holds 107 bytes.
    v.check(
      (dir) => Buffer.byteLength(dir) <= 95,
      'must be at most 95 bytes long, since sockets are made in it',
    ),
  ),
  /** Decides all noise and biases. */
  seed: v.optional(
    v.pipe(
      v.number('must be a number'),
      v.integer('must be a whole number'),
      v.minValue(0, 'must be at least 0'),
      v.maxValue(2 ** 32 - 1, 'must be below 2^32'),
    ),
    1,
  ),
  /** The kind of flight controller: see boards/ and docs/flight-controller-boards.md. */
  board: v.optional(
    v.picklist(BOARDS, `must be ${BOARDS.join(', ').replace(/, (\w+)$/, ' or $1')}`),
    'direct',
  ),
  /** Of the wire: bytes are paced as a UART would, 10 bits each. Left out: as fast as the pty. */
  baud: v.optional(
    v.pipe(
      v.number('must be a number'),
      v.integer('must be a whole number'),
      v.minValue(LIMITS.baudMin, `must be at least ${LIMITS.baudMin}`),
      v.maxValue(LIMITS.baudMax, `must be at most ${LIMITS.baudMax}`),
    ),
  ),
  camera: v.optional(v.boolean('must be true or false'), true),
  /** Of the HTTP API on 127.0.0.1; 0 lets the system choose. */
  port: v.optional(
    v.pipe(
      v.number('must be a number'),
      v.integer('must be a whole number'),
      v.minValue(0, 'must be at least 0'),
      v.maxValue(65_535, 'must be at most 65535'),
    ),
    0,
  ),
  /** Ask for SCHED_FIFO, as the board stands for separate hardware; it flies without, and says so. */
  fifo: v.optional(v.boolean('must be true or false'), true),
  /** File with the key of a signed link, as hex or base64: the board then hears only what is signed with it. */
  signingKey: v.optional(v.pipe(v.string('must name a file'), v.minLength(1, 'must name a file'))),
  /** For the few lines that the simulator writes to standard error. */
  logLevel: v.optional(
    v.picklist(['debug', 'info', 'warn', 'error', 'silent'], 'must be debug, info, warn, error or silent'),
    'info',
  ),
});
export type SimOptions = v.InferInput<typeof schema>;
export type ParsedOptions = v.InferOutput<typeof schema>;

/** @throws SimError `INVALID_OPTIONS`, naming the option */
export const parseOptions = (input: unknown): ParsedOptions => {
  const result = v.safeParse(schema, input);
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new SimError('INVALID_OPTIONS', `${v.getDotPath(issue) ?? 'options'} ${issue.message}`);
};
