/**
 * Between the apps and the flight controller's tty: one channel passes, that of the highest epoch.
 *
 * Invariants
 * - A channel is the right to write under one epoch. Opening the next takes it away in the same step; whatever is written on
 *   it later, and what waited in it unread, is counted and never reaches the tty.
 * - What reaches the tty is whole frames, in order; so no frame of one version ends in the bytes of another.
 * - Nobody is waited for: a tty that takes no bytes loses the oldest frames, an app that reads nothing the newest bytes.
 */
import { Framer } from '#agent/gate/frames.ts';
import { GATE } from '#agent/gate/limits.ts';
import { AGAIN, native, READABLE, type Watcher, WRITABLE } from '#handover/native.ts';

export class GateError extends Error {
  readonly code: 'STALE_EPOCH' | 'MOVED' | 'REFUSED';
  constructor(code: GateError['code'], text: string) {
    super(text);
    this.code = code;
  }
}

/** What became of who had the last channel: it let go of it, it cannot act any more, or it may still use it. */
export type Previous = 'released' | 'dead' | 'unknown';
/** A socket pair: the end that the gate reads and writes, and the app's. */
export interface Ends {
  readonly gate: number;
  readonly app: number;
}
export interface Stats {
  readonly epoch: number;
  /** To the tty. */
  frames: number;
  bytesToApp: number;
  /** On a channel that was not the current one any more. */
  staleBytes: number;
  /** In no frame. */
  garbageBytes: number;
  /** The tty took no bytes; the app read none. */
  droppedFrames: number;
  droppedToAppBytes: number;
}
/** All that another gate needs to go on; its descriptors are the tty and, if there is one, the channel's ends. */
export interface GateState {
  readonly epoch: number;
  /** Of the app's frame whose end has not come. */
  readonly partial: Buffer;
  /** Frames that the tty has not taken; the first may have lost its beginning to it. */
  readonly waiting: Buffer[];
  readonly tty: number;
  readonly ends?: Ends;
}

interface Channel extends Ends {
  readonly watcher: Watcher;
  readonly framer: Framer;
}

/** Read and written out within one turn. */
const scratch = Buffer.allocUnsafe(GATE.turnBytesMax);

export class Gate {
  readonly #tty: number;
  readonly #onLost: (error: Error) => void;
  readonly #counts = { frames: 0, bytesToApp: 0, staleBytes: 0, garbageBytes: 0, droppedFrames: 0 };
  #droppedToAppBytes = 0;
  #watcher: Watcher | undefined;
  #epoch: number;
  #channel: Channel | undefined;
  #stale: { readonly fd: number; readonly watcher: Watcher }[] = [];
  #waiting: Buffer[];
  #cut = false;

  /** Takes the descriptors over. @param onLost the tty failed: nothing can be done here any more */
  constructor(state: GateState, onLost: (error: Error) => void) {
    this.#tty = state.tty;
    this.#onLost = onLost;
    this.#epoch = state.epoch;
    this.#waiting = state.waiting;
    // The rest of what the tty has the beginning of must go.
    this.#cut = state.waiting.length > 0;
    if (state.ends !== undefined) this.#channel = this.#listen(state.ends, new Framer(state.partial));
    this.#watch();
  }

  get epoch(): number {
    return this.#epoch;
  }

  get stats(): Stats {
    const garbageBytes = this.#counts.garbageBytes + (this.#channel?.framer.garbageBytes ?? 0);
    return {
      ...this.#counts,
      epoch: this.#epoch,
      garbageBytes,
      droppedToAppBytes: this.#droppedToAppBytes,
    };
  }

  /**
   * The channel of an epoch, from here on the only one. Takes the ends over, also when it refuses. The same epoch again is
   * the same channel: nothing changes.
   * @throws GateError `STALE_EPOCH`
   */
  open(epoch: number, previous: Previous, ends: Ends): void {
    if (epoch < this.#epoch || (epoch === this.#epoch && this.#channel !== undefined)) {
      native.close(ends.gate);
      native.close(ends.app);
      if (epoch === this.#epoch) return;
      throw new GateError('STALE_EPOCH', `epoch ${epoch} is older than ${this.#epoch}`);
    }
    const old = this.#channel;
    // Its own last frames were written while it might.
    if (old !== undefined && previous === 'released') this.#readChannel(old);
    this.#epoch = epoch;
    this.#channel = undefined;
    const next = this.#listen(ends, new Framer());
    if (old !== undefined) {
      if (previous !== 'unknown') this.#moveInput(old, next);
      this.#retire(old);
    }
    this.#channel = next;
    this.#watch();
  }

  /** The agent's own words, when nobody is left to fly; no channel is open from here on. @throws GateError `STALE_EPOCH` */
  command(epoch: number, bytes: Buffer): void {
    if (epoch < this.#epoch)
      throw new GateError('STALE_EPOCH', `epoch ${epoch} is older than ${this.#epoch}`);
    const old = this.#channel;
    this.#epoch = epoch;
    this.#channel = undefined;
    if (old !== undefined) this.#retire(old);
    this.#watch();
    this.#send(Buffer.from(bytes));
  }

  /** Stops reading and writing; the descriptors stay open, so that another gate, or this one again, can go on with them. */
  pause(): GateState {
    this.#watcher?.close();
    this.#watcher = undefined;
    const channel = this.#channel;
    channel?.watcher.close();
    for (const { fd, watcher } of this.#stale.splice(0)) {
      watcher.close();
      native.close(fd);
    }
    return {
      epoch: this.#epoch,
      partial: channel?.framer.partial ?? Buffer.alloc(0),
      waiting: this.#waiting,
      tty: this.#tty,
      ...(channel === undefined ? {} : { ends: { gate: channel.gate, app: channel.app } }),
    };
  }

  close(): void {
    const { tty, ends } = this.pause();
    native.close(tty);
    if (ends === undefined) return;
    native.close(ends.gate);
    native.close(ends.app);
  }

  #listen(ends: Ends, framer: Framer): Channel {
    const watcher = native.watch(ends.gate, READABLE, () => this.#readChannel(channel));
    const channel = { ...ends, framer, watcher };
    return channel;
  }

  /** While there is no channel the board's words wait in the tty, as they would for an app. */
  #watch(): void {
    const reads = this.#channel === undefined ? 0 : READABLE;
    const writes = this.#waiting.length > 0 ? WRITABLE : 0;
    this.#watcher ??= native.watch(this.#tty, 0, (events, status) => {
      if (status < 0) this.#lost(new Error(`poll of the tty failed: ${status}`));
      if ((events & WRITABLE) !== 0) this.#flush();
      if ((events & READABLE) !== 0) this.#readTty();
    });
    this.#watcher.change(reads | writes);
  }

  #lost(error: Error): void {
    this.#watcher?.change(0);
    this.#onLost(error);
  }

  // -------------------------------------------------------------- app to board

  #readChannel(channel: Channel): void {
    const got = read(channel.gate);
    if (got === 0) return;
    for (const frame of channel.framer.take(scratch.subarray(0, got))) this.#send(frame);
  }

  #send(frame: Buffer): void {
    this.#counts.frames += 1;
    if (this.#waiting.length > 0) {
      this.#wait(Buffer.from(frame));
      return;
    }
    const sent = this.#write(frame);
    if (sent === frame.length) return;
    this.#cut = sent > 0;
    this.#wait(Buffer.from(frame.subarray(sent)));
    this.#watch();
  }

  #wait(frame: Buffer): void {
    this.#waiting.push(frame);
    if (this.#waiting.length <= GATE.waitingFramesMax) return;
    // Of the first the tty may have the beginning: then it goes to its end.
    this.#waiting.splice(this.#cut ? 1 : 0, 1);
    this.#counts.droppedFrames += 1;
  }

  #flush(): void {
    for (let frame = this.#waiting[0]; frame !== undefined; frame = this.#waiting[0]) {
      const sent = this.#write(frame);
      if (sent < frame.length) {
        this.#cut ||= sent > 0;
        this.#waiting[0] = frame.subarray(sent);
        return;
      }
      this.#waiting.shift();
      this.#cut = false;
    }
    this.#watch();
  }

  #write(bytes: Buffer): number {
    try {
      const sent = native.write(this.#tty, bytes, 0, bytes.length);
      return sent === AGAIN ? 0 : sent;
    } catch (error) {
      this.#lost(error as Error);
      return 0;
    }
  }

  /** What comes on it from here on is refused. It is not closed: its app is not to take the loss for a fault of the link's. */
  #retire({ gate, app, watcher, framer }: Channel): void {
    watcher.close();
    native.close(app);
    this.#counts.garbageBytes += framer.garbageBytes;
    this.#counts.staleBytes += framer.partial.length;
    const stale = {
      fd: gate,
      watcher: native.watch(gate, READABLE, () => {
        const got = read(gate);
        this.#counts.staleBytes += got;
        if (got === 0) this.#forget(stale);
      }),
    };
    this.#stale.push(stale);
    const [oldest] = this.#stale;
    if (this.#stale.length > GATE.staleCountMax && oldest !== undefined) this.#forget(oldest);
  }

  #forget(stale: { readonly fd: number; readonly watcher: Watcher }): void {
    this.#stale = this.#stale.filter((one) => one !== stale);
    stale.watcher.close();
    native.close(stale.fd);
  }

  // -------------------------------------------------------------- board to app

  #readTty(): void {
    let got: number;
    try {
      got = native.read(this.#tty, scratch, 0, scratch.length);
    } catch (error) {
      this.#lost(error as Error);
      return;
    }
    if (got === 0) this.#lost(new Error('the tty hung up'));
    else if (got !== AGAIN && this.#channel !== undefined)
      this.#tell(this.#channel, scratch.subarray(0, got));
  }

  #tell({ gate }: Ends, bytes: Buffer): void {
    let sent = 0;
    try {
      sent = Math.max(0, native.write(gate, bytes, 0, bytes.length));
    } catch {
      // Nobody at the other end any more; the agent hears of it from elsewhere.
    }
    this.#counts.bytesToApp += sent;
    this.#droppedToAppBytes += bytes.length - sent;
  }

  /** What the one before did not read, it will not read: the next one's, before all that is newer. */
  #moveInput(from: Ends, to: Ends): void {
    for (let got = read(from.app); got > 0; got = read(from.app)) {
      this.#counts.bytesToApp -= got;
      this.#tell(to, scratch.subarray(0, got));
    }
  }
}

/** @returns 0: nothing there, or nobody any more */
const read = (fd: number): number => {
  try {
    return Math.max(0, native.read(fd, scratch, 0, scratch.length));
  } catch {
    return 0;
  }
};
