/**
 * The agent's own image: Dockerfile.template rendered by the hub's function, built on the real engine from the
 * local base, and run. The engine is the one that MIDAIR_TEST_ENGINE names.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { Readable, Writable } from 'node:stream';
import tar from 'tar-stream';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { addDependencies, buildPackage } from '#cli/build.ts';
import { connect } from '#cli/engine.ts';
import { deviceTypeOf, renderTemplate } from '#fleet/dockerfile.ts';

const TAG = `midair-test-agent:${process.pid}`;
const docker = connect(process.env.MIDAIR_TEST_ENGINE ?? '');
const directory = mkdtempSync(join(tmpdir(), 'midair-agent-image-'));

beforeAll(async () => {
  buildPackage(directory);
  addDependencies(directory);
  const { Architecture } = await docker.info();
  const values = { ...deviceTypeOf(Architecture), app: 'agent', service: 'main', commit: '0'.repeat(40) };
  const template = readFileSync(join(directory, 'Dockerfile.template'), 'utf8');
  const context = tar.pack();
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) context.entry({ name: relative(directory, path) }, readFileSync(path));
  }
  context.entry({ name: 'Dockerfile.rendered' }, renderTemplate(template, 'Dockerfile.template', values));
  context.finalize();
  const said = await docker.buildImage(Readable.from(context), {
    t: TAG,
    dockerfile: 'Dockerfile.rendered',
    buildargs: { BASE: 'midair/node24' },
  });
  await new Promise<void>((resolve, reject) => {
    docker.modem.followProgress(said, (error: Error | null) => (error === null ? resolve() : reject(error)));
  });
}, 120_000);

afterAll(async () => {
  await docker
    .getImage(TAG)
    .remove({ force: true })
    .catch(() => {});
  rmSync(directory, { recursive: true, force: true });
});

async function run(command: string[]): Promise<{ status: number; text: string }> {
  let text = '';
  const output = new Writable({
    write: (chunk: Buffer, _, done) => {
      text += chunk.toString();
      done();
    },
  });
  const [result] = await docker.run(TAG, command, output, {
    HostConfig: { NetworkMode: 'none', AutoRemove: true },
    Tty: true,
  });
  return { status: result.StatusCode, text };
}

test('the agent runs in its image', async () => {
  const { status, text } = await run(['agent', '--help']);
  expect(text).toContain('Usage: midair agent');
  expect(status).toBe(0);
});

test('without its settings it says which one is missing, and ends with 2', async () => {
  const { status, text } = await run([]);
  expect(text).toContain("required option '--device <name>'");
  expect(status).toBe(2);
});

test('the machine is written on it', async () => {
  const { Config } = await docker.getImage(TAG).inspect();
  expect(Config.Labels?.['io.midair.arch']).toMatch(/^(amd64|aarch64)$/);
});
