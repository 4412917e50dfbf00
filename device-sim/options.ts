/** The simulator's options and errors; parsed here once, for the command line, `midair sim` and the tests alike. */
import * as v from 'valibot';

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
  /** Where `rotors` and `camera` appear; made if missing. Unix socket paths hold 107 bytes. */
  dir: v.pipe(
    v.string(),
    v.minLength(1, 'must name a directory'),
    v.check(
      (dir) => Buffer.byteLength(dir) <= 90,
      'must be at most 90 bytes long, since a socket is made in it',
    ),
  ),
  /** Decides all noise and biases. */
  seed: v.optional(
    v.pipe(
      v.number('must be a number'),
      v.integer('must be an integer'),
      v.minValue(0, 'must be at least 0'),
      v.maxValue(2 ** 32 - 1, 'must be below 2^32'),
    ),
    1,
  ),
  camera: v.optional(v.boolean(), true),
  /** Port of the HTTP API on 127.0.0.1; 0 lets the kernel choose. */
  port: v.optional(
    v.pipe(
      v.number('must be a number'),
      v.integer('must be an integer'),
      v.minValue(0, 'must be at least 0'),
      v.maxValue(65_535, 'must be at most 65535'),
    ),
    0,
  ),
  /** Ask for SCHED_FIFO, as the board stands for separate hardware; flies without, and says so. */
  fifo: v.optional(v.boolean(), true),
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
