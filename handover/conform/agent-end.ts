/**
 * The agent as the conformance runner plays it: listens, hears, and says what a case tells it to, also what no agent
 * would say.
 *
 * Invariant: descriptors that came with a message are its taker's, or closed with the connection.
 */
import { CONFORM } from '#handover/conform/limits.ts';
import { expect, expectWithin, Miss, pause, within } from '#handover/conform/wait.ts';
import { closeAll, LineSocket, type NamedDescriptor } from '#handover/line-socket.ts';
import { type AppMessage, type JsonObject, ProtocolError, parseAppMessage } from '#handover/messages.ts';
import { AGAIN, isNativeError, native, READABLE, type Watcher } from '#handover/native.ts';

type Type = AppMessage['type'];
export interface Heard<T extends Type = Type> {
  readonly message: Extract<AppMessage, { type: T }>;
  readonly descriptors: Map<string, number>;
}
type Snap = Heard<'SNAP'>['message'];

const HEARD_MAX = 1_000;

/** One connection of a program. */
export class Peer {
  readonly #socket: LineSocket<AppMessage>;
  readonly #fd: number;
  /** Who connected, also when the command started it in a shell; 0 from another pid namespace. */
  readonly pid: number;
  #heard: Heard[] = [];
  /** Heartbeats so far, and the last one. */
  snaps = 0;
  snap: Snap | undefined;
  ended = false;
  error: Error | undefined;

  constructor(fd: number) {
    this.#fd = fd;
    this.pid = native.peer(fd).pid;
    this.#socket = new LineSocket(fd, parseAppMessage).start({
      onMessage: (message, descriptors) => this.#hear({ message, descriptors }),
      onClose: (error) => {
        this.ended = true;
        this.error = error;
      },
    });
  }

  send(message: { type: string; epoch: number } & JsonObject, descriptors: readonly NamedDescriptor[] = []) {
    this.#socket.send(message, descriptors);
  }

  /** Bytes as they are, the descriptors with the first. The program may have left before their end. */
  async raw(bytes: Buffer, descriptors: readonly number[] = []): Promise<void> {
    for (let at = 0; at < bytes.length && !this.ended; ) {
      try {
        const sent = native.send(this.#fd, bytes, at, bytes.length - at, at === 0 ? descriptors : []);
        if (sent === AGAIN) await pause(CONFORM.pollMs);
        else at += sent;
      } catch (error) {
        if (!isNativeError(error)) throw error;
        return;
      }
    }
  }

  close(): void {
    this.#socket.close();
    this.ended = true;
    for (const { descriptors } of this.#heard.splice(0)) closeAll(descriptors.values());
  }

  /** The next message of this type, taken out. A FAULT that nobody asked for ends the waiting. @throws Miss */
  async next<T extends Type>(type: T, ms: number): Promise<Heard<T>> {
    const at = (wanted: Type): number => this.#heard.findIndex(({ message }) => message.type === wanted);
    const there = (): boolean => at(type) >= 0 || at('FAULT') >= 0 || this.ended;
    await expectWithin(ms, there, `no ${type}`);
    const index = at(type);
    if (index >= 0) return this.#heard.splice(index, 1)[0] as unknown as Heard<T>;
    const fault = this.#heard[at('FAULT')]?.message;
    if (fault?.type === 'FAULT') throw new Miss(`FAULT ${fault.code} instead of ${type}: ${fault.text}`);
    const why = this.error instanceof ProtocolError ? ` (what it sent: ${this.error.message})` : '';
    throw new Miss(`its connection ended before ${type}${why}`);
  }

  /** How many of a type came and were not taken. */
  count(type: Type): number {
    return this.#heard.filter(({ message }) => message.type === type).length;
  }

  /** @throws Miss if it does not leave by then */
  async left(ms: number): Promise<void> {
    await expectWithin(ms, () => this.ended, 'the connection stays open');
    expect(!(this.error instanceof ProtocolError), `it sent what is no protocol: ${this.error?.message}`);
  }

  #hear(heard: Heard): void {
    if (heard.message.type === 'SNAP') {
      this.snaps += 1;
      this.snap = heard.message;
      return;
    }
    this.#heard.push(heard);
    if (this.#heard.length > HEARD_MAX) this.close();
  }
}

export class AgentEnd {
  readonly #path: string;
  #fd: number | undefined;
  #watcher: Watcher | undefined;
  #fresh: Peer[] = [];
  readonly #peers: Peer[] = [];

  constructor(path: string) {
    this.#path = path;
  }

  listen(): void {
    const fd = native.unixListen(this.#path, 16);
    this.#fd = fd;
    this.#watcher = native.watch(fd, READABLE, () => {
      const accepted = native.accept(fd);
      if (accepted === AGAIN) return;
      const peer = new Peer(accepted);
      this.#fresh.push(peer);
      this.#peers.push(peer);
    });
  }

  /**
   * The next connection whose first line is the HELLO of this release.
   * @param check called while it is waited for; throws to end that
   * @throws Miss
   */
  async hello(
    release: string,
    ms: number,
    check: () => void = () => {},
  ): Promise<{ peer: Peer; hello: Heard<'HELLO'> }> {
    const endMs = performance.now() + ms;
    for (;;) {
      for (const peer of this.#fresh) {
        if (peer.ended) expect(!(peer.error instanceof ProtocolError), `its HELLO: ${peer.error?.message}`);
        if (peer.count('HELLO') === 0) continue;
        const hello = await peer.next('HELLO', 0);
        expect(
          hello.message.release === release,
          `HELLO of release ${hello.message.release}, not ${release}`,
        );
        this.#fresh = this.#fresh.filter((other) => other !== peer);
        return { peer, hello };
      }
      check();
      if (performance.now() > endMs) throw new Miss(`no HELLO of ${release} (${Math.round(ms)} ms waited)`);
      await pause(CONFORM.pollMs);
    }
  }

  /** As a killed agent: nobody listens, every connection is closed. The socket file is gone with it. */
  die(unlink: (path: string) => void): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    if (this.#fd !== undefined) {
      native.close(this.#fd);
      unlink(this.#path);
    }
    this.#fd = undefined;
    this.#fresh = [];
    for (const peer of this.#peers.splice(0)) peer.close();
  }
}

/** One end of a pair, to see whether every copy of the other one was closed. */
export class Witness {
  readonly given: number;
  readonly #kept: number;

  constructor() {
    [this.#kept, this.given] = native.socketPair();
  }

  /** After it was sent: only the program has copies then. */
  sent(): void {
    native.close(this.given);
  }
  /** Whether the program closed its copies, by then. */
  released(ms: number): Promise<boolean> {
    const bytes = Buffer.alloc(4_096);
    const gone = (): boolean => {
      try {
        return native.read(this.#kept, bytes, 0, bytes.length) === 0;
      } catch {
        return true;
      }
    };
    return within(ms, gone);
  }
  close(): void {
    native.close(this.#kept);
  }
}
