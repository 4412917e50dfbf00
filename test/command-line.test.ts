/** Benchmarks, soaks and the gallery: each says how it is used, and refuses what it does not know before it starts anything. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '#cli/paths.ts';

const programs = ['bench', 'scripts/soak']
  .flatMap((folder) => readdirSync(join(PACKAGE_ROOT, folder)).map((file) => `${folder}/${file}`))
  .filter((file) => file.endsWith('.ts'))
  .concat('scripts/gallery.ts');

const run = (program: string, ...args: string[]) =>
  spawnSync(process.execPath, [join(PACKAGE_ROOT, program), ...args], { encoding: 'utf8', timeout: 30_000 });

describe.each(programs)('%s', (program) => {
  test('--help', () => {
    const { status, stdout, stderr } = run(program, '--help');
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^usage: n/);
  });
  test('an option that there is not', () => {
    const { status, stdout, stderr } = run(program, '--nonsense');
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^Unknown option '--nonsense'.*\nusage: n/);
  });
});

test.each([
  ['bench/handover.ts', '--count', '0'],
  ['bench/handover.ts', '--count', ''],
  ['bench/gate.ts', '--count', '1.5'],
  ['bench/realtime.ts', '--rounds', 'many'],
  ['scripts/soak/deltas.ts', '--seeds', '0'],
  ['scripts/soak/deltas.ts', '--minutes', 'x'],
  ['scripts/soak/deltas.ts', '--minutes', '0'],
  ['scripts/soak/flights.ts', '--minutes', '0'],
  ['scripts/soak/fleet.ts', '--minutes', '-1'],
])('%s %s %j: out of bounds', (program, option, value) => {
  const { status, stderr } = run(program, `${option}=${value}`);
  expect(status).toBe(2);
  expect(stderr).toContain(`${option} must be a`);
  expect(stderr).toContain(JSON.stringify(value));
  expect(stderr).toContain('usage: n');
});
