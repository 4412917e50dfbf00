/**
 * Where what a module's references point to has gone, by what those that came before turned out to be: functions, types and data
 * mostly stay in their order, so that what lies between two that moved alike has moved as they did.
 *
 * Invariant: as of prediction.ts: the answer depends only on the old module and the `learn`s before, in their order.
 * Memory: 9 bytes for each cell, some 5 MiB at most, and the functions of Go.
 */
import type { Module } from '#deltas/moves/wasm.ts';
import { FUNCTIONS, GO_CODE, GO_PLACE_BITS, isGoCode, TYPES } from '#deltas/moves/wasm-sweep.ts';

/** Numbers that lie close share a cell when there are more. */
const CELLS_MAX = 2 ** 18;
/** So many cells to each side one is looked for of which something is known. */
const REACH = 2048;
/** As often as a cell was right, it may be wrong before it is told anew. */
const SURE_MAX = 3;
const TYPES_MAX = 2 ** 16;

/** How far what was at a number has moved. */
class Moves {
  readonly #low: number;
  readonly #shift: number = 0;
  readonly #moves: Float64Array;
  /** 0: nothing is known. */
  readonly #sure: Uint8Array;

  /** Of numbers from `low` to below `high`; of others nothing is known. */
  constructor(low: number, high: number) {
    this.#low = low;
    const span = Math.max(1, high - low);
    while (span / 2 ** this.#shift > CELLS_MAX) this.#shift += 1;
    const cells = Math.ceil(span / 2 ** this.#shift);
    this.#moves = new Float64Array(cells);
    this.#sure = new Uint8Array(cells);
  }

  /** @returns undefined: it has none */
  #cell(old: number): number | undefined {
    const cell = Math.floor((old - this.#low) / 2 ** this.#shift);
    return cell >= 0 && cell < this.#sure.length ? cell : undefined;
  }

  /** Of the nearest of which something is known, the lower of two. */
  of(old: number): number {
    const cell = this.#cell(old);
    if (cell === undefined) return 0;
    for (let step = 0; step < REACH; step += 1) {
      for (const near of [cell - step, cell + step])
        if ((this.#sure[near] ?? 0) > 0) return this.#moves[near] as number;
    }
    return 0;
  }

  learn(old: number, move: number): void {
    const cell = this.#cell(old);
    if (cell === undefined) return;
    const sure = this.#sure[cell] as number;
    if (sure > 0 && this.#moves[cell] === move) {
      this.#sure[cell] = Math.min(sure + 1, SURE_MAX);
    } else if (sure > 1) {
      this.#sure[cell] = sure - 1;
    } else {
      this.#moves[cell] = move;
      this.#sure[cell] = 1;
    }
  }
}

export class ModulePrediction {
  readonly #functions: Moves;
  readonly #types = new Moves(TYPES, TYPES + TYPES_MAX);
  readonly #data: Moves;
  readonly #importedFunctions: number;
  /** Go: how far the last place in each function moved. */
  readonly #places = new Map<number, number>();

  constructor({ importedFunctions, functions, low, high }: Module) {
    this.#importedFunctions = importedFunctions;
    this.#functions = new Moves(FUNCTIONS, FUNCTIONS + functions);
    this.#data = new Moves(low, high);
  }

  /** In which function an address of Go's code is. */
  #functionOf(address: number): number {
    return FUNCTIONS + this.#importedFunctions + Math.floor((address - GO_CODE) / 2 ** GO_PLACE_BITS);
  }

  /** Where what was at `old` is now. */
  target(old: number): number {
    if (old >= TYPES) return old + this.#types.of(old);
    if (old >= FUNCTIONS) return old + this.#functions.of(old);
    if (!isGoCode(old)) return old + this.#data.of(old);
    const number = this.#functionOf(old);
    return old + (this.#places.get(number) ?? this.#functions.of(number) * 2 ** GO_PLACE_BITS);
  }

  /** A reference to `old` turned out to point to `young`. */
  learn(old: number, young: number): void {
    const move = young - old;
    if (old >= TYPES) {
      this.#types.learn(old, move);
    } else if (old >= FUNCTIONS) {
      this.#functions.learn(old, move);
    } else if (!isGoCode(old)) {
      this.#data.learn(old, move);
    } else {
      const number = this.#functionOf(old);
      this.#places.set(number, move);
      this.#functions.learn(number, Math.round(move / 2 ** GO_PLACE_BITS));
    }
  }
}
