/**
 * Directories of the parts that may be harmed, by the file that marks each: the agent's own (agent/test-device.ts), the
 * harness's for its hub and its drone, a link's own.
 *
 * Invariant: a mark is believed only if it is whole. It says that its device is a test device as long as it lies there; its
 * process is a target only while it runs.
 */
import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { MARK_FILE } from '#agent/test-device.ts';
import type { ProcessId } from '#cli/processes.ts';

const markSchema = v.object({
  role: v.picklist(['agent', 'hub', 'sim', 'link']),
  device: v.nullable(v.string()),
  pid: v.pipe(v.number(), v.safeInteger(), v.minValue(2)),
  startTicks: v.string(),
});
export interface Mark extends ProcessId {
  readonly role: 'agent' | 'hub' | 'sim' | 'link';
  readonly device: string | null;
  readonly directory: string;
}

/** Of `watch` itself, and of the directories up to two below it. */
const DEPTH_MAX = 2;
const ENTRIES_MAX = 10_000;

/** @returns those that are whole, sorted by directory */
export function findMarks(watch: readonly string[]): Mark[] {
  const found = new Map<string, Mark>();
  let left = ENTRIES_MAX;
  const look = (directory: string, depth: number) => {
    const mark = readMark(directory);
    if (mark !== undefined) found.set(directory, mark);
    if (depth === 0) return;
    let names: string[];
    try {
      names = readdirSync(directory, { withFileTypes: true }).flatMap((one) =>
        one.isDirectory() ? one.name : [],
      );
    } catch {
      return;
    }
    for (const name of names) if (left-- > 0) look(join(directory, name), depth - 1);
  };
  for (const directory of watch) look(directory, DEPTH_MAX);
  return [...found.values()].sort((a, b) => (a.directory < b.directory ? -1 : 1));
}

function readMark(directory: string): Mark | undefined {
  try {
    const result = v.safeParse(markSchema, JSON.parse(readFileSync(join(directory, MARK_FILE), 'utf8')));
    return result.success ? { ...result.output, directory } : undefined;
  } catch {
    return undefined;
  }
}

export function writeMark({ directory, ...mark }: Mark): void {
  const path = join(directory, MARK_FILE);
  writeFileSync(`${path}.new`, `${JSON.stringify(mark)}\n`);
  renameSync(`${path}.new`, path);
}
