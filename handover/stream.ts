/**
 * A stream of length-prefixed frames from a descriptor, passed on between any two bytes.
 *
 * Invariant: every byte of the stream is delivered in exactly one frame by exactly one holder: what was read of
 * a frame whose end has not come goes to the successor as `leftover`, what was not read waits in the kernel.
 * A frame is 4 bytes LE length (1 to `BOUNDS.frameBytesMax`) and that many bytes.
 */
import * as v from 'valibot';
import { BOUNDS } from '#handover/bounds.ts';
import { type Grant, type Holder, HolderError, type Released, takeOne } from '#handover/holder.ts';
import type { NamedDescriptor } from '#handover/lines.ts';
import type { JsonObject } from '#handover/messages.ts';
import { AGAIN, native, READABLE, type Watcher } from '#handover/native.ts';

const LENGTH_BYTES = 4;
const payloadSchema = v.object({ leftover: v.pipe(v.string(), v.base64()) });
/** `leftover`: base64 of the beginning of a frame, its length included. */
export type FramesPayload = JsonObject & v.InferOutput<typeof payloadSchema>;

export interface FrameStreamOptions {
  /** The resource's name, which is its descriptor's. */
  name?: 'camera';
  /** One whole frame without its length; the buffer is the callee's. */
  onFrame(frame: Buffer): void;
  /** The source ended, or broke the framing (`FRAME_TOO_LARGE`), while it was ours. */
  onEnd?(error?: Error): void;
}

export class FrameStream implements Holder<FramesPayload> {
  readonly #options: FrameStreamOptions;
  readonly #name: string;
  readonly #bytes = Buffer.allocUnsafe(2 * (LENGTH_BYTES + BOUNDS.frameBytesMax));
  #used = 0;
  #fd: number | undefined;
  #watcher: Watcher | undefined;

  constructor(options: FrameStreamOptions) {
    this.#options = options;
    this.#name = options.name ?? 'camera';
  }

  get owns(): boolean {
    return this.#watcher !== undefined;
  }

  grant(grant: Grant<FramesPayload>): Promise<void> {
    const fd = takeOne(grant, this.#name);
    if (fd !== this.#fd) this.drop();
    this.#fd = fd;
    const leftover = Buffer.from(
      grant.payload === null ? '' : v.parse(payloadSchema, grant.payload).leftover,
      'base64',
    );
    if (leftover.length > LENGTH_BYTES + BOUNDS.frameBytesMax) {
      throw new HolderError('WRONG_PAYLOAD', `a leftover of ${leftover.length} bytes is no part of a frame`);
    }
    leftover.copy(this.#bytes);
    this.#used = leftover.length;
    this.#watcher?.close();
    this.#watcher = native.watch(fd, READABLE, () => this.#read(fd));
    this.#frames();
    return Promise.resolve();
  }

  release(): Promise<Released<FramesPayload>> {
    if (this.#watcher === undefined) {
      return Promise.reject(new HolderError('NOT_OWNER', `the ${this.#name} is not ours`));
    }
    this.#stop();
    return Promise.resolve({
      payload: { leftover: this.#bytes.subarray(0, this.#used).toString('base64') },
    });
  }

  descriptors(): readonly NamedDescriptor[] {
    return this.#fd === undefined ? [] : [{ name: this.#name, fd: this.#fd }];
  }

  drop(): void {
    this.#stop();
    if (this.#fd !== undefined) native.close(this.#fd);
    this.#fd = undefined;
    this.#used = 0;
  }

  async rehearse(): Promise<void> {
    const [near, far] = native.socketPair();
    let seen: () => void = () => {};
    const frame = new Promise<void>((resolve) => {
      seen = resolve;
    });
    const stream = new FrameStream({ onFrame: () => seen() });
    try {
      const descriptors = new Map([['camera', near]]);
      await stream.grant({ from: 'release', payload: { leftover: 'AQ==' }, descriptors, epoch: 0 });
      native.write(far, Buffer.of(0, 0, 0, 0), 0, LENGTH_BYTES);
      await frame;
      await stream.release();
    } finally {
      stream.drop();
      native.close(far);
    }
  }

  #stop(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  /** One read a turn: a control loop may wait for this turn's end. The poll comes back if there is more. */
  #read(fd: number): void {
    let got = 0;
    let failure: Error | undefined;
    try {
      const room = Math.min(this.#bytes.length - this.#used, BOUNDS.frameTurnBytesMax);
      got = native.read(fd, this.#bytes, this.#used, room);
    } catch (error) {
      failure = error as Error;
    }
    if (got === AGAIN) return;
    if (got === 0) {
      this.#end(failure);
      return;
    }
    this.#used += got;
    this.#frames();
  }

  #frames(): void {
    let at = 0;
    // A frame's callback may let go of the stream: the rest is then the successor's.
    while (this.#watcher !== undefined && this.#used - at >= LENGTH_BYTES) {
      const length = this.#bytes.readUInt32LE(at);
      if (length === 0 || length > BOUNDS.frameBytesMax) {
        this.#end(new HolderError('FRAME_TOO_LARGE', `a frame of ${length} bytes`));
        return;
      }
      const end = at + LENGTH_BYTES + length;
      if (end > this.#used) break;
      const frame = Buffer.from(this.#bytes.subarray(at + LENGTH_BYTES, end));
      at = end;
      if (this.#used > at) this.#bytes.copyWithin(0, at, this.#used);
      this.#used -= at;
      at = 0;
      this.#options.onFrame(frame);
    }
  }

  #end(error?: Error): void {
    this.#stop();
    this.#options.onEnd?.(error);
  }
}
