/**
 * One engine for all tests of project `flight`, with the base image: `MIDAIR_TEST_ENGINE` names it.
 *
 * Invariant: a private engine is stopped at the end, also when the run is interrupted. One that is named
 * already (`MIDAIR_TEST_ENGINE=unix:///… vitest run …`) is used as it is and left alone.
 */
import { ensureBaseImage } from '#cli/base-image.ts';
import { connect, openEngine } from '#cli/engine.ts';

export default async function setup(): Promise<() => Promise<void>> {
  const named = process.env.MIDAIR_TEST_ENGINE;
  if (named !== undefined) {
    await ensureBaseImage(connect(named));
    return async () => {};
  }
  const engine = await openEngine({ name: 'test', onProgress: (text) => process.stderr.write(`${text}\n`) });
  const onSignal = (name: NodeJS.Signals) => {
    void engine.close().finally(() => process.exit(name === 'SIGINT' ? 130 : 143));
  };
  for (const name of ['SIGTERM', 'SIGHUP'] as const) process.once(name, onSignal);
  try {
    await ensureBaseImage(engine.docker);
  } catch (error) {
    await engine.close();
    throw error;
  }
  process.env.MIDAIR_TEST_ENGINE = engine.url;
  return async () => {
    for (const name of ['SIGTERM', 'SIGHUP'] as const) process.removeListener(name, onSignal);
    await engine.close();
  };
}
