/**
 * A Docker engine: the machine's own when it answers, else a private dockerd of this run.
 *
 * Invariant: a private engine belongs to the process that opened it (its lock names that process). Closing it
 * leaves no process, container or mount behind; what a killed run left is removed at the next start, before
 * anything is started on the same data root. The data root stays, so that the base image is not loaded again.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Docker from 'dockerode';
import { CGROUP_PARENT, grantRealTime, removeParents, standBack } from '#cli/engine-cgroups.ts';
import { sweepDirectory, sweepEngine } from '#cli/engine-sweep.ts';
import { LIMITS } from '#cli/limits.ts';
import { findCommand, stateDirectory } from '#cli/paths.ts';
import { identify, isAlive, type ProcessId, stop } from '#cli/processes.ts';

export interface Engine {
  /** `unix:///…`, as `DOCKER_HOST` would have it. */
  readonly url: string;
  readonly docker: Docker;
  readonly version: string;
  readonly storageDriver: string;
  /** Started by this run. The machine's own engine is never swept or stopped. */
  readonly isPrivate: boolean;
  /** Containers may be given SCHED_FIFO (RT_GROUP_SCHED and a share of it). */
  readonly realTime: boolean;
  /** Undefined for the machine's own engine. */
  readonly logFile: string | undefined;
  /** Stops a private engine and waits until nothing of it is left. May be called twice. */
  close(): Promise<void>;
}

export type EngineErrorCode =
  | 'ENGINE_REMOTE'
  | 'ENGINE_SILENT'
  | 'ENGINE_MISSING'
  | 'ENGINE_NOT_ROOT'
  | 'ENGINE_START'
  | 'ENGINE_BUSY'
  | 'ENGINE_STOP';

export class EngineError extends Error {
  readonly code: EngineErrorCode;
  constructor(code: EngineErrorCode, text: string, options?: ErrorOptions) {
    super(text, options);
    this.code = code;
  }
}

export interface EngineOptions {
  /** `hub`, `drone`, `test`: each has its own data root. */
  name: string;
  /** Told what takes time. */
  onProgress?: (text: string) => void;
}

/**
 * Finds or starts an engine.
 *
 * @throws EngineError `ENGINE_REMOTE` (not on this machine), `ENGINE_SILENT` (`DOCKER_HOST` does not answer),
 *   `ENGINE_MISSING`, `ENGINE_NOT_ROOT`, `ENGINE_START`, `ENGINE_BUSY` (all slots of this name in use)
 */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const machine = await machineEngine();
  if (machine !== undefined) return machine;
  if (process.getuid?.() !== 0) {
    throw new EngineError(
      'ENGINE_NOT_ROOT',
      'no Docker engine answers at /var/run/docker.sock and a private one can only be started by root: ' +
        'install and start Docker (Debian: apt-get install docker.io), or run as root',
    );
  }
  const slot = claimSlot(options.name);
  try {
    return await startPrivate(slot, options.onProgress ?? (() => {}));
  } catch (error) {
    await sweepDirectory(slot.directory).catch(() => {});
    slot.release();
    throw error;
  }
}

/** Containers share directories with this machine's processes: an engine elsewhere cannot serve. */
async function machineEngine(): Promise<Engine | undefined> {
  const named = process.env.DOCKER_HOST;
  if (named !== undefined && named !== '' && !named.startsWith('unix://')) {
    throw new EngineError(
      'ENGINE_REMOTE',
      `DOCKER_HOST=${named}: only an engine at a unix:// socket can be used`,
    );
  }
  const url = named || 'unix:///var/run/docker.sock';
  if (!existsSync(url.slice('unix://'.length))) {
    if (named) throw new EngineError('ENGINE_SILENT', `DOCKER_HOST=${named}: there is no such socket`);
    return undefined;
  }
  try {
    await ping(url);
  } catch (cause) {
    if (!named) return undefined;
    throw new EngineError('ENGINE_SILENT', `DOCKER_HOST=${named} does not answer`, { cause });
  }
  return engineAt(url);
}

/** An engine that runs, whoever started it. It is never swept or stopped from here. */
export async function engineAt(url: string): Promise<Engine> {
  const docker = connect(url);
  const info = await docker.info();
  return {
    url,
    docker,
    version: String(info.ServerVersion),
    storageDriver: String(info.Driver),
    isPrivate: false,
    realTime: false,
    logFile: undefined,
    close: async () => {},
  };
}

export function connect(url: string): Docker {
  return new Docker({ socketPath: url.slice('unix://'.length) });
}

async function ping(url: string): Promise<void> {
  await new Docker({ socketPath: url.slice('unix://'.length), timeout: LIMITS.pingMsMax }).ping();
}

interface Slot {
  directory: string;
  release(): void;
}

/** The first data root of this name that no living run holds. */
function claimSlot(name: string): Slot {
  for (let i = 1; i <= LIMITS.engineSlotsMax; i += 1) {
    const directory = stateDirectory('engines', i === 1 ? name : `${name}-${i}`);
    const lock = join(directory, 'owner.json');
    if (!claim(lock)) continue;
    return { directory, release: () => rmSync(lock, { force: true }) };
  }
  throw new EngineError('ENGINE_BUSY', `${LIMITS.engineSlotsMax} engines named ${name} run already`);
}

function claim(lock: string): boolean {
  for (const lastTry of [false, true]) {
    try {
      writeFileSync(lock, JSON.stringify(identify(process.pid)), { flag: 'wx' });
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || lastTry) return false;
    }
    if (isHeld(lock)) return false;
    rmSync(lock, { force: true });
  }
  return false;
}

function isHeld(lock: string): boolean {
  try {
    return isAlive(JSON.parse(readFileSync(lock, 'utf8')) as ProcessId);
  } catch {
    return false;
  }
}

async function startPrivate(slot: Slot, onProgress: (text: string) => void): Promise<Engine> {
  const { directory } = slot;
  const command = findCommand('dockerd');
  if (command === undefined) {
    throw new EngineError(
      'ENGINE_MISSING',
      'no Docker engine: install one (Debian, Ubuntu: apt-get install --no-install-recommends docker.io)',
    );
  }
  await sweepDirectory(directory);
  const realTime = grantRealTime();
  // overlay2 needs a real file system below it; vfs works anywhere, slowly and with a copy per layer.
  const drivers = isLayered(directory) ? ['vfs'] : ['overlay2', 'vfs'];
  let started: Started | undefined;
  let failure: unknown;
  for (const driver of drivers) {
    if (driver === 'vfs') onProgress(`${directory}: overlay2 does not work here, using the slow vfs driver`);
    try {
      started = await startDockerd({ command, directory, driver, realTime });
      break;
    } catch (error) {
      failure = error;
      await sweepDirectory(directory);
    }
  }
  if (started === undefined) throw failure;
  const { docker, url, logFile, daemon } = started;
  await sweepEngine(docker);
  const version = String((await docker.version()).Version);

  let closing: Promise<void> | undefined;
  const close = async () => {
    await sweepEngine(docker).catch(() => {});
    const isGone = await stop([daemon], LIMITS.engineStopMsMax, LIMITS.processGoneMsMax);
    await sweepDirectory(directory);
    removeParents();
    slot.release();
    if (!isGone)
      throw new EngineError('ENGINE_STOP', `dockerd (pid ${daemon.pid}) does not end; see ${logFile}`);
  };
  return {
    url,
    docker,
    version,
    storageDriver: started.driver,
    isPrivate: true,
    realTime,
    logFile,
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

/** overlayfs on overlayfs is refused by the kernel; tmpfs lacks what overlay2 wants of its upper layer. */
function isLayered(directory: string): boolean {
  const OVERLAYFS = 0x794c7630;
  const TMPFS = 0x01021994;
  return [OVERLAYFS, TMPFS].includes(statfsSync(directory).type);
}

interface Started {
  docker: Docker;
  url: string;
  logFile: string;
  driver: string;
  daemon: ProcessId;
}

async function startDockerd(how: {
  command: string;
  directory: string;
  driver: string;
  realTime: boolean;
}): Promise<Started> {
  const { command, directory, driver } = how;
  const run = join(directory, 'run');
  await mkdir(run, { recursive: true });
  // Own, empty settings: the machine's /etc/docker/daemon.json is another engine's.
  writeFileSync(join(directory, 'daemon.json'), '{}\n');
  const socket = join(run, 'docker.sock');
  const logFile = join(directory, 'dockerd.log');
  const args = [
    ['--config-file', join(directory, 'daemon.json')],
    ['--data-root', join(directory, 'data')],
    ['--exec-root', join(run, 'exec')],
    ['--pidfile', join(run, 'dockerd.pid')],
    ['--host', `unix://${socket}`],
    ['--storage-driver', driver],
    ['--bridge=none', '--iptables=false', '--ip-masq=false', '--ip-forward=false', '--userland-proxy=false'],
    ['--exec-opt', 'native.cgroupdriver=cgroupfs', '--cgroup-parent', CGROUP_PARENT],
    how.realTime ? [`--cpu-rt-runtime=${LIMITS.realTimeRuntimeUs}`] : [],
  ].flat();
  const log = openSync(logFile, 'w');
  // A session of its own: Ctrl-C in the terminal must reach us, who stop things in order, and not dockerd.
  const child = spawn(command, args, { detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  let ended: string | undefined;
  child.once('error', (error) => {
    ended = error.message;
  });
  child.once('exit', (code, name) => {
    ended = `ended with ${name ?? `status ${code}`}`;
  });
  if (child.pid !== undefined) standBack(child.pid);
  child.unref();
  const url = `unix://${socket}`;
  const docker = connect(url);
  const endMs = performance.now() + LIMITS.engineStartMsMax;
  for (;;) {
    if (ended !== undefined) throw new EngineError('ENGINE_START', `dockerd ${ended}:\n${tail(logFile)}`);
    try {
      await ping(url);
      break;
    } catch {
      if (performance.now() > endMs) {
        throw new EngineError('ENGINE_START', `dockerd does not answer:\n${tail(logFile)}`);
      }
      await sleep(25);
    }
  }
  const daemon = child.pid === undefined ? undefined : identify(child.pid);
  if (daemon === undefined) throw new EngineError('ENGINE_START', `dockerd ended:\n${tail(logFile)}`);
  return { docker, url, logFile, driver, daemon };
}

function tail(file: string): string {
  return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-LIMITS.logTailLines).join('\n');
}
