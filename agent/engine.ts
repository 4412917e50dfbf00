/**
 * The container engine as the supervisor uses it: a small record of functions over dockerode.
 *
 * Invariant: "dead" and "frozen" are said only after the kernel or the engine confirmed them, and every call ends
 * within a bound. Containers outlive the agent: they are the engine's children. Their restart policy is `no`,
 * because only the supervisor knows who may fly; after a restart of the engine (which ends its containers unless
 * it runs with live-restore) the supervisor finds them stopped and decides anew.
 */
import Docker from 'dockerode';
import {
  addressOf,
  ask,
  type ContainerSpec,
  creation,
  demultiplexed,
  ENGINE_LIMITS,
  EngineError,
  isGone,
  notConfirmed,
  pause,
  short,
  startError,
  unlessGone,
} from '#agent/engine-calls.ts';
import {
  CGROUP_LIMITS,
  type Cgroup,
  containerOfPid,
  exists,
  findCgroup,
  freeze,
  isAlive,
  isEmpty,
  isFrozen,
  killAll,
  removeLeftovers,
  signalGuarded,
  startTicksOf,
  thawKilled,
  waitEmpty,
} from '#agent/engine-cgroup.ts';

export { type ContainerSpec, type EngineCode, EngineError } from '#agent/engine-calls.ts';

/** Every container of ours bears this; its value is the app's name. */
export const APP_LABEL = 'io.midair.app';
export const RELEASE_LABEL = 'io.midair.release';

export interface OurContainer {
  id: string;
  name: string;
  imageId: string;
  labels: Record<string, string>;
  /** Value of `io.midair.release`, or ''. */
  release: string;
  running: boolean;
  /** The engine's word: created, running, paused, restarting, removing, exited, dead. */
  state: string;
  /** As the engine numbers it; 0 if not running. */
  pid: number;
  /** Of the last run; null while running and before the first. */
  exitCode: number | null;
}

export interface Fenced {
  /** `frozen`: stood still first, then killed. `already-dead`: nothing to do. */
  how: 'frozen' | 'killed' | 'already-dead';
  /** Until it could not act any more, milliseconds. */
  ms: number;
  /**
   * Whether it is confirmed dead, once that is known. False: it stands frozen with a kill pending that could not be confirmed;
   * it is never thawed.
   */
  dead: Promise<boolean>;
}
interface Ended extends Omit<Fenced, 'dead'> {
  dead: boolean;
}

export interface Engine {
  readonly docker: Docker;
  /** Creates and starts; on a failure nothing is left behind. @throws EngineError `START_FAILED`, `NO_REALTIME`, `NO_SUCH_IMAGE`, … */
  startContainer(spec: ContainerSpec): Promise<{ id: string; pid: number }>;
  /** All that bear the label (`io.midair.app`, or `name=value`), running or not. */
  listOurs(label?: string): Promise<OurContainer[]>;
  /** SIGTERM, `timeoutSec`, then SIGKILL by the engine, then as {@link Engine.fence}. */
  stop(id: string, timeoutSec: number): Promise<void>;
  /** SIGKILL, until the engine says that it does not run. @throws EngineError `NOT_CONFIRMED` */
  kill(id: string): Promise<void>;
  /** Removes a stopped one with its anonymous volumes; one that is gone is fine, a running one is an error. */
  remove(id: string): Promise<void>;
  /** Settles when the container has ended. @throws EngineError `NO_SUCH_CONTAINER`, `ENGINE_UNREACHABLE` (for two minutes) */
  waitExit(id: string, signal?: AbortSignal): Promise<number>;
  /** Last lines of both streams, in order. */
  logsTail(id: string, lines: number): Promise<string>;
  /** Stands still until it is dead: by the kernel's freezer, else by the engine's pause. @throws EngineError `NOT_CONFIRMED` */
  freeze(id: string): Promise<'freezer' | 'pause'>;
  /** By the kernel's freezer; false, too, where its files are out of sight. */
  isFrozen(id: string): boolean;
  /**
   * Makes sure that a container can act no more, the quickest way first: frozen, by its own cgroup; killed, by pidfds, and
   * confirmed dead; by the engine, where the kernel's files are out of sight. What is frozen is killed behind the answer.
   * @throws EngineError `NOT_CONFIRMED`
   */
  fence(id: string): Promise<Fenced>;
  /** The container that a process of this machine is in, by the kernel's word; full id. */
  containerOfPid(pid: number): string | undefined;
  /** Whether that process is in that container and can still act. */
  alive(id: string, pid: number): boolean;
}

/**
 * @param url `unix:///path` or `tcp://127.0.0.1:PORT`
 * @throws EngineError `ENGINE_UNREACHABLE`
 */
export async function openEngine(url: string): Promise<Engine> {
  const docker = new Docker(addressOf(url));
  await ask(`reaching the engine at ${url}`, () => docker.ping());
  /** Where each container's processes were last seen: gone from there means dead. */
  const places = new Map<
    string,
    { cgroup: Cgroup | undefined; pid: number; startTicks: number | undefined }
  >();

  /** Ours that ended, of this life: 64 bytes each update. None is ever started again. */
  const ended = new Set<string>();

  const inspect = (id: string) =>
    ask(`inspecting container ${short(id)}`, (abortSignal) =>
      docker.getContainer(id).inspect({ abortSignal }),
    );

  function remember(id: string, pid: number): void {
    if (pid > 0) places.set(id, { cgroup: findCgroup(id, pid), pid, startTicks: startTicksOf(pid) });
  }

  async function startContainer(spec: ContainerSpec): Promise<{ id: string; pid: number }> {
    try {
      return await startOnce(spec);
    } catch (error) {
      const isBudget = error instanceof EngineError && error.code === 'NO_REALTIME';
      if (!isBudget || removeLeftovers(ended) === 0) throw error;
      return startOnce(spec);
    }
  }

  async function startOnce(spec: ContainerSpec): Promise<{ id: string; pid: number }> {
    let id: string | undefined;
    try {
      const container = await ask(`creating container ${spec.name}`, (abortSignal) =>
        docker.createContainer({ ...creation(spec), abortSignal }),
      );
      id = container.id;
      await ask(`starting container ${spec.name}`, (abortSignal) => container.start({ abortSignal }));
      // One that exits at once has pid 0 here; waitExit tells.
      const { State } = await inspect(id);
      remember(id, State.Pid);
      return { id, pid: State.Pid };
    } catch (error) {
      if (id !== undefined) await force(id);
      throw startError(error, spec);
    }
  }

  /** Takes back a container that did not start. */
  async function force(id: string): Promise<void> {
    await ask(`removing container ${short(id)}`, (abortSignal) =>
      docker.getContainer(id).remove({ force: true, v: true, abortSignal }),
    ).catch(() => undefined);
  }

  async function listOurs(label: string = APP_LABEL): Promise<OurContainer[]> {
    const found = await ask('listing the containers', (abortSignal) =>
      docker.listContainers({ all: true, filters: { label: [label] }, abortSignal }),
    );
    const ours: OurContainer[] = [];
    for (const { Id } of found) {
      const container = await unlessGone(inspect(Id));
      if (!container) continue;
      const { State, Config, Name, Image } = container;
      if (State.Running) remember(Id, State.Pid);
      ours.push({
        id: Id,
        name: Name.replace(/^\//, ''),
        imageId: Image,
        labels: Config.Labels ?? {},
        release: Config.Labels?.[RELEASE_LABEL] ?? '',
        running: State.Running,
        state: State.Status,
        pid: State.Pid,
        exitCode: State.Running || State.Status === 'created' ? null : State.ExitCode,
      });
    }
    return ours;
  }

  async function stop(id: string, timeoutSec: number): Promise<void> {
    try {
      await ask(
        `stopping container ${short(id)}`,
        (abortSignal) => docker.getContainer(id).stop({ t: timeoutSec, abortSignal }),
        timeoutSec * 1000 + ENGINE_LIMITS.callMsMax,
      );
    } catch (error) {
      if (isGone(error)) return;
      if (!(error instanceof EngineError && error.status === 304)) {
        await (await fence(id)).dead;
        return;
      }
    }
    await waitStopped(id);
  }

  async function kill(id: string): Promise<void> {
    await engineKill(id);
    await waitStopped(id);
  }

  /** 409: it does not run. */
  async function engineKill(id: string): Promise<void> {
    try {
      await ask(
        `killing container ${short(id)}`,
        (abortSignal) => docker.getContainer(id).kill({ signal: 'SIGKILL', abortSignal }),
        ENGINE_LIMITS.killMsMax,
      );
    } catch (error) {
      if (!isGone(error) && !(error instanceof EngineError && error.status === 409)) throw error;
    }
  }

  async function waitStopped(id: string): Promise<void> {
    const endMs = performance.now() + ENGINE_LIMITS.killMsMax;
    for (
      let pauseMs: number = ENGINE_LIMITS.pollMsMin;
      ;
      pauseMs = Math.min(pauseMs * 2, ENGINE_LIMITS.pollMsMax)
    ) {
      const container = await unlessGone(inspect(id));
      if (!container?.State.Running) return;
      if (performance.now() > endMs) throw notConfirmed(id, 'the engine still calls it running');
      await pause(pauseMs);
    }
  }

  async function remove(id: string): Promise<void> {
    // The engine may lag behind a kill that the kernel has confirmed.
    const cgroup = places.get(id)?.cgroup;
    if (cgroup && isEmpty(cgroup)) await waitStopped(id);
    try {
      await ask(`removing container ${short(id)}`, (abortSignal) =>
        docker.getContainer(id).remove({ v: true, abortSignal }),
      );
    } catch (error) {
      if (!isGone(error)) throw error;
    }
    places.delete(id);
    ended.add(id);
  }

  async function waitExit(id: string, signal?: AbortSignal): Promise<number> {
    let reachedMs = performance.now();
    for (let pauseMs: number = ENGINE_LIMITS.pollMsMin; ; ) {
      signal?.throwIfAborted();
      try {
        const { State } = await inspect(id);
        if (!State.Running && State.Status !== 'created') {
          ended.add(id);
          return State.ExitCode;
        }
        reachedMs = performance.now();
        await longPoll(id, signal);
        pauseMs = ENGINE_LIMITS.pollMsMin;
      } catch (error) {
        signal?.throwIfAborted();
        if (isGone(error)) throw error;
        if (performance.now() - reachedMs > ENGINE_LIMITS.unreachableMsMax) throw error;
        await pause(pauseMs);
        pauseMs = Math.min(pauseMs * 2, ENGINE_LIMITS.pollMsMax);
      }
    }
  }

  /** Returns when the engine says that it ended, or after a while; the caller looks for itself. */
  async function longPoll(id: string, signal: AbortSignal | undefined): Promise<void> {
    const late = AbortSignal.timeout(ENGINE_LIMITS.waitMsMax);
    const abortSignal = signal ? AbortSignal.any([late, signal]) : late;
    try {
      await ask(
        `waiting for container ${short(id)}`,
        () => docker.getContainer(id).wait({ abortSignal }),
        ENGINE_LIMITS.waitMsMax,
      );
    } catch (error) {
      if (!abortSignal.aborted) throw error;
    }
  }

  async function logsTail(id: string, lines: number): Promise<string> {
    const bytes = (await ask(`reading the log of container ${short(id)}`, (abortSignal) =>
      docker.getContainer(id).logs({
        stdout: true,
        stderr: true,
        follow: false,
        tail: Math.min(lines, ENGINE_LIMITS.logLinesMax),
        abortSignal,
      }),
    )) as unknown;
    return Buffer.isBuffer(bytes) ? demultiplexed(bytes) : '';
  }

  async function freezeContainer(id: string): Promise<'freezer' | 'pause'> {
    const cgroup = places.get(id)?.cgroup ?? findCgroup(id);
    if (cgroup && (await freeze(cgroup))) return 'freezer';
    try {
      await ask(`pausing container ${short(id)}`, (abortSignal) =>
        docker.getContainer(id).pause({ abortSignal }),
      );
    } catch (error) {
      throw notConfirmed(id, 'it could not be paused', error);
    }
    return 'pause';
  }

  function isFrozenContainer(id: string): boolean {
    const cgroup = places.get(id)?.cgroup ?? findCgroup(id);
    return cgroup !== undefined && isFrozen(cgroup);
  }

  async function fence(id: string): Promise<Fenced> {
    const beganMs = performance.now();
    const since = () => Math.round((performance.now() - beganMs) * 1000) / 1000;
    const place = places.get(id);
    const cgroup = place?.cgroup ?? findCgroup(id);
    const settled = ({ dead, ...rest }: Ended): Fenced => ({ ...rest, dead: Promise.resolve(dead) });
    if (!cgroup) return settled(await fenceByEngine(id, place?.pid, place?.startTicks, since));

    // First of all: whether anything is left to be frozen takes as long to find out.
    const frozen = await freeze(cgroup);
    const frozenMs = since();
    if (!frozen && isEmpty(cgroup)) return settled({ how: 'already-dead', ms: since(), dead: true });
    if (!frozen) return settled(await end(id, cgroup, frozen, frozenMs, since));
    const ending = pause(CGROUP_LIMITS.frozenMs).then(() => end(id, cgroup, frozen, frozenMs, since));
    const dead = ending.then((ended) => ended.dead);
    // Whoever waits for it hears of a failure; if nobody does, it stands frozen.
    dead.catch(() => undefined);
    return { how: 'frozen', ms: frozenMs, dead };
  }

  async function end(
    id: string,
    cgroup: Cgroup,
    frozen: boolean,
    frozenMs: number,
    since: () => number,
  ): Promise<Ended> {
    // Not from here (another pid namespace): the engine's kill sits pending in a frozen process until it is thawed.
    const killed = (await killAll(cgroup, id)) || (!exists(cgroup) && isEmpty(cgroup));
    if (killed && (await waitEmpty(cgroup))) {
      return frozen
        ? { how: 'frozen', ms: frozenMs, dead: true }
        : { how: 'killed', ms: since(), dead: true };
    }
    return fenceStubborn(id, cgroup, frozen, frozenMs, since);
  }

  /** What the kernel's files alone did not finish. */
  async function fenceStubborn(
    id: string,
    cgroup: Cgroup,
    frozen: boolean,
    frozenMs: number,
    since: () => number,
  ): Promise<Ended> {
    try {
      await engineKill(id);
      if (frozen && !thawKilled(cgroup)) return { how: 'frozen', ms: frozenMs, dead: false };
      if (await waitEmpty(cgroup)) {
        return frozen
          ? { how: 'frozen', ms: frozenMs, dead: true }
          : { how: 'killed', ms: since(), dead: true };
      }
    } catch (error) {
      if (!frozen || !isFrozen(cgroup)) throw notConfirmed(id, 'it could not be killed', error);
    }
    if (frozen && isFrozen(cgroup)) return { how: 'frozen', ms: frozenMs, dead: false };
    throw notConfirmed(id, 'its processes are still there after SIGKILL');
  }

  async function fenceByEngine(
    id: string,
    pid: number | undefined,
    startTicks: number | undefined,
    since: () => number,
  ): Promise<Ended> {
    // The same process as when it was last seen, in that container, by the kernel's word: quicker than asking.
    if (pid !== undefined && startTicks !== undefined && startTicksOf(pid) === startTicks) {
      signalGuarded(pid, id, 'SIGKILL');
    }
    try {
      const container = await unlessGone(inspect(id));
      if (!container?.State.Running) return { how: 'already-dead', ms: since(), dead: true };
      await engineKill(id);
      await waitStopped(id);
      return { how: 'killed', ms: since(), dead: true };
    } catch (error) {
      throw error instanceof EngineError && error.code === 'NOT_CONFIRMED'
        ? error
        : notConfirmed(id, 'its processes are out of sight and the engine does not answer', error);
    }
  }

  return {
    docker,
    startContainer,
    listOurs,
    stop,
    kill,
    remove,
    waitExit,
    logsTail,
    freeze: freezeContainer,
    isFrozen: isFrozenContainer,
    fence,
    containerOfPid,
    alive: isAlive,
  };
}
