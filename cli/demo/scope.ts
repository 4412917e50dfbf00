/**
 * What was started and must be ended, in reverse order.
 *
 * Invariant: whatever is being started is registered before its start begins, so that an interruption at any
 * moment ends it too. Everything is tried, whatever fails before it; closing twice is closing once.
 */
export class Scope {
  readonly #ends: { what: string; end: () => Promise<void> }[] = [];
  #closing: Promise<Error[]> | undefined;

  /** Starts something, and ends it when the scope closes. After the scope closed nothing is started any more. */
  async use<T>(what: string, start: () => Promise<T>, end: (started: T) => Promise<void> | void): Promise<T> {
    if (this.#closing !== undefined) throw new Error(`${what} is not started: everything is being stopped`);
    const starting = start();
    this.#ends.push({
      what,
      end: async () => {
        let started: T;
        try {
          started = await starting;
        } catch {
          // Never started: its start cleans up after itself.
          return;
        }
        await end(started);
      },
    });
    return starting;
  }

  /** Resolves when all is ended, with what went wrong meanwhile. */
  close(): Promise<Error[]> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<Error[]> {
    const errors: Error[] = [];
    for (const { what, end } of this.#ends.reverse()) {
      try {
        await end();
      } catch (cause) {
        errors.push(new Error(`${what}: ${(cause as Error).message}`, { cause }));
      }
    }
    return errors;
  }
}
