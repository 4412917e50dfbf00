/** Runs a program and tells how long it took and how much memory it had at its most, by the kernel's own figure. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

export interface Run {
  ok: boolean;
  ms: number;
  /** VmHWM, of the program and those that it starts: the largest of them. */
  peakBytes: number;
  stdout: string;
}

/** Often enough: the figure only grows, and what it grows in a program's last moments is missed. */
const LOOK_MS = 10;

const peakOf = (pid: number): number => {
  try {
    return 1024 * Number(/^VmHWM:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
};

export async function measured(command: string, args: readonly string[]): Promise<Run> {
  const startMs = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  const parts: Buffer[] = [];
  child.stdout.on('data', (part: Buffer) => parts.push(part));
  let peakBytes = 0;
  const timer = setInterval(() => {
    if (child.pid !== undefined) peakBytes = Math.max(peakBytes, peakOf(child.pid));
  }, LOOK_MS);
  const ok = await new Promise<boolean>((resolve) => {
    child.once('error', () => resolve(false));
    child.once('close', (code) => resolve(code === 0));
  });
  clearInterval(timer);
  return { ok, ms: performance.now() - startMs, peakBytes, stdout: Buffer.concat(parts).toString() };
}
