/** Containers on a real engine: started, watched, fenced. The program in them ignores SIGTERM and never stops writing. */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Engine, openEngine } from '#agent/engine.ts';
import { ENGINE_LIMITS } from '#agent/engine-calls.ts';
import { findCgroup, freeze, isEmpty, isFrozen } from '#agent/engine-cgroup.ts';
import { type Lab, openLab, until } from '#test/images-lab.ts';

let lab: Lab;
let engine: Engine;
let imageId: string;
let count = 0;

beforeAll(async () => {
  lab = await openLab(process.env.MIDAIR_TEST_ENGINE ?? process.env.DOCKER_HOST);
  engine = await openEngine(lab.engineUrl);
  imageId = await lab.build([{ program: lab.program }]);
});
afterAll(() => lab?.close());

async function start(): Promise<{ id: string; pid: number; beats: () => string }> {
  const name = `${lab.name}-${count++}`;
  const beat = join(lab.directory, name);
  mkdirSync(beat);
  const { id, pid } = await engine.startContainer({
    name,
    imageId,
    env: { GREETING: 'a b=c' },
    labels: { 'io.midair.app': lab.name, 'io.midair.release': 'v1', [lab.name]: '' },
    mounts: [{ source: beat, target: '/beat' }],
    networkMode: 'none',
  });
  const one = (n: number) => {
    try {
      return readFileSync(join(beat, String(n)), 'utf8');
    } catch {
      return '';
    }
  };
  await until('both processes write', () => Number(one(0)) > 0 && Number(one(1)) > 0);
  return { id, pid, beats: () => `${one(0)} ${one(1)}` };
}

/** Writing 1000 times a second: standing still for 60 ms is no accident. */
async function stands(beats: () => string): Promise<boolean> {
  const before = beats();
  await new Promise((done) => setTimeout(done, 60));
  return beats() === before;
}

/** From now on every call to the engine fails at once, until what is returned is called. */
function deafen({ docker }: Engine): () => void {
  const modem = docker.modem as unknown as Record<
    'host' | 'socketPath' | 'socketPathCache',
    string | undefined
  >;
  const { host, socketPath } = modem;
  const set = (to: Pick<typeof modem, 'host' | 'socketPath'>) =>
    Object.assign(modem, to, { socketPathCache: undefined });
  set({ host: undefined, socketPath: '/nonexistent/docker.sock' });
  return () => void set({ host, socketPath });
}

const inspect = (id: string) => lab.docker.getContainer(id).inspect();

/** How it was fenced, and whether it is confirmed dead in the end. */
const ended = async (engine: Engine, id: string) => {
  const { how, dead } = await engine.fence(id);
  return { how, dead: await dead };
};

describe('a running container', () => {
  test('is started as asked, listed, and known by its processes', async () => {
    const { id, pid, beats } = await start();
    expect(await stands(beats)).toBe(false);
    const { Config, HostConfig } = await inspect(id);
    expect(Config.Env).toContain('GREETING=a b=c');
    expect(HostConfig.NetworkMode).toBe('none');
    expect(HostConfig.CpuShares).toBe(ENGINE_LIMITS.appCpuShares);
    expect(HostConfig.RestartPolicy?.Name).toBe('no');
    const [ours, ...others] = await engine.listOurs(`io.midair.app=${lab.name}`);
    expect(others).toEqual([]);
    expect(ours).toMatchObject({
      id,
      pid,
      imageId,
      release: 'v1',
      running: true,
      state: 'running',
      exitCode: null,
    });
    expect(engine.containerOfPid(pid)).toBe(id);
    expect(engine.containerOfPid(process.pid)).not.toBe(id);
    expect(engine.alive(id, pid)).toBe(true);
    expect(engine.alive(id, process.pid)).toBe(false);
    expect(await engine.logsTail(id, 5)).toBe('stubborn\n');
    await expect(engine.remove(id)).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    await engine.kill(id);
    expect((await inspect(id)).State.Running).toBe(false);
    expect(engine.alive(id, pid)).toBe(false);
    await engine.remove(id);
    await engine.remove(id);
    expect(await engine.listOurs(`io.midair.app=${lab.name}`)).toEqual([]);
  });

  test('is fenced: frozen first, then dead, all of it', async () => {
    const { id, pid, beats } = await start();
    const exit = engine.waitExit(id);
    const fenced = await engine.fence(id);
    expect(fenced.how).toBe('frozen');
    expect(await fenced.dead).toBe(true);
    expect(fenced.ms).toBeLessThan(100);
    expect(engine.alive(id, pid)).toBe(false);
    expect(await stands(beats)).toBe(true);
    expect(await exit).toBe(137);
    await engine.remove(id);
    expect(await engine.fence(id)).toMatchObject({ how: 'already-dead' });
  });

  test('is fenced while the engine does not answer', async () => {
    const { id, beats } = await start();
    const deaf = await openEngine(lab.engineUrl);
    deafen(deaf);
    await expect(deaf.listOurs()).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
    expect(await ended(deaf, id)).toEqual({ how: 'frozen', dead: true });
    expect(await stands(beats)).toBe(true);
  });

  test('stands still when frozen, and is not thawed by anything but its death', async () => {
    const { id, beats } = await start();
    expect(await engine.freeze(id)).toBe('freezer');
    expect(await stands(beats)).toBe(true);
    expect(await ended(engine, id)).toEqual({ how: 'frozen', dead: true });
    expect(await stands(beats)).toBe(true);
  });

  test('is fenced when it was paused by the engine', async () => {
    const { id, beats } = await start();
    await lab.docker.getContainer(id).pause();
    expect(await ended(engine, id)).toMatchObject({ dead: true });
    expect(await stands(beats)).toBe(true);
    await until('the engine knows', async () => !(await inspect(id)).State.Running);
  });

  test('is stopped in the end although it ignores SIGTERM', async () => {
    const { id, beats } = await start();
    await engine.stop(id, 1);
    expect((await inspect(id)).State.Running).toBe(false);
    expect(await stands(beats)).toBe(true);
    await engine.stop(id, 1);
  });

  test('that is dead already is told so', async () => {
    const { id } = await start();
    await lab.docker.getContainer(id).kill();
    await engine.waitExit(id);
    expect(await ended(engine, id)).toEqual({ how: 'already-dead', dead: true });
  });
});

describe('a container that ends by itself', () => {
  test('gives its exit code and its last words', async () => {
    const failing = await lab.build([{ program: lab.program }], ['/program', 'exit', '3']);
    const { id } = await engine.startContainer({
      name: `${lab.name}-exit`,
      imageId: failing,
      env: {},
      labels: { [lab.name]: '' },
      mounts: [],
      networkMode: 'none',
    });
    expect(await engine.waitExit(id)).toBe(3);
    const words = await engine.logsTail(id, 10);
    expect(words).toContain('about to exit\n');
    expect(words).toContain('with 3\n');
    await engine.remove(id);
    await expect(engine.waitExit(id)).rejects.toMatchObject({ code: 'NO_SUCH_CONTAINER' });
  });

  test('is waited for through a time without the engine', async () => {
    const { id } = await start();
    const patient = await openEngine(lab.engineUrl);
    const hear = deafen(patient);
    const exit = patient.waitExit(id);
    await lab.docker.getContainer(id).kill();
    await expect(patient.listOurs()).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
    hear();
    expect(await exit).toBe(137);
  });

  test('is not left behind when it cannot start', async () => {
    const name = `${lab.name}-bad`;
    const bad = await lab.build([{ program: lab.program }], ['/no-such-program']);
    const spec = {
      name,
      imageId: bad,
      env: {},
      labels: { [lab.name]: '' },
      mounts: [],
      networkMode: 'none' as const,
    };
    await expect(engine.startContainer(spec)).rejects.toMatchObject({ code: 'START_FAILED' });
    expect(await lab.docker.listContainers({ all: true, filters: { name: [name] } })).toEqual([]);
    await expect(
      engine.startContainer({ ...spec, imageId: `sha256:${'0'.repeat(64)}` }),
    ).rejects.toMatchObject({ code: 'NO_SUCH_IMAGE' });
    await expect(
      engine.startContainer({ ...spec, imageId, mounts: [{ source: '/nonexistent/dir', target: '/x' }] }),
    ).rejects.toMatchObject({ code: 'START_FAILED' });
  });
});

test('an engine that is not there is told so, with what to do', async () => {
  await expect(openEngine('unix:///nonexistent/docker.sock')).rejects.toMatchObject({
    code: 'ENGINE_UNREACHABLE',
    message: expect.stringContaining('check that the engine runs'),
  });
  await expect(openEngine('nonsense')).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
});

test('a freeze takes about a millisecond, a fence a few', async () => {
  const times: { freeze: number; fence: number }[] = [];
  for (let round = 0; round < 5; round++) {
    const { id } = await start();
    const cgroup = findCgroup(id);
    if (!cgroup) throw new Error('its cgroup cannot be seen');
    const beganMs = performance.now();
    expect(await freeze(cgroup)).toBe(true);
    const freezeMs = performance.now() - beganMs;
    expect(isFrozen(cgroup)).toBe(true);
    await (await engine.fence(id)).dead;
    expect(isEmpty(cgroup)).toBe(true);
    times.push({ freeze: freezeMs, fence: performance.now() - beganMs });
  }
  const median = (of: (each: { freeze: number; fence: number }) => number) =>
    times.map(of).sort((a, b) => a - b)[2] ?? Number.NaN;
  expect(median(({ freeze }) => freeze)).toBeLessThan(20);
  expect(median(({ fence }) => fence)).toBeLessThan(200);
});
