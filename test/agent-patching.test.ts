/** A process that patches stands back: where its control group goes, in both versions, and what happens where none can be. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import os, { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Roots } from '#agent/engine-cgroup.ts';
import { LIMITS } from '#agent/limits.ts';
import { standBack } from '#agent/patching.ts';

let root: string;
let roots: Roots;
let child: ChildProcess;
const warnings: string[] = [];
const log = { warn: (_data: object, text: string) => void warnings.push(text) };

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'midair-patching-'));
  roots = { proc: join(root, 'proc'), cgroup: join(root, 'cgroup') };
  mkdirSync(join(roots.proc, 'self'), { recursive: true });
  warnings.length = 0;
  child = spawn('sleep', ['60'], { stdio: 'ignore', detached: true });
});
afterEach(async () => {
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
  rmSync(root, { recursive: true, force: true });
});

const own = (text: string): void => writeFileSync(join(roots.proc, 'self', 'cgroup'), text);
/** As the kernel shows a group: with its files. */
const group = (path: string, files: string[]): string => {
  const directory = join(roots.cgroup, path);
  mkdirSync(directory, { recursive: true });
  for (const file of files) writeFileSync(join(directory, file), '');
  return directory;
};
const text = (...path: string[]): string => readFileSync(join(roots.cgroup, ...path), 'utf8');
const pid = (): number => child.pid as number;

test('v1: a group below its own, of little weight, in cpu and where there are weights in blkio', () => {
  own('5:blkio:/agents/one\n3:cpu,cpuacct:/agents/one\n0::/\n');
  group('cpu/agents/one/midair-patching', ['cpu.shares', 'cgroup.procs']);
  group('blkio/agents/one/midair-patching', ['blkio.bfq.weight', 'cgroup.procs']);
  standBack(pid(), log, roots);
  expect(text('cpu/agents/one/midair-patching/cpu.shares')).toBe(String(LIMITS.patchingCpuShares));
  expect(text('cpu/agents/one/midair-patching/cgroup.procs')).toBe(String(pid()));
  expect(text('blkio/agents/one/midair-patching/blkio.bfq.weight')).toBe(String(LIMITS.patchingIoWeight));
  expect(text('blkio/agents/one/midair-patching/cgroup.procs')).toBe(String(pid()));
  expect(os.getPriority(pid())).toBe(19);
  expect(warnings).toEqual([]);
});

test('v2: a threaded group below its own, which may have processes; at the root a plain one with io, too', () => {
  own('0::/system.slice/midair.service\n');
  const service = group('system.slice/midair.service', ['cgroup.subtree_control']);
  standBack(pid(), log, roots);
  const made = 'system.slice/midair.service/midair-patching';
  expect(text(made, 'cgroup.type')).toBe('threaded');
  expect(readFileSync(join(service, 'cgroup.subtree_control'), 'utf8')).toBe('+cpu');
  expect(text(made, 'cpu.weight')).toBe(String(LIMITS.patchingCpuWeight));
  expect(text(made, 'cgroup.procs')).toBe(String(pid()));

  own('0::/\n');
  group('midair-patching', ['io.weight']);
  standBack(pid(), log, roots);
  expect(existsSync(join(roots.cgroup, 'midair-patching/cgroup.type'))).toBe(false);
  expect(text('cgroup.subtree_control')).toBe('+cpu +io');
  expect(text('midair-patching/io.weight')).toBe(String(LIMITS.patchingIoWeight));
  expect(warnings).toEqual([]);
});

test('where there can be none it is said, and the priority is low all the same', () => {
  own('0::/missing/group\n');
  writeFileSync(join(root, 'cgroup'), 'a file where the tree should be');
  standBack(pid(), log, roots)();
  expect(warnings).toEqual(['patching without a control group of little weight']);
  expect(os.getPriority(pid())).toBe(19);
});

const V1 = '/sys/fs/cgroup/cpu';
describe.skipIf(!existsSync(join(V1, 'cpu.shares')) || process.getuid?.() !== 0)('this kernel, v1', () => {
  test('moves the process, and the group is gone when it has ended', async () => {
    const letGo = standBack(pid(), log);
    const line = readFileSync(`/proc/${pid()}/cgroup`, 'utf8')
      .split('\n')
      .find((each) => /[:,]cpu[:,]/.test(each));
    expect(line).toMatch(/\/midair-patching$/);
    const directory = join(V1, line?.split(':')[2] ?? '');
    expect(readFileSync(join(directory, 'cpu.shares'), 'utf8').trim()).toBe(String(LIMITS.patchingCpuShares));
    expect(readFileSync(`/proc/self/cgroup`, 'utf8')).not.toContain('midair-patching');
    expect(warnings).toEqual([]);
    letGo();
    // Not while it lives in it.
    expect(existsSync(directory)).toBe(true);
  });
});

const V2 = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((path) =>
  existsSync(join(path, 'cgroup.subtree_control')),
);
describe.skipIf(V2 === undefined || process.getuid?.() !== 0)('this kernel, v2', () => {
  test('lets a process into a threaded group beside one that lives above it', async () => {
    // The controllers may belong to v1 here; that the tree allows it is what is tried.
    const above = join(V2 as string, `midair-test-${process.pid}`);
    const below = join(above, 'midair-patching');
    const other = spawn('sleep', ['60'], { stdio: 'ignore' });
    try {
      mkdirSync(above);
      writeFileSync(join(above, 'cgroup.procs'), String(other.pid));
      writeFileSync(join(above, 'cgroup.procs'), String(pid()));
      mkdirSync(below);
      writeFileSync(join(below, 'cgroup.type'), 'threaded');
      writeFileSync(join(below, 'cgroup.procs'), String(pid()));
      expect(readFileSync(`/proc/${pid()}/cgroup`, 'utf8')).toContain(
        `/midair-test-${process.pid}/midair-patching`,
      );
      expect(readFileSync(`/proc/${other.pid}/cgroup`, 'utf8')).toMatch(
        new RegExp(`/midair-test-${process.pid}\\n`),
      );
    } finally {
      const ends = [once(other, 'exit'), once(child, 'exit')];
      other.kill('SIGKILL');
      child.kill('SIGKILL');
      await Promise.all(ends);
      child = spawn('sleep', ['60'], { stdio: 'ignore' });
      for (const directory of [below, above]) if (existsSync(directory)) rmdirSync(directory);
    }
  });
});
