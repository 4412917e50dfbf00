/**
 * Which range a byte of the old file went with: of several that copy it, the longest, since a short one is more often a likeness
 * found by chance. Made once by a sweep over the ranges' starts and ends.
 */
import type { Ranges } from '#deltas/moves/covers.ts';

/** Bytes of the old file between two marks. */
const MARK_BITS = 12;

export class Owners {
  /** From each of these places on, in rising order, the range is the one at the same index; -1: none. */
  readonly starts: Float64Array;
  readonly owners: Int32Array;
  /** How many stretches begin before each mark: between two marks there are few. */
  readonly marks: Uint32Array;
  #last = 0;

  constructor({ count, olds, lengths }: Ranges) {
    const order = new Uint32Array(count).map((_, at) => at);
    order.sort((a, b) => (olds[a] as number) - (olds[b] as number) || a - b);
    const starts: number[] = [];
    const owners: number[] = [];
    const put = (start: number, owner: number): void => {
      if (starts.at(-1) === start) owners[owners.length - 1] = owner;
      else if (owners.at(-1) !== owner) {
        starts.push(start);
        owners.push(owner);
      }
    };
    const end = (range: number): number => (olds[range] as number) + (lengths[range] as number);
    const heap = new Heap(
      (a, b) => (lengths[a] as number) > (lengths[b] as number) || (lengths[a] === lengths[b] && a < b),
    );
    /** Ends those that are over by `place`, and lets what they covered show. */
    const until = (place: number): void => {
      for (let top = heap.top; top !== undefined && end(top) <= place; top = heap.top) {
        const from = end(top);
        while (heap.top !== undefined && end(heap.top) <= from) heap.pop();
        put(from, heap.top ?? -1);
      }
    };
    for (const range of order) {
      until(olds[range] as number);
      heap.push(range);
      put(olds[range] as number, heap.top as number);
    }
    until(Number.POSITIVE_INFINITY);
    this.starts = Float64Array.from(starts);
    this.owners = Int32Array.from(owners);
    this.marks = new Uint32Array(Math.floor((starts.at(-1) ?? 0) / 2 ** MARK_BITS) + 2);
    let before = 0;
    for (let mark = 0; mark < this.marks.length; mark += 1) {
      while (before < starts.length && (starts[before] as number) < mark * 2 ** MARK_BITS) before += 1;
      this.marks[mark] = before;
    }
  }

  /** Index of the last stretch that begins at or before `offset`; -1: none does. */
  #find(offset: number): number {
    const starts = this.starts;
    let low = 0;
    let high = starts.length;
    // The one before was often close by.
    const last = this.#last;
    if (last < high && (starts[last] as number) <= offset) {
      low = last + 1;
      if (low === high || (starts[low] as number) > offset) return last;
    }
    const mark = Math.floor(offset / 2 ** MARK_BITS);
    if (mark + 1 < this.marks.length) {
      low = Math.max(low, this.marks[mark] as number);
      high = Math.min(high, this.marks[mark + 1] as number);
    }
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((starts[middle] as number) <= offset) low = middle + 1;
      else high = middle;
    }
    this.#last = Math.max(0, low - 1);
    return low - 1;
  }

  /** @returns -1: no range has it */
  of(offset: number): number {
    const at = this.#find(offset);
    return at < 0 ? -1 : (this.owners[at] as number);
  }
}

class Heap {
  readonly #items: number[] = [];
  readonly #before: (a: number, b: number) => boolean;

  constructor(before: (a: number, b: number) => boolean) {
    this.#before = before;
  }

  get top(): number | undefined {
    return this.#items[0];
  }

  push(item: number): void {
    const items = this.#items;
    let at = items.length;
    items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#before(item, items[parent] as number)) break;
      items[at] = items[parent] as number;
      at = parent;
    }
    items[at] = item;
  }

  pop(): void {
    const items = this.#items;
    const item = items.pop();
    if (item === undefined || items.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && this.#before(items[child + 1] as number, items[child] as number))
        child += 1;
      if (!this.#before(items[child] as number, item)) break;
      items[at] = items[child] as number;
      at = child;
    }
    items[at] = item;
  }
}
