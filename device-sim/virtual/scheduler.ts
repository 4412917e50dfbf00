/**
 * Virtual time: what is to happen, in order of its time, and nothing else moves the clock.
 *
 * Invariant: the same calls give the same order on every machine. Times are whole microseconds; what falls on the same
 * microsecond happens in the order in which it was asked for.
 */
export interface Scheduler {
  readonly nowUs: number;
  readonly done: number;
  /** @param atUs not before now */
  at(atUs: number, act: () => void): void;
  /** Until nothing is left, `untilUs` has passed, or `isOver` says so after an event. */
  run(untilUs: number, isOver?: () => boolean): void;
}

interface Entry {
  readonly atUs: number;
  readonly order: number;
  readonly act: () => void;
}

const isBefore = (a: Entry, b: Entry): boolean => a.atUs < b.atUs || (a.atUs === b.atUs && a.order < b.order);

export const createScheduler = (): Scheduler => {
  /** A binary heap: each entry is before the two at twice its place. */
  const heap: Entry[] = [];
  let nowUs = 0;
  let order = 0;
  let done = 0;

  const push = (entry: Entry): void => {
    let place = heap.push(entry) - 1;
    while (place > 0) {
      const above = (place - 1) >> 1;
      const parent = heap[above] as Entry;
      if (isBefore(parent, entry)) break;
      heap[place] = parent;
      place = above;
    }
    heap[place] = entry;
  };

  const pop = (): Entry => {
    const first = heap[0] as Entry;
    const last = heap.pop() as Entry;
    if (heap.length === 0) return first;
    let place = 0;
    for (;;) {
      let below = 2 * place + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && isBefore(heap[below + 1] as Entry, heap[below] as Entry)) below += 1;
      const child = heap[below] as Entry;
      if (isBefore(last, child)) break;
      heap[place] = child;
      place = below;
    }
    heap[place] = last;
    return first;
  };

  return {
    get nowUs() {
      return nowUs;
    },
    get done() {
      return done;
    },
    at(atUs, act) {
      if (!Number.isSafeInteger(atUs) || atUs < nowUs) throw new Error(`cannot act at ${atUs}, now ${nowUs}`);
      push({ atUs, order: order++, act });
    },
    run(untilUs, isOver = () => false) {
      while (heap.length > 0 && (heap[0] as Entry).atUs <= untilUs) {
        const { atUs, act } = pop();
        nowUs = atUs;
        done += 1;
        act();
        if (isOver()) return;
      }
      if (heap.length === 0 || (heap[0] as Entry).atUs > untilUs) nowUs = Math.max(nowUs, untilUs);
    },
  };
};
