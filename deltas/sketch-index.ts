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

/** What of a new file is covered by the files taken so far. */
export class Coverage {
  readonly #index: SketchIndex;
  /** Features that no file taken has, and where in the new file they were, counted in features. */
  readonly #open = new Map<number, number>();
  /** How many of those each file has. */
  readonly #counts = new Map<number, number>();
  /** Features of the new file, each once. */
  readonly features: number;

  constructor(index: SketchIndex, features: Uint32Array) {
    this.#index = index;
    for (const [place, feature] of features.entries()) {
      if (this.#open.has(feature)) continue;
      this.#open.set(feature, place);
      index.eachHolder(feature, (file) => this.#counts.set(file, (this.#counts.get(file) ?? 0) + 1));
    }
    this.features = this.#open.size;
  }

  /** How many features `file` would add; exact also for one that was left out as one of too many holders. */
  gain(file: number): number {
    let count = 0;
    for (const feature of this.#index.sketch(file)) if (this.#open.has(feature)) count += 1;
    return count;
  }

  /** The files that would add the most, if that is at least `least`; several if they add the same. */
  most(least: number, usable: (file: number) => boolean): { files: number[]; gain: number } {
    let gain = Math.max(1, least);
    let files: number[] = [];
    for (const [file, count] of this.#counts) {
      if (count < gain || !usable(file)) continue;
      if (count > gain) files = [];
      gain = count;
      files.push(file);
    }
    return { files, gain };
  }

  /** @returns where in the new file the first feature is that `file` adds */
  take(file: number): number {
    let first = Number.POSITIVE_INFINITY;
    for (const feature of this.#index.sketch(file)) {
      const place = this.#open.get(feature);
      if (place === undefined) continue;
      this.#open.delete(feature);
      first = Math.min(first, place);
      this.#index.eachHolder(feature, (holder) =>
        this.#counts.set(holder, (this.#counts.get(holder) ?? 0) - 1),
      );
    }
    return first;
  }
}
