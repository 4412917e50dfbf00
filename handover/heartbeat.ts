/**
 * The owner's heartbeat: at an interval, or, while another could take over at once, right after its commands.
 *
 * Invariant: one series at a time; one that was stopped or replaced says nothing more.
 */
import { BOUNDS } from '#handover/bounds.ts';
import type { Holder } from '#handover/holder.ts';
import { LIMITS } from '#handover/limits.ts';

export class Heartbeat {
  readonly #rotors: Holder | undefined;
  readonly #beat: () => void;
  #timer: NodeJS.Timeout | undefined;
  /** Counts the series; the one that runs is the last. */
  #series = 0;
  #intervalMs: number = LIMITS.snapIntervalMs;

  /** @param beat sends one SNAP, with the state as it is then */
  constructor(rotors: Holder | undefined, beat: () => void) {
    this.#rotors = rotors;
    this.#beat = beat;
  }

  /**
   * One at once, then a series.
   * @param intervalMs from here on; it falls back to `LIMITS.snapIntervalMs` when nobody reads the mirror any more
   */
  start(intervalMs = this.#intervalMs): void {
    this.stop();
    this.#intervalMs = intervalMs;
    const series = this.#series;
    this.#beat();
    const tick = this.#rotors?.tick?.bind(this.#rotors);
    if (this.#watched && tick !== undefined) {
      void this.#follow(tick, series);
      return;
    }
    const watched = this.#watched;
    this.#timer = setInterval(() => {
      this.#beat();
      if (watched && !this.#watched) this.#relax();
    }, this.#intervalMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#series += 1;
  }

  /** Whoever watched is gone, or the rotors are: the next series is at the usual interval. */
  usual(): void {
    this.#intervalMs = LIMITS.snapIntervalMs;
  }

  get #watched(): boolean {
    return this.#intervalMs < LIMITS.snapIntervalMs && this.#rotors?.mirroring !== false;
  }
  #relax(): void {
    this.usual();
    this.start();
  }

  /** The state is fresh right after a command, and the loop has the rest of its period. */
  async #follow(tick: (withinMs: number) => Promise<void>, series: number): Promise<void> {
    let lastMs = performance.now();
    while (this.#watched) {
      await tick(this.#intervalMs * BOUNDS.snapIntervalsMax);
      if (series !== this.#series) return;
      const nowMs = performance.now();
      // A loop that runs faster than it is asked to speak does not say more. Half: commands come a little early, too.
      if (nowMs - lastMs < this.#intervalMs / 2) continue;
      lastMs = nowMs;
      this.#beat();
    }
    this.#relax();
  }
}
