import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type JournalFiles, openJournal } from '#agent/journal.ts';
import { Random } from '#device-sim/random.ts';
import { Disk } from '#device-sim/virtual/disk.ts';

interface Value {
  n: number;
  text: string;
}
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'midair-journal-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const parse = (value: unknown): Value => {
  if (typeof value !== 'object' || value === null || !('n' in value)) throw new Error('no n');
  return value as Value;
};
const empty: Value = { n: 0, text: '' };
const open = (path: string, bytesMax = 8192) => openJournal({ path, bytesMax, parse, empty });

test('what was written is there after reopening', () => {
  const path = join(directory, 'journal');
  const journal = open(path);
  for (let n = 1; n <= 7; n++) journal.write({ n, text: 'x'.repeat(n) });
  journal.close();
  expect(open(path).value).toEqual({ n: 7, text: 'xxxxxxx' });
});

test('a write that was torn anywhere leaves the value before it', () => {
  const path = join(directory, 'journal');
  const journal = open(path, 100);
  journal.write({ n: 1, text: 'one' });
  const before = readFileSync(path);
  journal.write({ n: 2, text: 'two' });
  const after = readFileSync(path);
  const changed = [...after.keys()].filter((at) => after[at] !== before[at]);
  for (const cut of changed.slice(1)) {
    writeFileSync(path, Buffer.concat([after.subarray(0, cut), before.subarray(cut)]));
    expect([1, 2]).toContain(open(path, 100).value.n);
  }
  const last = changed.at(-1) ?? 0;
  writeFileSync(path, Buffer.concat([after.subarray(0, last), before.subarray(last)]));
  expect(open(path, 100).value).toEqual({ n: 1, text: 'one' });
});

test('a damaged file is kept beside, and named', () => {
  const path = join(directory, 'journal');
  writeFileSync(path, 'not a journal');
  const journal = open(path);
  expect(journal.value).toEqual(empty);
  expect(journal.damaged?.message).toContain('.corrupt');
  expect(readFileSync(`${path}.corrupt`, 'utf8')).toContain('not a journal');
  journal.write({ n: 1, text: '' });
  expect(open(path)).toMatchObject({ value: { n: 1 }, damaged: null });
});

test('a value of another shape is damage, one that is too large is refused', () => {
  const path = join(directory, 'journal');
  openJournal({ path, bytesMax: 100, parse: (value) => value as object, empty: {} }).write({ m: 1 });
  expect(open(path, 100).damaged).not.toBeNull();
  expect(() => open(path, 100).write({ n: 1, text: 'x'.repeat(100) })).toThrow(/does not fit/);
});

test('on a full disk it still writes, since its space is its own', () => {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'midair-test', directory]);
  try {
    const journal = open(join(directory, 'journal'));
    expect(() => writeFileSync(join(directory, 'filler'), Buffer.alloc(512 * 1024))).toThrow(/ENOSPC/);
    journal.write({ n: 5, text: 'x'.repeat(4000) });
    journal.close();
    expect(open(join(directory, 'journal')).value.n).toBe(5);
    expect(() => open(join(directory, 'another'))).toThrow(/disk full/);
  } finally {
    execFileSync('umount', ['-l', directory]);
  }
});

test('killed at any moment while it writes, the value is a whole one and never older than what was confirmed', async () => {
  const path = join(directory, 'journal');
  const program = `
    import { type JournalFiles, openJournal } from '#agent/journal.ts';
import { Random } from '#device-sim/random.ts';
import { Disk } from '#device-sim/virtual/disk.ts';
    const journal = openJournal({ path: ${JSON.stringify(path)}, bytesMax: 8192, parse: (v) => v, empty: { n: 0, text: '' } });
    for (let n = journal.value.n + 1; ; n++) {
      journal.write({ n, text: 'x'.repeat(n % 5000) });
      process.stdout.write(n + '\\n');
    }`;
  for (let round = 0; round < 8; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], { cwd: process.cwd() });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      // A different moment of the write each round: after so many confirmed values.
      if (output.split('\n').length > 3 + round * 7) child.kill('SIGKILL');
    });
    await new Promise((resolve) => child.once('close', resolve));
    const confirmed = output.split('\n').slice(0, -1).map(Number).at(-1) ?? 0;
    const { value, damaged } = open(path);
    expect(damaged).toBeNull();
    expect(value.text).toBe('x'.repeat(value.n % 5000));
    expect(value.n).toBeGreaterThanOrEqual(confirmed);
  }
});

test('what an agent finds at its start outlives a power cut, also if its last life was killed before the sync', () => {
  let gone = 0;
  for (let seed = 1; seed <= 40; seed++) {
    let isKilled = false;
    const disk = new Disk({
      random: new Random(seed),
      onOperation: (what) => {
        if (isKilled && what === 'sync') throw new Error('killed');
      },
    });
    const files: JournalFiles = {
      open: (path, bytes) => ({ ...disk.open(path, bytes), close: () => undefined }),
      keep: () => undefined,
    };
    const read = () => openJournal({ path: 'journal', bytesMax: 4_096, parse, empty }, files);
    const journal = read();
    journal.write({ n: 1, text: '' });
    isKilled = true;
    expect(() => journal.write({ n: 2, text: 'x'.repeat(2_000) })).toThrow(/killed/);
    isKilled = false;
    const found = read().value.n;
    disk.powerCut();
    expect(read().value.n, `seed ${seed}`).toBe(found);
    if (found === 2) gone += 1;
  }
  // It was in the cache each time: that is what the next life sees.
  expect(gone).toBe(40);
});

test.each(['start', 'first write'])(
  'a failed sync, and a power cut in the %s of the next life, leave a whole value all the same',
  (when) => {
    for (let seed = 1; seed <= 60; seed++) {
      let fault: string | null = null;
      const disk = new Disk({
        random: new Random(seed),
        onOperation: (what) => {
          if (fault !== null && what === 'sync') throw Object.assign(new Error(fault), { code: fault });
        },
      });
      const files: JournalFiles = {
        open: (path, bytes) => ({ ...disk.open(path, bytes), close: () => undefined }),
        keep: () => undefined,
      };
      const read = () => openJournal({ path: 'journal', bytesMax: 4_096, parse, empty }, files);
      const journal = read();
      journal.write({ n: 1, text: 'x'.repeat(2_000) });
      // The kernel gives up what it could not write, and calls it clean: the next life still reads it.
      fault = 'EIO';
      expect(() => journal.write({ n: 2, text: 'y'.repeat(2_000) })).toThrow(/EIO/);
      fault = null;
      let found = 1;
      if (when === 'start') {
        fault = 'power';
        expect(read).toThrow(/power/);
      } else {
        const next = read();
        found = next.value.n;
        fault = 'power';
        expect(() => next.write({ n: 3, text: 'z'.repeat(2_000) })).toThrow(/power/);
      }
      fault = null;
      disk.powerCut();
      const last = read();
      expect(last.damaged, `seed ${seed}`).toBeNull();
      expect(last.value.n, `seed ${seed}`).toBeGreaterThanOrEqual(found);
    }
  },
);
