/**
 * A delta applied to nothing, as a device would apply it, and what that took: so a delta is known to be good, and what it costs,
 * before anybody fetches it.
 *
 * Invariant: the figures are this process's own by the operating system's account, so nothing else may run in it meanwhile.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { type ApplyLimits, applyLayer } from '#deltas/apply.ts';
import type { DeltaReader } from '#deltas/artifact.ts';
import type { Basis } from '#deltas/basis.ts';

export interface Cost {
  /** Length of the layers that it rebuilds. */
  outputBytes: number;
  /** Of the basis files that were open to it. */
  basisBytes?: number;
  /** Processor time, of all threads: what a device's own speed scales. */
  cpuMs: number;
  /** How far the process's memory rose; undefined where the kernel does not tell (Linux's VmHWM). */
  memoryBytes?: number;
}

/**
 * What a process that applies deltas is to be started with. Node otherwise lets tens of MiB of dead buffers pile up before it looks:
 * old ones up to a share of the machine's memory, young ones up to three times 16 MiB.
 */
export const APPLY_FLAGS: readonly string[] = ['--max-old-space-size=64', '--max-semi-space-size=1'];

const field = (name: string): number | undefined => {
  const value = new RegExp(`^${name}:\\s*(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return value === undefined ? undefined : 1024 * Number(value);
};

/** From here on the kernel's peak is of what follows (proc(5), clear_refs 5). @returns what tells how far it rose */
function watchMemory(): () => number | undefined {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
    const before = field('VmRSS');
    return () => {
      const peak = field('VmHWM');
      return before === undefined || peak === undefined ? undefined : Math.max(0, peak - before);
    };
  } catch {
    return () => undefined;
  }
}

/** @throws DeltaError as applyLayer does */
export async function tryDelta(
  delta: DeltaReader,
  basis: Basis,
  limits: ApplyLimits = {},
  onBytes: (bytes: number) => void = () => {},
): Promise<Cost> {
  const memory = watchMemory();
  const before = process.cpuUsage();
  let outputBytes = 0;
  for (const { diffId } of delta.layers) {
    for await (const chunk of applyLayer(delta, diffId, basis, limits)) {
      outputBytes += chunk.length;
      onBytes(chunk.length);
    }
  }
  const { user, system } = process.cpuUsage(before);
  const memoryBytes = memory();
  return {
    outputBytes,
    cpuMs: Math.round((user + system) / 1000),
    ...(memoryBytes !== undefined && { memoryBytes }),
  };
}
