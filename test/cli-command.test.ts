/** The `midair` command at its edges: help, versions, words that it does not know. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { address, engineUrl, httpUrl, integer, name } from '#cli/commands/arguments.ts';
import { statusText } from '#cli/commands/status.ts';
import { freePort } from '#cli/demo/world.ts';
import type { HubStatus } from '#cli/hub-client.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';

function midair(...args: string[]) {
  const env = { ...process.env };
  for (const key of Object.keys(env)) if (key.startsWith('MIDAIR_') || key === 'DOCKER_HOST') delete env[key];
  const result = spawnSync(process.execPath, [join(PACKAGE_ROOT, 'cli', 'bin.ts'), ...args], {
    encoding: 'utf8',
    env,
  });
  return { status: result.status, out: result.stdout, err: result.stderr };
}

test.each(['demo', 'hub', 'agent', 'sim', 'status'])('midair %s --help shows an example', (command) => {
  const { status, out } = midair(command, '--help');
  expect(status).toBe(0);
  expect(out).toContain(`Usage: midair ${command}`);
  expect(out).toMatch(/Examples?:\n {2}\$ /);
});

test('--version is the package’s', () => {
  const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
  expect(midair('--version')).toMatchObject({ status: 0, out: `${version}\n` });
});

test.each([
  [['frobnicate'], /unknown command 'frobnicate'/],
  [['sim'], /required option '--dir <path>'/],
  [['sim', '--dir', '/tmp/x', '--seed', 'many'], /expected a whole number/],
  [['sim', '--dir', '/tmp/x', '--board', 'pixhawk'], /Allowed choices are direct, px4, ardupilot/],
  [['sim', '--dir', '/tmp/x', '--baud', 'fast'], /expected a whole number/],
  [['hub', '--dir', '/tmp/x', '--http', 'nowhere'], /expected HOST:PORT/],
  [['status', '--frob'], /unknown option '--frob'/],
  [['status', 'extra'], /too many arguments/],
])('midair %j is not understood: status 2', (args, message) => {
  const { status, err } = midair(...args);
  expect(err).toMatch(message);
  expect(err).toContain('--help');
  expect(status).toBe(2);
});

test('no hub there: status 1, and what to look at', async () => {
  const { status, err } = midair('status', '--hub', `http://127.0.0.1:${await freePort(0)}`);
  expect(status).toBe(1);
  expect(err).toMatch(/does not answer \(ECONNREFUSED\): is it running/);
  expect(err).not.toContain('    at ');
});

describe('arguments', () => {
  test('addresses', () => {
    expect(address('127.0.0.1:80')).toEqual({ host: '127.0.0.1', port: 80 });
    expect(address('8080')).toEqual({ host: '127.0.0.1', port: 8080 });
    expect(address('[::1]:0')).toEqual({ host: '::1', port: 0 });
    for (const bad of ['', 'a:1', '1.2.3.4', '127.0.0.1:65536', '127.0.0.1:-1'])
      expect(() => address(bad)).toThrow('HOST:PORT');
  });
  test('urls, names, numbers', () => {
    expect(httpUrl('http://hub/')).toBe('http://hub');
    expect(() => httpUrl('mqtt://hub')).toThrow('begins with http:');
    expect(() => engineUrl('tcp://10.0.0.1:2375')).toThrow('unix:///');
    expect(() => name('Drone 1')).toThrow('lower case');
    expect(() => name(`a${'b'.repeat(63)}`)).toThrow('at most 63');
    expect(() => integer('1e9')).toThrow('whole number');
  });
});

describe('status', () => {
  const nowMs = 1_000_000;
  const status: HubStatus = {
    fleet: 'field',
    url: 'http://h',
    mqttUrl: 'mqtt://h',
    target: { generation: 4, release: null, changedAtMs: 0 },
    devices: [],
    releases: [],
  };
  test('an empty fleet says so', () => {
    expect(statusText(status, [], nowMs)).toBe(
      'fleet field: target nothing yet, generation 4\nno device was heard of yet\n',
    );
  });
  test('what a device is to expect, by what it has', () => {
    const id = (digit: string) => `sha256:${digit.repeat(64)}`;
    const blob = (bytes: number) => ({ digest: id('f'), bytes });
    const cost = { outputBytes: 9_000_000, cpuMs: 120, memoryBytes: 19_000_000 };
    const release = (n: string, deltas: { basis: string; blob: typeof blobOfTwo; cost?: typeof cost }[]) => ({
      ...{ id: `v${n}`, app: 'hover', commit: '', createdAtMs: 1 },
      services: {
        main: {
          image: {
            ...{ id: id(n), config: blob(1_000), deltas },
            layers: [{ diffId: id('e'), bytes: 40_000_000, blob: blob(9_999_000) }],
          },
          labels: {},
        },
      },
    });
    const blobOfTwo = blob(12_000);
    const two = release('2', [
      { basis: id('1'), blob: blobOfTwo, cost },
      { basis: id('9'), blob: blob(500) },
    ]);
    const target = { ...status.target, release: two };
    const lines = statusText({ ...status, target, releases: [two, release('1', [])] }, [], nowMs).split('\n');
    expect(lines[1]).toMatch(/^hover v2 by +to fetch +to make +a core at the hub +memory$/);
    expect(lines[3]).toMatch(/^delta from v1 +12.0 kB +9.0 MB +120 ms +19.0 MB$/);
    expect(lines[4]).toMatch(/^delta from 999999999999 +500 B +– +– +–$/);
    expect(lines[5]).toMatch(/^whole image +10.0 MB +40.0 MB +– +–$/);
  });
  test('a device on its way', () => {
    const current = {
      ...{ device: 'd1', generation: 4, bootId: 'b', sequence: 1, atMs: 0, images: [] },
      owner: { release: 'v1', imageId: `sha256:${'0'.repeat(64)}`, container: 'c' },
      update: {
        status: 'updating' as const,
        release: 'v2',
        stage: 'fetch' as const,
        doneBytes: 1,
        allBytes: 4,
      },
    };
    const devices = [{ name: 'd1', online: false, seenAtMs: nowMs - 5_000, current }];
    const events = [
      {
        id: 1,
        device: 'd1',
        key: 'k',
        type: 't',
        atMs: 0,
        text: 'warming up',
        data: {},
        receivedAtMs: nowMs - 500,
      },
    ];
    const line = statusText({ ...status, devices }, events, nowMs)
      .split('\n')
      .at(-2);
    expect(line).toMatch(/^d1 +heard 5.0 s ago +v1 +4 +to v2: fetch, 25 % +warming up \(500 ms ago\)$/);
  });
});
