/**
 * Where Midair keeps what outlives a run: engines' data roots and the base image's layers.
 *
 * Invariant: everything there can be removed at any time when nothing runs; it costs a rebuild, nothing else.
 */
import { accessSync, constants, lstatSync, mkdirSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The package's own root: the checkout, or what was installed. */
export const PACKAGE_ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

export class StateError extends Error {
  readonly code = 'STATE_DIRECTORY';
}

/**
 * `MIDAIR_STATE`, else a directory of this user's under /var/tmp: a real, local file system that survives a
 * reboot, which overlay2 needs (a home may be on the network, /tmp may be in memory).
 */
export function stateDirectory(...parts: string[]): string {
  const uid = process.getuid?.() ?? 0;
  const root = process.env.MIDAIR_STATE ?? `/var/tmp/midair-${uid}`;
  mkdirSync(root, { recursive: true, mode: 0o700 });
  // Everyone may create names in /var/tmp: one that is not ours is not trusted.
  const stat = lstatSync(root);
  if (!stat.isDirectory() || stat.uid !== uid) {
    throw new StateError(
      `${root} is not a directory of this user's: remove it, or set MIDAIR_STATE to another`,
    );
  }
  const directory = join(root, ...parts);
  mkdirSync(directory, { recursive: true });
  return directory;
}

/** Full path of a command, also where a user's PATH does not look: dockerd lives in sbin. */
export function findCommand(command: string): string | undefined {
  const places = [...(process.env.PATH ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  return places
    .map((place) => join(place, command))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}
