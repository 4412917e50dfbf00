/** What a failure needs to be done: whom, how, and the ledger's pages for it. */
import type { Parameters } from '#cli/chaos/experiment.ts';
import type { Undo } from '#cli/chaos/ledger.ts';
import type { Thing } from '#cli/chaos/targets.ts';

export interface Deed<T extends Thing = Thing> {
  /** The injection's. */
  readonly id: string;
  readonly target: T;
  readonly parameters: Parameters;
  readonly seed: number;
  /** Left until it is to be undone; 0 or less: too late to begin. */
  readonly leftMs: () => number;
  /**
   * Makes durable what undoes it; the first call comes before anything is done, later ones when there is more to undo.
   * @throws ChaosError `TARGET_GONE` if the time is over by now
   */
  readonly note: (undo: Undo, text: string) => void;
  /** Of the ledger: its disk is never filled. */
  readonly ledgerDirectory: string;
}

/** Does it. @returns what was done, in words. If it throws, what was noted is undone. */
export type Inject = (deed: Deed) => Promise<string>;
