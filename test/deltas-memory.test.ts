/**
 * Applying takes what it takes whatever the image's length: the kernel's own figure at two sizes (@flight: others beside it would
 * cost it nothing, but it takes a core for a while). `npm run bench -- delta-memory` does the same with 0.3 and 3 GB.
 */
import { expect, test } from 'vitest';
import { memoryOf } from '../bench/deltas/memory.ts';

const MIB = 1024 ** 2;

test('ten times the image, the same memory', async () => {
  const small = await memoryOf(6e6);
  const large = await memoryOf(60e6);
  expect(large.outputBytes).toBeGreaterThan(9 * small.outputBytes);
  for (const { memoryBytes, outputBytes, imageBytes } of [small, large]) {
    expect(outputBytes).toBe(imageBytes);
    expect(memoryBytes).toBeGreaterThan(MIB);
    expect(memoryBytes).toBeLessThan(64 * MIB);
  }
  // Histories of 8 MiB that the small one does not fill, and no more.
  expect((large.memoryBytes ?? 0) - (small.memoryBytes ?? 0)).toBeLessThan(16 * MIB);
}, 300_000);
