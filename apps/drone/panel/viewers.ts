/**
 * The browsers that watch: what is said to them, and when.
 *
 * Invariant: every frame that this version took from the camera goes to every browser exactly once, in order: now if the
 * connections are here, else it waits (bounded) until they come, or goes back with the camera. A frame is dropped only
 * for a browser that has stopped reading, and that is counted.
 */
import { WebSocket } from 'ws';
import { LIMITS } from './limits.ts';

export interface View {
  kind: number;
  id: string;
  title: string;
  module: string;
}

export class Viewers {
  readonly #hello: string;
  readonly #kinds: ReadonlySet<number>;
  readonly #sockets = new Set<WebSocket>();
  /** Frames without connections to send them over; null while the connections are here. */
  #waiting: Buffer[] | null = [];
  /** Frames and messages that a browser did not get. */
  dropped = 0;

  constructor(release: string, views: readonly View[]) {
    this.#hello = JSON.stringify({ type: 'hello', release, views });
    this.#kinds = new Set(views.map((view) => view.kind));
  }

  get count(): number {
    return this.#sockets.size;
  }

  /** A browser came, by itself or from the prior; greeted at once. */
  add(socket: WebSocket): void {
    if (this.#sockets.size >= LIMITS.connectionsMax) {
      socket.close(1013, 'too many browsers');
      return;
    }
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => this.#sockets.delete(socket));
    socket.send(this.#hello);
  }

  /** A browser that had stayed here while the others were away: it knows us. */
  back(socket: WebSocket): void {
    this.#sockets.add(socket);
  }

  /** The connections are here, all of them added: what waited goes out. */
  open(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    for (const frame of waiting) this.#send(frame);
  }

  /** The connections are about to go: from here on frames wait. */
  close(): void {
    this.#waiting ??= [];
    this.#sockets.clear();
  }

  /** One camera frame, its first byte the kind; of kinds without a view it is ignored. */
  frame(frame: Buffer): void {
    if (!this.#kinds.has(frame[0] as number)) return;
    if (this.#waiting === null) {
      this.#send(frame);
      return;
    }
    this.#waiting.push(frame);
    if (this.#waiting.length > LIMITS.framesWaitingMax) {
      this.#waiting.shift();
      this.dropped += 1;
    }
  }

  /** Takes out the frames that wait, for whoever gets the camera next; the newest that fit. */
  takeWaiting(): Buffer[] {
    const frames = this.#waiting ?? [];
    if (this.#waiting !== null) this.#waiting = [];
    let bytes = frames.reduce((sum, frame) => sum + frame.length, 0);
    while (bytes > LIMITS.framesPassedBytesMax) {
      bytes -= frames.shift()?.length ?? bytes;
      this.dropped += 1;
    }
    return frames;
  }

  telemetry(message: object): void {
    if (this.#sockets.size > 0 && this.#waiting === null)
      this.#send(JSON.stringify({ type: 'telemetry', ...message }));
  }

  #send(data: Buffer | string): void {
    for (const socket of this.#sockets) {
      if (socket.readyState !== WebSocket.OPEN) continue;
      if (socket.bufferedAmount > LIMITS.backlogBytesMax) this.dropped += 1;
      else socket.send(data, { binary: typeof data !== 'string' });
    }
  }
}
