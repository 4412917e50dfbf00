/**
 * What happened, line by line: its hash tells two runs apart, its end tells the story of a failure.
 *
 * Invariant: a line depends on the seed alone; no clock, path or address of this machine is in it.
 */
import { createHash } from 'node:crypto';

const BATCH_CHARS = 65_536;

export class Trace {
  readonly #hash = createHash('sha256');
  readonly #kept: string[] = [];
  readonly #keep: number;
  readonly #onLine: ((line: string) => void) | undefined;
  #batch = '';
  #lines = 0;

  /** @param keep as many of the last lines for the story */
  constructor(keep: number, onLine?: (line: string) => void) {
    this.#keep = keep;
    this.#onLine = onLine;
  }

  add(atUs: number, who: string, what: string): void {
    const line = `${(atUs / 1e6).toFixed(6).padStart(12)}  ${who.padEnd(9)} ${what}`;
    this.#batch += `${line}\n`;
    if (this.#batch.length > BATCH_CHARS) this.#flush();
    if (this.#keep > 0) this.#kept[this.#lines % this.#keep] = line;
    this.#lines += 1;
    this.#onLine?.(line);
  }

  get lines(): number {
    return this.#lines;
  }

  /** The last lines, oldest first. */
  story(): string[] {
    if (this.#lines <= this.#keep) return [...this.#kept];
    const from = this.#lines % this.#keep;
    return [...this.#kept.slice(from), ...this.#kept.slice(0, from)];
  }

  digest(): string {
    this.#flush();
    return this.#hash.copy().digest('hex');
  }

  #flush(): void {
    this.#hash.update(this.#batch);
    this.#batch = '';
  }
}
