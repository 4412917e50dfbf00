/**
 * Lines with descriptors over a unix stream socket: one JSON object a line, descriptors beside it.
 *
 * Invariants
 * - Descriptors ride with the first byte of their line, in a sendmsg that holds bytes of that line only. The
 *   kernel may put plain lines before such bytes into one read, but ends the read after them; so descriptors
 *   belong to the last line that begins in the read which delivered them; if none begins in it, or the line names
 *   others, that is WRONG_DESCRIPTORS.
 * - Each received descriptor is either in the map given to `onMessage`, which then owns it, or closed.
 * - Descriptors given to `send` stay the caller's; what must wait is duplicated first.
 * - The receive path is synchronous from the poll to `onMessage`.
 */
import { isUtf8 } from 'node:buffer';
import { BOUNDS } from '#handover/bounds.ts';
import { LIMITS } from '#handover/limits.ts';
import { ProtocolError } from '#handover/messages.ts';
import { AGAIN, isNativeError, native, READABLE, type Watcher, WRITABLE } from '#handover/native.ts';

export interface NamedDescriptor {
  readonly name: string;
  readonly fd: number;
}
export interface Described {
  readonly fds: readonly string[];
}
export interface LineHandlers<M extends Described> {
  /** The descriptors are the handler's from here on, in the order and by the names of `message.fds`. */
  onMessage(message: M, descriptors: Map<string, number>): void;
  /** Once, last. `error`: a ProtocolError if the peer broke the protocol, else the socket's; none at a plain end. */
  onClose(error?: Error): void;
}

const NEWLINE = 0x0a;
/** Received bytes live here only until they are parsed or copied, within one synchronous turn. */
const scratch = Buffer.allocUnsafe(BOUNDS.receiveChunkBytes);

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));

const tooLong = () => new ProtocolError('LINE_TOO_LONG', `over ${LIMITS.lineBytesMax} bytes`);

export const closeAll = (descriptors: Iterable<number>): void => {
  for (const fd of descriptors) native.close(fd);
};

interface Waiting {
  bytes: Buffer;
  offset: number;
  /** Our duplicates, until the first byte is sent. */
  descriptors: number[];
  readonly settled: ((delivered: boolean) => void) | undefined;
}

export class LineSocket<M extends Described> {
  readonly #fd: number;
  readonly #parse: (line: string) => M;
  #handlers: LineHandlers<M> | undefined;
  #watcher: Watcher | undefined;
  #closed = false;
  /** The peer reads no more; what it wrote before is still to be read. */
  #mute = false;
  readonly #queue: Waiting[] = [];
  #queuedBytes = 0;
  /** The beginning of a line whose end has not come, and the descriptors that came with its first byte. */
  #partial = Buffer.alloc(0);
  #partialBytes = 0;
  #descriptors: number[] = [];

  /** Takes the descriptor over. Nothing is read before {@link start}. */
  constructor(fd: number, parse: (line: string) => M) {
    this.#fd = fd;
    this.#parse = parse;
  }

  start(handlers: LineHandlers<M>): this {
    if (this.#closed || this.#watcher !== undefined) throw new Error('a line socket starts once');
    this.#handlers = handlers;
    this.#watcher = native.watch(this.#fd, this.#events(), (events, status) => {
      if (status < 0) this.#end(new Error(`poll failed: ${status}`));
      if (this.#closed) return;
      if ((events & WRITABLE) !== 0) this.#flush();
      if ((events & READABLE) !== 0) this.receive();
    });
    return this;
  }

  get closed(): boolean {
    return this.#closed;
  }
  /** Bytes that wait for the peer to read. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /**
   * Sends one message, at once if the kernel takes it, else after those that wait.
   *
   * @param message its `fds` is written from `descriptors`
   * @param descriptors stay the caller's, who may close them right after this call
   * @param settled called once: true when the kernel has the whole line, false when it never will
   * @returns false if the socket is closed or the peer gone (nothing goes)
   * @throws ProtocolError `LINE_TOO_LONG`, `WRONG_DESCRIPTORS`: the caller's fault, nothing was sent
   */
  send(
    message: object,
    descriptors: readonly NamedDescriptor[] = [],
    settled?: (delivered: boolean) => void,
  ): boolean {
    const line = `${JSON.stringify({ ...message, fds: descriptors.map(({ name }) => name) })}\n`;
    const bytes = Buffer.from(line);
    if (bytes.length - 1 > LIMITS.lineBytesMax) {
      throw new ProtocolError('LINE_TOO_LONG', `a line of ${bytes.length - 1} bytes may not be sent`);
    }
    if (descriptors.length > LIMITS.descriptorsPerLineMax) {
      throw new ProtocolError('WRONG_DESCRIPTORS', `${descriptors.length} descriptors do not fit one line`);
    }
    if (this.#closed || this.#mute) {
      settled?.(false);
      return false;
    }
    const fds = descriptors.map(({ fd }) => fd);
    const sent = this.#queue.length === 0 ? this.#write(bytes, 0, fds) : 0;
    if (sent === undefined) {
      settled?.(false);
      return false;
    }
    if (sent === bytes.length) {
      settled?.(true);
      return true;
    }
    if (this.#queuedBytes + bytes.length > BOUNDS.sendQueueBytesMax) {
      settled?.(false);
      this.#end(new Error(`the peer left ${this.#queuedBytes} bytes unread`));
      return false;
    }
    const own = sent === 0 ? fds.map((fd) => native.duplicate(fd)) : [];
    this.#queue.push({ bytes, offset: sent, descriptors: own, settled });
    this.#queuedBytes += bytes.length - sent;
    this.#watcher?.change(this.#events());
    return true;
  }

  /**
   * What has arrived, `onMessage` for each line, as far as one turn goes; a socket that has nothing costs one call of the kernel.
   * @returns whether there may be more
   */
  receive(): boolean {
    for (let turn = 0; turn < BOUNDS.receiveTurnBytesMax && !this.#closed; ) {
      const received: number[] = [];
      const bytes = this.#read(received);
      if (bytes === AGAIN || bytes === undefined) return false;
      if (bytes === 0) {
        this.#end();
        return false;
      }
      turn += bytes;
      this.#take(scratch.subarray(0, bytes), received);
      // A short read without descriptors emptied the queue; with them there may be more behind.
      if (bytes < scratch.length && received.length === 0) return false;
    }
    return !this.#closed;
  }

  /** Ends it, without `onClose`: who calls this knows. What waits is dropped. */
  close(): void {
    this.#handlers = undefined;
    this.#end();
  }

  #events(): number {
    return this.#queue.length > 0 ? READABLE | WRITABLE : READABLE;
  }

  /** Bytes that went; undefined: the peer is gone. Its last words may still be unread, so the end comes with them. */
  #write(bytes: Buffer, offset: number, descriptors: readonly number[]): number | undefined {
    try {
      let at = offset;
      while (at < bytes.length) {
        const sent = native.send(this.#fd, bytes, at, bytes.length - at, at === 0 ? descriptors : []);
        if (sent === AGAIN) break;
        at += sent;
      }
      return at - offset;
    } catch (error) {
      if (!isNativeError(error) || (error.code !== 'EPIPE' && error.code !== 'ECONNRESET')) throw error;
      this.#mute = true;
      this.#dropQueue();
      return undefined;
    }
  }

  #flush(): void {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      let sent: number | undefined;
      try {
        sent = this.#write(first.bytes, first.offset, first.descriptors);
      } catch (error) {
        this.#end(asError(error));
        return;
      }
      if (sent === undefined) break;
      if (sent > 0) closeAll(first.descriptors.splice(0));
      first.offset += sent;
      this.#queuedBytes -= sent;
      if (first.offset < first.bytes.length) break;
      this.#queue.shift();
      first.settled?.(true);
    }
    if (!this.#closed) this.#watcher?.change(this.#events());
  }

  #dropQueue(): void {
    this.#queuedBytes = 0;
    for (const { descriptors, settled } of this.#queue.splice(0)) {
      closeAll(descriptors);
      settled?.(false);
    }
  }

  #read(received: number[]): number | undefined {
    try {
      return native.receive(this.#fd, scratch, 0, scratch.length, received);
    } catch (cause) {
      const cut = isNativeError(cause) && cause.code === 'MSG_CTRUNC';
      this.#end(
        cut
          ? new ProtocolError('TRUNCATED_CONTROL_DATA', 'descriptors were lost', { cause })
          : asError(cause),
      );
      return undefined;
    }
  }

  /** Splits what one read brought into lines. */
  #take(chunk: Buffer, received: number[]): void {
    const last = chunk.length > 1 ? chunk.lastIndexOf(NEWLINE, chunk.length - 2) : -1;
    let ownerStart = last + 1;
    if (received.length > 0 && last === -1 && this.#partialBytes > 0) {
      closeAll(received);
      this.#end(new ProtocolError('WRONG_DESCRIPTORS', 'descriptors came inside a line'));
      return;
    }
    if (received.length === 0) ownerStart = -1;
    let start = 0;
    while (!this.#closed) {
      if (start === ownerStart) this.#descriptors = received;
      if (start === chunk.length) return;
      const end = chunk.indexOf(NEWLINE, start);
      if (end === -1) {
        this.#keep(chunk.subarray(start));
        return;
      }
      this.#line(chunk.subarray(start, end));
      start = end + 1;
    }
    // Closed by a line before the one that the descriptors belong to.
    if (this.#descriptors !== received && start <= ownerStart) closeAll(received);
  }

  /** Doubles its room as it grows: a peer that writes single bytes costs no more than one that writes lines. */
  #keep(bytes: Buffer): void {
    const needed = this.#partialBytes + bytes.length;
    if (needed > LIMITS.lineBytesMax) {
      this.#end(tooLong());
      return;
    }
    if (needed > this.#partial.length) {
      const grown = Buffer.allocUnsafe(Math.min(LIMITS.lineBytesMax, Math.max(1024, 2 * needed)));
      this.#partial.copy(grown, 0, 0, this.#partialBytes);
      this.#partial = grown;
    }
    bytes.copy(this.#partial, this.#partialBytes);
    this.#partialBytes = needed;
  }

  #dropPartial(): void {
    this.#partial = Buffer.alloc(0);
    this.#partialBytes = 0;
  }

  #line(end: Buffer): void {
    let bytes = end;
    if (this.#partialBytes > 0) {
      this.#keep(end);
      if (this.#closed) return;
      bytes = this.#partial.subarray(0, this.#partialBytes);
      this.#dropPartial();
    }
    let message: M;
    try {
      if (!isUtf8(bytes)) throw new ProtocolError('INVALID_JSON', 'the line is not UTF-8');
      message = this.#parse(bytes.toString('utf8'));
      const { fds } = message;
      if (fds.length !== this.#descriptors.length || new Set(fds).size !== fds.length) {
        throw new ProtocolError(
          'WRONG_DESCRIPTORS',
          `${fds.length} named, ${this.#descriptors.length} received`,
        );
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#end(error);
      return;
    }
    const descriptors = this.#descriptors;
    this.#descriptors = [];
    this.#handlers?.onMessage(
      message,
      new Map(message.fds.map((name, at) => [name, descriptors[at] as number])),
    );
  }

  #end(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher?.close();
    native.close(this.#fd);
    closeAll(this.#descriptors.splice(0));
    this.#dropPartial();
    this.#dropQueue();
    const handlers = this.#handlers;
    this.#handlers = undefined;
    handlers?.onClose(error);
  }
}
