/**
 * Runs the handover machine: listens on the device's socket, turns lines, deaths and deadlines into events,
 * and carries out effects in their order.
 *
 * Invariant: one event at a time, its effects whole before the next. What must be durable is durable when `persist` returns.
 * The agent is never in the data path: what it holds are duplicates, what it passes is opaque to it.
 */
import { beginsToEnd, escort, isEnding, lift, setPriority, watchDeath } from '#agent/death.ts';
import type { Descriptor, Devices } from '#agent/devices.ts';
import type { Journal } from '#agent/journal.ts';
import { landCommand } from '#agent/land.ts';
import { LIMITS as AGENT_LIMITS } from '#agent/limits.ts';
import type { UpdateLock } from '#agent/lock.ts';
import type { Log } from '#agent/log.ts';
import type { LinkSigning } from '#agent/signing.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll, type LineListener, type LineSocket, listenLines } from '#handover/lines.ts';
import { deadlineMs, delayed, goneFrom, step } from '#handover/machine.ts';
import {
  type AppMessage,
  type JsonObject,
  parseAppMessage,
  RESOURCES,
  type Resource,
} from '#handover/messages.ts';
import { native, nowUs } from '#handover/native.ts';
import { Repeats } from '#handover/repeats.ts';
import type { AppId, Config, Effect, Event, Failure, Outcome, Policy, State } from '#handover/state.ts';
import { inHandOf, mayFly, pilotOf } from '#handover/transfer.ts';

/** What the coordinator needs of the engine; agent/engine.ts has it. */
export interface Processes {
  /** The container of a local process, or undefined: not one of ours. */
  containerOfPid(pid: number): string | undefined;
  /** Resolves once it is confirmed that no process of the container can act any more; `dead`, once all have ended. */
  fence(id: string): Promise<{ readonly dead: Promise<boolean> }>;
  /** SIGTERM, a while, then as fence. */
  stop(id: string, timeoutSec: number): Promise<unknown>;
}

export interface Report {
  readonly type: string;
  readonly text: string;
  readonly atUs: number;
  readonly data: Record<string, unknown>;
}
export interface CoordinatorOptions {
  readonly socketPath: string;
  readonly journal: Journal<State>;
  readonly devices: Devices;
  readonly processes: Processes;
  readonly resources: readonly Resource[];
  readonly lock: UpdateLock;
  /** Of a rotor link that is signed. */
  readonly signing?: LinkSigning | undefined;
  /** A candidate that is not warm by then is stopped. */
  readonly warmMsMax?: number;
  readonly log: Log;
  readonly onReport: (report: Report) => void;
  readonly onSettle: (outcome: Outcome) => void;
}

/** One line's worth of a passing resource. Many for many connections. */
interface Part {
  readonly payload: JsonObject;
  readonly descriptors: readonly Descriptor[];
}

/** From whom something is to come. */
interface Awaited {
  readonly id: AppId;
  readonly pid: number;
  /** To be looked at more often. */
  readonly isLate: boolean;
  /** Who flies, and it is time to be ready for its successor. */
  readonly isSilent: boolean;
}

const nowMs = (): number => nowUs() / 1000;
const closeDescriptors = (descriptors: readonly Descriptor[]): void =>
  closeAll(descriptors.map(({ fd }) => fd));

type Line = LineSocket<AppMessage>;
const calm: State['phase'][] = ['idle', 'warming', 'postponed', 'committed', 'failsafe'];

export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #config: Config;
  readonly #sockets = new Map<AppId, Line>();
  /** Said to an app that is not connected right now: it looks for us five times a second. */
  readonly #outbox = new Map<AppId, Effect[]>();
  readonly #watches = new Map<AppId, { readonly pid: number; readonly end: () => void }>();
  readonly #released = new Map<Resource, Part[]>();
  readonly #events: Event[] = [];
  readonly #reports: Report[] = [];
  /** Of reports that change nothing: an app can cause them at will. */
  readonly #repeats = new Repeats();
  /** Apps that hold nothing and said HELLO while a container was being started, by an engine that has not said yet which one it is. */
  readonly #early = new Map<AppId, AppMessage>();
  #starts = 0;
  #state: State;
  #snap: JsonObject | null = null;
  #stepping = false;
  #hurries = false;
  /** Before, what happens waits: no deadline of a former life may pass, no absence be judged, while apps connect again. */
  #booted = false;
  /** Of the machine's deadlines; finer than Node's own, which round up to whole milliseconds. */
  readonly #timer = native.timer(() => setImmediate(() => this.#tick()));
  #listener: LineListener | undefined;
  #closed = false;

  constructor(options: CoordinatorOptions) {
    this.#options = options;
    const { warmMsMax = LIMITS.warmMsMax, resources } = options;
    this.#config = { limits: { ...LIMITS, warmMsMax }, resources };
    this.#state = options.journal.value;
  }

  get state(): State {
    return this.#state;
  }

  /**
   * Listens; after a restart waits (bounded) until those that run have connected, then reconciles.
   *
   * @param running all containers of this device that run; with a lost journal the owner is among them
   * @param frozen  of these, what a fence of a former life left
   */
  async start(running: ReadonlySet<AppId>, frozen: ReadonlySet<AppId> = new Set()): Promise<void> {
    this.#listener = listenLines(this.#options.socketPath, parseAppMessage, (socket, peer) =>
      this.#connected(socket, peer.pid),
    );
    // Left by our own death; a transfer is never resumed.
    this.#options.lock.release();
    const state = this.#state;
    const untilMs = nowMs() + LIMITS.reconnectMsMax;
    const isMissing = (id: AppId): boolean => !this.#sockets.has(id) && !frozen.has(id);
    while (nowMs() < untilMs && [...running].some(isMissing)) {
      await new Promise((resolve) => setTimeout(resolve, AGENT_LIMITS.reconnectPollMs));
    }
    this.#booted = true;
    const gone = goneFrom(
      state,
      (id) => running.has(id),
      (id) => frozen.has(id),
    );
    this.#events.unshift({ type: 'boot', gone, atMs: nowMs() });
    this.#run();
    for (const who of gone) this.happen({ type: 'dead', who, atMs: nowMs() });
    for (const who of gone) if (frozen.has(who)) this.#end(who, this.#fence(who));
  }

  /**
   * A container is about to be started. A small program is there before the engine has answered: who is not known waits.
   *
   * @returns to be called once `update` has told who it is, or the start has failed
   */
  starting(): () => void {
    this.#starts += 1;
    return () => {
      this.#starts -= 1;
      if (this.#starts === 0) for (const id of [...this.#early.keys()]) this.#introduce(id);
    };
  }

  /** A container of the new release runs: it may say HELLO, and is to become the owner. */
  update(candidate: AppId, policy: Policy): void {
    this.happen({ type: 'update', candidate, policy, atMs: nowMs() });
    this.#introduce(candidate);
  }

  #introduce(id: AppId): void {
    const hello = this.#early.get(id);
    this.#early.delete(id);
    if (hello && this.#sockets.has(id)) this.#heard(id, hello, []);
  }

  /** Something is wrong with it that it did not say itself. */
  trouble(who: AppId, failure: Failure): void {
    this.happen({ type: 'trouble', who, failure, atMs: nowMs() });
  }

  abort(failure: Failure): void {
    this.happen({ type: 'abort', failure, atMs: nowMs() });
  }

  /** The engine says that the container ended. */
  died(who: AppId): void {
    this.#watches.get(who)?.end();
    this.#watches.delete(who);
    this.happen({ type: 'dead', who, atMs: nowMs() });
  }

  /** Leaves apps and devices as they are: the owner flies on. */
  close(): void {
    this.#closed = true;
    this.#hurry(false);
    this.#timer.close();
    this.#listener?.close();
    for (const socket of this.#sockets.values()) socket.close();
    for (const { end } of this.#watches.values()) end();
    this.#forgetReleased();
  }

  happen(event: Event): void {
    this.#events.push(event);
    this.#run();
  }

  #run(): void {
    if (!this.#booted || this.#stepping || this.#closed) return;
    this.#stepping = true;
    try {
      for (let next = this.#events.shift(); next; next = this.#events.shift()) {
        const before = this.#state;
        const [state, effects] = step(before, next, this.#config);
        this.#state = state;
        for (const effect of effects) {
          if (effect.do === 'report' && state === before && this.#repeats.isTooMuch(nowMs())) continue;
          this.#act(effect);
        }
      }
      // Logs and the hub can wait for the few milliseconds in which something passes.
      if (calm.includes(this.#state.phase)) this.#tellReports();
      else if (this.#state.phase === 'probation')
        this.#later((isStillSo) => isStillSo && this.#tellReports());
    } catch (error) {
      // What could not be carried out leaves the state untrue. The agent ends, the owner flies on, and its start reconciles.
      this.#closed = true;
      setImmediate(() => {
        throw error;
      });
    } finally {
      this.#stepping = false;
    }
    this.#arm();
  }

  /** Not beside the first cycles of who just took the rotors: each core that we use now is one that it, or its tty, waits for. */
  #later(work: (isStillSo: boolean) => void): void {
    const { epoch } = this.#state;
    setTimeout(() => {
      work(!this.#closed && this.#state.phase === 'probation' && this.#state.epoch === epoch);
    }, AGENT_LIMITS.settleMs);
  }

  #tellReports(): void {
    for (const report of this.#reports.splice(0)) this.#options.onReport(report);
  }

  #arm(): void {
    if (this.#closed) return;
    const awaited = this.#awaited();
    if (awaited === undefined) this.#hurry(false);
    const atMs = Math.min(deadlineMs(this.#state, this.#config), this.#lookMs(awaited));
    this.#timer.set(Number.isFinite(atMs) ? Math.max(1, Math.ceil(atMs * 1000)) : 0);
  }

  #lookMs(awaited: Awaited | undefined): number {
    if (awaited === undefined) return Number.POSITIVE_INFINITY;
    return nowMs() + (awaited.isLate ? AGENT_LIMITS.lookLateMs : AGENT_LIMITS.lookMs);
  }

  #tick(): void {
    const awaited = this.#awaited();
    const begins = awaited !== undefined && beginsToEnd(awaited.pid);
    this.#hurry(begins || awaited?.isSilent === true);
    if (begins && isEnding(awaited.pid)) {
      this.died(awaited.id);
      this.#liftSuccessor();
      this.#hurry(false);
    } else this.#expire(awaited?.id);
  }

  /**
   * Silence must be the app's, not ours: this process may have had no core since it last read. So all that had been said when the time was
   * over is read before it is judged; first what is awaited, since another may have much to say.
   */
  #expire(awaited: AppId | undefined): void {
    const atMs = nowMs();
    const isOver = (): boolean => atMs >= deadlineMs(this.#state, this.#config);
    if (awaited !== undefined && isOver()) this.#hear(awaited);
    if (isOver()) for (const id of this.#sockets.keys()) if (id !== awaited) this.#hear(id);
    this.happen({ type: 'tick', atMs });
  }

  /** All that waits, unless it is said faster than it is read. */
  #hear(id: AppId): void {
    const socket = this.#sockets.get(id);
    for (let turn = 0; turn < AGENT_LIMITS.hearTurnsMax && socket?.receive() === true; turn += 1);
  }

  /**
   * Real time while who flies is silent or ending, and only then: another is to be granted the rotors at once, whoever has the cores. Where the
   * system refuses, the agent goes on as it is.
   */
  #hurry(on: boolean): void {
    if (on === this.#hurries) return;
    this.#hurries = on;
    setPriority(0, on ? AGENT_LIMITS.urgentFifoPriority : 0);
  }

  /** The helpers of the one that is granted the rotors, while the kernel takes the dead one apart. */
  #liftSuccessor(): void {
    const successor = this.#awaited();
    if (successor === undefined) return;
    const giveBack = lift(successor.pid);
    setTimeout(giveBack, AGENT_LIMITS.settleMs);
  }

  /** A heartbeat is to come from it, or an answer: it is looked at whether it still can. */
  #awaited(): Awaited | undefined {
    const state = this.#state;
    const pilot = pilotOf(state, this.#config);
    const role = pilot ?? inHandOf(state);
    const id = role === null || !('heardMs' in state) ? null : state[role];
    const watch = id === null ? undefined : this.#watches.get(id);
    if (id === null || watch === undefined || !('heardMs' in state)) return undefined;
    const { lateMs, silentMs } = AGENT_LIMITS;
    const silenceMs = nowMs() - state.heardMs;
    return {
      id,
      pid: watch.pid,
      isLate: pilot === null || silenceMs >= lateMs,
      isSilent: pilot !== null && silenceMs >= silentMs,
    };
  }

  #act(effect: Effect): void {
    const { journal, processes, lock, log, onSettle } = this.#options;
    switch (effect.do) {
      case 'persist': {
        const beganMs = nowMs();
        journal.write(this.#state);
        this.#state = delayed(this.#state, nowMs() - beganMs);
        return;
      }
      case 'send':
        this.#send(effect);
        return;
      case 'mirror':
        this.#mirror(effect.from, effect.to);
        return;
      case 'lock':
        this.happen({ type: 'lock', taken: lock.take(), atMs: nowMs() });
        return;
      case 'fence':
        this.#end(effect.who, this.#fence(effect.who));
        return;
      case 'stop':
        this.#end(effect.who, processes.stop(effect.who, AGENT_LIMITS.stopSec));
        return;
      case 'failsafe':
        this.#failsafe(effect.failure);
        return;
      case 'report': {
        const { type, text, resource } = effect;
        const omitted = this.#repeats.takeOmitted();
        const data = {
          epoch: this.#state.epoch,
          ...(resource === undefined ? {} : { resource }),
          ...(omitted === 0 ? {} : { omitted }),
        };
        this.#reports.push({ type, text, atUs: nowUs(), data });
        return;
      }
      case 'settle':
        this.#forgetReleased();
        this.#snap = null;
        lock.release();
        log.info({ outcome: effect.outcome }, 'handover settled');
        this.#tellReports();
        onSettle(effect.outcome);
        return;
    }
  }

  /** It cannot act once it is frozen; that it also dies is awaited behind everything else. */
  async #fence(who: AppId): Promise<void> {
    const { dead } = await this.#options.processes.fence(who);
    const alive = (err?: unknown): void =>
      this.#options.log.error({ err, who }, 'it stands frozen, and could not be confirmed dead');
    dead.then((isDead) => isDead || alive(), alive);
  }

  /** A fence that fails is not an event: the machine's own deadline makes it the failsafe's. */
  #end(who: AppId, ending: Promise<unknown>): void {
    const pid = this.#watches.get(who)?.pid;
    const leave = pid === undefined ? () => undefined : escort(pid);
    ending
      .then(
        () => this.died(who),
        (error: unknown) => this.#options.log.error({ err: error, who }, 'could not confirm that it is dead'),
      )
      .finally(leave);
  }

  // -------------------------------------------------------------- lines

  #connected(socket: Line, pid: number): void {
    const { processes, log } = this.#options;
    const id = processes.containerOfPid(pid);
    if (id === undefined) {
      log.warn({ pid }, 'a process that is in none of our containers connected; refused');
      socket.close();
      return;
    }
    socket.start({
      onMessage: (message, received) => {
        const descriptors = [...received].map(([name, fd]) => ({ name, fd }));
        if (message.type === 'HELLO') {
          this.#watches.get(id)?.end();
          this.#watches.set(id, { pid, end: watchDeath(pid, () => this.died(id)) });
          this.#sockets.get(id)?.close();
          this.#sockets.set(id, socket);
        } else if (this.#sockets.get(id) !== socket) {
          log.warn({ id, type: message.type }, 'the first line must be HELLO; connection refused');
          closeAll(received.values());
          socket.close();
          return;
        }
        this.#heard(id, message, descriptors);
      },
      onClose: (error) => {
        if (error) log.warn({ err: error, id }, 'connection of an app ended');
        if (this.#sockets.get(id) !== socket) return;
        this.#sockets.delete(id);
        this.happen({ type: 'gone', who: id, atMs: nowMs() });
      },
    });
  }

  #heard(from: AppId, message: AppMessage, descriptors: readonly Descriptor[]): void {
    if (message.type === 'HELLO' && message.holds.length === 0 && this.#starts > 0 && !this.#isKnown(from)) {
      closeDescriptors(descriptors);
      this.#early.set(from, message);
      return;
    }
    if (message.type === 'RELEASED') this.#keep(message, descriptors);
    else if (message.type !== 'HELLO') closeDescriptors(descriptors);
    if (message.type === 'SNAP' && mayFly(this.#state, from, this.#config)) this.#rotorsSaid(message.payload);
    this.happen({ type: 'message', from, message, atMs: nowMs() });
    if (message.type !== 'HELLO') return;
    this.#adopt(from, message.holds, descriptors);
    const waiting = this.#outbox.get(from) ?? [];
    this.#outbox.delete(from);
    for (const effect of waiting) if (this.#isCurrent(effect)) this.#act(effect);
  }

  /** A step that waited for an app to connect is for the epoch that asked it, or for nobody. */
  #isCurrent(effect: Effect): boolean {
    if (effect.do !== 'send') return true;
    const { type, epoch } = effect.message;
    return epoch === this.#state.epoch || (type !== 'GRANT' && type !== 'RELEASE');
  }

  #isKnown(id: AppId): boolean {
    const state = this.#state;
    if (state.phase === 'idle') return state.owner === id;
    return 'candidate' in state && (state.prior === id || state.candidate === id);
  }

  /** The owner's own copies come back to an agent that was restarted; whose they are is the machine's to say. */
  #adopt(from: AppId, holds: readonly Resource[], descriptors: readonly Descriptor[]): void {
    const known = this.#isKnown(from);
    for (const { name, fd } of descriptors) {
      const resource = RESOURCES.find((one) => one === name);
      if (known && resource !== undefined && resource !== 'connections' && holds.includes(resource)) {
        this.#options.devices.adopt(resource, fd, from);
      } else native.close(fd);
    }
  }

  #keep(message: Extract<AppMessage, { type: 'RELEASED' }>, descriptors: readonly Descriptor[]): void {
    const state = this.#state;
    const expected =
      (state.phase === 'releasing' || state.phase === 'fencing') &&
      state.epoch === message.epoch &&
      state.resource === message.resource;
    if (!expected) {
      closeDescriptors(descriptors);
      return;
    }
    // Its last words are newer than its last heartbeat.
    if (message.resource === 'rotors') this.#rotorsSaid(message.payload);
    const parts = this.#released.get(message.resource) ?? [];
    this.#released.set(message.resource, [...parts, { payload: message.payload, descriptors }]);
  }

  #rotorsSaid(payload: JsonObject): void {
    this.#snap = payload;
    this.#options.signing?.heard(payload);
  }

  #send(effect: Extract<Effect, { do: 'send' }>): void {
    const socket = this.#sockets.get(effect.to);
    if (!socket) {
      const waiting = this.#outbox.get(effect.to) ?? [];
      this.#outbox.set(effect.to, [...waiting, effect]);
      return;
    }
    const { message } = effect;
    if (message.type === 'RELEASE') this.#forgetReleased(message.resource);
    if (message.type !== 'GRANT') {
      socket.send(message);
      return;
    }
    const { signing } = this.#options;
    const terms = signing && message.resource === 'rotors' ? { signing: signing.signing } : {};
    const parts = this.#parts(message, effect.to);
    parts.forEach(({ payload, descriptors }, index) => {
      socket.send({ ...message, ...terms, payload, more: index < parts.length - 1 }, descriptors);
    });
  }

  #parts(
    { resource, epoch, from }: { resource: Resource; epoch: number; from: 'release' | 'snap' | 'start' },
    to: AppId,
  ): { payload: JsonObject | null; descriptors: readonly Descriptor[] }[] {
    const released = this.#released.get(resource);
    if (resource === 'connections') return released ?? [{ payload: null, descriptors: [] }];
    const descriptors = this.#options.devices.descriptors(resource, { to, epoch, from });
    if (from === 'release') return [{ payload: released?.[0]?.payload ?? null, descriptors }];
    return [{ payload: from === 'snap' && resource === 'rotors' ? this.#snap : null, descriptors }];
  }

  /** What a giver passed is kept until the handover is settled: a hand-back may need it. */
  #forgetReleased(only?: Resource): void {
    for (const [resource, parts] of this.#released) {
      if (only !== undefined && resource !== only) continue;
      for (const { descriptors } of parts) closeDescriptors(descriptors);
      this.#released.delete(resource);
    }
  }

  #mirror(from: AppId, to: AppId): void {
    const source = this.#sockets.get(from);
    if (!source || !this.#sockets.has(to)) return;
    const { epoch } = this.#state;
    const [writing, reading] = native.socketPair();
    const snapIntervalMs = LIMITS.watchedSnapIntervalMs;
    source.send({ type: 'SHADOW', epoch, role: 'source', snapIntervalMs }, [{ name: 'mirror', fd: writing }]);
    native.close(writing);
    const follow = (isStillSo: boolean): void => {
      const fd = { name: 'mirror', fd: reading };
      const snap = this.#snap === null ? {} : { payload: this.#snap };
      if (isStillSo) this.#sockets.get(to)?.send({ type: 'SHADOW', epoch, role: 'shadow', ...snap }, [fd]);
      native.close(reading);
    };
    if (this.#state.phase === 'probation') this.#later(follow);
    else follow(true);
  }

  /** Nobody is left to fly: the controller is told to land, once, by us. */
  #failsafe(failure: Failure): void {
    const { devices, signing, log, onReport } = this.#options;
    let told = false;
    try {
      told = devices.command(this.#state.epoch, landCommand(signing?.afterLoss()));
    } catch (error) {
      log.error({ err: error }, 'the land command could not be written');
    }
    const text = `${failure.text}; ${told ? 'the controller was told to land' : "the controller's own failsafe acts"}`;
    onReport({ type: 'failsafe', text, atUs: nowUs(), data: { code: failure.code, told } });
  }
}
