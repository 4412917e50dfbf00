/** Runs a program and tells how long it took, of how much of a core, and how much memory it had at its most: the kernel's figures, by GNU time. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Run {
  ok: boolean;
  ms: number;
  /** User and system time of the program and of those that it started. */
  cpuMs: number;
  /** Of the program and of those that it started: the largest of them. */
  peakBytes: number;
  stdout: string;
}

export async function measured(command: string, args: readonly string[]): Promise<Run> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-time-'));
  const figures = join(folder, 'figures');
  const startMs = performance.now();
  const child = spawn('/usr/bin/time', ['-q', '-f', '%M %U %S', '-o', figures, command, ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const parts: Buffer[] = [];
  child.stdout.on('data', (part: Buffer) => parts.push(part));
  const ok = await new Promise<boolean>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code === 0));
  });
  const ms = performance.now() - startMs;
  const [peakKib = 0, userS = 0, systemS = 0] = readFileSync(figures, 'utf8').trim().split(' ').map(Number);
  rmSync(folder, { recursive: true });
  const cpuMs = 1000 * (userS + systemS);
  return { ok, ms, cpuMs, peakBytes: 1024 * peakKib, stdout: Buffer.concat(parts).toString() };
}
