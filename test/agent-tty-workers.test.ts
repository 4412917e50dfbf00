/** The kernel's own workers get real time while an agent runs, and nobody else does. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { createLog } from '#agent/log.ts';
import { parseStat } from '#agent/proc-stat.ts';
import { TtyWorkers } from '#agent/tty-workers.ts';

/** Scheduling policy by pid (the 41st field of proc(5)'s stat; 1 is SCHED_FIFO) of all that run under FIFO. */
const underFifo = (): Set<string> => {
  const found = new Set<string>();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const { field } = parseStat(readFileSync(`/proc/${pid}/stat`, 'latin1'));
      if (field(41) === '1') found.add(pid);
    } catch {
      // It has ended.
    }
  }
  return found;
};
const nameOf = (pid: string): string => readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
/** Of normal nice value, as an independent program lists them. */
const unbound = (): string[] =>
  execFileSync('ps', ['-eo', 'pid=,ni=,comm='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, nice, name]) => name?.startsWith('kworker/u') && nice !== '-20')
    .map(([pid]) => pid as string);

let workers: TtyWorkers | undefined;
afterEach(() => workers?.close());

describe('what hands a tty its bytes', () => {
  const log = createLog('test', 'silent');
  // From within a pid namespace no kernel thread is to be seen, and there is nothing to do.
  it.runIf(unbound().length > 0)(
    'runs under FIFO while an agent does, and nothing else of the machine',
    () => {
      const before = underFifo();
      workers = new TtyWorkers(log);
      const added = [...underFifo()].filter((pid) => !before.has(pid));
      expect(unbound().filter((pid) => !underFifo().has(pid))).toEqual([]);
      for (const pid of added) expect(nameOf(pid)).toMatch(/^kworker\/u/);
      workers.close();
      expect(unbound().filter((pid) => underFifo().has(pid))).toEqual([]);
    },
  );

  it('is not a program that only calls itself so', () => {
    const before = underFifo();
    process.title = 'kworker/u8:0';
    workers = new TtyWorkers(log);
    expect([...underFifo()].filter((pid) => !before.has(pid))).not.toContain(String(process.pid));
  });
});
