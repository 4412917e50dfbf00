/**
 * What a reader makes of one case, judged: the right bytes, or a DeltaError with a known code, within its memory and time.
 *
 * Invariant: a verdict is a failure whenever the reader is wrong in any of these, also when it gives out a whole layer and
 * complains afterwards: by then an engine would have it.
 */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { applyLayer, DeltaError, type DeltaErrorCode, memoryAccess, openDelta } from '#deltas/index.ts';
import { memoryBasis } from '#test/deltas-kit.ts';
import type { Case } from './mutate.ts';

/** What docs/delta-format.md and apply.ts promise; and a time that only something endless takes, of this process's own. */
export const BOUNDS = { memoryBytesMax: 64 * 1024 ** 2, cpuMsMax: 5_000 } as const;

const CODES: readonly DeltaErrorCode[] = [
  'BASIS_MISMATCH',
  'CORRUPT',
  'TRUNCATED',
  'TOO_LARGE',
  'UNSUPPORTED',
  'NOT_FOUND',
];

export interface Verdict {
  /** `right`, or the error's code. */
  outcome: string;
  cpuMs: number;
  /** The kernel's peak over what the process had before; 0 where the kernel does not tell. */
  memoryBytes: number;
  failure?: string;
}

const statusField = (name: string): number =>
  1024 *
  Number(new RegExp(`^${name}:\\s*(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0);

/** Starts a peak of its own (proc(5), clear_refs 5). @returns what tells it */
function peak(): () => number {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
    const before = statusField('VmRSS');
    return () => Math.max(0, statusField('VmHWM') - before);
  } catch {
    return () => 0;
  }
}

export async function judge({ subject, artifact, basis }: Case): Promise<Verdict> {
  const memory = peak();
  const before = process.cpuUsage();
  const hash = createHash('sha256');
  let bytes = 0;
  let outcome = 'right';
  let failure: string | undefined;
  try {
    const delta = await openDelta(memoryAccess(artifact));
    // As an agent asks: with the length that its target says.
    const limits = { outputBytesMax: subject.bytes };
    for await (const chunk of applyLayer(delta, subject.diffId, memoryBasis(basis), limits)) {
      hash.update(chunk);
      bytes += chunk.length;
    }
    if (`sha256:${hash.digest('hex')}` !== subject.diffId) failure = 'wrong bytes were called right';
  } catch (error) {
    const code = error instanceof DeltaError ? error.code : undefined;
    outcome = code ?? 'none';
    if (code === undefined || !CODES.includes(code))
      failure = `not a DeltaError of a known code: ${error instanceof Error ? error.stack : String(error)}`;
    else if (bytes >= subject.bytes) failure = `${code} came after all ${bytes} bytes were given out`;
  }
  const { user, system } = process.cpuUsage(before);
  const [cpuMs, memoryBytes] = [(user + system) / 1000, memory()];
  if (cpuMs > BOUNDS.cpuMsMax) failure ??= `it took ${Math.round(cpuMs)} ms of CPU`;
  if (memoryBytes > BOUNDS.memoryBytesMax) failure ??= `it took ${Math.round(memoryBytes / 1024 ** 2)} MiB`;
  return { outcome, cpuMs, memoryBytes, ...(failure === undefined ? {} : { failure }) };
}
