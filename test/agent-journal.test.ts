import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openJournal } from '#agent/journal.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'midair-journal-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const parse = (value: unknown): { n: number; text: string } => {
  if (typeof value !== 'object' || value === null || !('n' in value)) throw new Error('no n');
  return value as { n: number; text: string };
};
const empty = { n: 0, text: '' };

test('what was written is there after reopening', () => {
  const path = join(directory, 'j.json');
  openJournal(path, parse, empty).write({ n: 7, text: 'x' });
  expect(openJournal(path, parse, empty).value).toEqual({ n: 7, text: 'x' });
});

test.each(['', '{"n":', 'null', '{"m":1}'])('a damaged file (%j) is kept beside, and named', (content) => {
  const path = join(directory, 'j.json');
  writeFileSync(path, content);
  const journal = openJournal(path, parse, empty);
  expect(journal.value).toEqual(empty);
  expect(journal.damaged?.message).toContain('.corrupt');
  expect(readFileSync(`${path}.corrupt`, 'utf8')).toBe(content);
});

test('killed at any moment while it writes, the value is a whole one and never older than what was confirmed', async () => {
  const path = join(directory, 'j.json');
  const program = `
    import { openJournal } from '#agent/journal.ts';
    const journal = openJournal(${JSON.stringify(path)}, (v) => v, { n: 0, text: '' });
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
    const { value, damaged } = openJournal(path, parse, empty);
    expect(damaged).toBeNull();
    expect(value.text).toBe('x'.repeat(value.n % 5000));
    expect(value.n).toBeGreaterThanOrEqual(confirmed);
  }
});
