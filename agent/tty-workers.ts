/**
 * What a tty receives (a UART's as a pty's) is handed to its reader by one of the kernel's unbound workers, which run at normal
 * priority: any busy program can hold up the sample that a control loop under SCHED_FIFO waits for. So they get real time, too.
 * Measured in flight, 100 handovers each: 96 without a missed cycle at normal priority, 99 so.
 *
 * Invariant: only threads that the kernel itself calls unbound workers are touched. The kernel starts and ends them as it needs them,
 * so they are looked for again and again; `close` gives those that are left their normal priority back.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { LIMITS } from '#agent/limits.ts';
import type { Log } from '#agent/log.ts';
import { parseStat } from '#agent/proc-stat.ts';
import { isNativeError, native } from '#handover/native.ts';

/** PF_WQ_WORKER of the kernel's include/linux/sched.h: no program can have it, whatever it calls itself. */
const WORKER = 0x20;

/** By proc(5)'s stat. `kworker/u8:3`: unbound; a `-` at its nice value (19th field) is the kernel's own high-priority pool. */
const isUnboundWorker = (pid: string): boolean => {
  let line: string;
  try {
    line = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return false;
  }
  const { name, field } = parseStat(line);
  return name.startsWith('kworker/u') && (Number(field(9)) & WORKER) !== 0 && Number(field(19)) >= 0;
};

/** The kernel's unbound workers of normal priority that are visible here: none from within a pid namespace. */
export class TtyWorkers {
  readonly #timer: NodeJS.Timeout;
  readonly #log: Log;
  /** What was found out about a pid, so that a look costs one directory. */
  #known = new Map<string, boolean>();
  #refused = false;

  constructor(log: Log) {
    this.#log = log;
    this.look();
    if (![...this.#known.values()].includes(true)) {
      log.info(
        'no kernel workers to be seen from here: what the rotor link receives comes at their priority',
      );
    }
    this.#timer = setInterval(() => this.look(), LIMITS.workersLookMs).unref();
  }

  /** Raises those that have come since. */
  look(): void {
    const known = new Map<string, boolean>();
    for (const pid of readdirSync('/proc')) {
      const code = pid.charCodeAt(0);
      if (code < 48 || code > 57) continue;
      const worker = this.#known.get(pid) ?? isUnboundWorker(pid);
      known.set(pid, worker);
      if (worker) this.#set(pid, LIMITS.workersFifoPriority);
    }
    this.#known = known;
  }

  #set(pid: string, priority: number): void {
    try {
      native.setFifo(Number(pid), priority);
    } catch (error) {
      if (!isNativeError(error)) throw error;
      if (error.code === 'ESRCH' || this.#refused) return;
      this.#refused = true;
      this.#log.info({ err: error }, 'kernel workers keep their priority: the agent lacks CAP_SYS_NICE');
    }
  }

  close(): void {
    clearInterval(this.#timer);
    for (const [pid, worker] of this.#known) if (worker && isUnboundWorker(pid)) this.#set(pid, 0);
  }
}
