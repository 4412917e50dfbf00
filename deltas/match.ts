/**
 * Which basis file a new file is made from.
 *
 * Invariant: a choice never affects correctness, only size; it is the same for the same images, whatever their order.
 */
import type { FlatFile, FlatImage } from '#deltas/flatten.ts';
import { baseName } from '#deltas/paths.ts';

export interface Match {
  path: string;
  file: FlatFile;
}

/** Of so many files with one name (`index.js`) only the first are weighed. */
const CANDIDATES_MAX = 64;

/** A path without what changes from build to build: versions (`libfoo.so.1.2`) and hashes (`chunk-3f9a2c.js`). */
export function normalise(path: string): string {
  return path
    .replace(/(?<![0-9a-z])(?=[a-f]*\d)[0-9a-f]{6,}(?![0-9a-z])/gi, '#')
    .replace(/\d+(?:\.\d+)*/g, '#');
}

function add(map: Map<string, Match[]>, key: string, match: Match): void {
  const found = map.get(key);
  if (found === undefined) map.set(key, [match]);
  else if (found.length < CANDIDATES_MAX) found.push(match);
}

/** How alike two paths are: folders in common, counted from both ends. */
function likeness(a: string, b: string): number {
  const x = a.split('/');
  const y = b.split('/');
  const most = Math.min(x.length, y.length) - 1;
  let front = 0;
  while (front < most && x[front] === y[front]) front += 1;
  let back = 0;
  while (back < most && x.at(-2 - back) === y.at(-2 - back)) back += 1;
  return front + back;
}

export class Matcher {
  readonly #image: FlatImage;
  readonly #byDigest = new Map<string, Match>();
  readonly #byKey = new Map<string, Match[]>();

  constructor(image: FlatImage) {
    this.#image = image;
    const files = [...image.files()].filter(([, file]) => file.digest !== '' && file.bytes > 0);
    files.sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [path, file] of files) {
      const match = { path, file };
      if (!this.#byDigest.has(file.digest)) this.#byDigest.set(file.digest, match);
      const base = baseName(path);
      for (const key of new Set([`n:${normalise(path)}`, `b:${base}`, `m:${normalise(base)}`])) {
        add(this.#byKey, key, match);
      }
    }
  }

  /** A basis file with this very content, at the same path if there is one. */
  same(path: string | undefined, digest: string): Match | undefined {
    const here = path === undefined ? undefined : this.#image.file(path);
    if (path !== undefined && here?.digest === digest) return { path, file: here };
    return this.#byDigest.get(digest);
  }

  /** The basis file that a changed or moved file most likely comes from. */
  similar(path: string | undefined, bytes: number): Match | undefined {
    if (path === undefined) return undefined;
    const here = this.#image.file(path);
    if (here !== undefined && here.digest !== '' && here.bytes > 0) return { path, file: here };
    const base = baseName(path);
    for (const key of [`n:${normalise(path)}`, `b:${base}`, `m:${normalise(base)}`]) {
      const found = this.#byKey.get(key);
      if (found === undefined) continue;
      const distance = (match: Match): number => Math.abs(Math.log2(match.file.bytes / Math.max(bytes, 1)));
      const score = (match: Match): number => likeness(path, match.path) - distance(match);
      return found.reduce((best, next) => (score(next) > score(best) ? next : best));
    }
    return undefined;
  }
}
