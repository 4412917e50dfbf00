/** Waiting with an end, and what was seen instead of what was expected. */
import { CONFORM } from '#handover/conform/limits.ts';

/** The program under test did not do what a case expects; `message` is what was seen. */
export class Miss extends Error {
  override readonly name = 'Miss';
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Whether it held by then. */
export const within = async (ms: number, holds: () => boolean): Promise<boolean> => {
  const endMs = performance.now() + ms;
  while (!holds()) {
    if (performance.now() > endMs) return false;
    await pause(CONFORM.pollMs);
  }
  return true;
};

/** @throws Miss of `seen`, if it did not hold by then */
export const expectWithin = async (
  ms: number,
  holds: () => boolean,
  seen: string | (() => string),
): Promise<void> => {
  if (await within(ms, holds)) return;
  throw new Miss(`${typeof seen === 'string' ? seen : seen()} (${Math.round(ms)} ms waited)`);
};

export const expect: (holds: boolean, seen: string) => asserts holds = (holds, seen) => {
  if (!holds) throw new Miss(seen);
};
