/**
 * Which basis files a new file is made from: by their content, their path, their name, or what they have in common (sketch.ts).
 *
 * Invariant: a choice never affects correctness, only size; it is the same for the same images, whatever their order.
 */
import type { FlatFile, FlatImage } from '#deltas/flatten.ts';
import { LIMITS } from '#deltas/limits.ts';
import { baseName } from '#deltas/paths.ts';
import { SampleRate } from '#deltas/sketch.ts';
import { Coverage, SketchIndex } from '#deltas/sketch-index.ts';

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

/** A file that was found by what is in it must have so many more features of the new one than the one of its name. */
const BETTER_FACTOR = 1.5;
const BETTER_FEATURES = 3;
/** A further file that has fewer is not worth its name and its length. */
const FURTHER_FEATURES_MIN = 2;
/** Nor is one that adds less than this part of a large file: 8 KiB of 256 MiB. */
const FURTHER_PART_MIN = 2 ** -15;
/** A reader reads the whole of each basis file to check it: a file is not made from ones so many times larger. */
const LARGER_MAX = 32;
const LARGER_FREE_BYTES = 4 * 1024 ** 2;
/** Further ones together are at most as long as the new file, and each gives enough for its length: some 1/64. */
const FURTHER_FREE_BYTES = 4 * 1024 ** 2;
const FURTHER_BYTES_PER_FEATURE = 8 * 1024;
const FURTHER_FREE_EACH_BYTES = 64 * 1024;

export class Matcher {
  readonly #image: FlatImage;
  readonly #byDigest = new Map<string, Match>();
  readonly #byKey = new Map<string, Match[]>();
  /** Files by what is in them, each content once, and their numbers there. */
  readonly #index: SketchIndex;
  readonly #sketched: Match[] = [];
  readonly #numbers = new Map<string, number>();

  /** @param rate that the image's files were sketched with */
  constructor(image: FlatImage, rate = new SampleRate()) {
    this.#image = image;
    const files = [...image.files()].filter(([, file]) => file.digest !== '' && file.bytes > 0);
    files.sort(([a], [b]) => (a < b ? -1 : 1));
    const sketches: Uint32Array[] = [];
    for (const [path, file] of files) {
      const match = { path, file };
      if (!this.#byDigest.has(file.digest)) {
        this.#byDigest.set(file.digest, match);
        if (file.sketch !== undefined && file.sketch.length > 0) {
          this.#numbers.set(file.digest, sketches.length);
          this.#sketched.push(match);
          // By rising value: what is to be kept comes first.
          const end = file.sketch.findIndex((feature) => feature >= rate.limit);
          sketches.push(end < 0 ? file.sketch : file.sketch.slice(0, end));
        }
      }
      const base = baseName(path);
      for (const key of new Set([`n:${normalise(path)}`, `b:${base}`, `m:${normalise(base)}`])) {
        add(this.#byKey, key, match);
      }
    }
    this.#index = new SketchIndex(sketches);
  }

  /** A basis file with this very content, at the same path if there is one. */
  same(path: string | undefined, digest: string): Match | undefined {
    const here = path === undefined ? undefined : this.#image.file(path);
    if (path !== undefined && here?.digest === digest) return { path, file: here };
    return this.#byDigest.get(digest);
  }

  /** True if the basis has a file of that path and length: it is what a new one is made from, whatever is in it. */
  expected(path: string | undefined, bytes: number): boolean {
    return path !== undefined && this.#image.file(path)?.bytes === bytes;
  }

  /**
   * The basis files that a changed, moved, split or joined file most likely comes from: first the one that has the most of it, then
   * those that have what it lacks, in the order of their parts in the new file.
   *
   * @param features of the new file; none: names decide
   */
  similar(path: string | undefined, bytes: number, features: Uint32Array = new Uint32Array()): Match[] {
    const coverage = new Coverage(this.#index, features);
    const first = this.#first(path, bytes, coverage);
    if (first === undefined) return [];
    const number = this.#numbers.get(first.file.digest);
    const bytesMax = Math.max(FURTHER_FREE_BYTES, bytes);
    const least = Math.max(FURTHER_FEATURES_MIN, features.length * FURTHER_PART_MIN);
    const taken = coverage.runs(number, (file) => this.#bytesOf(file), bytesMax);
    if (number !== undefined) taken.delete(number);
    const worth = new Set<number>();
    let left = bytesMax;
    for (const [file, count] of [...taken].sort(([, a], [, b]) => b - a)) {
      const length = this.#bytesOf(file);
      const enough = length <= Math.max(FURTHER_FREE_EACH_BYTES, count * FURTHER_BYTES_PER_FEATURE);
      if (count < least || !enough || length > left || worth.size === LIMITS.basisFilesMax - 1) continue;
      left -= length;
      worth.add(file);
    }
    const further = [...taken.keys()].filter((file) => worth.has(file));
    return [first, ...further.map((file) => this.#sketched[file] as Match)];
  }

  #bytesOf(file: number): number {
    return this.#sketched[file]?.file.bytes ?? 0;
  }

  #first(path: string | undefined, bytes: number, coverage: Coverage): Match | undefined {
    const named = path === undefined ? undefined : this.#named(path, bytes);
    const number = named === undefined ? undefined : this.#numbers.get(named.file.digest);
    const known = number === undefined ? 0 : coverage.of(number);
    const least = named === undefined ? 2 : known * BETTER_FACTOR + BETTER_FEATURES;
    const bytesMax = Math.max(LARGER_FREE_BYTES, LARGER_MAX * bytes);
    const files = coverage.most(least, (file) => this.#bytesOf(file) <= bytesMax);
    if (files.length === 0) return named;
    return nearest(
      path ?? '',
      bytes,
      files.map((file) => this.#sketched[file] as Match),
    );
  }

  /** By name alone. */
  #named(path: string, bytes: number): Match | undefined {
    const here = this.#image.file(path);
    if (here !== undefined && here.digest !== '' && here.bytes > 0) return { path, file: here };
    const base = baseName(path);
    for (const key of [`n:${normalise(path)}`, `b:${base}`, `m:${normalise(base)}`]) {
      const found = this.#byKey.get(key);
      if (found !== undefined) return nearest(path, bytes, found);
    }
    return undefined;
  }
}

/** The one with the most folders in common and the least difference in length. */
function nearest(path: string, bytes: number, matches: Match[]): Match {
  const distance = (match: Match): number => Math.abs(Math.log2(match.file.bytes / Math.max(bytes, 1)));
  const score = (match: Match): number => likeness(path, match.path) - distance(match);
  return matches.reduce((best, next) => (score(next) > score(best) ? next : best));
}
