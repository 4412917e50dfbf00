/** When a process counts as dead although the kernel is still at it, and when it does not. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { isEnding, watchDeath } from '#agent/death.ts';

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
    const child = await start(
      'python3',
      '-c',
      [
        'import ctypes, platform, threading, time',
        'threading.Thread(target=lambda: (time.sleep(0.1), print("up", flush=True), time.sleep(60))).start()',
        // exit(2): of this thread alone.
        'ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0)',
      ].join('\n'),
    );
    expect(isEnding(child.pid)).toBe(false);
    child.kill('SIGKILL');
    expect(seen(() => isEnding(child.pid))).toBe(true);
  });
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
