/** The candidate's end of a mirror, read record by record: 1 byte kind (0 in, 1 out), 4 bytes LE length, bytes. */
import { AGAIN, native } from '#handover/native.ts';

const HEADER_BYTES = 5;

export class Shadow {
  readonly writing: number;
  readonly #reading: number;
  #bytes = Buffer.alloc(0);
  #text = ['', ''];
  #sent = false;
  /** The N of each whole line mirrored so far. */
  readonly inputs: string[] = [];
  readonly commands: string[] = [];
  problem: string | undefined;

  constructor() {
    [this.writing, this.#reading] = native.socketPair();
  }

  /** After it was sent, the program's copy is the only one. */
  sent(): void {
    this.#sent = true;
    native.close(this.writing);
  }
  close(): void {
    if (!this.#sent) native.close(this.writing);
    native.close(this.#reading);
  }

  read(): this {
    const chunk = Buffer.alloc(64 * 1024);
    for (;;) {
      const got = native.read(this.#reading, chunk, 0, chunk.length);
      if (got === AGAIN || got === 0) break;
      this.#bytes = Buffer.concat([this.#bytes, chunk.subarray(0, got)]);
    }
    while (this.#bytes.length >= HEADER_BYTES) {
      const end = HEADER_BYTES + this.#bytes.readUInt32LE(1);
      if (this.#bytes.length < end) break;
      this.#record(this.#bytes[0] ?? 0, this.#bytes.toString('latin1', HEADER_BYTES, end));
      this.#bytes = this.#bytes.subarray(end);
    }
    return this;
  }

  #record(kind: number, text: string): void {
    if (kind > 1) {
      this.problem = `a record of kind ${kind}`;
      return;
    }
    const lines = `${this.#text[kind]}${text}`.split('\n');
    this.#text[kind] = lines.pop() ?? '';
    for (const line of lines) {
      const match = (kind === 0 ? /^i? ?(\d+)$/ : /^c \d+ \d+ (\d+)$/).exec(line);
      // The first input may be mirrored from its middle on.
      if (match?.[1] === undefined)
        this.problem ??= this.inputs.length > 0 ? `"${line}" mirrored` : undefined;
      else (kind === 0 ? this.inputs : this.commands).push(match[1]);
    }
  }
}
