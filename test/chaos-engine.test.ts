/**
 * Failure injection into real containers on a real engine, by the command line and its API: done, bounded, undone; also
 * after SIGKILL of the injector, of its watchdog, of both; and never to what is not marked.
 *
 * MIDAIR_TEST_ENGINE; what stands still and what runs is told by two processes that count a thousand times a second.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { type Engine, openEngine } from '#agent/engine.ts';
import { findCgroup, isFrozen } from '#agent/engine-cgroup.ts';
import { MARK_FILE } from '#agent/test-device.ts';
import { ChaosClient } from '#cli/chaos/client.ts';
import type { Asked } from '#cli/chaos/experiment.ts';
import { processorGroupOf } from '#cli/chaos/failures/cpu.ts';
import { openIn, readLedger } from '#cli/chaos/ledger.ts';
import { writeMark } from '#cli/chaos/marks.ts';
import { processesOf } from '#cli/chaos/processes.ts';
import { type Child, startChild } from '#cli/demo/child.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import { identify, type ProcessId, waitGone } from '#cli/processes.ts';
import { type Lab, openLab } from '#test/images-lab.ts';

/** Undone "within seconds": the watchdog's look, and a start of the injector on a busy machine. */
const UNDONE_MS_MAX = 10_000;

let lab: Lab;
let engine: Engine;
let imageId: string;
let device: string;
let count = 0;
const ends: (() => unknown)[] = [];
const signal = new AbortController().signal;
vi.setConfig({ testTimeout: 120_000 });

beforeAll(async () => {
  lab = await openLab(process.env.MIDAIR_TEST_ENGINE);
  engine = await openEngine(lab.engineUrl);
  imageId = await lab.build([{ program: lab.program }]);
  device = lab.name;
});
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});
afterAll(() => lab?.close());

interface Box {
  readonly id: string;
  /** Whether every process stands still, stopped by a signal. */
  stands(): Promise<boolean>;
  /** Whether none is stopped, and they count. */
  runs(): Promise<boolean>;
  /** Whether they count. */
  moves(): Promise<boolean>;
}

const runs = (box: Box) => until('it to run', () => box.runs(), UNDONE_MS_MAX);

async function container(labels: Record<string, string> = {}): Promise<Box> {
  const name = `${lab.name}-${count++}`;
  const beat = join(lab.directory, name);
  mkdirSync(beat);
  const { id } = await engine.startContainer({
    name,
    imageId,
    env: {},
    labels: {
      ...{ 'io.midair.app': 'beat', 'io.midair.release': 'v1', 'io.midair.device': device },
      ...{ 'io.midair.test-device': 'true', [lab.name]: '', ...labels },
    },
    mounts: [{ source: beat, target: '/beat' }],
    networkMode: 'none',
  });
  ends.push(() =>
    lab.docker
      .getContainer(id)
      .remove({ force: true })
      .catch(() => undefined),
  );
  const counts = () => [0, 1].map((n) => readIf(join(beat, String(n)))).join(' ');
  const states = () =>
    processesOf(id).map(({ pid }) => /\) (\w)/.exec(readIf(`/proc/${pid}/stat`))?.[1] ?? 'gone');
  const moves = async () => {
    const before = counts();
    await sleep(200);
    return before !== counts();
  };
  const box = {
    id,
    moves,
    // The kernel's word; the clock's alone would take a busy machine for a pause.
    stands: async () => states().length > 0 && states().every((state) => state === 'T') && !(await moves()),
    runs: async () => !states().includes('T') && (await moves()),
  };
  await until('both processes to count', async () => /^\d+ \d+$/.test(counts()) && (await moves()));
  return box;
}

const readIf = (path: string): string => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
};

async function until(what: string, probe: () => unknown, msMax = 30_000): Promise<void> {
  const endMs = performance.now() + msMax;
  while (!(await probe())) {
    if (performance.now() > endMs) throw new Error(`waited ${msMax} ms for ${what}, in vain`);
    await sleep(20);
  }
}

/** What stands for the device's agent: a process, and its marked directory. */
function agent(directory = join(lab.directory, `agent-${count++}`)): { directory: string; id: ProcessId } {
  mkdirSync(directory, { recursive: true });
  const child = spawn('sleep', ['300'], { stdio: 'ignore' });
  ends.push(() => child.kill('SIGKILL'));
  const id = identify(child.pid ?? 0) as ProcessId;
  writeMark({ role: 'agent', device, directory, ...id });
  ends.push(() => rmSync(join(directory, MARK_FILE), { force: true }));
  return { directory, id };
}

async function serve(directory = join(lab.directory, `chaos-${count++}`)) {
  const child = await startChild({
    name: 'chaos',
    args: ['chaos', 'serve', '--dir', directory, '--watch', lab.directory, '--engine', lab.engineUrl],
    logFile: join(lab.directory, 'chaos.log'),
    signal,
  });
  ends.push(() => child.stop());
  const watchdog = identify(Number(child.ready.watchdog)) as ProcessId;
  return { child, watchdog, directory, client: new ChaosClient(String(child.ready.url)) };
}

const always = (failure: Asked['failure'], more: Partial<Asked> = {}): Asked => ({
  ...{ failure, frequencyMs: 250, probability: 1, durationMs: 60_000, forMs: 120_000, seed: 1 },
  ...{ criteria: `device=${device},app=beat`, ...more },
});

const sigkill = async (child: Child) => {
  process.kill(child.id.pid, 'SIGKILL');
  await child.ended;
};

const text = async (client: ChaosClient, type: string) =>
  (await client.events()).filter((one) => one.type === type).map((one) => one.text);

describe('pause', () => {
  test('every process stands still, for its time; then all go on', async () => {
    const [box] = [await container(), agent()];
    const { client } = await serve();
    const { matches } = await client.create(always('pause', { durationMs: 1_500, frequencyMs: 3_000 }));
    expect(matches).toEqual([expect.stringContaining('beat v1')]);
    await until('it to stand', () => box.stands());
    await runs(box);
    expect(await text(client, 'on')).toEqual(['SIGSTOP to 2 processes']);
    await until('it to be told', async () => (await text(client, 'undone')).length > 0);
    expect(await text(client, 'undone')).toEqual(['2 processes go on (its time was over)']);
  });

  test('SIGKILL of the injector: it runs again within seconds, and the ledger says by whom', async () => {
    const [box] = [await container(), agent()];
    const { child, client, directory, watchdog } = await serve();
    await client.create(always('pause'));
    await until('it to stand', () => box.stands());
    await sigkill(child);
    const killedMs = performance.now();
    await runs(box);
    process.stderr.write(
      `    runs again ${Math.round(performance.now() - killedMs)} ms after SIGKILL of the injector\n`,
    );
    expect(await waitGone([watchdog], UNDONE_MS_MAX)).toBe(true);
    const records = readLedger(join(directory, 'ledger'));
    expect(openIn(records)).toEqual([]);
    expect(records.at(-1)).toMatchObject({ type: 'undone', by: 'watchdog' });
  });

  test('the injector hangs: the watchdog undoes it when it is overdue; woken, the injector does no more harm', async () => {
    const [box] = [await container(), agent()];
    const { child, client, directory } = await serve();
    const { experiment } = await client.create(always('pause', { durationMs: 1_000 }));
    await until('it to stand', () => box.stands());
    process.kill(child.id.pid, 'SIGSTOP');
    try {
      await until('it to run', () => box.runs(), 1_000 + 1_000 + UNDONE_MS_MAX);
    } finally {
      process.kill(child.id.pid, 'SIGCONT');
    }
    await client.stop(experiment.id);
    await runs(box);
    const by = readLedger(join(directory, 'ledger')).flatMap((one) => (one.type === 'undone' ? one.by : []));
    expect(by).toContain('watchdog');
  });

  test('injector and watchdog die at once: the next start undoes it before it does anything else', async () => {
    const [box] = [await container(), agent()];
    const { child, client, directory, watchdog } = await serve();
    await client.create(always('pause'));
    await until('it to stand', () => box.stands());
    process.kill(watchdog.pid, 'SIGSTOP');
    await sigkill(child);
    process.kill(watchdog.pid, 'SIGKILL');
    await waitGone([watchdog], UNDONE_MS_MAX);
    expect(await box.stands()).toBe(true);
    const next = await serve(directory);
    await runs(box);
    expect((await text(next.client, 'undone')).at(-1)).toContain('2 processes go on');
    const { experiment } = await next.client.create(always('pause', { probability: 0 }));
    expect(experiment.id).toBe('x2');
  });

  test('the watchdog dies: another watches', async () => {
    const [box] = [await container(), agent()];
    const { child, client, directory, watchdog } = await serve();
    process.kill(watchdog.pid, 'SIGKILL');
    await waitGone([watchdog], UNDONE_MS_MAX);
    await client.create(always('pause'));
    await until('it to stand', () => box.stands());
    await sigkill(child);
    await runs(box);
    expect(openIn(readLedger(join(directory, 'ledger')))).toEqual([]);
  });

  test('what the agent fenced meanwhile stays frozen: undoing a pause never thaws a fence', async () => {
    const [box] = [await container(), agent()];
    const { client } = await serve();
    const { experiment } = await client.create(always('pause'));
    await until('it to stand', () => box.stands());
    await engine.listOurs();
    expect(await engine.freeze(box.id)).toBe('freezer');
    await client.stop(experiment.id);
    expect((await text(client, 'undone')).at(-1)).toContain('2 processes go on');
    const cgroup = findCgroup(box.id);
    expect(cgroup && isFrozen(cgroup)).toBe(true);
    expect(await box.moves()).toBe(false);
    expect(await (await engine.fence(box.id)).dead).toBe(true);
  });
});

describe('not marked', () => {
  test('a container whose label says no is refused, in words and by code, and nothing is done', async () => {
    const [box] = [await container({ 'io.midair.test-device': 'false' }), agent()];
    const { client, directory } = await serve();
    await expect(client.create(always('kill'))).rejects.toMatchObject({ code: 'NOT_A_TEST_DEVICE' });
    let said = '';
    try {
      const args = [
        join(PACKAGE_ROOT, 'cli', 'bin.ts'),
        'chaos',
        'create',
        '--dir',
        directory,
        '--failure',
        'kill',
      ];
      execFileSync(process.execPath, [...args, '--criteria', `device=${device}`], { stdio: 'pipe' });
    } catch (error) {
      const { status, stderr } = error as { status: number; stderr: Buffer };
      said = `${status} ${stderr.toString()}`;
    }
    expect(said).toMatch(/^1 midair: .*not marked as a test device: .*--test-device.*\(NOT_A_TEST_DEVICE\)/);
    await runs(box);
  });

  test('a label without the agent’s mark is not enough', async () => {
    await container();
    const { client } = await serve();
    await expect(client.create(always('pause'))).rejects.toMatchObject({ code: 'NOT_A_TEST_DEVICE' });
  });

  test('a device that loses its mark during an experiment is left alone from then on', async () => {
    const box = await container();
    const { directory } = agent();
    const { client } = await serve();
    const { experiment } = await client.create(always('pause', { durationMs: 300, frequencyMs: 500 }));
    await until('a first injection', async () => (await text(client, 'undone')).length > 0);
    rmSync(join(directory, MARK_FILE));
    await until('it to be told', async () =>
      (await text(client, 'passed')).join().includes('NOT_A_TEST_DEVICE'),
    );
    const { injections } = await client.find(experiment.id);
    await sleep(1_500);
    expect((await client.find(experiment.id)).injections).toBe(injections);
    await runs(box);
  });

  test('nothing matches: told, not refused', async () => {
    agent();
    const { client } = await serve();
    const { matches } = await client.create(always('kill', { criteria: `device=${device},service=nobody` }));
    expect(matches).toEqual([]);
    await until('it to be told', async () =>
      (await text(client, 'passed')).join().includes('nothing matches'),
    );
  });
});

test('kill: the container dies, and the history says that nobody brings it back but its agent', async () => {
  const [box] = [await container(), agent()];
  const { client } = await serve();
  await client.create(always('kill'));
  await engine.waitExit(box.id);
  await until('it to be told', async () => (await text(client, 'undone')).length > 0);
  expect((await text(client, 'undone'))[0]).toContain('supervisor');
});

test('kill of an agent by its role, and nobody else', async () => {
  const box = await container();
  const { id } = agent();
  const { client } = await serve();
  await client.create(always('kill', { criteria: `device=${device},role=agent` }));
  expect(await waitGone([id], 5_000)).toBe(true);
  await runs(box);
});

describe('cpu', () => {
  const loops = (group: string) =>
    readFileSync(join(group, 'cgroup.procs'), 'utf8')
      .trim()
      .split('\n')
      .flatMap((pid) => {
        const args = readIf(`/proc/${pid}/cmdline`);
        return args.includes('burner') ? (identify(Number(pid)) ?? []) : [];
      });
  const groupOf = async (id: string) =>
    processorGroupOf((await lab.docker.getContainer(id).inspect()).State.Pid) as string;

  test('busy loops in the container’s own group, and none after SIGKILL of the injector', async () => {
    const [box] = [await container(), agent()];
    const { child, client } = await serve();
    const group = await groupOf(box.id);
    await client.create(always('cpu', { cores: 2 }));
    await until('the loops', () => loops(group).length === 2);
    const burners = loops(group);
    expect(processesOf(box.id).length).toBeGreaterThanOrEqual(2);
    await sigkill(child);
    expect(await waitGone(burners, UNDONE_MS_MAX)).toBe(true);
  });

  test('its container dies: the loops end at once, and the engine can remove it', async () => {
    const [box] = [await container(), agent()];
    const { client } = await serve();
    const group = await groupOf(box.id);
    const { experiment } = await client.create(always('cpu'));
    await until('the loop', () => loops(group).length === 1);
    const burners = loops(group);
    await engine.kill(box.id);
    expect(await waitGone(burners, 2_000)).toBe(true);
    await engine.remove(box.id);
    expect(existsSync(group)).toBe(false);
    expect((await client.stop(experiment.id)).phase).toBe('ended');
  });
});

describe('disk-full', () => {
  const mounted = (bytes: number): string => {
    const directory = join(lab.directory, `disk-${count++}`);
    mkdirSync(directory);
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'midair', directory]);
    ends.push(() => execFileSync('umount', ['-l', directory]));
    return directory;
  };
  const fits = (directory: string, bytes: number): boolean => {
    try {
      writeFileSync(join(directory, 'probe'), Buffer.alloc(bytes));
      return true;
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC');
      return false;
    } finally {
      rmSync(join(directory, 'probe'), { force: true });
    }
  };

  test('the agent’s disk is full but for the floor, and free again when it is stopped', async () => {
    const { directory } = agent(mounted(16 * 2 ** 20));
    const { client } = await serve();
    const criteria = `device=${device}`;
    const { experiment } = await client.create(always('disk-full', { criteria, floorBytes: 64 * 1024 }));
    await until('it to be full', () => !fits(directory, 128 * 1024));
    expect(fits(directory, 32 * 1024)).toBe(true);
    await client.stop(experiment.id);
    expect(fits(directory, 15 * 2 ** 20)).toBe(true);
    expect(readdirSync(directory)).toEqual([MARK_FILE]);
  });

  test('and after SIGKILL of the injector', async () => {
    const { directory } = agent(mounted(8 * 2 ** 20));
    const { child, client } = await serve();
    await client.create(always('disk-full', { criteria: `device=${device}` }));
    await until('it to be full', () => !fits(directory, 4_096));
    await sigkill(child);
    await until('it to be free', () => fits(directory, 7 * 2 ** 20), UNDONE_MS_MAX);
    expect(readdirSync(directory)).toEqual([MARK_FILE]);
  });

  test('never the machine’s own disk', async () => {
    const { directory } = agent();
    const { client } = await serve();
    const free = () => statfsSync(directory).bavail;
    const before = free();
    await client.create(always('disk-full', { criteria: `device=${device}` }));
    await until('it to be told', async () =>
      (await text(client, 'passed')).join().includes('NOT_A_SMALL_DISK'),
    );
    expect(Math.abs(before - free()) * statfsSync(directory).bsize).toBeLessThan(1e9);
    expect(readdirSync(directory)).toEqual([MARK_FILE]);
  });
});
