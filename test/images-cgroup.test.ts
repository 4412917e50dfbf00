/**
 * Whose process is it: decided from the kernel's files. Directories stand in for /proc; the v2 freezer is the real
 * one where the machine has a cgroup2 tree to write to.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  containerOfPid,
  findCgroup,
  freeze,
  isAlive,
  isEmpty,
  isFrozen,
  killAll,
  type Roots,
  removeLeftovers,
  signalGuarded,
  startTicksOf,
  thawKilled,
  waitEmpty,
} from '#agent/engine-cgroup.ts';

const A = 'a'.repeat(64);
const B = 'b'.repeat(64);
const OUTER = 'c'.repeat(64);

let roots: Roots;
beforeEach(() => {
  const directory = mkdtempSync(join(tmpdir(), 'midair-cgroup-'));
  roots = { proc: join(directory, 'proc'), cgroup: join(directory, 'cgroup') };
  mkdirSync(roots.proc);
  mkdirSync(roots.cgroup);
});
afterEach(() => rmSync(join(roots.proc, '..'), { recursive: true, force: true }));

function process_(pid: number | 'self', cgroup: string, threads: string[] = ['S']): void {
  mkdirSync(join(roots.proc, String(pid), 'task'), { recursive: true });
  writeFileSync(join(roots.proc, String(pid), 'cgroup'), cgroup);
  for (const [index, state] of threads.entries()) {
    const task = join(roots.proc, String(pid), 'task', String(Number(pid) + index));
    mkdirSync(task);
    writeFileSync(join(task, 'stat'), `${pid} (a) b (c) ${state} 1 1\n`);
  }
}

const v1 = (path: string) => `9:name=systemd:/\n6:freezer:${path}\n0::/\n`;

describe('the container of a process', () => {
  test.each([
    ['cgroup v1, cgroupfs', v1(`/docker/${A}`), '6:freezer:/\n', A],
    ['cgroup v1, several controllers in one hierarchy', `5:cpu,freezer:/docker/${A}\n0::/\n`, '0::/\n', A],
    ['cgroup v2, systemd', `0::/system.slice/docker-${A}.scope\n`, '0::/user.slice\n', A],
    ['cgroup v2, seen from a container beside it', `0::/../${A}\n`, '0::/\n', A],
    ['an app that names a cgroup of its own after another container', v1(`/docker/${A}/x/${B}`), '0::/\n', A],
    [
      'the engine itself in a container',
      v1(`/docker/${OUTER}/docker/${A}`),
      `6:freezer:/docker/${OUTER}\n`,
      A,
    ],
    ['this process in a container beside it', v1(`/docker/${A}`), `6:freezer:/docker/${B}\n`, A],
    ['this process in the same container', v1(`/docker/${A}`), v1(`/docker/${A}`), A],
    ['a process of the host', v1('/user/me'), v1('/'), undefined],
    ['an id that is too short', v1(`/docker/${A.slice(1)}`), v1('/'), undefined],
  ])('%s', (_what, path, own, expected) => {
    process_(7, path);
    process_('self', own);
    expect(containerOfPid(7, roots)).toBe(expected);
  });

  test('is unknown for a process that is gone, or out of sight (0), or nonsense', () => {
    for (const pid of [99, 0, -1, 1.5, Number.NaN]) expect(containerOfPid(pid, roots)).toBeUndefined();
  });
});

describe('a signal', () => {
  const sent: [number, string][] = [];
  const send = (pid: number, signal: string) => void sent.push([pid, signal]);
  beforeEach(() => sent.splice(0));

  test('goes to a process of the container', () => {
    process_(7, v1(`/docker/${A}`));
    expect(signalGuarded(7, A, 'SIGKILL', roots, send)).toBe('sent');
    expect(sent).toEqual([[7, 'SIGKILL']]);
  });

  test('does not go to whoever got its number since', () => {
    process_(7, v1(`/docker/${B}`));
    process_(8, v1('/'));
    expect(signalGuarded(7, A, 'SIGKILL', roots, send)).toBe('other');
    expect(signalGuarded(8, A, 'SIGKILL', roots, send)).toBe('other');
    expect(signalGuarded(9, A, 'SIGKILL', roots, send)).toBe('gone');
    expect(sent).toEqual([]);
  });

  test.each([0, 1, -7, 1.5])('never goes to process %s', (pid) => {
    if (pid >= 0) process_(pid as 0, v1(`/docker/${A}`));
    expect(signalGuarded(pid, A, 'SIGKILL', roots, send)).toBe('other');
    expect(sent).toEqual([]);
  });

  test('tells a process that died meanwhile from one it may not signal', () => {
    process_(7, v1(`/docker/${A}`));
    const fails = (code: string) => () => {
      throw Object.assign(new Error(code), { code });
    };
    expect(signalGuarded(7, A, 'SIGKILL', roots, fails('ESRCH'))).toBe('gone');
    expect(signalGuarded(7, A, 'SIGKILL', roots, fails('EPERM'))).toBe('denied');
  });
});

describe('a frozen container on v1', () => {
  function frozen(pids: number[]): { version: 1; directory: string } {
    const directory = join(roots.cgroup, 'freezer/docker', A);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'freezer.state'), 'FROZEN\n');
    writeFileSync(join(directory, 'cgroup.procs'), `${pids.join('\n')}\n`);
    writeFileSync(join(directory, 'tasks'), `${pids.join('\n')}\n`);
    return { version: 1, directory };
  }
  const state = () => readFileSync(join(roots.cgroup, 'freezer/docker', A, 'freezer.state'), 'utf8').trim();

  test('is found by its id alone', () => {
    expect(findCgroup(A, undefined, roots)).toBeUndefined();
    const { directory } = frozen([7]);
    expect(findCgroup(A, undefined, roots)).toEqual({ version: 1, directory });
    expect(findCgroup(B, undefined, roots)).toBeUndefined();
  });

  test('is not thawed when one of its processes could not be signalled', async () => {
    process_(4_000_007, v1(`/docker/${B}`));
    expect(await killAll(frozen([4_000_007]), A, roots)).toBe(false);
    expect(await killAll(frozen([0]), A, roots)).toBe(false);
    expect(state()).toBe('FROZEN');
  });

  test('is thawed after the kill of its first process only if that is its only one', () => {
    expect(thawKilled(frozen([0, 0]))).toBe(false);
    expect(state()).toBe('FROZEN');
    expect(thawKilled(frozen([0]))).toBe(true);
    expect(state()).toBe('THAWED');
  });

  test('is empty only when no thread is in it or below it', () => {
    const cgroup = frozen([]);
    expect(isEmpty(cgroup)).toBe(true);
    mkdirSync(join(cgroup.directory, 'nested'));
    writeFileSync(join(cgroup.directory, 'nested/tasks'), '12\n');
    expect(isEmpty(cgroup)).toBe(false);
    rmSync(cgroup.directory, { recursive: true });
    expect(isEmpty(cgroup)).toBe(true);
  });
});

describe('groups that an engine left behind', () => {
  const group = (...path: string[]) => join(roots.cgroup, ...path);
  const none = new Set<string>();

  test('are removed, in each hierarchy and in v2; what is young or in use stays, and so does what is no container', () => {
    for (const hierarchy of ['cpu', 'freezer', '.'])
      mkdirSync(group(hierarchy, 'docker', A), { recursive: true });
    mkdirSync(group('cpu', 'docker', B, 'nested'), { recursive: true });
    mkdirSync(group('cpu', 'docker', 'buildkit'), { recursive: true });
    expect(removeLeftovers(none, roots, 60_000)).toBe(0);
    expect(removeLeftovers(none, roots, 0)).toBe(1);
    for (const hierarchy of ['cpu', 'freezer', '.'])
      expect(existsSync(group(hierarchy, 'docker', A))).toBe(false);
    expect(existsSync(group('cpu', 'docker', B))).toBe(true);
    expect(existsSync(group('cpu', 'docker', 'buildkit'))).toBe(true);
  });

  test('of a container that is known to have ended are removed at once', () => {
    for (const id of [A, B]) mkdirSync(group('cpu', 'docker', id), { recursive: true });
    expect(removeLeftovers(new Set([A]), roots, 60_000)).toBe(1);
    expect(existsSync(group('cpu', 'docker', A))).toBe(false);
    expect(existsSync(group('cpu', 'docker', B))).toBe(true);
  });

  const cpu = '/sys/fs/cgroup/cpu';
  test.skipIf(!existsSync(join(cpu, 'cpu.rt_runtime_us')))(
    'of this kernel: one with a process in it stays',
    async () => {
      const id = `${process.pid}`.padStart(64, '0');
      const parent = join(cpu, `midair-test-${process.pid}`);
      const real = join(parent, 'docker', id);
      mkdirSync(real, { recursive: true });
      const child = spawn('sleep', ['30']);
      try {
        writeFileSync(join(real, 'cgroup.procs'), String(child.pid));
        expect(removeLeftovers(none, { ...roots, cgroup: parent }, 0)).toBe(0);
        const ended = once(child, 'exit');
        child.kill('SIGKILL');
        await ended;
        expect(removeLeftovers(none, { ...roots, cgroup: parent }, 0)).toBe(1);
      } finally {
        child.kill('SIGKILL');
        for (const left of [real, join(parent, 'docker'), parent]) if (existsSync(left)) rmdirSync(left);
      }
    },
  );
});

test('a process is alive while any of its threads is, in its container', () => {
  process_(7, v1(`/docker/${A}`), ['Z', 'R']);
  process_(20, v1(`/docker/${A}`), ['Z', 'X']);
  expect(isAlive(A, 7, roots)).toBe(true);
  expect(isAlive(B, 7, roots)).toBe(false);
  expect(isAlive(A, 20, roots)).toBe(false);
  expect(isAlive(A, 99, roots)).toBe(false);
});

test('the start of a process is read past a name with brackets and spaces', () => {
  const fields = Array.from({ length: 40 }, (_, index) => String(index + 4));
  mkdirSync(join(roots.proc, '7'));
  writeFileSync(join(roots.proc, '7/stat'), `7 (a) b (c)) S ${fields.join(' ')}\n`);
  expect(startTicksOf(7, roots)).toBe(22);
  expect(startTicksOf(8, roots)).toBeUndefined();
  expect(startTicksOf(process.pid)).toBeGreaterThan(0);
});

const UNIFIED = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'].find((root) =>
  existsSync(join(root, 'cgroup.subtree_control')),
);
const writable = (() => {
  try {
    const probe = join(UNIFIED ?? '/nonexistent', `midair-probe-${process.pid}`);
    mkdirSync(probe);
    rmdirSync(probe);
    return true;
  } catch {
    return false;
  }
})();

describe.skipIf(!writable)('the v2 freezer of this kernel', () => {
  test('freezes, confirms, kills and becomes empty', async () => {
    const directory = join(UNIFIED as string, `midair-test-${process.pid}`);
    mkdirSync(directory);
    const children: ChildProcess[] = [];
    try {
      for (let each = 0; each < 2; each++) {
        const child = spawn('sh', ['-c', 'trap "" TERM; while :; do sleep 0.01; done'], { stdio: 'ignore' });
        children.push(child);
        writeFileSync(join(directory, 'cgroup.procs'), String(child.pid));
      }
      const cgroup = { version: 2 as const, directory };
      expect(isEmpty(cgroup)).toBe(false);
      expect(await freeze(cgroup)).toBe(true);
      expect(isFrozen(cgroup)).toBe(true);
      expect(isEmpty(cgroup)).toBe(false);
      expect(await killAll(cgroup, A)).toBe(true);
      expect(await waitEmpty(cgroup)).toBe(true);
    } finally {
      for (const child of children) {
        if (child.exitCode === null && child.signalCode === null) {
          child.kill('SIGKILL');
          writeFileSync(join(directory, 'cgroup.freeze'), '0');
          await once(child, 'exit');
        }
      }
      rmdirSync(directory);
    }
  });
});
