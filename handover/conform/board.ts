/**
 * A flight controller's board for the conformance runner, at the master of a real pty.
 *
 * Invariant: input `i N` is written once, N from 1 without a gap; every command must answer the next input under an
 * epoch that is not below the last one's, with the next sequence number. What is lost, doubled or stale is a problem.
 */
import { CONFORM } from '#handover/conform/limits.ts';
import { AGAIN, native, nowUs, READABLE, type Watcher } from '#handover/native.ts';

export interface Command {
  readonly epoch: number;
  readonly seq: number;
  readonly n: number;
  readonly atUs: number;
}

const PROBLEMS_MAX = 20;

export class Board {
  /** The program's end: rides with GRANT, and stays open here, as an agent's duplicate does. */
  readonly rotors: number;
  /** Of the same tty, for one who opens it. */
  readonly path: string;
  readonly #master: number;
  readonly #watcher: Watcher;
  #timer: NodeJS.Timeout;
  #tail = Buffer.alloc(0);
  #text = '';
  /** Until the first owner is to fly: what was never read would be its to answer. */
  #paused = true;
  #perTick = 1;
  #halved = false;
  /** Last input written, and the last command. */
  inputs = 0;
  last: Command = { epoch: 0, seq: 0, n: 0, atUs: 0 };
  /** First command of each epoch, in order. */
  readonly firsts: Command[] = [];
  readonly problems: string[] = [];

  constructor() {
    const { master, slave, path } = native.openPty();
    this.#master = master;
    this.rotors = slave;
    this.path = path;
    this.#watcher = native.watch(master, READABLE, () => this.#read());
    this.#timer = setInterval(() => this.#tick(), CONFORM.boardPeriodMs);
  }

  /** No further input; what was written waits for its reader. */
  pause(on: boolean): void {
    this.#paused = on;
  }
  /** Inputs at this interval from here on. */
  pace(periodMs: number): void {
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#tick(), periodMs);
  }
  burst(on: boolean): void {
    this.#perTick = on ? CONFORM.burstCount : 1;
  }
  /** Now, the beginning of an input; its end, and all after it, comes with {@link whole}. */
  half(): void {
    this.inputs += 1;
    this.#write(Buffer.from(`i ${this.inputs}`));
    this.#halved = true;
  }
  whole(): void {
    this.#halved = false;
    this.#write(Buffer.from('\n'));
  }
  get unanswered(): number {
    return this.inputs - this.last.n;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#watcher.close();
    native.close(this.#master);
    native.close(this.rotors);
  }

  #tick(): void {
    if (this.#halved) return;
    this.#write(Buffer.alloc(0));
    for (let count = 0; count < this.#perTick && !this.#paused && this.#tail.length === 0; count++) {
      this.inputs += 1;
      this.#write(Buffer.from(`i ${this.inputs}\n`));
    }
  }

  /** A pty that nobody reads fills up: the board then waits, and counts on from there. */
  #write(bytes: Buffer): void {
    const all = Buffer.concat([this.#tail, bytes]);
    const sent = all.length === 0 ? 0 : native.write(this.#master, all, 0, all.length);
    this.#tail = all.subarray(sent === AGAIN ? 0 : sent);
  }

  #read(): void {
    const bytes = Buffer.allocUnsafe(4_096);
    const got = native.read(this.#master, bytes, 0, bytes.length);
    if (got <= 0) return;
    const lines = (this.#text + bytes.toString('latin1', 0, got)).split('\n');
    this.#text = (lines.pop() ?? '').slice(-CONFORM.outputCharsMax);
    for (const line of lines) this.#command(line);
  }

  #command(line: string): void {
    const match = /^c (\d{1,15}) (\d{1,15}) (\d{1,15})$/.exec(line);
    if (match === null) {
      this.#problem(`"${line.slice(0, 40)}" is no command`);
      return;
    }
    const [epoch = 0, seq = 0, n = 0] = match.slice(1).map(Number);
    const { last } = this;
    if (n <= last.n) this.#problem(`input ${n} answered again`);
    if (n > last.n + 1) this.#problem(`inputs ${last.n + 1} to ${n - 1} not answered`);
    if (n > this.inputs) this.#problem(`input ${n} was never written`);
    if (seq !== last.seq + 1) this.#problem(`sequence ${seq} after ${last.seq}`);
    if (epoch < last.epoch) this.#problem(`epoch ${epoch} after ${last.epoch}`);
    this.last = { epoch, seq, n: Math.max(n, last.n), atUs: nowUs() };
    if (epoch > last.epoch) this.firsts.push(this.last);
  }

  #problem(text: string): void {
    if (this.problems.length < PROBLEMS_MAX) this.problems.push(text);
  }
}
