/**
 * Brings the device from its current state to the target state, one planned step at a time.
 *
 * Invariant: the loop is the only one that acts on the engine's containers, but for the coordinator's fences. It
 * forgets nothing that matters: target, last good release and last failure are in a journal; everything else is
 * observed anew before each step. Every wait ends: by news, or by a bounded pause.
 */
import { randomUUID } from 'node:crypto';
import { Coordinator, type CoordinatorOptions, type Report } from '#agent/coordinator.ts';
import { type ContainerSpec, type Engine, EngineError } from '#agent/engine.ts';
import { AgentError } from '#agent/errors.ts';
import { watchHealth } from '#agent/health.ts';
import { ImageError, type ImageFetch, type Images } from '#agent/images/index.ts';
import type { Journal } from '#agent/journal.ts';
import { LIMITS } from '#agent/limits.ts';
import type { Link } from '#agent/link.ts';
import { LOCK_MOUNT } from '#agent/lock.ts';
import type { Log } from '#agent/log.ts';
import { blamed, flown, type Memory, reconciled, releaseNamed, targeted, unwatched } from '#agent/memory.ts';
import { newsOf } from '#agent/news.ts';
import { type Container, type Observed, type Plan, plan, serviceOf } from '#agent/planner.ts';
import { policyOf } from '#agent/policy.ts';
import { TEST_DEVICE_LABEL } from '#agent/test-device.ts';
import type { Current, Release, Stage, Target } from '#fleet/protocol.ts';
import { nowUs } from '#handover/native.ts';
import type { Failure, Outcome } from '#handover/state.ts';

export interface SupervisorOptions {
  readonly device: string;
  /** Failure injection may harm it; said on every container. */
  readonly testDevice?: boolean;
  /** Of each second, for one app's control loop under SCHED_FIFO. */
  readonly appRealtimeUs: number;
  /** Mounted into each app at `/run/midair`; holds the handover socket. */
  readonly runDirectory: string;
  /** Mounted into each app at `LOCK_MOUNT`; holds the update lock. */
  readonly locksDirectory: string;
  readonly engine: Engine;
  readonly images: Images;
  readonly memory: Journal<Memory>;
  readonly link: Link;
  readonly log: Log;
  readonly coordinator: Omit<CoordinatorOptions, 'onReport' | 'onSettle' | 'log' | 'processes'>;
}

const MOUNT = '/run/midair';
/** On an image or service: `fifo` asks for SCHED_FIFO for its control loop. */
const REALTIME_LABEL = 'io.midair.realtime';
const IDLE: Current['update'] = { status: 'idle' };

/** The stage that a report begins. */
const stageOf = ({ type, data }: Report, now: Stage | null): Stage | null => {
  switch (type) {
    case 'handover.warming':
      return 'warm';
    case 'handover.release':
      return now === 'warm' ? 'handover' : null;
    case 'handover.granted':
      return data.resource === 'rotors' ? 'probation' : null;
    case 'handover.committed':
      return 'retire';
    default:
      return null;
  }
};

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #coordinator: Coordinator;
  readonly #bootId = randomUUID();
  readonly #watched = new Set<string>();
  #sequence = 0;
  #containers: Container[] = [];
  #imageIds: string[] = [];
  #update: Current['update'] = IDLE;
  #stages = new Map<Stage, number>();
  #stage: Stage | null = null;
  #fetched: ImageFetch = { as: 'nothing', bytes: 0 };
  #candidate: { id: string; release: Release } | null = null;
  /** Of a container that the engine is starting. */
  #starting: Release | null = null;
  /** The candidate that did not run any more when this agent came. */
  #unwatched: string | null = null;
  #failures = 0;
  #interrupt = new AbortController();
  readonly #closing = new AbortController();
  #wake: () => void = () => {};
  #news = false;
  #closed = false;
  #retry: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #toldMs = 0;
  #toldGeneration: number | null = null;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    const { engine, log } = options;
    this.#coordinator = new Coordinator({
      ...options.coordinator,
      processes: engine,
      log,
      onReport: (report) => this.#reported(report),
      onSettle: (outcome) =>
        void this.#settled(outcome).catch((error: unknown) => {
          this.#troubled(error);
          this.#poke();
        }),
    });
  }

  get coordinator(): Coordinator {
    return this.#coordinator;
  }

  async start(): Promise<void> {
    const { engine } = this.#options;
    await this.#observe();
    for (const { id, running } of this.#containers) if (running) this.#watch(id);
    this.#candidate = this.#inFlight();
    const running = this.#containers.filter((one) => one.running).map(({ id }) => id);
    const frozen = running.filter((id) => engine.isFrozen(id));
    await this.#coordinator.start(new Set(running), new Set(frozen));
    watchHealth(engine.docker, this.#closing.signal, (id) =>
      this.#coordinator.trouble(id, { code: 'UNHEALTHY', text: "the container's own health check failed" }),
    );
    this.#tell();
    this.#running = this.#loop();
  }

  /** Whose update the agent's own death interrupted. */
  #inFlight(): { id: string; release: Release } | null {
    const { state } = this.#coordinator;
    if (!('candidate' in state)) return null;
    const id = state.candidate;
    const name = this.#containers.find((one) => one.id === id)?.release;
    const release = name === undefined ? null : releaseNamed(this.#options.memory.value, name);
    if (this.#containers.find((one) => one.id === id)?.running !== true) this.#unwatched = id;
    return release && { id, release };
  }

  /** After a death, or a disk that refused, between the two journals. @returns whether there was something to mend */
  #reconcile({ handover, containers }: Observed): boolean {
    const { memory } = this.#options;
    const ownerId = handover.phase === 'idle' ? handover.owner : null;
    const owner = containers.find(({ id }) => id === ownerId)?.release;
    const next = reconciled(memory.value, owner ?? null);
    if (next === null) return false;
    memory.write(next);
    this.#update = IDLE;
    this.#tell();
    return true;
  }

  /** A new target state, or other ways to the same one; an older generation is no news. */
  target(target: Target): void {
    const memory = this.#options.memory.value;
    const news = newsOf(memory.target, target);
    const next = targeted(memory, target, this.#candidate?.release ?? this.#starting);
    if (next === null) return;
    try {
      this.#options.memory.write(next);
    } catch (error) {
      this.#troubled(error);
      clearTimeout(this.#retry);
      this.#retry = setTimeout(() => this.target(target), LIMITS.targetRetryMs);
      return;
    }
    if (news === 'offers') {
      // Whoever fetches looks what is left to fetch either way; who installs already has all bytes.
      if (this.#stage === 'fetch') this.#interrupt.abort();
      this.#poke();
      return;
    }
    this.#failures = 0;
    this.#options.log.info(
      { generation: target.generation, release: target.release?.id ?? null },
      'new target state',
    );
    this.#interrupt.abort();
    this.#poke();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#closing.abort();
    clearTimeout(this.#retry);
    this.#interrupt.abort();
    this.#poke();
    await this.#running;
    this.#coordinator.close();
  }

  #poke(): void {
    this.#news = true;
    this.#wake();
  }

  async #loop(): Promise<void> {
    while (!this.#closed) {
      this.#news = false;
      let pauseMs = Number.POSITIVE_INFINITY;
      try {
        const observed = await this.#observe();
        if (this.#reconcile(observed)) continue;
        // Who flies it already has nothing to do, and says so.
        if (observed.target && observed.target.generation !== this.#toldGeneration) this.#tell();
        const next = plan(observed);
        this.#options.log.debug({ next: next.do }, 'plan');
        if (await this.#carryOut(next)) continue;
      } catch (error) {
        if (this.#closed || this.#interrupt.signal.aborted) continue;
        pauseMs = this.#troubled(error);
      }
      await this.#rest(pauseMs);
    }
  }

  /** Until news or for a while. */
  async #rest(pauseMs: number): Promise<void> {
    if (this.#news || this.#closed) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (Number.isFinite(pauseMs)) timer = setTimeout(resolve, pauseMs);
    });
    clearTimeout(timer);
    this.#wake = () => {};
  }

  async #observe(): Promise<Observed> {
    const { engine, images, memory, device } = this.#options;
    const ours = await engine.listOurs();
    this.#containers = ours
      .filter(({ labels }) => labels['io.midair.device'] === device)
      .map(({ id, imageId, labels, running }) => ({
        id,
        imageId,
        running,
        release: labels['io.midair.release'] ?? '',
      }));
    this.#imageIds = await images.list();
    const { target, good, failed } = memory.value;
    return {
      target,
      good,
      failed,
      containers: this.#containers,
      images: this.#imageIds,
      handover: this.#coordinator.state,
    };
  }

  /** @returns whether something was done, so that it is worth planning again at once */
  async #carryOut(next: Plan): Promise<boolean> {
    const { engine } = this.#options;
    const coordinator = this.#coordinator;
    switch (next.do) {
      case 'wait':
      case 'nothing':
        return false;
      case 'abort':
        coordinator.abort(next.failure);
        return false;
      case 'remove':
        if (next.container.running) await (await engine.fence(next.container.id)).dead;
        await engine.remove(next.container.id);
        this.#watched.delete(next.container.id);
        return true;
      case 'install':
      case 'start':
        if (this.#isRefused(next.release)) return true;
        if (next.do === 'install') await this.#install(next.release);
        else await this.#start(next.release);
        return next.do === 'install';
    }
  }

  /** What cannot be obeyed is said before anything is fetched. */
  #isRefused(release: Release): boolean {
    try {
      policyOf(serviceOf(release).labels);
      return false;
    } catch (error) {
      const target = this.#options.memory.value.target?.release?.id;
      if (!(error instanceof AgentError) || release.id !== target) throw error;
      this.#fail(release, { code: error.code, text: error.message });
      this.#tell();
      return true;
    }
  }

  async #install(release: Release): Promise<void> {
    const { images } = this.#options;
    this.#interrupt = new AbortController();
    this.#stages.clear();
    this.#enter('fetch', release);
    const { image } = serviceOf(release);
    this.#fetched = await images.install(image, {
      app: release.app,
      release: release.id,
      signal: this.#interrupt.signal,
      onProgress: (doneBytes, allBytes, stage) => {
        if (this.#stage !== stage) this.#enter(stage, release);
        this.#update = { status: 'updating', release: release.id, stage, doneBytes, allBytes };
        if (Date.now() - this.#toldMs > LIMITS.progressIntervalMs) this.#tell();
      },
      onEvent: (type, text, data) => this.#event(type, text, data),
    });
    this.#event('update.installed', `${release.id} is on the engine, by ${this.#fetched.as}`, {
      ...this.#fetched,
    });
  }

  async #start(release: Release): Promise<void> {
    const { engine, device, testDevice = false, runDirectory, locksDirectory } = this.#options;
    const { image, labels } = serviceOf(release);
    const policy = policyOf(labels);
    // What it may have been through before belongs to another update.
    if (this.#stage !== 'pull') {
      this.#stages.clear();
      this.#fetched = { as: 'nothing', bytes: 0 };
    }
    this.#enter('start', release);
    this.#options.coordinator.devices.open();
    const spec: ContainerSpec = {
      name: `midair-${device}-${release.app}-${release.id}-${randomUUID().slice(0, 8)}`,
      imageId: image.id,
      env: {
        MIDAIR_SOCKET: `${MOUNT}/handover.sock`,
        MIDAIR_APP: release.app,
        MIDAIR_RELEASE: release.id,
        MIDAIR_IMAGE_ID: image.id,
      },
      labels: {
        'io.midair.app': release.app,
        'io.midair.release': release.id,
        'io.midair.device': device,
        'io.midair.service': Object.keys(release.services)[0] ?? '',
        [TEST_DEVICE_LABEL]: String(testDevice),
      },
      mounts: [
        { source: runDirectory, target: MOUNT },
        { source: locksDirectory, target: LOCK_MOUNT },
      ],
      networkMode: 'none',
    };
    const started = this.#coordinator.starting();
    this.#starting = release;
    try {
      const { id } =
        labels[REALTIME_LABEL] === 'fifo'
          ? await this.#startRealtime(spec)
          : await engine.startContainer(spec);
      this.#candidate = { id, release };
      this.#containers = [...this.#containers, { id, release: release.id, imageId: image.id, running: true }];
      this.#coordinator.update(id, policy);
      this.#watch(id);
    } finally {
      this.#starting = null;
      started();
    }
  }

  /** Real time is asked for, not required: without it the drone flies as well as the load allows, and it is said. */
  async #startRealtime(spec: ContainerSpec): Promise<{ id: string }> {
    const { engine, appRealtimeUs } = this.#options;
    try {
      return await engine.startContainer({ ...spec, cpuRtRuntimeUs: appRealtimeUs });
    } catch (error) {
      if (!(error instanceof EngineError) || error.code !== 'NO_REALTIME') throw error;
      this.#event('realtime.missing', error.message, { code: error.code });
      return engine.startContainer(spec);
    }
  }

  /** A death that nobody asked for is news to the machine, and to the plan. */
  #watch(id: string): void {
    if (this.#watched.has(id)) return;
    this.#watched.add(id);
    this.#options.engine
      .waitExit(id)
      .then((code) => {
        this.#options.log.info({ id: id.slice(0, 12), code }, 'container ended');
        if (!this.#closed) this.#coordinator.died(id);
        this.#poke();
      })
      .catch((error: unknown) => {
        this.#watched.delete(id);
        if (!this.#closed) this.#options.log.warn({ err: error }, 'watching a container failed');
        this.#poke();
      });
  }

  // -------------------------------------------------------------- what happened

  #reported(report: Report): void {
    const release = this.#candidate?.release;
    const stage = stageOf(report, this.#stage);
    if (release && stage) this.#enter(stage, release, report.atUs);
    this.#event(report.type, report.text, { ...report.data, atUs: report.atUs });
  }

  async #settled(outcome: Outcome): Promise<void> {
    const { engine, memory, images, log } = this.#options;
    const candidate = this.#candidate;
    this.#candidate = null;
    const release = candidate?.release ?? null;
    if (outcome.type === 'updated' && release) {
      const before = memory.value;
      memory.write(flown(before, release));
      this.#failures = 0;
      this.#leave();
      this.#update = {
        status: 'done',
        release: release.id,
        stagesMs: Object.fromEntries(this.#stages),
        fetched: this.#fetched,
      };
      this.#event('update.done', `${release.id} flies`, { stagesMs: Object.fromEntries(this.#stages) });
      const kept = [release, memory.value.previous].map((one) => one && serviceOf(one).image.id);
      const { previous } = before;
      const drop = before.good?.id === release.id || !previous ? null : serviceOf(previous).image.id;
      if (drop && !kept.includes(drop))
        await images.remove(drop).catch((err: unknown) => log.warn({ err }, 'old image stays'));
    } else if (outcome.type === 'failed') {
      const tail = candidate ? await engine.logsTail(candidate.id, LIMITS.logLinesMax).catch(() => '') : '';
      const said = tail.trim().slice(-LIMITS.logCharsMax);
      const why =
        candidate && candidate.id === this.#unwatched ? unwatched(outcome.failure) : outcome.failure;
      const failure: Failure = { ...why, text: said ? `${why.text}; it said: ${said}` : why.text };
      this.#fail(release, failure);
    }
    this.#tell();
    this.#poke();
  }

  #fail(release: Release | null, failure: Failure): void {
    const { memory } = this.#options;
    const { good } = memory.value;
    this.#stage = null;
    this.#failures++;
    if (!release) return;
    const next = blamed(memory.value, release, failure);
    if (next) memory.write(next);
    this.#update = { status: 'failed', release: release.id, failure };
    const stays = good && good.id !== release.id ? `; ${good.id} stays` : '';
    this.#event('update.failed', `${release.id} failed: ${failure.text}${stays}`, { code: failure.code });
  }

  /** The device's own trouble: the step is tried again after a pause that grows. */
  #troubled(error: unknown): number {
    const { log, memory } = this.#options;
    const code =
      error instanceof ImageError ? error.code : ((error as { code?: string }).code ?? 'UNEXPECTED');
    const text = error instanceof Error ? error.message : String(error);
    const pauseMs = Math.min(LIMITS.retryMsMax, LIMITS.retryMsMin * 2 ** Math.min(this.#failures, 16));
    this.#failures++;
    log.error({ err: error, pauseMs }, 'a step failed; trying again');
    const release = memory.value.target?.release;
    if (release) {
      this.#update = { status: 'failed', release: release.id, failure: { code, text } };
      this.#event('update.failed', `${release.id}: ${text}`, { code, retryMs: pauseMs });
    }
    this.#tell();
    return pauseMs;
  }

  // -------------------------------------------------------------- what is told

  #leave(atUs = nowUs()): void {
    if (this.#stage !== null) {
      const beganUs = this.#stages.get(this.#stage) ?? 0;
      this.#stages.set(this.#stage, Math.round((atUs - beganUs) / 100) / 10);
    }
    this.#stage = null;
  }

  #enter(stage: Stage, release: Release, atUs = nowUs()): void {
    this.#leave(atUs);
    this.#stage = stage;
    this.#stages.set(stage, atUs);
    this.#update = { status: 'updating', release: release.id, stage, doneBytes: 0, allBytes: 0 };
    this.#tell();
  }

  #event(type: string, text: string, data: Record<string, unknown>): void {
    const { link, device, log } = this.#options;
    log.info({ type, ...data }, text);
    link.event({ device, key: randomUUID(), atMs: Date.now(), type, text, data });
  }

  #tell(): void {
    const { link, device, memory } = this.#options;
    const { state } = this.#coordinator;
    const ownerId = state.phase === 'idle' ? state.owner : 'prior' in state ? state.prior : null;
    const owner = this.#containers.find(({ id, running }) => id === ownerId && running);
    this.#toldMs = Date.now();
    const generation = memory.value.target?.generation ?? 0;
    this.#toldGeneration = generation;
    link.current({
      device,
      generation,
      bootId: this.#bootId,
      sequence: this.#sequence++,
      atMs: this.#toldMs,
      owner: owner ? { release: owner.release, imageId: owner.imageId, container: owner.id } : null,
      images: this.#imageIds,
      update: this.#update,
    });
  }
}
