/**
 * Private engines and the base image, for real. @flight: starts daemons of its own, beside the one of
 * MIDAIR_TEST_ENGINE.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ensureBaseImage } from '#cli/base-image.ts';
import { keyOf, moduleEntries, writeLayer } from '#cli/base-layers.ts';
import { connect, type Engine, openEngine } from '#cli/engine.ts';
import { mountsBelow } from '#cli/engine-sweep.ts';
import { identify, processesNaming } from '#cli/processes.ts';

const state = mkdtempSync('/var/tmp/midair-test-');
const isMachines = process.env.DOCKER_HOST !== undefined;

beforeAll(() => {
  process.env.MIDAIR_STATE = state;
});
afterAll(() => {
  delete process.env.MIDAIR_STATE;
  rmSync(state, { recursive: true, force: true });
});

const left = () => ({ processes: processesNaming(state).length, mounts: mountsBelow(state) });
const NOTHING = { processes: 0, mounts: [] };

describe.skipIf(isMachines)('private engines', () => {
  test('two of one name and one of another, side by side; closing leaves nothing', async () => {
    const engines = await Promise.all(['hub', 'drone', 'drone'].map((name) => openEngine({ name })));
    const roots = await Promise.all(engines.map(async ({ docker }) => (await docker.info()).DockerRootDir));
    const count = processesNaming(state).length;
    await Promise.all(engines.map((engine) => engine.close()));
    expect(new Set(roots).size).toBe(3);
    // A dockerd and a containerd each.
    expect(count).toBe(6);
    expect(left()).toEqual(NOTHING);
  });

  test('a daemon killed with a frozen container in it: the next start takes all of it away', async () => {
    const engine = await openEngine({ name: 'drone' });
    await ensureBaseImage(engine.docker);
    const container = await engine.docker.createContainer({
      Image: 'midair/node24',
      Cmd: ['node', '-e', 'setInterval(() => {}, 1000)'],
      HostConfig: { NetworkMode: 'none' },
    });
    await container.start();
    await container.pause();
    const pid = (await container.inspect()).State.Pid;
    const pids = processesNaming(state);
    expect(pids.length).toBeGreaterThanOrEqual(3);
    for (const one of pids) if (one.args[0]?.match(/dockerd|containerd$/)) process.kill(one.pid, 'SIGKILL');
    // As if its owner had been killed too.
    writeFileSync(join(state, 'engines', 'drone', 'owner.json'), '{"pid":1,"startTicks":"0"}');
    const next = await openEngine({ name: 'drone' });
    const containers = await next.docker.listContainers({ all: true });
    await next.close();
    expect(next.url).toBe(engine.url);
    // Dead; who takes the exit status of an orphan is the machine's business.
    expect(identify(pid)).toBeUndefined();
    expect(containers).toEqual([]);
    expect(left()).toEqual(NOTHING);
  });

  test('the base image stays from one run to the next, what was built on it does not', async () => {
    const first = await openEngine({ name: 'drone' });
    await ensureBaseImage(first.docker);
    await first.docker.getImage('midair/node24').tag({ repo: 'other', tag: 'built' });
    await first.close();
    const second = await openEngine({ name: 'drone' });
    const tags = (await second.docker.listImages()).flatMap(({ RepoTags }) => RepoTags ?? []);
    const { wasLoaded } = await ensureBaseImage(second.docker);
    await second.close();
    expect(tags).toEqual(['midair/node24:latest']);
    expect(wasLoaded).toBe(false);
  });
});

test('an engine elsewhere cannot serve, and one that is named must answer', async () => {
  const before = process.env.DOCKER_HOST;
  try {
    process.env.DOCKER_HOST = 'tcp://10.0.0.1:2375';
    await expect(openEngine({ name: 'x' })).rejects.toMatchObject({ code: 'ENGINE_REMOTE' });
    process.env.DOCKER_HOST = 'unix:///nowhere/docker.sock';
    await expect(openEngine({ name: 'x' })).rejects.toMatchObject({ code: 'ENGINE_SILENT' });
  } finally {
    if (before === undefined) delete process.env.DOCKER_HOST;
    else process.env.DOCKER_HOST = before;
  }
});

describe('base image', () => {
  let engine: Pick<Engine, 'docker'>;
  beforeAll(() => {
    engine = { docker: connect(process.env.MIDAIR_TEST_ENGINE ?? '') };
  });

  test('the same files give the same layer, byte for byte', async () => {
    const entries = moduleEntries();
    const layers = await Promise.all(
      ['a', 'b'].map(async (name) => {
        const directory = mkdtempSync(join(state, `${name}-`));
        // Whatever the order in which the files were found.
        return writeLayer(name === 'a' ? entries : entries.toReversed(), 'key', directory);
      }),
    );
    expect(layers[0]?.diffId).toBe(layers[1]?.diffId);
    expect(keyOf(entries)).toBe(keyOf(entries.toReversed()));
  });

  test('what an app needs is in it, and runs', async () => {
    await ensureBaseImage(engine.docker);
    const program = `
      const names = ['midair/handover', 'midair/handover/mavlink', 'ws', 'serialport', 'valibot'];
      for (const name of names) await import(name);
      const { statSync } = await import('node:fs');
      statSync(new URL('uPlot.min.css', import.meta.resolve('uplot')));
      console.log(process.version, require('node:os').userInfo().username);`;
    let text = '';
    const output = new Writable({
      write: (chunk: Buffer, _, done) => {
        text += chunk.toString();
        done();
      },
    });
    const code = `import { createRequire } from 'node:module'; const require = createRequire('/app/'); ${program}`;
    const [result] = await engine.docker.run(
      'midair/node24',
      ['node', '--input-type=module', '-e', code],
      output,
      { HostConfig: { NetworkMode: 'none', AutoRemove: true }, Tty: true },
    );
    expect(text).toMatch(/^v24\.\d+\.\d+ root\r?\n$/);
    expect(result.StatusCode).toBe(0);
  });
});
