/** Go's table of functions. */
import type { Part, ReadAt } from '#deltas/moves/elf.ts';
import type { Finds, Stretch } from '#deltas/moves/references.ts';

export class GoFunctions {
  static async of(_part: Part, _read: ReadAt, _elf: unknown): Promise<GoFunctions> {
    return new GoFunctions();
  }
  async sweep(_finds: Finds, _stretch: Stretch): Promise<void> {}
}
