/** `midair sim json` as a command: its line, its end, and what it refuses. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';

const BIN = join(import.meta.dirname, '..', 'cli', 'bin.ts');
const midair = (...args: string[]) => {
  const { MIDAIR_DIR: _, ...env } = process.env;
  const { status, stderr } = spawnSync(process.execPath, [BIN, ...args], {
    encoding: 'utf8',
    env,
    timeout: 30_000,
  });
  return { status, stderr };
};
const running: ChildProcess[] = [];
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});

test('says where it listens, and ends with status 0 when it is told to', async () => {
  const args = [BIN, 'sim', 'json', '--port', '0', '--airframe', 'crazyflie', '--wind', '3,90,light'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  running.push(child);
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const ready = JSON.parse(line.toString()) as { port: number };
  expect(ready).toEqual({ ready: true, host: '127.0.0.1', port: expect.any(Number), airframe: 'crazyflie' });
  expect(ready.port).toBeGreaterThan(0);
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  expect(await ended).toEqual([0, null]);
});

test.each([
  [['json', '--host', '0.0.0.0'], 1, 'loopback'],
  [[], 2, '--dir'],
])('midair sim %j: status %i', (args, status, text) => {
  const told = midair('sim', ...args);
  expect(told.status).toBe(status);
  expect(told.stderr).toContain(text);
});
