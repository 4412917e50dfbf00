/**
 * The command line of a benchmark, a soak, a script: `--help` is answered on stdout with status 0; a word that is not known, or a
 * number out of its bounds, on stderr with the usage and status 2, before anything is started.
 */
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** The number that `text` is, within bounds that are themselves allowed. */
type Read = (option: string, text: string, low: number, high: number) => number;

interface CommandLine<T extends ParseArgsConfig> {
  values: ReturnType<typeof parseArgs<T>>['values'];
  positionals: ReturnType<typeof parseArgs<T>>['positionals'];
  /** Says why, and how it is used; status 2. */
  refuse: (why: string) => never;
  number: Read;
  /** Not 0. */
  positive: Read;
  whole: Read;
}

/** @param usage begins with `usage: `; `--help` is added to `config`'s options */
export function commandLine<const T extends ParseArgsConfig>(usage: string, config: T): CommandLine<T> {
  const refuse = (why: string): never => {
    process.stderr.write(`${why}\n${usage.trimEnd()}\n`);
    process.exit(2);
  };
  const reader =
    (kind: string, fits: (value: number) => boolean): Read =>
    (option, text, low, high) => {
      const value = Number(text);
      // Number('') would be 0.
      if (text.trim() !== '' && fits(value) && value >= low && value <= high) return value;
      return refuse(`--${option} must be a ${kind} from ${low} to ${high}, not ${JSON.stringify(text)}`);
    };
  const number = reader('number', () => true);
  const positive = reader('positive number', (value) => value > 0);
  const whole = reader('whole number', Number.isInteger);
  try {
    const { values, positionals } = parseArgs({
      ...config,
      options: { ...config.options, help: { type: 'boolean' } },
    } as ParseArgsConfig) as ReturnType<typeof parseArgs<T>>;
    if ((values as { help?: boolean }).help === true) {
      process.stdout.write(`${usage.trimEnd()}\n`);
      process.exit(0);
    }
    return { values, positionals, refuse, number, positive, whole };
  } catch (error) {
    return refuse((error as Error).message);
  }
}
