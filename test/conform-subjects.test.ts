/** Both clients, each as a program of its own, through every case of the conformance runner. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { conformText } from '#cli/commands/handover.ts';
import { CASES, conform } from '#handover/conform/index.ts';
import { python, subjects } from './conform-kit.ts';
import { descriptorCount } from './handover-kit.ts';

test('the TypeScript and the Python client pass every case', async () => {
  const before = descriptorCount();
  // Beside each other: they wait more than they work.
  const commands = [subjects.typescript(), subjects.python()];
  for (const results of await Promise.all(commands.map((command) => conform({ command })))) {
    expect(results.filter(({ ok }) => !ok).length, conformText(results)).toBe(0);
    expect(results.map(({ id }) => id)).toEqual(CASES.map(({ id }) => id));
  }
  // The runner itself closes what it opens; Node may keep one of its own.
  expect(descriptorCount()).toBeLessThanOrEqual(before + 2);
}, 120_000);

test('docs/handover-conformance.md names every case, and none that there is not', () => {
  const file = new URL('../docs/handover-conformance.md', import.meta.url);
  const [, table = ''] = readFileSync(file, 'utf8').split('## The cases');
  const named = [...table.matchAll(/^\| +`([a-z0-9-]+)`/gm)].map(([, id]) => id);
  expect(named).toEqual(CASES.map(({ id }) => id));
});

test('the Python client needs nothing but the standard library, and no newer syntax than 3.9', () => {
  const file = fileURLToPath(new URL('../handover/python/midair_handover.py', import.meta.url));
  const script = `
import ast, sys
tree = ast.parse(open(sys.argv[1]).read(), feature_version=(3, 9))
names = {a.name.split('.')[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
names |= {n.module.split('.')[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
print(*sorted(names - set(getattr(sys, 'stdlib_module_names', names))))`;
  const { stdout, stderr, status } = spawnSync(python(), ['-c', script, file], { encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout.trim()).toBe('');
});
