/**
 * Imports run one way (ARCHITECTURE.md): what a folder may import is written here, and nowhere else.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..');

/** Of our own folders or files; a folder may always import itself. `midair/…` is the published SDK. */
const ALLOWED: Record<string, readonly string[]> = {
  handover: [],
  deltas: [],
  fleet: ['deltas/'],
  agent: ['deltas/', 'handover/', 'fleet/protocol.ts'],
  apps: ['handover/'],
  'device-sim': ['handover/'],
  cli: ['agent/', 'deltas/', 'device-sim/', 'fleet/', 'handover/'],
};
const MAY_IMPORT_ALL = ['test', 'bench', 'scripts'];

interface Import {
  file: string;
  target: string;
}

/** Static, dynamic, type-only and re-exporting imports, and `new URL('…', import.meta.url)`. */
const IMPORT = /(?:\bfrom\s*|\bimport\s*\(?\s*|\bnew URL\(\s*)(['"`])([^'"`\n]+)\1/g;

function importsIn(file: string, text: string): Import[] {
  const targets: Import[] = [];
  for (const match of text.matchAll(IMPORT)) {
    const target = resolve(file, match[2] as string);
    if (target !== undefined) targets.push({ file, target });
  }
  return targets;
}

/** A path in this repository, or undefined for what is not ours. */
function resolve(file: string, specifier: string): string | undefined {
  if (specifier.startsWith('#')) return specifier.slice(1);
  if (specifier.startsWith('midair/')) return specifier.slice('midair/'.length).replace(/^(\w+)$/, '$1/');
  if (specifier.startsWith('.')) return relative(ROOT, join(ROOT, file, '..', specifier));
  return undefined;
}

/** The rule, on any set of imports. Returns one line for each that breaks it. */
function violations(imports: Import[]): string[] {
  return imports
    .filter(({ file, target }) => {
      const folder = file.split('/')[0] as string;
      if (MAY_IMPORT_ALL.includes(folder) || target.startsWith(`${folder}/`)) return false;
      const allowed = ALLOWED[folder];
      if (allowed === undefined) return true;
      // Data beside the sources (package.json, a page) is not code.
      if (!/\.[cm]?[jt]s$|\/$/.test(target)) return false;
      return !allowed.some((prefix) => target.startsWith(prefix));
    })
    .map(({ file, target }) => `${file} imports ${target}`);
}

function sources(): string[] {
  return [...Object.keys(ALLOWED), ...MAY_IMPORT_ALL].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.m?[jt]s$/.test(entry.name))
      .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)))
      .filter((file) => !file.includes('/build/')),
  );
}

test('imports run one way', () => {
  const imports = sources().flatMap((file) => importsIn(file, readFileSync(join(ROOT, file), 'utf8')));
  expect(imports.length).toBeGreaterThan(20);
  expect(violations(imports)).toEqual([]);
});

test('every folder with code is under the rule', () => {
  const known = new Set([...Object.keys(ALLOWED), ...MAY_IMPORT_ALL]);
  const folders = readdirSync(ROOT, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const withCode = folders
    .map((entry) => entry.name)
    .filter(
      (name) => !['node_modules', 'dist', '.git', '.ci', 'docs'].includes(name) && !name.startsWith('.'),
    )
    .filter((name) =>
      readdirSync(join(ROOT, name), { recursive: true }).some((file) => String(file).endsWith('.ts')),
    );
  expect(withCode.filter((name) => !known.has(name))).toEqual([]);
});

test.each([
  ['handover/client.ts', `import { x } from '#agent/main.ts';`, ['handover/client.ts imports agent/main.ts']],
  ['agent/main.ts', `import { Hub } from '#fleet/hub.ts';`, ['agent/main.ts imports fleet/hub.ts']],
  ['agent/main.ts', `import { topic } from '#fleet/protocol.ts';`, []],
  ['deltas/make.ts', `export * from '../handover/limits.ts';`, ['deltas/make.ts imports handover/limits.ts']],
  ['fleet/hub.ts', `const a = await import('#agent/engine.ts');`, ['fleet/hub.ts imports agent/engine.ts']],
  ['fleet/hub.ts', `import type { A } from '#agent/engine.ts';`, ['fleet/hub.ts imports agent/engine.ts']],
  ['apps/drone/main.ts', `import { join } from 'midair/handover';`, []],
  [
    'apps/drone/main.ts',
    `import { makeDelta } from 'midair/deltas';`,
    ['apps/drone/main.ts imports deltas/'],
  ],
  [
    'device-sim/main.ts',
    `new URL('../fleet/worker.ts', import.meta.url)`,
    ['device-sim/main.ts imports fleet/worker.ts'],
  ],
  ['test/x.test.ts', `import { run } from '#cli/bin.ts';`, []],
])('the rule sees %s: %s', (file, text, expected) => {
  expect(violations(importsIn(file, text))).toEqual(expected);
});
