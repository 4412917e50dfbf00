/** Bounds MQTT packets before the broker's parser gathers them: a length comes first, and may say 256 MiB. */
import { Transform } from 'node:stream';

/** Lets whole packets' bytes through; fails at the first packet that announces more than `bytesMax` (MQTT 3.1.1 §2.2.3). */
export class PacketCap extends Transform {
  readonly #bytesMax: number;
  /** Bytes of the present packet's body still to come; -1 in its fixed header. */
  #body = -1;
  #header = 0;
  #length = 0;

  constructor(bytesMax: number) {
    super();
    this.#bytesMax = bytesMax;
  }

  override _transform(
    chunk: Buffer,
    _encoding: BufferEncoding,
    done: (error: Error | null, data?: Buffer) => void,
  ) {
    let at = 0;
    while (at < chunk.length) {
      if (this.#body > 0) {
        const step = Math.min(this.#body, chunk.length - at);
        this.#body -= step;
        at += step;
        if (this.#body === 0) this.#body = -1;
        continue;
      }
      const byte = chunk[at] ?? 0;
      at += 1;
      this.#header += 1;
      // The first byte is the packet's type; then up to four bytes of length, seven bits each, lowest first.
      if (this.#header === 1) continue;
      this.#length += (byte & 0x7f) * 128 ** (this.#header - 2);
      if (this.#length > this.#bytesMax || this.#header > 5) {
        done(new Error(`an MQTT packet of more than ${this.#bytesMax} bytes`));
        return;
      }
      if ((byte & 0x80) !== 0) continue;
      this.#body = this.#length === 0 ? -1 : this.#length;
      this.#header = 0;
      this.#length = 0;
    }
    done(null, chunk);
  }
}
