/**
/**
 * `node device-sim/main.ts --dir DIR [--board NAME] [--baud N] [--seed N] [--airframe NAME] [--wind SPEED,FROM,TURBULENCE,GUST]
 * [--port N] [--no-camera] [--no-fifo] [--signing-key FILE]`, or `midair sim`.
 */
import { parseArgs } from 'node:util';
import type { BoardName } from '#device-sim/boards/profile.ts';
import { parseWind, SimError, type SimOptions } from '#device-sim/options.ts';
import { startSim } from '#device-sim/sim.ts';

/** Flies until SIGINT or SIGTERM, then leaves nothing behind. Prints one JSON line when ready ({@link Ready}). */
export const run = async (options: SimOptions): Promise<void> => {
  const sim = await startSim(options);
  const stop = (): void => void sim.close();
  // Never taken off again: a second signal (a shell's `timeout` sends two) must not cut the cleaning short.
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.stdout.write(`${JSON.stringify(sim.ready)}\n`);
  try {
    await sim.ended;
  } finally {
    await sim.close();
  }
};

/** Number('') would be 0. */
const numberOf = (text: string): number => (text.trim() === '' ? Number.NaN : Number(text));

const options = (): SimOptions => {
  const { values } = parseArgs({
    options: {
      dir: { type: 'string' },
      board: { type: 'string' },
      baud: { type: 'string' },
      seed: { type: 'string' },
      airframe: { type: 'string' },
      wind: { type: 'string' },
      port: { type: 'string' },
      camera: { type: 'boolean', default: true },
      fifo: { type: 'boolean', default: true },
      'signing-key': { type: 'string' },
      'log-level': { type: 'string' },
    },
    allowNegative: true,
  });
  const { dir = '', board, baud, seed, airframe, wind, port, camera, fifo } = values;
  const { 'signing-key': signingKey, 'log-level': logLevel } = values;
  return {
    dir,
    camera,
    fifo,
    ...(board === undefined ? {} : { board: board as BoardName }),
    ...(baud === undefined ? {} : { baud: numberOf(baud) }),
    ...(seed === undefined ? {} : { seed: numberOf(seed) }),
    // Whatever was said goes to the parser, which knows the names.
    ...(airframe === undefined ? {} : { airframe: airframe as 'sih' }),
    ...(wind === undefined ? {} : { wind: parseWind(wind) }),
    ...(port === undefined ? {} : { port: numberOf(port) }),
    ...(signingKey === undefined ? {} : { signingKey }),
    ...(logLevel === undefined ? {} : { logLevel: logLevel as 'info' }),
  };
};

if (import.meta.main) {
  try {
    await run(options());
  } catch (error) {
    const known =
      error instanceof SimError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS');
    process.stderr.write(
      `midair sim: ${known ? (error as Error).message : String((error as Error).stack)}\n`,
    );
    process.exitCode = 1;
  }
}
