/** How much of this machine the flight had: what its host took away, and how busy it was. From /proc/stat. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

interface Ticks {
  all: number;
  idle: number;
  steal: number;
}

export interface MachineUse {
  cores: number;
  /** Shares of the processors' time, 0 to 1. */
  stealShare: number;
  busyShare: number;
}

export class Machine {
  readonly #before = ticks();

  /** Since it was made. */
  use(): MachineUse {
    const [now, before] = [ticks(), this.#before];
    const all = Math.max(1, now.all - before.all);
    const stealShare = (now.steal - before.steal) / all;
    const busyShare = 1 - (now.idle - before.idle) / all;
    return { cores: availableParallelism(), stealShare, busyShare };
  }
}

/** proc(5): user, nice, system, idle, iowait, irq, softirq, steal. */
function ticks(): Ticks {
  try {
    const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n', 1);
    const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = line
      .split(/\s+/)
      .slice(1)
      .map(Number);
    return { all: user + nice + system + idle + iowait + irq + softirq + steal, idle: idle + iowait, steal };
  } catch {
    return { all: 0, idle: 0, steal: 0 };
  }
}
