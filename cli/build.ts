/**
 * The published package: JavaScript and declarations of the sources, with a package.json of its own.
 *
 * Invariant: the built tree is complete by itself (beside it only its dependencies are needed) and the same
 * sources give the same bytes. Aliases stay as they are written; the built package.json maps them to `.js`.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { dependencyDirectories } from '#cli/packages.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';

export class BuildError extends Error {
  readonly code = 'BUILD';
}

const ADDONS = ['handover', 'deltas'].map((folder) => join(folder, 'native', 'build', 'Release'));

/**
 * Writes the package to `directory`, which is emptied first. Types are checked by `npm run typecheck`, not here.
 *
 * @throws BuildError when the compiler fails or a native addon is not built
 */
export function buildPackage(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  const tsc = join(PACKAGE_ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const project = join(PACKAGE_ROOT, 'tsconfig.build.json');
  const args = [tsc, '-p', project, '--noCheck', '--outDir', directory];
  const result = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (result.status !== 0) throw new BuildError(`the compiler failed:\n${result.stdout}${result.stderr}`);
  copyAssets(directory);
  writeFileSync(join(directory, 'package.json'), `${JSON.stringify(manifest(), null, 2)}\n`);
}

/** What the compiler leaves behind: the addons, and files that the sources read (styles, pages, templates). */
function copyAssets(directory: string): void {
  for (const release of ADDONS) {
    const from = join(PACKAGE_ROOT, release);
    const names = existsSync(from) ? readdirSync(from).filter((name) => name.endsWith('.node')) : [];
    if (names.length === 0)
      throw new BuildError(`a native addon is not built (${release}): node scripts/setup.mjs`);
    mkdirSync(join(directory, release), { recursive: true });
    for (const name of names) cpSync(join(from, name), join(directory, release, name));
  }
  for (const folder of ['agent', 'device-sim', 'fleet', 'deltas', 'handover', 'cli'])
    copyData(folder, directory);
  // The example app is pushed as its sources are: the demo needs them as they stand, built files would be noise.
  rmSync(join(directory, 'apps'), { recursive: true, force: true });
  cpSync(join(PACKAGE_ROOT, 'apps'), join(directory, 'apps'), { recursive: true });
  for (const name of ['LICENSE', 'README.md']) {
    if (existsSync(join(PACKAGE_ROOT, name))) cpSync(join(PACKAGE_ROOT, name), join(directory, name));
  }
}

function copyData(folder: string, directory: string): void {
  const root = join(PACKAGE_ROOT, folder);
  if (!existsSync(root)) return;
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || /\.(ts|c|h|gyp|o|d)$/.test(entry.name)) continue;
    const from = join(entry.parentPath, entry.name);
    if (from.includes('/native/')) continue;
    const to = join(directory, from.slice(PACKAGE_ROOT.length + 1));
    mkdirSync(dirname(to), { recursive: true });
    cpSync(from, to);
  }
}

/**
 * Adds to a built package all that it needs to run without npm: its dependencies, and what makes an image of it.
 * The addons and the packages are of this machine's architecture.
 */
export function addDependencies(directory: string): void {
  const manifest = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
  for (const [from, path] of dependencyDirectories(Object.keys(manifest.dependencies))) {
    // What a package keeps below itself is a dependency of its own, copied on its own.
    cpSync(from, join(directory, path), {
      recursive: true,
      filter: (source) => !source.slice(from.length).includes('/node_modules'),
    });
  }
  for (const name of ['Dockerfile.template', 'balena.yml'])
    cpSync(join(PACKAGE_ROOT, name), join(directory, name));
}

/** The package.json of the sources, with every path of a source turned to its built file. */
function manifest(): Record<string, unknown> {
  const source = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
  const built = (path: string) => path.replace(/\.ts$/, '.js');
  const { name, version, description, license, type, engines, dependencies } = source;
  const exports = Object.entries(source.exports as Record<string, string>).map(([key, path]) => [
    key,
    { types: path.replace(/\.ts$/, '.d.ts'), default: built(path) },
  ]);
  return {
    name,
    version,
    description,
    license,
    type,
    engines,
    bin: { midair: built(source.bin.midair) },
    imports: { '#*.ts': { types: './*.d.ts', default: './*.js' } },
    exports: Object.fromEntries(exports),
    dependencies,
  };
}
