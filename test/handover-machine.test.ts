import { expect, test } from 'vitest';
import { explore, type Mutant } from '#test/explore.ts';

test('no interleaving has two owners, a dead end, or nobody without a failsafe', () => {
  const found = explore(['connections', 'rotors']);
  console.log(`explored ${found.states} states, ${found.ends} ends`);
  expect(found.violation, found.trace.join('\n')).toBeNull();
});

test.each<[Mutant, RegExp]>([
  ['no-fence', /two owners/],
  ['timeout-is-success', /two owners/],
  ['any-epoch', /two owners|owner is dead/],
  ['no-persist', /two owners|lacks|dead|stuck/],
])('the exploration finds the planted fault: %s', (mutant, expected) => {
  const found = explore(['rotors'], mutant);
  expect(found.violation).toMatch(expected);
});
