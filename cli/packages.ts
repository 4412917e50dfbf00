/**
 * Installed npm packages and what they depend on.
 *
 * Invariant: looks nothing up outside this package's own node_modules, in the order in which Node would.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { PACKAGE_ROOT } from '#cli/paths.ts';

/** Of these packages and all that they need: directory, and its path relative to this package. */
export function dependencyDirectories(names: string[]): Map<string, string> {
  const found = new Map<string, string>();
  const add = (name: string, from: string, isOptional: boolean): void => {
    const directory = resolvePackage(name, from);
    if (directory === undefined) {
      if (isOptional) return;
      throw new Error(`package ${name}, needed by ${from}, is not installed: node scripts/setup.mjs`);
    }
    if (found.has(directory)) return;
    found.set(directory, relative(PACKAGE_ROOT, directory));
    const manifest = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
    const optional = Object.keys(manifest.optionalDependencies ?? {});
    for (const dependency of Object.keys(manifest.dependencies ?? {})) {
      add(dependency, directory, optional.includes(dependency));
    }
    for (const dependency of optional) add(dependency, directory, true);
  };
  for (const name of names) add(name, PACKAGE_ROOT, false);
  return found;
}

function resolvePackage(name: string, from: string): string | undefined {
  for (let at = from; at.startsWith(PACKAGE_ROOT); at = dirname(at)) {
    const directory = join(at, 'node_modules', name);
    if (existsSync(join(directory, 'package.json'))) return directory;
  }
  return undefined;
}
