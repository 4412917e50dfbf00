/** The process that the cases run in: told ranges of seeds, tells each verdict. It may die of one; its parent then knows of which. */
import { caseOf, subjects } from './mutate.ts';
import { judge, type Verdict } from './outcome.ts';

export type ToChild = { from: number; to: number };
export type FromChild = { seed: number } | ({ seed: number; subject: string; mutation: string } & Verdict);

const all = await subjects();
process.on('disconnect', () => process.exit(0));
process.on('message', async ({ from, to }: ToChild) => {
  for (let seed = from; seed < to; seed += 1) {
    process.send?.({ seed });
    const one = await caseOf(all, seed);
    // What the case itself took is not the reader's.
    globalThis.gc?.();
    const verdict = await judge(one);
    process.send?.({ seed, subject: one.subject.name, mutation: one.mutation, ...verdict });
  }
});
process.send?.('ready');
