/** What docs/simulated-drone.md shows is what the physics says today. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { fill, PAGE, PICTURE, picture } from '#scripts/simulated-drone.ts';

test('tables and picture of the page are computed; after a change: node scripts/simulated-drone.ts', () => {
  const page = readFileSync(PAGE, 'utf8');
  expect(fill(page)).toBe(page);
  expect(readFileSync(PICTURE, 'utf8')).toBe(picture());
});

test('a page without its places is no page', () => {
  expect(() => fill('# Nothing')).toThrow('no <!-- airframes -->');
});
