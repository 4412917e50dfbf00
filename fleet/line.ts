/**
 * A line in which pushes wait: one at a time, in the order in which they came.
 *
 * Invariant: at most one holder; a turn ends exactly once; who gives up while waiting is never called.
 */
export class Line {
  readonly #waiting: { who: string; call: () => void }[] = [];
  #holder: string | null = null;

  /**
   * Waits for a turn.
   *
   * @param onWait called once if there is somebody ahead: who has the turn, and how many are ahead in all
   * @returns ends the turn; calling it again does nothing
   */
  async take(
    who: string,
    signal: AbortSignal,
    onWait: (holder: string, ahead: number) => void,
  ): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#holder !== null) {
      onWait(this.#holder, this.#waiting.length + 1);
      await new Promise<void>((resolve, reject) => {
        const place = { who, call: resolve };
        this.#waiting.push(place);
        signal.addEventListener(
          'abort',
          () => {
            const index = this.#waiting.indexOf(place);
            if (index < 0) return;
            this.#waiting.splice(index, 1);
            reject(signal.reason as Error);
          },
          { once: true },
        );
      });
    }
    this.#holder = who;
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      this.#holder = null;
      const next = this.#waiting.shift();
      if (!next) return;
      // Held for the next one at once: nobody may step in before its turn is taken up.
      this.#holder = next.who;
      next.call();
    };
  }
}
