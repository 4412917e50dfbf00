/**
 * The app's side of a handover: one session with the device's agent.
 *
 * Invariants
 * - Losing the agent changes nothing: the app flies on, and says what it holds when the agent is back.
 * - The epoch only rises. A step (RELEASE, GRANT) under an epoch that is not above all seen, and any other message
 *   under a lower one, is refused and reported.
 * - What is held changes by steps alone (steps.ts).
 */
import { BOUNDS } from '#handover/bounds.ts';
import { Heartbeat } from '#handover/heartbeat.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll, connectLines } from '#handover/lines.ts';
import {
  type AgentMessage,
  type JsonObject,
  PROTOCOL_VERSION,
  parseAgentMessage,
  RESOURCES,
  type Resource,
} from '#handover/messages.ts';
import { Mirror } from '#handover/mirror.ts';
import { isNativeError, nowUs } from '#handover/native.ts';
import { setFifo } from '#handover/realtime.ts';
import { type Connect, rehearse } from '#handover/rehearsal.ts';
import { Repeats } from '#handover/repeats.ts';
import { DivergedError, type ShadowBounds } from '#handover/shadow.ts';
import { type AgentSocket, type Holders, type Message, Steps, textOf } from '#handover/steps.ts';

export interface Readiness {
  /** Control cycles run in the shadow. */
  cycles: number;
  /** How far its outputs were from the prior's, in the app's own measure; 0: equal. */
  divergence: number;
}
export type LogLevel = 'info' | 'warn' | 'error';

export interface JoinOptions {
  /** Names, at most `LIMITS.nameCharsMax` characters: MIDAIR_APP, MIDAIR_RELEASE. */
  app: string;
  release: string;
  /** MIDAIR_SOCKET. */
  socketPath: string;
  /** Versions of the rotors' `state` that this release can take over, and the one that it hands over. */
  stateVersions: { reads: number[]; writes: number };
  holders: Holders;
  /**
   * Runs the control loop in the prior's shadow until it is good enough to take over; then READY is sent. The mirror
   * goes on until the rotors are granted. `mirror.available` is false at a first start: there is nothing to follow.
   * @param signal the candidate is revoked, or the agent is gone
   * @param bounds what the release asks for, see `ShadowJudge`; null where there is nothing to follow
   */
  warmUp(mirror: Mirror, signal: AbortSignal, bounds: ShadowBounds | null): Promise<Readiness>;
  /**
   * The successor flies and is in its probation; this one follows in its shadow, to be up to date should everything
   * come back. The mirror ends when it does, or when the successor is the owner for good.
   */
  follow?: (mirror: Mirror) => void;
  /** The owner's heartbeat, each `LIMITS.snapIntervalMs`; by default the rotors holder's `snapshot()`. */
  snapshot?(): JsonObject;
  /** Beside the heartbeat: control cycles so far, and, if known, how far from the setpoint in the app's own unit. */
  health?(): { cycles: number; error?: number };
  /** It is ours for good. */
  onOwner?(): void;
  /** The successor has everything for good. When this settles, the agent is asked to stop this process. */
  onRetire?(): Promise<void> | void;
  /** This candidate gets nothing and is about to be stopped. By default the process exits. */
  onRevoked?(code: string, text: string): void;
  log?(level: LogLevel, text: string, data?: JsonObject): void;
  /**
   * Run this thread under SCHED_FIFO while it flies, where the device allows it; if not, the log says which step is
   * missing. Not before: what a candidate does to get ready would hold up the kernel's own work for who flies.
   */
  realtime?: 'fifo';
}

export class Session {
  readonly #options: JoinOptions;
  readonly #steps: Steps;
  readonly #connect: Connect;
  readonly #isRehearsal: boolean;
  #socket: AgentSocket | undefined;
  #epoch = 0;
  #closed = false;
  #retry: NodeJS.Timeout | undefined;
  readonly #heartbeat: Heartbeat;
  /** Offered, and not granted yet. */
  #candidate = false;
  #warming: AbortController | undefined;
  #mirror: Mirror | undefined;
  #onMirror: ((mirror: Mirror) => void) | undefined;
  #readiness: Readiness = { cycles: 0, divergence: 0 };
  readonly #refusals = new Repeats();

  /** @param connect of a rehearsal: to an agent that is none */
  constructor(options: JoinOptions, connect?: Connect) {
    this.#options = options;
    this.#isRehearsal = connect !== undefined;
    this.#connect = connect ?? ((handlers) => connectLines(options.socketPath, parseAgentMessage, handlers));
    this.#heartbeat = new Heartbeat(options.holders.rotors, () => this.#snap());
    this.#steps = new Steps({
      holders: options.holders,
      reads: options.stateVersions.reads,
      current: () => this.#socket,
      fault: (code, text) => this.fault(code, text),
      warn: (text) => this.#log('warn', text),
      rotors: (turn) => {
        const whose = { next: 'standsBy', granting: 'flies', left: 'nobody' } as const;
        if (options.realtime === 'fifo' && turn !== 'owned' && turn !== 'leaving') setFifo(whose[turn]);
        if (turn === 'granting') {
          this.#candidate = false;
          this.#endShadow();
        }
        if (turn === 'left') this.#heartbeat.usual();
        if (turn === 'owned') this.#heartbeat.start();
        else if (turn !== 'next') this.#heartbeat.stop();
      },
    });
  }

  /** The highest epoch that the agent has named. */
  get epoch(): number {
    return this.#epoch;
  }
  get connected(): boolean {
    return this.#socket !== undefined;
  }
  owns(resource: Resource): boolean {
    return this.#steps.owns(resource);
  }

  /** Tells the agent what went wrong here: before the commit it takes everything back to the prior. */
  fault(code: string, text: string): void {
    this.#log('error', `${code}: ${text}`);
    this.#send({
      type: 'FAULT',
      epoch: this.#epoch,
      code: code.slice(0, LIMITS.nameCharsMax),
      text: text.slice(0, LIMITS.textCharsMax),
    });
  }

  /** Leaves the agent, drops everything and stops reconnecting. For the end of the process, not for flight. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#heartbeat.stop();
    this.#endShadow();
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close();
    this.#steps.forget();
    for (const resource of RESOURCES) this.#steps.drop(resource);
  }

  /** @returns whether a connection was made */
  connect(): boolean {
    try {
      const socket = this.#connect({
        onMessage: (message, descriptors) => this.#heard(message, descriptors, socket),
        onClose: (error) => this.#lost(error),
      });
      this.#socket = socket;
    } catch (error) {
      if (!isNativeError(error)) throw error;
      this.#retry = setTimeout(() => this.connect(), BOUNDS.reconnectMs);
      return false;
    }
    this.#hello();
    return true;
  }

  #hello(): void {
    const { app, release, stateVersions } = this.#options;
    // Those with a descriptor first, so that `fds` and `holds` go together.
    const { held } = this.#steps;
    const descriptors = held.flatMap((resource) => {
      const [first] =
        resource === 'connections' ? [] : (this.#options.holders[resource]?.descriptors?.() ?? []);
      return first === undefined ? [] : [{ resource, name: resource as string, fd: first.fd }];
    });
    const named = descriptors.map(({ resource }) => resource);
    this.#socket?.send(
      {
        type: 'HELLO',
        v: PROTOCOL_VERSION,
        epoch: this.#epoch,
        app,
        release,
        ...stateVersions,
        holds: [...named, ...held.filter((resource) => !named.includes(resource))],
      },
      descriptors,
    );
  }

  #lost(error: Error | undefined): void {
    this.#socket = undefined;
    this.#endShadow();
    this.#steps.forget();
    this.#log('warn', 'the agent is gone; flying on', error === undefined ? {} : { reason: error.message });
    if (!this.#closed) this.#retry = setTimeout(() => this.connect(), BOUNDS.reconnectMs);
  }

  #send(message: JsonObject & { type: string }): void {
    this.#socket?.send(message);
  }
  #log(level: LogLevel, text: string, data?: JsonObject): void {
    this.#options.log?.(level, text, data);
  }

  // ---------------------------------------------------------------- messages

  #heard(message: AgentMessage, descriptors: Map<string, number>, socket: AgentSocket): void {
    const continued = message.type === 'GRANT' && this.#steps.continues(message);
    const isStep = message.type === 'RELEASE' || message.type === 'GRANT';
    if (message.epoch < this.#epoch || (isStep && message.epoch === this.#epoch && !continued)) {
      closeAll(descriptors.values());
      // Answered one by one, a flood would cost the loop that flies more than it tells the agent.
      if (this.#refusals.isTooMuch(nowUs() / 1000)) return;
      this.fault('STALE_EPOCH', `${message.type} of epoch ${message.epoch}, already at ${this.#epoch}`);
      return;
    }
    this.#epoch = message.epoch;
    if (message.type === 'GRANT') {
      this.#steps.grant(message, descriptors, socket);
      return;
    }
    if (message.type === 'SHADOW') {
      this.#shadow(message, descriptors);
      return;
    }
    closeAll(descriptors.values());
    switch (message.type) {
      case 'OFFER':
        if (message.role === 'candidate') void this.#warmUp(message, socket);
        return;
      case 'PREPARE':
        if (this.#options.realtime === 'fifo') setFifo('standsBy');
        this.#send({ type: 'READY', epoch: message.epoch, ...this.#readiness });
        return;
      case 'RELEASE':
        this.#steps.release(message, socket);
        return;
      case 'DROP':
        this.#steps.drop(message.resource);
        if (message.resource === 'rotors') this.#endShadow();
        return;
      case 'COMMIT':
        void this.#committed(message);
        return;
      case 'REVOKE':
        this.#revoked(message);
        return;
    }
  }

  #shadow({ role, snapIntervalMs, payload }: Message<'SHADOW'>, descriptors: Map<string, number>): void {
    const fd = descriptors.get('mirror');
    const { follow, holders } = this.#options;
    const { rotors } = holders;
    const source = role === 'source' && this.#steps.owns('rotors') ? rotors : undefined;
    const shadows = role === 'shadow' && (this.#candidate || (follow && !this.#steps.owns('rotors')));
    const taken = fd !== undefined && (shadows || source?.mirror !== undefined);
    closeAll([...descriptors.values()].filter((other) => !taken || other !== fd));
    if (!taken) return;
    if (role === 'source') {
      source?.mirror?.(fd);
      this.#heartbeat.start(snapIntervalMs ?? LIMITS.snapIntervalMs);
      return;
    }
    this.#mirror?.close();
    const isRead = this.#options.stateVersions.reads.includes(Number(payload?.stateVersion));
    this.#mirror = new Mirror(fd, isRead ? payload : undefined);
    if (this.#candidate) this.#onMirror?.(this.#mirror);
    else follow?.(this.#mirror);
  }

  async #warmUp({ epoch, shadow }: Message<'OFFER'>, socket: AgentSocket): Promise<void> {
    this.#candidate = true;
    this.#warming?.abort();
    const warming = new AbortController();
    this.#warming = warming;
    try {
      const mirror = this.#mirror ?? (await this.#mirrorSoon());
      if (!this.#isRehearsal)
        for (const holder of Object.values(this.#options.holders)) await holder.rehearse?.();
      const readiness = await this.#options.warmUp(mirror, warming.signal, shadow ?? null);
      await this.#rehearse(warming.signal);
      if (
        !Number.isSafeInteger(readiness.cycles) ||
        !(readiness.divergence >= 0 && readiness.divergence < Infinity)
      ) {
        throw new RangeError(`not a readiness: ${JSON.stringify(readiness)}`);
      }
      this.#readiness = { cycles: readiness.cycles, divergence: readiness.divergence };
      if (warming.signal.aborted || this.#socket !== socket) return;
      this.#send({ type: 'READY', epoch, ...this.#readiness });
    } catch (error) {
      const code = error instanceof DivergedError ? error.code : 'WARM_UP_FAILED';
      if (!warming.signal.aborted) this.fault(code, textOf(error));
    } finally {
      // What has ended is not aborted when the rotors are granted: nothing needless is done then.
      if (this.#warming === warming) this.#warming = undefined;
    }
  }

  /** With the state as it is now, at the end of the warm-up: what differs in shape is compiled anew. */
  async #rehearse(signal: AbortSignal): Promise<void> {
    const rehearsal = this.#isRehearsal ? undefined : this.#options.holders.rotors?.rehearsal?.();
    if (rehearsal === undefined) return;
    const { app, release } = this.#options;
    const version = Number(rehearsal.payload.stateVersion ?? 1);
    const begin = (connect: Connect): Session => {
      const session = new Session(
        {
          ...{ app, release, socketPath: '', stateVersions: { reads: [version], writes: version } },
          holders: { rotors: rehearsal.holder },
          warmUp: async () => ({ cycles: 0, divergence: 0 }),
        },
        connect,
      );
      session.connect();
      return session;
    };
    await rehearse(rehearsal, begin, signal);
  }

  /** SHADOW follows the OFFER, if there is a prior to follow. */
  #mirrorSoon(): Promise<Mirror> {
    return new Promise((resolve) => {
      const settle = (mirror: Mirror): void => {
        clearTimeout(timer);
        this.#onMirror = undefined;
        resolve(mirror);
      };
      const timer = setTimeout(() => settle(new Mirror()), BOUNDS.mirrorWaitMs);
      this.#onMirror = settle;
    });
  }

  #endShadow(): void {
    this.#warming?.abort();
    this.#warming = undefined;
    this.#onMirror?.(new Mirror());
    this.#mirror?.close();
    this.#mirror = undefined;
  }

  async #committed({ role, epoch }: Message<'COMMIT'>): Promise<void> {
    this.#endShadow();
    if (role === 'owner') {
      this.#heartbeat.usual();
      if (this.#steps.owns('rotors')) this.#heartbeat.start();
      this.#log('info', 'committed: the drone is ours', { epoch });
      this.#options.onOwner?.();
      return;
    }
    const { held } = this.#steps;
    if (held.length > 0) {
      this.fault('UNEXPECTED_MESSAGE', `retired while holding ${held.join(', ')}`);
      return;
    }
    try {
      for (const resource of RESOURCES) await this.#options.holders[resource]?.retire?.();
      await this.#options.onRetire?.();
    } catch (error) {
      this.#log('error', 'the last work before retiring failed', { reason: textOf(error) });
    }
    this.#send({ type: 'RETIRE', epoch });
  }

  #revoked({ code, text }: Message<'REVOKE'>): void {
    const { held } = this.#steps;
    if (held.length > 0) {
      // Only what was given back can be refused: whoever flies, flies on.
      this.fault('UNEXPECTED_MESSAGE', `revoked while holding ${held.join(', ')}`);
      return;
    }
    this.#log('warn', `revoked: ${text}`, { code });
    this.close();
    if (this.#options.onRevoked !== undefined) this.#options.onRevoked(code, text);
    else process.exit(0);
  }

  // ---------------------------------------------------------------- heartbeat

  get #rotors(): { snapshot?(): JsonObject } | undefined {
    return this.#options.holders.rotors as { snapshot?(): JsonObject } | undefined;
  }

  #snap(): void {
    // One that waits would only be older when it is read.
    if (this.#socket === undefined || this.#socket.queuedBytes > 0) return;
    const atUs = nowUs();
    const payload =
      this.#options.snapshot === undefined ? this.#rotors?.snapshot?.() : this.#options.snapshot();
    if (payload === undefined) return;
    this.#send({ type: 'SNAP', epoch: this.#epoch, payload, atUs, ...this.#options.health?.() });
  }
}

/**
 * Joins the device: connects to the agent, takes what it grants, and lets go when it asks. If the agent is not
 * there (yet, or any more), it is looked for each `BOUNDS.reconnectMs`.
 *
 * @returns at once; grants may come as soon as the caller's turn of the event loop ends
 */
export const join = (options: JoinOptions): Promise<Session> => {
  const session = new Session(options);
  if (options.realtime === 'fifo') {
    const missing = setFifo('flies') ?? setFifo('nobody');
    options.log?.(
      missing === undefined ? 'info' : 'warn',
      missing === undefined ? 'flies under SCHED_FIFO' : `no SCHED_FIFO: ${missing}`,
    );
  }
  session.connect();
  return Promise.resolve(session);
};
