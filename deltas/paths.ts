/**
 * Paths inside an image, and which of them may serve as a basis.
 *
 * Invariant: a path is valid UTF-8, relative, without `.`, `..`, empty parts, NUL, or a trailing slash. What cannot be
 * written so is never asked of a basis: a hostile delta cannot name a file outside it.
 */
import { LIMITS } from '#deltas/limits.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A tar's name (`./a//b/`) as a path (`a/b`); undefined when no such path can exist. The root is ''. */
export function toPath(name: string): string | undefined {
  if (name.includes('\0') || name.includes('\uFFFD')) return undefined;
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) return undefined;
  const path = parts.join('/');
  return Buffer.byteLength(path) > LIMITS.pathBytesMax ? undefined : path;
}

/** The same from a name's bytes; undefined also when they are not UTF-8. */
export function bytesToPath(name: Uint8Array): string | undefined {
  try {
    return toPath(utf8.decode(name));
  } catch {
    return undefined;
  }
}

/** True when `path` is already in the one form that a basis is asked for. */
export function isPath(path: string): boolean {
  return path !== '' && toPath(path) === path;
}

const ENGINE_FILES = new Set([
  '.dockerenv',
  'etc/hostname',
  'etc/hosts',
  'etc/mtab',
  'etc/resolv.conf',
  'run/.containerenv',
]);

/**
 * Files that an engine itself lays over a container's root, so that an exported container and the image's layers
 * disagree about them. They are neither listed nor used as a basis.
 */
export function isEngineFile(path: string): boolean {
  return ENGINE_FILES.has(path) || /^(?:dev|proc|sys)\//.test(path);
}

export function dirName(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '' : path.slice(0, slash);
}

export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** For a message. */
export const severalNames = (names: readonly string[]): string =>
  names.slice(0, 3).join(', ') + (names.length > 3 ? ` and ${names.length - 3} more` : '');
