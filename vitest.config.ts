/**
 * Two projects, one after the other: `unit` on two workers, then `flight` one file at a time.
 *
 * Invariant: what measures real time or needs an engine never runs beside anything else. A file says so itself:
 * by its name (`e2e-`, `browser-`), by `MIDAIR_TEST_ENGINE` in its text, or by the marker `@flight`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { defineConfig } from 'vitest/config';
import { LIMITS } from './cli/limits.ts';

const files = readdirSync(new URL('./test/', import.meta.url)).filter((name) => name.endsWith('.test.ts'));
const isFlight = (name: string) =>
  /^(e2e|browser)-/.test(name) ||
  /MIDAIR_TEST_ENGINE|@flight/.test(readFileSync(new URL(`./test/${name}`, import.meta.url), 'utf8'));
const named = (flight: boolean) =>
  files.filter((name) => isFlight(name) === flight).map((name) => `test/${name}`);

const common = { pool: 'forks' as const, testTimeout: 60_000, hookTimeout: 120_000 };

/**
 * A story pushes, waits for the update and then for the hover. Each of these waits ends by itself (cli/demo/world.ts) and says what it
 * waited for and where the logs are; the runner only says "timed out", so it must be the last to lose its patience.
 */
const storyMsMax = LIMITS.pushMsMax + 2 * LIMITS.updateMsMax + 60_000;

export default defineConfig({
  test: {
    projects: [
      {
        test: { ...common, name: 'unit', include: named(false), maxWorkers: 2, sequence: { groupOrder: 0 } },
      },
      {
        test: {
          ...common,
          name: 'flight',
          testTimeout: storyMsMax,
          hookTimeout: storyMsMax,
          include: named(true),
          fileParallelism: false,
          maxWorkers: 1,
          globalSetup: 'test/setup-engine.ts',
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
