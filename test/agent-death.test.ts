/** When a process counts as dead although the kernel is still at it, and when it does not. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';
import { beginsToEnd, escort, isEnding, lift, setPriority, watchDeath } from '#agent/death.ts';
import { LIMITS } from '#agent/limits.ts';
import { parseStat } from '#agent/proc-stat.ts';
import { BOUNDS } from '#handover/bounds.ts';
import { setFifo } from '#handover/realtime.ts';

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** It has printed its first line. */
const start = async (command: string, ...args: string[]): Promise<ChildProcess & { pid: number }> => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  return child as ChildProcess & { pid: number };
};
const node = (text: string) =>
  start(process.execPath, '-e', `${text}; setInterval(() => 0, 1e6); console.log('up')`);
/** Without a turn of the event loop, in which Node would reap the child and its number would be free. */
const seen = (what: () => boolean): boolean => {
  const untilMs = performance.now() + 5_000;
  while (!what()) if (performance.now() > untilMs) return false;
  return true;
};

/** Its first thread has ended, another runs. */
const startHalfEnded = () =>
  start(
    'python3',
    '-c',
    [
      'import ctypes, platform, threading, time',
      'threading.Thread(target=lambda: (time.sleep(0.1), print("up", flush=True), time.sleep(60))).start()',
      // exit(2): of this thread alone.
      'ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0)',
    ].join('\n'),
  );

/** Real-time priority by thread, 0 where it has none: the 40th field of proc(5)'s stat. */
const priorities = (pid: number): Map<number, number> =>
  new Map(
    readdirSync(`/proc/${pid}/task`).map((id) => {
      const { field } = parseStat(readFileSync(`/proc/${pid}/task/${id}/stat`, 'latin1'));
      return [Number(id), Number(field(40))];
    }),
  );

const missing = setFifo('flies') ?? setFifo('nobody');
/** Above all who fly, where there is another core for these, and the system grants real time. */
const ENDING = missing === undefined && availableParallelism() > 1 ? BOUNDS.fifoPriority + 1 : 0;

describe('a process is ending', () => {
  it('from its kill on; not while it runs or stands still; when it is not there, it has ended', async () => {
    const child = await node('');
    expect(isEnding(process.pid)).toBe(false);
    expect(isEnding(child.pid)).toBe(false);
    child.kill('SIGSTOP');
    expect(isEnding(child.pid)).toBe(false);
    child.kill('SIGKILL');
    expect(seen(() => isEnding(child.pid))).toBe(true);
    await once(child, 'exit');
    expect(isEnding(child.pid)).toBe(true);
  });

  it('whatever it calls itself', async () => {
    const child = await node("process.title = 'a) Z 1 2 3 4 4 4'");
    expect(isEnding(child.pid)).toBe(false);
    child.kill('SIGKILL');
    expect(seen(() => isEnding(child.pid))).toBe(true);
  });

  it('not as long as one of its threads runs, though the first has ended', async () => {
    const child = await startHalfEnded();
    expect(beginsToEnd(child.pid)).toBe(true);
    expect(isEnding(child.pid)).toBe(false);
    // What runs is left alone.
    const now = priorities(child.pid);
    expect(now.size).toBe(2);
    expect(now.get(child.pid)).toBe(ENDING);
    now.delete(child.pid);
    expect([...now.values()]).toEqual([0]);
    child.kill('SIGKILL');
    expect(seen(() => isEnding(child.pid))).toBe(true);
  });
});

it('one that is escorted ends above all who fly; one that is not, as it is', async () => {
  const [escorted, other] = await Promise.all([startHalfEnded(), startHalfEnded()]);
  const leave = escort(escorted.pid);
  await expect.poll(() => priorities(escorted.pid).get(escorted.pid)).toBe(ENDING);
  expect(priorities(other.pid).get(other.pid)).toBe(0);
  leave();
  leave();
});

it.skipIf(missing !== undefined)(
  'all threads of who takes over get real time and give it back, but for those that have their own',
  async () => {
    const child = await node('');
    setPriority(child.pid, BOUNDS.fifoPriority);
    const before = priorities(child.pid);
    const giveBack = lift(child.pid);
    const lifted = priorities(child.pid);
    expect(lifted.get(child.pid)).toBe(BOUNDS.fifoPriority);
    lifted.delete(child.pid);
    expect(lifted.size).toBeGreaterThan(3);
    expect(new Set(lifted.values())).toEqual(new Set([LIMITS.urgentFifoPriority]));
    giveBack();
    expect(priorities(child.pid)).toEqual(before);
  },
);

it('nothing is lifted of a process that is not there', async () => {
  const child = await node('');
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(lift(child.pid)).not.toThrow();
});

it('its end is told, once, and not after the watch was ended', async () => {
  const [first, second] = await Promise.all([node(''), node('')]);
  const told: string[] = [];
  const dead = new Promise<void>((resolve) => {
    watchDeath(first.pid, () => resolve(void told.push('first')));
  });
  const end = watchDeath(second.pid, () => told.push('second'));
  end();
  end();
  second.kill('SIGKILL');
  await once(second, 'exit');
  first.kill('SIGKILL');
  await dead;
  expect(told).toEqual(['first']);
});
