/**
 * The board's serial port: a pty whose far end the companion opens, and the clock that drives the board.
 *
 * Invariants:
 * - Nothing is ever waited for. What the companion does not take is dropped and counted, as by a UART to which nobody
 *   listens.
 * - The far end stays open here, so its user may come and go without the line hanging up.
 * - Whoever starts to listen hears the present. The kernel would keep the oldest 12 KiB, however long ago they were
 *   sent; so while nobody commands (or, to a board that flies by itself, says anything), nobody is taken to read, and
 *   what lies unread is discarded every 40 ms. One that only listens loses nothing by it as long as it reads at once.
 * - A pty has no baud. With one, bytes are paced both ways (paced-port.ts), and passed on every millisecond.
 */
import type { Board } from '#device-sim/board.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { Outlet, type Write } from '#device-sim/outlet.ts';
import { PacedPort } from '#device-sim/paced-port.ts';
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
  readonly #outlet: Outlet;
  readonly #paced: PacedPort | undefined;
  readonly #pump: Timer | undefined;
  #dueUs: number;
  #ticks = 0;
  #bytesDiscarded = 0;

  /** Ticks from now on, until `close`. @param baud bits a second; undefined: as fast as the pty */
  constructor(board: Board, truth: Truth, baud?: number) {
    this.#board = board;
    this.#truth = truth;
    const pty = native.openPty();
    this.path = pty.path;
    this.#master = pty.master;
    this.#slave = pty.slave;
    const write: Write = (bytes, offset, length) => native.write(pty.master, bytes, offset, length);
    this.#outlet = new Outlet(write);
    truth.values[TRUTH.baud] = baud ?? 0;
    if (baud !== undefined) {
      const paced = new PacedPort(baud, write, (bytes, tUs) => board.receive(bytes, tUs));
      this.#paced = paced;
      this.#pump = native.timer(() => paced.pump(nowUs()));
      this.#pump.set(nowUs() + LIMITS.wireUs, LIMITS.wireUs);
    }
    this.#watcher = native.watch(pty.master, READABLE, () => this.#receive());
    this.#timer = native.timer((expiries) => this.#tick(expiries));
    // On the grid of the physics' steps, so that a sample's time is the time that its tick was due.
    const ticks = Math.ceil((nowUs() - board.startUs) / LIMITS.tickUs) + 1;
    this.#dueUs = board.startUs + ticks * LIMITS.tickUs;
    this.#timer.set(this.#dueUs, LIMITS.tickUs);
  }

  close(): void {
    this.#timer.close();
    this.#pump?.close();
    this.#watcher.close();
    native.close(this.#master);
    native.close(this.#slave);
  }

  #receive(): void {
    for (let reads = 0; reads < LIMITS.readsMax; reads += 1) {
      const length = native.read(this.#master, this.#buffer, 0, this.#buffer.length);
      if (length === AGAIN || length === 0) return;
      (this.#paced ?? this.#board).receive(this.#buffer.subarray(0, length), nowUs());
    }
  }

  #tick(expiries: number): void {
    // Commands that wait already belong before this tick, whatever the order of the wake-ups.
    this.#receive();
    const now = nowUs();
    this.#paced?.pump(now);
    const lateUs = Math.max(0, now - this.#dueUs);
    this.#dueUs += expiries * LIMITS.tickUs;
    const bytes = this.#board.tick(now, lateUs, expiries - 1);
    this.#ticks += 1;
    if (!this.#board.hasCompanion(now) && this.#ticks % LIMITS.unreadTicks === 0) this.#discard();
    this.#send(bytes, now);
  }

  #send(bytes: Uint8Array, now: number): void {
    const port = this.#paced ?? this.#outlet;
    port.send(bytes, now);
    const { values } = this.#truth;
    values[TRUTH.framesSent] = port.framesSent;
    values[TRUTH.framesDropped] = port.framesDropped;
    values[TRUTH.wireInDroppedBytes] = this.#paced?.inDroppedBytes ?? 0;
    values[TRUTH.wireOutDroppedBytes] = this.#paced?.outDroppedBytes ?? 0;
    values[TRUTH.bytesDiscarded] = this.#bytesDiscarded;
  }

  #discard(): void {
    for (let reads = 0; reads < LIMITS.readsMax; reads += 1) {
      const length = native.read(this.#slave, this.#buffer, 0, this.#buffer.length);
      if (length === AGAIN || length === 0) return;
      this.#bytesDiscarded += length;
      this.#outlet.forget();
    }
  }
}
