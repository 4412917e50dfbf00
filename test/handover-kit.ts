/** What the handover tests share: counting descriptors, waiting for a condition, other processes, seeded chance. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from 'vitest';

/** Open descriptors, but for files that the test runner itself reads its modules from at any moment; nothing tested with this opens any. */
export const descriptorCount = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return !/^\/(?!dev\/|memfd:)/.test(readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // The one by which the folder itself is read.
      return false;
    }
  }).length;

/** Polls until it holds; the deadline is a failure, never a success. */
export const until = async (what: string, holds: () => boolean, withinMs = 10_000): Promise<void> => {
  const endMs = performance.now() + withinMs;
  for (let turns = 0; !holds(); turns++) {
    if (turns < 20) {
      await turn();
      continue;
    }
    if (performance.now() > endMs) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
};

export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A fresh directory, removed after the test. */
export const directory = (): string => {
  const path = mkdtempSync(join(tmpdir(), 'midair-handover-'));
  cleanUps.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
};

const cleanUps: (() => void)[] = [];
/** Runs after the test, last first, whatever became of it. */
export const cleanUp = (work: () => void): void => {
  cleanUps.push(work);
};
afterEach(() => {
  for (const work of cleanUps.splice(0).reverse()) work();
});

/** Another process running a file of test/handover-processes/, stopped after the test. */
export const otherProcess = (file: string, ...args: string[]): ChildProcess => {
  const path = new URL(`./handover-processes/${file}`, import.meta.url).pathname;
  const child = spawn(process.execPath, [path, ...args], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  cleanUp(() => child.kill('SIGKILL'));
  return child;
};

/** mulberry32: the same numbers for the same seed. */
export const seeded = (seed: number): (() => number) => {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
};
