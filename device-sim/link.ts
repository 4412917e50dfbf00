/**
 * The board's serial port: a pty whose far end the companion opens, and the clock that drives the board.
 *
 * Invariants:
 * - Nothing is ever waited for. What the companion does not take is dropped and counted, as by a UART to which nobody
 *   listens; frames are dropped whole.
 * - The far end stays open here, so its user may come and go without the line hanging up.
 * - Whoever starts to listen hears the present. While nobody commands, nobody is taken to read, and what was left
 *   unread for a whole cycle is discarded before the next one: the kernel would else keep the oldest 8 to 12 KiB, a
 *   quarter of a second of the past. A listener loses nothing by it as long as it reads within a cycle.
 */
import type { Board } from '#device-sim/board.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { TRUTH, type Truth } from '#device-sim/truth.ts';
import { AGAIN, native, nowUs, READABLE, type Timer, type Watcher } from '#handover/native.ts';

export class Link {
  /** Of the tty for the companion. */
  readonly path: string;
  readonly #board: Board;
  readonly #truth: Truth;
  readonly #master: number;
  readonly #slave: number;
  readonly #buffer = new Uint8Array(LIMITS.readBytes);
  readonly #watcher: Watcher;
  readonly #timer: Timer;
  /** The end of a tick's frames that the kernel took in part. */
  readonly #rest = new Uint8Array(LIMITS.tickBytesMax);
  #restLength = 0;
  #dueUs: number;
  #framesSent = 0;
  #framesDropped = 0;
  #bytesDiscarded = 0;

  /** Ticks from now on, until `close`. */
  constructor(board: Board, truth: Truth) {
    this.#board = board;
    this.#truth = truth;
    const pty = native.openPty();
    this.path = pty.path;
    this.#master = pty.master;
    this.#slave = pty.slave;
    this.#watcher = native.watch(pty.master, READABLE, () => this.#receive());
    this.#timer = native.timer((expiries) => this.#tick(expiries));
    // On the grid of the physics' steps, so that a sample's time is the time that its tick was due.
    const ticks = Math.ceil((nowUs() - board.startUs) / LIMITS.tickUs) + 1;
    this.#dueUs = board.startUs + ticks * LIMITS.tickUs;
    this.#timer.set(this.#dueUs, LIMITS.tickUs);
  }

  close(): void {
    this.#timer.close();
    this.#watcher.close();
    native.close(this.#master);
    native.close(this.#slave);
  }

  #receive(): void {
    for (let reads = 0; reads < LIMITS.readsMax; reads += 1) {
      const length = native.read(this.#master, this.#buffer, 0, this.#buffer.length);
      if (length === AGAIN || length === 0) return;
      this.#board.receive(this.#buffer.subarray(0, length), nowUs());
    }
  }

  #tick(expiries: number): void {
    // Commands that wait already belong before this tick, whatever the order of the wake-ups.
    this.#receive();
    const now = nowUs();
    const lateUs = Math.max(0, now - this.#dueUs);
    this.#dueUs += expiries * LIMITS.tickUs;
    const bytes = this.#board.tick(now, lateUs, expiries - 1);
    if (now - this.#board.lastCommandUs > LIMITS.unreadUs) this.#discard();
    this.#send(bytes);
    const { values } = this.#truth;
    values[TRUTH.framesSent] = this.#framesSent;
    values[TRUTH.framesDropped] = this.#framesDropped;
    values[TRUTH.bytesDiscarded] = this.#bytesDiscarded;
  }

  #send(bytes: Uint8Array): void {
    const frames = countFrames(bytes);
    if (this.#restLength > 0) {
      const sent = Math.max(0, native.write(this.#master, this.#rest, 0, this.#restLength));
      this.#rest.copyWithin(0, sent, this.#restLength);
      this.#restLength -= sent;
    }
    // The rest goes first: a frame cut in two would cost the one behind it too.
    const sent = this.#restLength > 0 ? AGAIN : native.write(this.#master, bytes, 0, bytes.length);
    if (sent === AGAIN) {
      this.#framesDropped += frames;
      return;
    }
    this.#framesSent += frames;
    this.#rest.set(bytes.subarray(sent));
    this.#restLength = bytes.length - sent;
  }

  #discard(): void {
    for (let reads = 0; reads < LIMITS.readsMax; reads += 1) {
      const length = native.read(this.#slave, this.#buffer, 0, this.#buffer.length);
      if (length === AGAIN || length === 0) return;
      this.#bytesDiscarded += length;
      this.#restLength = 0;
    }
  }
}

/** By the length byte of each header. */
const countFrames = (bytes: Uint8Array): number => {
  let frames = 0;
  for (let at = 0; at < bytes.length; at += 12 + (bytes[at + 1] as number)) frames += 1;
  return frames;
};
