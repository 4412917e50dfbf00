/** Vitest reporter: writes how many tests passed and failed to the file that scripts/test.ts names. */
import { writeFileSync } from 'node:fs';
import type { Reporter, SerializedError, TestModule } from 'vitest/node';

export default class CountsReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const file = process.env.MIDAIR_TEST_COUNTS;
    if (file === undefined) return;
    let passed = 0;
    // An error outside of tests, and a file or a hook that failed, count once each.
    let failed = unhandled.length;
    for (const module of modules) {
      failed += module.errors().length;
      for (const suite of module.children.allSuites()) failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'passed') passed += 1;
        // Never ended: the run was cut short.
        if (state === 'failed' || state === 'pending') failed += 1;
      }
    }
    writeFileSync(file, JSON.stringify({ passed, failed }));
  }
}
