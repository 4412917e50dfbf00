/**
 * A control panel without a browser: stays connected, and counts what a pilot would have missed.
 *
 * Invariant: it connects once and never again. A frame whose number does not follow the one before of its kind
 * is a loss; a socket that closes is a dropped one, whoever closed it.
 */
import { once } from 'node:events';
import { WebSocket } from 'ws';

/** A camera frame as the panel gets it: kind (u8), three zero bytes, number within its kind (u32, little endian). */
const KIND_AT = 0;
const SEQUENCE_AT = 4;
const FRAME_BYTES_MIN = 16;

export interface View {
  kind: number;
  id: string;
}

export interface Seen {
  frames: number;
  /** Numbers that were skipped. */
  lost: number;
  /** Frames whose number came before. */
  repeated: number;
}

export class PanelClient {
  readonly #socket: WebSocket;
  readonly #last = new Map<number, number>();
  readonly #kinds = new Map<number, Seen>();
  readonly #releases: string[] = [];
  readonly #releaseOf = new Map<number, string>();
  /** Answers come in the order of the requests. */
  readonly #asked: { done: () => void; failed: (error: Error) => void }[] = [];
  #phase = '';
  #telemetry = 0;
  #closes = 0;
  #isEnding = false;
  #views: View[] = [];

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data: Buffer, isBinary) => {
      if (isBinary) this.#frame(data);
      else this.#message(data.toString());
    });
    socket.on('close', () => {
      for (const { failed } of this.#asked.splice(0)) failed(new Error('the control panel closed'));
      if (!this.#isEnding) this.#closes += 1;
    });
    // A close follows.
    socket.on('error', () => {});
  }

  /** @param url the panel's, `http://host:port` */
  static async connect(url: string, signal: AbortSignal): Promise<PanelClient> {
    const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws`);
    const client = new PanelClient(socket);
    try {
      await once(socket, 'open', { signal });
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  /** Releases that greeted, in order. */
  get releases(): readonly string[] {
    return this.#releases;
  }

  /** What the last greeting offered to show. */
  get views(): readonly View[] {
    return this.#views;
  }

  get telemetry(): number {
    return this.#telemetry;
  }

  get closes(): number {
    return this.#closes;
  }

  get isOpen(): boolean {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  /** Of the flight, by the version that flies: `stand`, `climb`, `hover`, … */
  get phase(): string {
    return this.#phase;
  }

  /** Who told of its flight under this epoch. */
  releaseOf(epoch: number): string | undefined {
    return this.#releaseOf.get(epoch);
  }

  /** As a pilot: resolves once it is followed. @throws Error why it is not */
  ask(request: object): Promise<void> {
    return new Promise((done, failed) => {
      this.#asked.push({ done, failed });
      this.#socket.send(JSON.stringify(request));
    });
  }

  seen(kind: number): Seen {
    return { ...(this.#kinds.get(kind) ?? { frames: 0, lost: 0, repeated: 0 }) };
  }

  /** Over all kinds. */
  get framesLost(): number {
    return [...this.#kinds.values()].reduce((sum, { lost }) => sum + lost, 0);
  }

  get framesRepeated(): number {
    return [...this.#kinds.values()].reduce((sum, { repeated }) => sum + repeated, 0);
  }

  close(): void {
    this.#isEnding = true;
    this.#socket.terminate();
  }

  #frame(frame: Buffer): void {
    if (frame.length < FRAME_BYTES_MIN) return;
    const kind = frame.readUInt8(KIND_AT);
    const sequence = frame.readUInt32LE(SEQUENCE_AT);
    const seen = this.#kinds.get(kind) ?? { frames: 0, lost: 0, repeated: 0 };
    const last = this.#last.get(kind);
    seen.frames += 1;
    if (last !== undefined && sequence <= last) seen.repeated += 1;
    else if (last !== undefined) seen.lost += sequence - last - 1;
    this.#last.set(kind, Math.max(sequence, last ?? sequence));
    this.#kinds.set(kind, seen);
  }

  #message(text: string): void {
    const message = JSON.parse(text) as {
      type?: string;
      release?: string;
      views?: View[];
      epoch?: number;
      phase?: string;
      text?: string;
    };
    if (message.type === 'asked') this.#asked.shift()?.done();
    if (message.type === 'refused') this.#asked.shift()?.failed(new Error(message.text));
    if (message.type === 'telemetry') {
      this.#telemetry += 1;
      this.#phase = message.phase ?? '';
      this.#releaseOf.set(message.epoch ?? 0, message.release ?? '');
    }
    if (message.type === 'hello') {
      this.#releases.push(message.release ?? '');
      const views = message.views ?? [];
      // A view that the version before did not have begins wherever the camera is by now.
      for (const { kind } of views)
        if (!this.#views.some((view) => view.kind === kind)) this.#last.delete(kind);
      this.#views = views;
    }
  }
}
