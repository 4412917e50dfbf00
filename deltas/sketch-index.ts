/**
 * Which of many files have something in common with a new one, and how much each adds to what others have.
 *
 * Memory: 8 bytes for each feature of the files.
 */

/** Files are told by their number, which is below this; with the feature it fits a double. */
const FILES_MAX = 2 ** 21;
/** Of the files that have a feature (a licence's, a compiler's) only the first are looked at. */
const HOLDERS_MAX = 32;

export class SketchIndex {
  readonly #sketches: readonly Uint32Array[];
  /** Feature and number of each file that has it, as one number, rising. */
  readonly #pairs: Float64Array;

  /** @param sketches features of each file, each once */
  constructor(sketches: readonly Uint32Array[]) {
    this.#sketches = sketches.slice(0, FILES_MAX);
    this.#pairs = new Float64Array(this.#sketches.reduce((sum, { length }) => sum + length, 0));
    let place = 0;
    for (const [file, sketch] of this.#sketches.entries()) {
      for (const feature of sketch) this.#pairs[place++] = feature * FILES_MAX + file;
    }
    this.#pairs.sort();
  }

  sketch(file: number): Uint32Array {
    return this.#sketches[file] ?? new Uint32Array();
  }

  eachHolder(feature: number, visit: (file: number) => void): void {
    const key = feature * FILES_MAX;
    let low = 0;
    let high = this.#pairs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#pairs[middle] as number) < key) low = middle + 1;
      else high = middle;
    }
    for (let at = low; at < low + HOLDERS_MAX; at += 1) {
      const pair = this.#pairs[at];
      if (pair === undefined || pair >= key + FILES_MAX) return;
      visit(pair - key);
    }
  }
}

/** A file that was taken before is taken again where another has so few features more in a row. */
const AGAIN_FEATURES = 1;

/** What of a new file each of the others has. */
export class Coverage {
  readonly #index: SketchIndex;
  /** Of the new file, in their order in it. */
  readonly #features: Uint32Array;
  /** Different ones. */
  readonly #set: ReadonlySet<number>;
  /** How many of those each file has. */
  readonly #counts = new Map<number, number>();

  constructor(index: SketchIndex, features: Uint32Array) {
    this.#index = index;
    this.#features = features;
    this.#set = new Set(features);
    for (const feature of this.#set)
      index.eachHolder(feature, (file) => this.#counts.set(file, (this.#counts.get(file) ?? 0) + 1));
  }

  /** How many features `file` has; exact also for one that was left out as one of too many holders. */
  of(file: number): number {
    let count = 0;
    for (const feature of this.#index.sketch(file)) if (this.#set.has(feature)) count += 1;
    return count;
  }

  /** The files that have the most, if that is at least `least`: several if they have the same. */
  most(least: number, usable: (file: number) => boolean): number[] {
    let most = Math.max(1, least);
    let files: number[] = [];
    for (const [file, count] of this.#counts) {
      if (count < most || !usable(file)) continue;
      if (count > most) files = [];
      most = count;
      files.push(file);
    }
    return files;
  }

  /**
   * The new file cut into runs, each from the file that has the most features in a row from there on; one in between may be missing.
   *
   * @param first file that is there anyway
   * @param bytes length of each file: of those that have as many, the shortest is taken; none above `bytesMax` is
   * @returns how many features come from each file, by the place of its first
   */
  runs(first: number | undefined, bytes: (file: number) => number, bytesMax: number): Map<number, number> {
    const { ends, files } = this.#longest(first, bytes, bytesMax);
    const taken = new Map<number, number>();
    for (let at = 0; at < ends.length; ) {
      const file = files[at] as number;
      const end = ends[at] as number;
      if (end > at) taken.set(file, (taken.get(file) ?? 0) + end - at);
      at = Math.max(end, at + 1);
    }
    return taken;
  }

  /** For each feature the end of the longest run that begins with it, and whose it is. */
  #longest(
    first: number | undefined,
    bytes: (file: number) => number,
    bytesMax: number,
  ): { ends: Uint32Array; files: Uint32Array } {
    const count = this.#features.length;
    const ends = new Uint32Array(count);
    const files = new Uint32Array(count);
    /** Ends of the runs that begin one and two features farther on, by file. */
    let next = new Map<number, number>();
    let afterNext = next;
    for (let at = count - 1; at >= 0; at -= 1) {
      const here = new Map<number, number>();
      let best = -1;
      let bestEnd = 0;
      this.#index.eachHolder(this.#features[at] as number, (file) => {
        if (file !== first && bytes(file) > bytesMax) return;
        const end = next.get(file) ?? afterNext.get(file) ?? at + 1;
        here.set(file, end);
        const rank = file === first ? end + AGAIN_FEATURES : end;
        if (best >= 0 && (rank < bestEnd || (rank === bestEnd && bytes(file) >= bytes(best)))) return;
        best = file;
        bestEnd = rank;
      });
      if (best >= 0) {
        files[at] = best;
        ends[at] = here.get(best) as number;
      }
      afterNext = next;
      next = here;
    }
    return { ends, files };
  }
}
