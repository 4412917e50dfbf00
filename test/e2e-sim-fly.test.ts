/**
 * `midair sim fly` as a user runs it: two drones take off and are updated in flight, for real; and what it says to a script
 * that is wrong. @flight
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, expect, test } from 'vitest';
import type { FlightReport } from '#cli/fly/report.ts';
import { PACKAGE_ROOT, stateDirectory } from '#cli/paths.ts';
import { processesNaming } from '#cli/processes.ts';
import { readRecord } from '#test/fly-kit.ts';

const state = mkdtempSync('/var/tmp/midair-test-');
// The base image's layers are there already: the engine's setup made them.
symlinkSync(stateDirectory('base'), join(state, 'base'));
const out = mkdtempSync(join(tmpdir(), 'midair-fly-'));
const environment = { ...process.env, MIDAIR_STATE: state, DOCKER_HOST: process.env.MIDAIR_TEST_ENGINE };
const BIN = join(PACKAGE_ROOT, 'cli', 'bin.ts');
let child: ChildProcess | undefined;

afterAll(async () => {
  if (child !== undefined && child.exitCode === null && child.signalCode === null) {
    const ended = new Promise((resolve) => child?.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  }
  rmSync(state, { recursive: true, force: true });
  rmSync(out, { recursive: true, force: true });
});

const script = (text: string): string => {
  const path = join(out, 'test.scenario');
  writeFileSync(path, text);
  return path;
};

const SCENARIO = `
title     Two drones, updated as they climb
drones    2
drone     seed=7
release   v1 = drone
release   v2 = drone + drone-v2

at 0s            takeoff 3m
at 1s            update v2
on v2 updated    waypoint 2 0 3

expect    owner = v2
expect    handovers = 1
expect    stale = 0
expect    doubled = 0
expect    failsafes = 0
expect    tilt <= 20deg
expect    off <= 0.5m
expect    frames-lost = 0
expect    sockets-closed = 0
`;

test('two drones: every expectation holds, each has a record and pictures, nothing is left', async () => {
  const flying = spawn(
    process.execPath,
    [BIN, 'sim', 'fly', '--scenario', script(SCENARIO), '--out', out, '--json'],
    {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  child = flying;
  const lines: Record<string, unknown>[] = [];
  let errors = '';
  flying.stderr.on('data', (bytes: Buffer) => {
    errors += bytes.toString();
  });
  createInterface({ input: flying.stdout }).on('line', (line) => lines.push(JSON.parse(line)));
  const status = await new Promise((resolve) => flying.once('close', resolve));
  const report = lines.at(-1) as unknown as FlightReport;
  expect(report?.type, errors).toBe('report');
  const failed = report.drones.flatMap(({ outcomes, troubles }) => [
    ...outcomes.filter(({ held }) => !held),
    ...troubles,
  ]);
  expect(failed, JSON.stringify(report)).toEqual([]);
  expect(status, errors).toBe(0);
  expect(report.drones.map(({ name }) => name)).toEqual(['drone-1', 'drone-2']);
  expect(new Set(lines.map(({ type }) => type))).toEqual(new Set(['step', 'mark', 'drones', 'report']));
  expect(processesNaming(state).map(({ args }) => args.join(' '))).toEqual([]);

  for (const { name, figures, record, mcap, changes, pictures } of report.drones) {
    expect(changes).toMatchObject([{ before: 'v1', after: 'v2' }]);
    const { messages } = await readRecord(mcap);
    const of = (topic: string) => messages.filter((message) => message.topic === topic);
    expect(of('/commands').length).toBe(record.command);
    expect(of('/imu').length).toBe(record.imu);
    // 250 Hz for as long as it flew, as far as this machine let it.
    expect(record.imu).toBeGreaterThan(200 * report.seconds);
    expect(of('/owner').map(({ data }) => data.sender)).toEqual(['v1', 'v2']);
    expect(of('/commands').filter(({ data }) => data.kind === 'stale').length).toBe(figures.stale);
    expect(of('/events').map(({ data }) => data.name)).toContain('handover.granted');
    expect(of('/scenario').map(({ data }) => data.message)).toEqual(
      expect.arrayContaining(['takeoff 3m', 'update v2', 'waypoint 2 0 3']),
    );
    for (const svg of [pictures.flight, ...pictures.handovers]) {
      expect(readFileSync(svg, 'utf8')).not.toMatch(/NaN|undefined|Infinity/);
      expect(statSync(svg.replace(/svg$/, 'png')).size).toBeGreaterThan(5_000);
    }
    expect(readdirSync(out)).toContain(`${name}-handover-1.png`);
  }
}, 240_000);

test('Ctrl-C in the middle of it: status 130, and nothing is left', async () => {
  const flying = spawn(process.execPath, [BIN, 'sim', 'fly', '--scenario', script(SCENARIO), '--json'], {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child = flying;
  createInterface({ input: flying.stdout }).on('line', (line) => {
    // The hub runs; the push is under way.
    if (JSON.parse(line).title === 'Hub') flying.kill('SIGINT');
  });
  const status = await new Promise((resolve) => flying.once('close', resolve));
  expect(status).toBe(130);
  expect(processesNaming(state).map(({ args }) => args.join(' '))).toEqual([]);
}, 120_000);

test('a script that cannot be read: status 2, every error with its place, nothing is started', () => {
  const path = script(
    'release v1 = drone\nrelease v2 = drone + drone-v3\nat 5s takeof 3m\nexpect gap <= 1kg\n',
  );
  const { status, stderr, stdout } = spawnSync(process.execPath, [BIN, 'sim', 'fly', '--scenario', path], {
    env: environment,
    encoding: 'utf8',
  });
  expect(status).toBe(2);
  expect(stdout).toBe('');
  expect(stderr).toContain(
    'test.scenario:3:7: "takeof" is no verb; did you mean "takeoff"?\n  at 5s takeof 3m\n        ^^^^^^\n',
  );
  expect(stderr).toContain('test.scenario:4:15: "kg" is no unit of a time');
  expect(stderr).not.toContain('    at ');
});

test('a folder that is not there, a file that is not there', () => {
  const path = script('release v1 = drone + drone-v3\nexpect owner = v1\n');
  const fly = (...args: string[]) =>
    spawnSync(process.execPath, [BIN, 'sim', 'fly', ...args], { env: environment, encoding: 'utf8' });
  expect(fly('--scenario', path)).toMatchObject({
    status: 2,
    stderr:
      'test.scenario:1:22: there is no apps/drone-v3\n  release v1 = drone + drone-v3\n                       ^^^^^^^^\n',
  });
  const missing = fly('--scenario', '/nowhere/at.all');
  expect(missing.status).toBe(2);
  expect(missing.stderr).toContain('/nowhere/at.all cannot be read (ENOENT); there are examples in ');
});

test('no engine that answers: status 1, and what to do', () => {
  const { status, stderr } = spawnSync(
    process.execPath,
    [BIN, 'sim', 'fly', '--scenario', script('release v1 = drone\nexpect owner = v1\n')],
    { env: { ...environment, DOCKER_HOST: 'unix:///nowhere/docker.sock' }, encoding: 'utf8' },
  );
  expect(status).toBe(1);
  expect(stderr).toContain(
    'DOCKER_HOST=unix:///nowhere/docker.sock: there is no such socket (ENGINE_SILENT)',
  );
});

test.each([
  [['sim', 'fly', '--help'], 0, /Usage: midair sim fly[\s\S]*Examples:\n {2}\$ /],
  [['sim', '--help'], 0, /Usage: midair sim[\s\S]*fly \[options\][\s\S]*Example:\n {2}\$ /],
  [['sim'], 2, /required option '--dir <path>'/],
  [['sim', 'fly'], 2, /required option '--scenario <file>'/],
  [['sim', 'fly', '--scenario', 'x', '--drones', '99'], 2, /expected 1 to 16/],
] as const)('midair %j', (args, status, text) => {
  const result = spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8' });
  expect(result.stdout + result.stderr).toMatch(text);
  expect(result.status).toBe(status);
});
