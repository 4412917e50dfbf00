/** One row of the conformance table. */
import type { Seat, World } from '#handover/conform/world.ts';

export interface Case {
  readonly group: 'good path' | 'watched' | 'bad input' | "agent's death";
  /** Stable; `--only` matches on it. */
  readonly id: string;
  readonly expected: string;
  /** `owner`: begins with a program that owns everything. `nobody`: in a world of its own. */
  readonly begins: 'owner' | 'nobody';
  /**
   * @returns what was seen, when it is as expected
   * @throws Miss with what was seen instead
   */
  readonly run: (world: World, owner: Seat) => Promise<string>;
}
