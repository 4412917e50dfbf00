/** Columns of a chunk, written: their lengths first, then they. */
import { ByteWriter } from '#deltas/bytes.ts';

export const writers = <Name extends string>(names: readonly Name[]): Record<Name, ByteWriter> =>
  Object.fromEntries(names.map((name) => [name, new ByteWriter()])) as Record<Name, ByteWriter>;

/** @param head what stands before the columns' lengths */
export function joinColumns<Name extends string>(
  head: ByteWriter,
  names: readonly Name[],
  columns: Record<Name, ByteWriter>,
): Buffer {
  for (const name of names) head.integer(columns[name].length);
  for (const name of names) head.bytes(columns[name].finish());
  return head.finish();
}
