/** Seeded chance: the same seed gives the same numbers on every machine. sfc32 (Chris Doty-Humphrey, PractRand). */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;
  /** The second of each pair of normal deviates, kept for the next call. */
  #spare = Number.NaN;

  /** @param seed a 32-bit unsigned integer; @param stream independent sequences from one seed */
  constructor(seed: number, stream = 0) {
    this.#a = stream >>> 0;
    this.#b = seed >>> 0;
    this.#c = (seed ^ 0x9e3779b9) >>> 0;
    for (let round = 0; round < 15; round += 1) this.uint32();
  }

  uint32(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** From 0 (included) to 1 (not included). */
  uniform(): number {
    return this.uint32() / 0x1_0000_0000;
  }

  /** Mean 0, standard deviation 1: Box and Muller, both values used. */
  normal(): number {
    const spare = this.#spare;
    if (!Number.isNaN(spare)) {
      this.#spare = Number.NaN;
      return spare;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.#spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}
