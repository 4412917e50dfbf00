/**
 * A handover of the rotors, practised in the shadow: a session, its steps and a link like the real ones take a pty of their
 * own from a pretended agent and give it back, again and again. Code that runs for the first time in the moment of the handover
 * takes milliseconds of a control loop that has four.
 *
 * Invariant: nothing of the flight is touched, and it ends by itself, in time. What fails here would have failed in flight.
 */
import { setFlagsFromString } from 'node:v8';
import { BOUNDS } from '#handover/bounds.ts';
import type { Holder } from '#handover/holder.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll, type LineHandlers, LineSocket, type NamedDescriptor } from '#handover/lines.ts';
import {
  type AgentMessage,
  type AppMessage,
  type JsonObject,
  parseAgentMessage,
  parseAppMessage,
  type Signing,
} from '#handover/messages.ts';
import { native } from '#handover/native.ts';

export interface Rehearsal {
  /** Like the real one, over a state of its own that looks as the real one will. */
  readonly holder: Holder;
  /** What it would release now. */
  readonly payload: JsonObject;
  /** Of a link that is signed. */
  readonly signing?: Omit<Signing, 'lastTimestamp'>;
  /** The next bytes from the far end; a command answers them. */
  readonly sample: () => Uint8Array;
}
/** How a session reaches its agent. */
export type Connect = (handlers: LineHandlers<AgentMessage>) => LineSocket<AgentMessage>;
type Said<T extends AppMessage['type']> = Extract<AppMessage, { type: T }>;

/** As much of an agent as a handover of the rotors needs. */
class Agent {
  readonly #socket: LineSocket<AppMessage>;
  #waiting: { type: string; resolve(message: AppMessage): void; reject(error: Error): void } | undefined;
  #epoch = 0;

  constructor(fd: number) {
    this.#socket = new LineSocket(fd, parseAppMessage).start({
      onMessage: (message, descriptors) => {
        closeAll(descriptors.values());
        if (message.type === 'FAULT') this.#waiting?.reject(new Error(`${message.code}: ${message.text}`));
        else if (message.type === this.#waiting?.type) this.#waiting.resolve(message);
      },
      onClose: (error) => this.#waiting?.reject(error ?? new Error('the session closed')),
    });
  }

  close(error: Error): void {
    this.#socket.close();
    this.#waiting?.reject(error);
  }

  next<T extends AppMessage['type']>(type: T): Promise<Said<T>> {
    return new Promise((resolve, reject) => {
      this.#waiting = { type, resolve: resolve as (message: AppMessage) => void, reject };
    });
  }

  #send(message: object, descriptors: readonly NamedDescriptor[] = []): void {
    this.#socket.send({ epoch: this.#epoch, ...message }, descriptors);
  }

  /** @returns what the session let go with */
  async round(
    { signing, sample }: Rehearsal,
    from: 'release' | 'snap',
    payload: JsonObject,
    ends: Pty,
  ): Promise<JsonObject> {
    const asked = this.next('READY');
    this.#send({ type: 'OFFER', role: 'candidate' });
    const [source, fd] = native.socketPair();
    this.#send({ type: 'SHADOW', role: 'shadow' }, [{ name: 'mirror', fd }]);
    native.close(fd);
    await asked;
    const prepared = this.next('READY');
    this.#send({ type: 'PREPARE' });
    await prepared;
    native.close(source);

    this.#epoch += 1;
    ends.say(sample());
    const granted = this.next('GRANTED');
    const { lastTimestamp = 0 } = (payload.signing ?? {}) as Partial<Signing>;
    const terms = signing && { signing: { ...signing, lastTimestamp } };
    const rotors = { name: 'rotors', fd: ends.slave };
    this.#send({ type: 'GRANT', resource: 'rotors', from, payload, ...terms }, [rotors]);
    await granted;
    ends.hear();

    this.#epoch += 1;
    const released = this.next('RELEASED');
    this.#send({ type: 'RELEASE', resource: 'rotors', deadlineMs: LIMITS.rotorReleaseMsMax });
    ends.say(sample());
    const { payload: after } = await released;
    ends.hear();
    return after;
  }
}

/** Both ends of a link. */
class Pty {
  readonly slave: number;
  readonly #master: number;
  readonly #heard = Buffer.alloc(4096);

  constructor() {
    const { master, slave } = native.openPty();
    this.#master = master;
    this.slave = slave;
  }
  say(bytes: Uint8Array): void {
    native.write(this.#master, bytes, 0, bytes.length);
  }
  hear(): void {
    while (native.read(this.#master, this.#heard, 0, this.#heard.length) > 0);
  }
  close(): void {
    native.close(this.slave);
    native.close(this.#master);
  }
}

/**
 * @param begin starts a session with this one holder, which reaches its agent so
 * @param signal ends it early
 * @throws what the session says went wrong
 */
export const rehearse = async (
  rehearsal: Rehearsal,
  begin: (connect: Connect) => { close(): void },
  signal: AbortSignal,
): Promise<void> => {
  // What was compiled now is still there when it is needed, however long that takes.
  setFlagsFromString('--no-flush-bytecode');
  const untilMs = performance.now() + BOUNDS.rehearsalMsMax;
  const [ours, theirs] = native.socketPair();
  const ends = new Pty();
  const agent = new Agent(ours);
  const hello = agent.next('HELLO');
  const session = begin((handlers) => new LineSocket(theirs, parseAgentMessage).start(handlers));
  const tooLate = new Error('a rehearsal takes too long');
  const timer = setTimeout(() => agent.close(tooLate), 2 * BOUNDS.rehearsalMsMax);
  try {
    await hello;
    let { payload } = rehearsal;
    for (let round = 0; round < BOUNDS.rehearsals && performance.now() < untilMs; round += 1) {
      if (signal.aborted) return;
      payload = await agent.round(rehearsal, round % 2 === 0 ? 'release' : 'snap', payload, ends);
    }
  } catch (error) {
    if (error !== tooLate) throw error;
  } finally {
    clearTimeout(timer);
    session.close();
    agent.close(tooLate);
    ends.close();
  }
};
