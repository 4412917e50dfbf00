/** Bugs to plant, each of which the soak must find. They stand where the product's own code is called, not in it. */
export const MUTANTS = [
  /** A journal's `fdatasync` returns without having done anything. */
  'skip-fsync',
  /** Agent and apps take a line for one of the present epoch, whatever it says. */
  'stale-epoch',
  /** A fence leaves its app frozen, and a hand-back thaws it. */
  'thaw-fenced',
  /** A giver that did not release in time is taken to have released. */
  'timeout-is-success',
  /** The hub tells its devices the target before it is durable. */
  'publish-before-commit',
] as const;
export type Mutant = 'none' | (typeof MUTANTS)[number];
