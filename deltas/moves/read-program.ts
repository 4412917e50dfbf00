/** A program or a module, whatever it is. */
import { readElf } from '#deltas/moves/elf.ts';
import type { Program, ReadAt } from '#deltas/moves/program.ts';
import { readWasm } from '#deltas/moves/wasm.ts';

/** @returns undefined when it is none, or one that is not understood */
export async function readProgram(read: ReadAt, size: number): Promise<Program | undefined> {
  return (await readElf(read, size)) ?? (await readWasm(read, size));
}
