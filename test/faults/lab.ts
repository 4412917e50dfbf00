/** One flight, in which a handover after the other is disturbed: real engine, real agent, real app, the judge's figures. */
import { copyFileSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { World } from '#cli/demo/world.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import type { Judged } from '#cli/sim-client.ts';
import { nowUs } from '#handover/native.ts';
import type { Result, Row } from './rows.ts';

export interface Seen {
  readonly row: Row;
  /** Whether the step came at all, and in the handover itself. */
  readonly done: boolean;
  readonly result: Result | 'nobody';
  readonly held: boolean;
  readonly judged: Judged;
  /** What the agent said last of the update. */
  readonly told: string;
  /** All that it said from the choice of V2 on, each with its ms. */
  readonly events: readonly string[];
}

const PROBATION_MS = 500;
const WARM_SEC_MAX = 6;
/** Longer than all deadlines of a transfer together, and a stopped agent's restart. */
const SETTLED_MS_MAX = 20_000;
/** As a service manager would. */
const RESTART_MS = 1_000;
/** After the end: the owner is seen to command. */
const CALM_MS = 300;

/**
 * What is said in a rehearsal is no step: by then the agent has told how far the handover itself is. Its own end may have cost what it
 * was about to tell.
 */
const hasCome = ({ who, step: { stage } }: Row, told: ReadonlySet<string>): boolean =>
  who === 'agent' || stage === 'cold' || told.has(stage === 'warm' ? 'handover.ready' : 'handover.release');

export class FaultLab {
  readonly #world: World;
  readonly #hook: string;

  constructor(world: World) {
    this.#world = world;
    this.#hook = join(PACKAGE_ROOT, 'cli', 'fly', 'fault-hook.mjs');
  }

  get #plan(): string {
    return this.#world.path('agent', 'run', 'fault.json');
  }

  /** Hub, drone and agent run; V1 flies and hovers, V2 is on the device. */
  async open(): Promise<void> {
    const world = this.#world;
    await world.startHub();
    await world.startSim();
    await this.#startAgent();
    const app = await world.repository('hover');
    app.overlay('drone');
    copyFileSync(this.#hook, join(app.directory, 'fault-hook.mjs'));
    const dockerfile = readFileSync(join(PACKAGE_ROOT, 'apps', 'drone', 'Dockerfile'), 'utf8');
    const lines = [
      `LABEL io.midair.probation-ms=${PROBATION_MS}`,
      'ENV FAULT_MODULES=/node_modules/midair/handover FAULT_PLAN=/run/midair/fault.json',
    ];
    app.write(
      'Dockerfile',
      dockerfile
        .replace('\n', `\n${lines.join('\n')}\n`)
        .replace('["node", ', '["node", "--import=/app/fault-hook.mjs", '),
    );
    await app.commit('V1');
    await app.push();
    await world.updated('v1');
    app.overlay('drone-v2');
    await app.commit('V2');
    await app.push();
    await world.updated('v2');
    await this.#back();
  }

  async fly(row: Row): Promise<Seen> {
    const world = this.#world;
    const seen = (await world.hub.events()).at(-1)?.id ?? 0;
    const startUs = nowUs();
    const { who, fault, step } = row;
    // All rows take longer than a charge, and an empty one hovers no more.
    await world.sim.setBattery(100);
    const { stage: _, ...where } = step;
    writeFileSync(`${this.#plan}.new`, JSON.stringify({ who, fault, ...where }));
    renameSync(`${this.#plan}.new`, this.#plan);
    if (who === 'agent') world.expectAgentEnd();
    const prior = await this.#pidOf('v1');
    const strike = setInterval(() => void this.#strike(row, prior), 1);
    let done: boolean;
    try {
      await world.hub.choose('v2');
      done = await this.#settled(row, seen);
    } finally {
      clearInterval(strike);
    }
    for (const path of [this.#plan, `${this.#plan}.now`]) rmSync(path, { force: true });
    await world.pause(CALM_MS);
    const judged = await world.sim.judge(startUs, nowUs());
    const events = await world.hub.events(seen);
    done &&= hasCome(row, new Set(events.map(({ type }) => type)));
    const landed = events.some(({ type }) => type === 'failsafe');
    const result = landed ? 'failsafe' : await this.#result(judged);
    const told = events.filter(({ type }) => /^update\.|failsafe/.test(type)).at(-1);
    const clean = judged.stale === 0 && judged.doubled === 0;
    const held = done && clean && result !== 'nobody' && row.expected.includes(result);
    await this.#back();
    const lines = events.map(({ type, text, data }) => {
      const atMs = data.atUs === undefined ? '' : ((Number(data.atUs) - startUs) / 1000).toFixed();
      return `${atMs.padStart(6)} ${type}: ${text.slice(0, 120)}`;
    });
    return { row, done, result, held, judged, told: told?.text.slice(0, 160) ?? '', events: lines };
  }

  /** The process stands at its step: now. */
  async #strike({ who, fault }: Row, prior: number): Promise<void> {
    const now = `${this.#plan}.now`;
    if (who === 'agent' || !existsSync(now)) return;
    rmSync(now);
    const pid = who === 'v1' ? prior : await this.#pidOf('v2');
    process.kill(pid, fault as 'SIGKILL' | 'SIGSTOP');
  }

  /** Of the running container of that release, as this machine numbers it. */
  async #pidOf(release: string): Promise<number> {
    const { docker } = this.#world.droneEngine;
    const label = [`io.midair.device=${this.#world.device}`, `io.midair.release=${release}`];
    const [running] = await docker.listContainers({ filters: { label } });
    const { State } = await docker.getContainer(running?.Id ?? '').inspect();
    if (State.Pid <= 1) throw new Error(`${release} does not run`);
    return State.Pid;
  }

  /** Until the update is over, one way or the other. @returns whether the fault was done */
  async #settled(row: Row, seen: number): Promise<boolean> {
    const world = this.#world;
    let restartAtMs: number | undefined;
    const taken = () => !existsSync(this.#plan);
    const ends = row.who === 'agent' && ['SIGKILL', 'SIGSTOP', 'exit'].includes(row.fault);
    await world
      .until(
        'the update to be over',
        async () => {
          if (ends && taken()) {
            restartAtMs ??= performance.now() + RESTART_MS;
            if (Number.isFinite(restartAtMs) && performance.now() > restartAtMs) {
              restartAtMs = Number.POSITIVE_INFINITY;
              await world.killAgent();
              await this.#startAgent();
            }
            if (Number.isFinite(restartAtMs)) return undefined;
          }
          const events = await world.hub.events(seen);
          const over = events.some(
            ({ type }) => type === 'update.done' || type === 'update.failed' || type === 'failsafe',
          );
          return over && taken() ? true : undefined;
        },
        SETTLED_MS_MAX,
      )
      .catch(() => undefined);
    return taken();
  }

  /** By what the flight controller saw, and the device's own word. */
  async #result(judged: Judged): Promise<Seen['result']> {
    if (judged.failsafes > 0) return 'failsafe';
    const lastUs = Math.max(...judged.epochs.map((one) => one.lastUs));
    if (nowUs() - lastUs > CALM_MS * 1000) return 'nobody';
    const owner = (await this.#world.current())?.owner?.release;
    return owner === 'v1' || owner === 'v2' ? owner : 'nobody';
  }

  /** V1 flies and hovers, whatever was. */
  async #back(): Promise<void> {
    const world = this.#world;
    const flies = async () => {
      await world.hub.choose('v1');
      await world.until(
        'v1 to fly',
        async () => {
          const current = await world.current();
          return current?.owner?.release === 'v1' && current.update.status !== 'updating' ? true : undefined;
        },
        SETTLED_MS_MAX,
      );
      await world.hovering();
    };
    try {
      await flies();
    } catch {
      await world.killAgent();
      await world.removeContainers();
      await this.#startAgent();
      await flies();
    }
  }

  /** With the hook in it; what else starts is not to inherit it. */
  async #startAgent(): Promise<void> {
    const handover = join(PACKAGE_ROOT, 'handover');
    const mine = {
      NODE_OPTIONS: `--import=${this.#hook}`,
      FAULT_MODULES: handover,
      FAULT_ENDING: '.ts',
      FAULT_PLAN: this.#plan,
      FAULT_WHO: 'agent',
    };
    const before = Object.fromEntries(Object.keys(mine).map((name) => [name, process.env[name]]));
    Object.assign(process.env, mine);
    try {
      await this.#world.startAgent(['--warm-timeout', String(WARM_SEC_MAX)]);
    } finally {
      for (const [name, value] of Object.entries(before)) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
    }
  }
}
