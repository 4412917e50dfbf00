/** The simulator's options and errors; parsed here once, for the command line, `midair sim` and the tests alike. */
import * as v from 'valibot';
import { AIRFRAME_NAMES } from '#device-sim/airframes.ts';
import { BOARDS } from '#device-sim/boards/profile.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { CALM, TURBULENCE, type Turbulence, type WindOptions } from '#device-sim/wind.ts';

export type SimCode =
  | 'INVALID_OPTIONS'
  | 'IMPOSSIBLE_PARAMETERS'
  | 'DIRECTORY'
  | 'ALREADY_RUNNING'
  | 'NO_START';

/** `code` says what; the message says what to do next. */
export class SimError extends Error {
  override readonly name = 'SimError';
  readonly code: SimCode;
  constructor(code: SimCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

/** Faster air than in any hurricane is a slip of the unit. */
const WIND_MS_MAX = 100;
const WIND_FORM = 'expected SPEED[,FROM[,TURBULENCE[,GUST]]], for example 5,270,light';

/**
 * `SPEED[,FROM[,TURBULENCE[,GUST]]]`: m/s, degrees (a west wind is 270), none, light, moderate or severe, m/s on top.
 *
 * @throws SimError `INVALID_OPTIONS`, naming the part
 */
export const parseWind = (text: string): WindOptions => {
  const fail = (what: string): never => {
    throw new SimError('INVALID_OPTIONS', `wind: ${what}; ${WIND_FORM}`);
  };
  const parts = text.split(',').map((part) => part.trim());
  if (parts.length > 4) fail(`${parts.length} parts`);
  const number = (name: string, part: string | undefined, max: number): number => {
    if (part === undefined) return 0;
    const value = part === '' ? Number.NaN : Number(part);
    if (!(value >= 0 && value <= max)) fail(`${name} "${part}" is not a number from 0 to ${max}`);
    return value;
  };
  const turbulence = parts[2] ?? 'none';
  if (!TURBULENCE.includes(turbulence as Turbulence)) {
    fail(`turbulence "${turbulence}" is not one of ${TURBULENCE.join(', ')}`);
  }
  return {
    speedMS: number('speed', parts[0], WIND_MS_MAX),
    fromDeg: number('direction', parts[1], 360),
    turbulence: turbulence as Turbulence,
    gustMS: number('gust', parts[3], WIND_MS_MAX),
  };
};

const speed = v.pipe(
  v.number('must be a number'),
  v.minValue(0, 'must be at least 0'),
  v.maxValue(WIND_MS_MAX, `must be at most ${WIND_MS_MAX} m/s`),
);

/** What the board on a pty and the physics for ArduPilot (json-server.ts) both take. */
export const COMMON = {
  /** Decides all noise, biases and gusts. */
  seed: v.optional(
    v.pipe(
      v.number('must be a number'),
      v.integer('must be a whole number'),
      v.minValue(0, 'must be at least 0'),
      v.maxValue(2 ** 32 - 1, 'must be below 2^32'),
    ),
    1,
  ),
  /** Whose masses and motors: see airframes.ts. */
  airframe: v.optional(v.picklist(AIRFRAME_NAMES, `must be one of ${AIRFRAME_NAMES.join(', ')}`), 'sih'),
  wind: v.optional(
    v.strictObject({
      speedMS: speed,
      fromDeg: v.pipe(
        v.number('must be a number'),
        v.minValue(0, 'must be from 0 to 360'),
        v.maxValue(360, 'must be from 0 to 360'),
      ),
      turbulence: v.picklist(TURBULENCE, `must be one of ${TURBULENCE.join(', ')}`),
      gustMS: speed,
    }),
    CALM,
  ),
  /** Of the HTTP API on 127.0.0.1 or of the physics' UDP socket; 0 lets the system choose. */
  port: v.optional(
    v.pipe(
      v.number('must be a number'),
      v.integer('must be a whole number'),
      v.minValue(0, 'must be at least 0'),
      v.maxValue(65_535, 'must be at most 65535'),
    ),
    0,
  ),
  /** For the few lines that the simulator writes to standard error. */
  logLevel: v.optional(
    v.picklist(['debug', 'info', 'warn', 'error', 'silent'], 'must be debug, info, warn, error or silent'),
    'info',
  ),
};

const schema = v.strictObject({
  ...COMMON,
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
  /** Ask for SCHED_FIFO, as the board stands for separate hardware; it flies without, and says so. */
  fifo: v.optional(v.boolean('must be true or false'), true),
  /** File with the key of a signed link, as hex or base64: the board then hears only what is signed with it. */
  signingKey: v.optional(v.pipe(v.string('must name a file'), v.minLength(1, 'must name a file'))),
});
export type SimOptions = v.InferInput<typeof schema>;
export type ParsedOptions = v.InferOutput<typeof schema>;

/** @throws SimError `INVALID_OPTIONS`, naming the option */
export const parseWith = <T>(options: v.GenericSchema<unknown, T>, input: unknown): T => {
  const result = v.safeParse(options, input);
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new SimError('INVALID_OPTIONS', `${v.getDotPath(issue) ?? 'options'} ${issue.message}`);
};

/** @throws SimError `INVALID_OPTIONS`, naming the option */
export const parseOptions = (input: unknown): ParsedOptions => parseWith(schema, input);
