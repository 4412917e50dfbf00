/** The on-device agent as a process: options in, everything wired, one ready line out. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { createDevices } from '#agent/devices.ts';
import { openEngine } from '#agent/engine.ts';
import { GateClient } from '#agent/gate/client.ts';
import { createImages } from '#agent/images/index.ts';
import { openJournal } from '#agent/journal.ts';
import { LIMITS } from '#agent/limits.ts';
import { openLink } from '#agent/link.ts';
import { createLock } from '#agent/lock.ts';
import { createLog } from '#agent/log.ts';
import { emptyMemory, type Memory } from '#agent/memory.ts';
import { LinkSigning } from '#agent/signing.ts';
import { Supervisor } from '#agent/supervisor.ts';
import { markTestDevice } from '#agent/test-device.ts';
import { TtyWorkers } from '#agent/tty-workers.ts';
import { RESOURCES } from '#handover/messages.ts';
import { initial, type State } from '#handover/state.ts';

export interface AgentOptions {
  readonly directory: string;
  readonly device: string;
  readonly fleet: string;
  readonly hubUrl: string;
  readonly mqttUrl: string;
  /** `unix:///…` */
  readonly engineUrl: string;
  readonly rotors: string;
  readonly baud: number;
  /** A drone without one has no such resource. */
  readonly camera?: string | undefined;
  readonly panel: { readonly host: string; readonly port: number };
  /** Strict mode: a process of its own has the tty, and writes only what comes by the channel of the last epoch. */
  readonly gate?: boolean;
  /** File with the key of the rotor link; without one it is not signed. */
  readonly signingKey?: string;
  /** How long a candidate may take until it is warm. */
  readonly warmMsMax?: number;
  /** Of each second, for one app's control loop under SCHED_FIFO. */
  readonly appRealtimeUs?: number;
  /** Failure injection may harm this device. */
  readonly testDevice?: boolean;
  readonly logLevel?: string;
}

/** Both journals are our own words: their shape is checked, not every field. */
const machineState = (value: unknown): State =>
  v.parse(v.looseObject({ phase: v.string(), epoch: v.number() }), value) as unknown as State;
const memory = (value: unknown): Memory =>
  v.parse(
    v.looseObject({
      target: v.nullable(v.looseObject({ generation: v.number() })),
      candidate: v.optional(v.nullable(v.looseObject({ id: v.string() })), null),
    }),
    value,
  ) as unknown as Memory;

/** Starts the agent; resolves once it listens. Closing it leaves the apps flying. */
export const startAgent = async (
  options: AgentOptions,
): Promise<{ supervisor: Supervisor; close(): Promise<void> }> => {
  const { directory, device, fleet, testDevice = false } = options;
  const log = createLog('agent', options.logLevel);
  const runDirectory = join(directory, 'run');
  const locksDirectory = join(directory, 'locks');
  mkdirSync(runDirectory, { recursive: true });
  markTestDevice(directory, device, testDevice);
  const lock = createLock(locksDirectory);
  const { signingKey } = options;
  const signing = signingKey === undefined ? undefined : LinkSigning.open(signingKey, log);
  const handover = openJournal({
    path: join(directory, 'handover.journal'),
    bytesMax: LIMITS.handoverJournalBytesMax,
    parse: machineState,
    empty: initial,
  });
  const remembered = openJournal({
    path: join(directory, 'memory.journal'),
    bytesMax: LIMITS.memoryJournalBytesMax,
    parse: memory,
    empty: emptyMemory,
  });
  for (const { damaged } of [handover, remembered])
    if (damaged) log.error({ err: damaged }, 'starting from what is observed');

  const engine = await openEngine(options.engineUrl);
  const images = await createImages({
    engine: engine.docker,
    hubUrl: options.hubUrl,
    directory: join(directory, 'images'),
    log,
  });
  const { rotors: tty, baud } = options;
  const gate = options.gate
    ? await GateClient.open({ socket: join(directory, 'gate', 'control.sock'), tty, baud, log })
    : undefined;
  const devices = createDevices({ ...options, gate });
  const link = openLink({
    url: options.mqttUrl,
    fleet,
    device,
    log,
    onTarget: (target) => supervisor.target(target),
  });
  const supervisor = new Supervisor({
    device,
    testDevice,
    appRealtimeUs: options.appRealtimeUs ?? LIMITS.appRealtimeUs,
    runDirectory,
    locksDirectory,
    engine,
    images,
    memory: remembered,
    link,
    log,
    coordinator: {
      socketPath: join(runDirectory, 'handover.sock'),
      journal: handover,
      devices,
      lock,
      signing,
      resources: RESOURCES.filter((resource) => resource !== 'camera' || options.camera !== undefined),
      ...(options.warmMsMax === undefined ? {} : { warmMsMax: options.warmMsMax }),
    },
  });
  await supervisor.start();
  const workers = new TtyWorkers(log);
  return {
    supervisor,
    async close() {
      workers.close();
      await supervisor.close();
      await link.close();
      await images.close();
      devices.close();
      gate?.close();
      handover.close();
      remembered.close();
    },
  };
};

/** Runs until SIGINT or SIGTERM. */
export const run = async (options: AgentOptions): Promise<void> => {
  const agent = await startAgent(options);
  process.stdout.write(`${JSON.stringify({ ready: true, device: options.device, panel: options.panel })}\n`);
  await new Promise<void>((resolve) => {
    process.once('SIGINT', resolve);
    process.once('SIGTERM', resolve);
  });
  await agent.close();
};
