/**
 * Builds handover/native and deltas/native with node-gyp: npm's `install` script, and setup's when one is missing or old.
 *
 * Invariant: needs no network when headers of any Node from 20 on are on the machine. The addons are N-API, so
 * headers of one major version serve all; node-gyp would otherwise fetch those of the very version that runs.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/** A prefix that holds include/node, as distributions and version managers lay it out beside bin/node. */
function headers() {
  const named = process.env.npm_config_nodedir;
  if (named) return named;
  for (const place of [dirname(process.execPath), ...(process.env.PATH ?? '').split(delimiter), '/usr/bin']) {
    const node = join(place, 'node');
    if (!existsSync(node)) continue;
    const prefix = dirname(dirname(realpathSync(node)));
    const include = join(prefix, 'include', 'node');
    if (existsSync(join(include, 'node_api.h')) && existsSync(join(include, 'common.gypi'))) return prefix;
  }
  return undefined;
}

const nodedir = headers();
const gyp = join(ROOT, 'node_modules', 'node-gyp', 'bin', 'node-gyp.js');
for (const folder of [join('handover', 'native'), join('deltas', 'native')]) {
  if (!existsSync(join(ROOT, folder, 'binding.gyp'))) continue;
  const args = [gyp, 'rebuild', '--directory', folder];
  if (nodedir !== undefined) args.push(`--nodedir=${nodedir}`);
  const result = spawnSync(process.execPath, args, { cwd: ROOT, stdio: 'inherit' });
  if (result.status !== 0) {
    process.stderr.write(
      `the native addon (${folder}) did not build: it needs g++, make and python3` +
        ' (Debian: apt-get install g++ make python3), and Node headers or a way to fetch them\n',
    );
    process.exit(1);
  }
}
