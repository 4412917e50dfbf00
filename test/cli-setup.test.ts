/** scripts/setup.mjs, the first thing that runs on a fresh clone: what it does, and that it does nothing twice. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '#cli/paths.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'midair-setup-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const setup = (directory: string, env: Record<string, string> = {}) => {
  const startMs = performance.now();
  const program = join(directory, 'scripts', 'setup.mjs');
  const result = spawnSync(process.execPath, [program, 'demo'], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  return { status: result.status, text: result.stdout + result.stderr, tookMs: performance.now() - startMs };
};

/** A clone with one dependency, and an npm that writes down how it was called. */
function clone(installs: boolean): { calls: string; npm: string } {
  mkdirSync(join(root, 'scripts'));
  mkdirSync(join(root, 'handover', 'native'), { recursive: true });
  cpSync(join(PACKAGE_ROOT, 'scripts', 'setup.mjs'), join(root, 'scripts', 'setup.mjs'));
  const packages = {
    '': {},
    'node_modules/one': { version: '1.0.0' },
    'node_modules/other': { version: '2.0.0', optional: true },
  };
  writeFileSync(join(root, 'package-lock.json'), JSON.stringify({ packages }));
  const calls = join(root, 'calls');
  const npm = join(root, 'npm-cli.js');
  const install = `
    fs.mkdirSync('node_modules/node/bin', { recursive: true });
    fs.writeFileSync('node_modules/node/bin/node', '');
    fs.writeFileSync('node_modules/.package-lock.json', '{"packages":{"node_modules/one":{"version":"1.0.0"}}}');`;
  writeFileSync(
    npm,
    `const fs = require('fs');
    fs.appendFileSync(${JSON.stringify(calls)}, process.argv.slice(2).join(' ') + '\\n');
    ${installs ? install : "console.error('the registry is on fire'); process.exit(1);"}`,
  );
  return { calls, npm };
}

test('here, where all is there, it is quick and quiet', () => {
  const { status, text, tookMs } = setup(PACKAGE_ROOT);
  expect(text).toBe('');
  expect(status).toBe(0);
  // 120 ms on an idle machine; the tests run beside others.
  expect(tookMs).toBeLessThan(3_000);
});

test('a fresh clone gets its packages once, and again when the lock file changes', () => {
  const { calls, npm } = clone(true);
  const count = () => (existsSync(calls) ? readFileSync(calls, 'utf8').trim().split('\n').length : 0);
  expect(setup(root, { npm_execpath: npm })).toMatchObject({ status: 0 });
  expect(readFileSync(calls, 'utf8')).toMatch(/^ci /);
  expect(setup(root, { npm_execpath: npm })).toMatchObject({ status: 0, text: '' });
  expect(count()).toBe(1);
  writeFileSync(
    join(root, 'package-lock.json'),
    JSON.stringify({ packages: { 'node_modules/one': { version: '1.0.1' } } }),
  );
  setup(root, { npm_execpath: npm });
  expect(count()).toBe(2);
});

test.runIf(process.getuid?.() === 0 && existsSync('/etc/debian_version'))(
  'a missing tool is installed as a Debian package, after one update of the lists',
  () => {
    const { npm, calls } = clone(true);
    const bin = join(root, 'bin');
    mkdirSync(bin);
    // No git on this PATH until apt-get brought it.
    const script = `#!/bin/sh
echo "apt-get $*" >> ${calls}
case "$1" in install) printf '#!/bin/sh\\n' > ${bin}/git; /bin/chmod +x ${bin}/git;; esac
`;
    writeFileSync(join(bin, 'apt-get'), script, { mode: 0o755 });
    const env = { npm_execpath: npm, PATH: bin, DOCKER_HOST: 'unix:///somewhere' };
    const first = setup(root, env);
    expect(first.text).toContain('git is missing (the hub receives pushes through it)');
    expect(readFileSync(calls, 'utf8').split('\n').slice(0, 2)).toEqual([
      'apt-get update',
      'apt-get install -y --no-install-recommends git',
    ]);
    // On that PATH the compilers are missing too, which npm ci needs: they were asked for next.
    expect(readFileSync(calls, 'utf8')).toContain(
      'apt-get install -y --no-install-recommends g++ make python3',
    );
  },
);

test('an install that fails says why, and fails', () => {
  const { npm } = clone(false);
  const { status, text } = setup(root, { npm_execpath: npm });
  expect(status).toBe(1);
  expect(text).toContain('npm ci failed');
  expect(text).toContain('the registry is on fire');
});

test('the lock file names no registry, and every platform’s optional packages', () => {
  const text = readFileSync(join(PACKAGE_ROOT, 'package-lock.json'), 'utf8');
  expect(text).not.toContain('"resolved"');
  const { packages } = JSON.parse(text);
  for (const [path, entry] of Object.entries<{ optionalDependencies?: Record<string, string> }>(packages)) {
    for (const name of Object.keys(entry.optionalDependencies ?? {})) {
      // npm ci refuses a lock file in which one is missing, on whatever platform.
      const isThere = packages[`node_modules/${name}`] ?? packages[`${path}/node_modules/${name}`];
      expect(isThere, `${name} of ${path}`).toBeDefined();
    }
  }
});
