/**
 * One direction of one connection: what comes in goes out later, or not while nothing may pass.
 *
 * Invariant: order is kept, no byte is changed, added or left out; a hang-up waits its turn behind the bytes before it, so
 * that the far end learns of it no sooner than of them. What is held is bounded: a full valve says so, and its sender is
 * not read until there is room. Pure but for the timer, which is passed in.
 */
import { drawn } from '#cli/chaos/chance.ts';
import { CHAOS } from '#cli/chaos/limits.ts';

export interface Conditions {
  readonly partitioned: boolean;
  readonly latencyMs: number;
  readonly jitterMs: number;
  readonly lossPercent: number;
}
export const CLEAR: Conditions = { partitioned: false, latencyMs: 0, jitterMs: 0, lossPercent: 0 };

/** `open`: the connection is to be made; `end`: the sender has said all; `reset`: it is gone. */
export type Item =
  | { readonly type: 'open' | 'end' | 'reset' }
  | { readonly type: 'bytes'; readonly bytes: Uint8Array };

export interface ValveOptions {
  /** Of chance, 32 bits. */
  readonly seed: number;
  readonly nowMs: () => number;
  /** Calls back once, at that time or later; a later call replaces the one before. */
  readonly wake: (atMs: number, back: () => void) => void;
  /** @returns false: the far end takes no more for now; {@link Valve.ready} says when it does */
  readonly out: (item: Item) => boolean;
}

export class Valve {
  readonly #options: ValveOptions;
  #conditions: Conditions = CLEAR;
  #queue: { item: Item; atMs: number }[] = [];
  #bytes = 0;
  #dice: number;
  #ready = true;
  #closed = false;

  constructor(options: ValveOptions) {
    this.#options = options;
    this.#dice = options.seed;
  }

  /** The sender is not to be read. */
  get isFull(): boolean {
    return this.#bytes >= CHAOS.wireQueueBytesMax;
  }

  get isShut(): boolean {
    return this.#conditions.partitioned;
  }

  set(conditions: Conditions): void {
    const { latencyMs, lossPercent, partitioned } = conditions;
    // Cleared: what was delayed or lost is there now.
    if (latencyMs === 0 && lossPercent === 0 && !partitioned) for (const one of this.#queue) one.atMs = 0;
    this.#conditions = conditions;
    this.#pump();
  }

  put(item: Item): void {
    if (this.#closed) return;
    const { latencyMs, jitterMs } = this.#conditions;
    const delayMs = latencyMs + (2 * this.#draw() - 1) * jitterMs;
    const stallMs = this.#stallMs();
    const last = this.#queue.at(-1)?.atMs ?? 0;
    const atMs = Math.max(last, this.#options.nowMs() + delayMs + (stallMs ?? 0));
    this.#queue.push({ item: stallMs === null ? { type: 'reset' } : item, atMs });
    if (stallMs === null) this.#closed = true;
    else if (item.type === 'bytes') this.#bytes += item.bytes.length;
    this.#pump();
  }

  /** The far end takes again. */
  ready(): void {
    this.#ready = true;
    this.#pump();
  }

  #draw(): number {
    const [value, next] = drawn(this.#dice);
    this.#dice = next;
    return value;
  }

  /** A lost segment is sent again after 200 ms, 400 ms, …; what follows waits behind it. Null: lost too often. */
  #stallMs(): number | null {
    let losses = 0;
    while (this.#draw() * 100 < this.#conditions.lossPercent) {
      if (++losses >= CHAOS.lossesInRowMax) return null;
    }
    return CHAOS.retransmitMs * (2 ** losses - 1);
  }

  #pump(): void {
    const { nowMs, wake, out } = this.#options;
    while (this.#ready && !this.#conditions.partitioned) {
      const [head] = this.#queue;
      if (head === undefined) return;
      if (head.atMs > nowMs()) {
        wake(head.atMs, () => this.#pump());
        return;
      }
      this.#queue.shift();
      if (head.item.type === 'bytes') this.#bytes -= head.item.bytes.length;
      this.#ready = out(head.item);
    }
  }
}
