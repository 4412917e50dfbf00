/** The parts of virtual time: its order, a process's turns, a disk's two layers, a network's tricks. */
import { expect, test } from 'vitest';
import { Random } from '#device-sim/random.ts';
import { Disk } from '#device-sim/virtual/disk.ts';
import { FAIR, Network } from '#device-sim/virtual/network.ts';
import { Killed, Process } from '#device-sim/virtual/process.ts';
import { createScheduler } from '#device-sim/virtual/scheduler.ts';
import { Trace } from '#device-sim/virtual/trace.ts';

test('what is to happen happens in the order of its time, and else in the order in which it was asked for', () => {
  const scheduler = createScheduler();
  const random = new Random(1);
  const times = Array.from({ length: 2_000 }, () => random.uint32() % 500);
  const done: [number, number][] = [];
  times.forEach((atUs, order) => {
    scheduler.at(atUs, () => done.push([scheduler.nowUs, order]));
  });
  scheduler.run(1_000);
  expect(done).toEqual(
    times.map((at, order) => [at, order]).sort(([a = 0, i = 0], [b = 0, j = 0]) => a - b || i - j),
  );
  expect(scheduler.nowUs).toBe(1_000);
  expect(() => scheduler.at(999, () => undefined)).toThrow(/cannot act/);
});

test('a process that waits for its disk reads what arrived meanwhile before its timers', () => {
  const scheduler = createScheduler();
  const process = new Process(scheduler);
  const done: string[] = [];
  const say = (what: string) => (): void => void done.push(`${what} at ${scheduler.nowUs}`);
  process.post(() => {
    process.spend(100);
    process.after(0, say('own timer'));
  });
  process.after(50, say('timer'));
  scheduler.at(80, () => process.post(say('line')));
  scheduler.run(1_000);
  expect(done).toEqual(['line at 100', 'timer at 100', 'own timer at 100']);
});

test('paused it does nothing and forgets nothing; killed, in the midst of a turn too, it does nothing ever again', () => {
  const scheduler = createScheduler();
  let deaths = 0;
  const process = new Process(scheduler, () => {
    deaths += 1;
  });
  const done: number[] = [];
  process.pause(300);
  process.post(() => done.push(scheduler.nowUs));
  scheduler.run(400);
  expect(done).toEqual([300]);
  process.after(10, () => {
    throw new Killed();
  });
  process.after(20, () => done.push(scheduler.nowUs));
  scheduler.run(1_000);
  process.post(() => done.push(0));
  expect([done, deaths, process.alive]).toEqual([[300], 1, false]);
});

test('a power cut leaves what was synced, and whole sectors of the rest, or none', () => {
  const outcomes = new Set<string>();
  for (let seed = 0; seed < 40; seed++) {
    const disk = new Disk({ random: new Random(seed) });
    const file = disk.open('f', 1_536);
    file.write(Buffer.alloc(1_536, 1), 0);
    file.sync();
    file.write(Buffer.alloc(1_100, 2), 0);
    const cached = Buffer.alloc(1_536);
    file.read(cached);
    expect(cached.subarray(0, 1_100).every((byte) => byte === 2)).toBe(true);
    disk.powerCut();
    const left = Buffer.alloc(1_536);
    disk.open('f', 1_536).read(left);
    // Each sector is old or new as a whole; the last one has been written in part.
    const sectors = [0, 512].map((at) => new Set(left.subarray(at, at + 512)));
    expect(sectors.every(({ size }) => size === 1)).toBe(true);
    outcomes.add(sectors.map(([byte]) => byte).join());
  }
  expect(outcomes).toEqual(new Set(['1,1', '1,2', '2,1', '2,2']));
});

test('a sync that failed has forgotten what it did not write', () => {
  let fails = false;
  const disk = new Disk({
    random: new Random(3),
    onOperation: (what) => {
      if (fails && what === 'sync') throw Object.assign(new Error('EIO'), { code: 'EIO' });
    },
  });
  const file = disk.open('f', 8 * 512);
  file.write(Buffer.alloc(8 * 512, 1), 0);
  fails = true;
  expect(() => file.sync()).toThrow('EIO');
  fails = false;
  file.sync();
  disk.powerCut();
  const left = Buffer.alloc(8 * 512);
  disk.open('f', 8 * 512).read(left);
  expect(new Set(left)).toEqual(new Set([0, 1]));
});

test('a full disk grows nothing', () => {
  const disk = new Disk({ random: new Random(1) });
  disk.freeBytes = 600;
  disk.open('a', 512);
  expect(() => disk.open('b', 512)).toThrow(/ENOSPC/);
  expect(() => disk.open('a', 512)).not.toThrow();
});

test('a network loses, doubles and reorders as much as it is told to, and carries nothing over a cut', () => {
  const scheduler = createScheduler();
  const network = new Network(scheduler, new Random(5));
  network.weather = { ...FAIR, lost: 0.3, doubled: 0.2 };
  const got: number[] = [];
  for (let n = 0; n < 4_000; n++) network.send('d', n * 1_000, () => got.push(n));
  network.send('cut', 0, () => got.push(-1));
  network.cut('cut', true);
  scheduler.run(1e9);
  expect(got.length / 4_000).toBeCloseTo(1.2 * 0.7, 1);
  expect(new Set(got).size).toBeLessThan(4_000 * 0.8);
  expect(got.some((n, at) => n < (got[at - 1] ?? 0))).toBe(true);
  expect(got).not.toContain(-1);
});

test('a trace tells one line from another, and keeps the end of the story', () => {
  const tell = (...lines: string[]) => {
    const trace = new Trace(2);
    lines.forEach((line, at) => {
      trace.add(at, 'd0', line);
    });
    return trace;
  };
  expect(tell('a', 'b').digest()).toBe(tell('a', 'b').digest());
  expect(tell('a', 'b').digest()).not.toBe(tell('b', 'a').digest());
  expect(
    tell('a', 'b', 'c')
      .story()
      .map((line) => line.at(-1)),
  ).toEqual(['b', 'c']);
});
