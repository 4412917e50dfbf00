/**
 * The injector and its HTTP API in one process, on real processes of this machine but without an engine: refusals with their
 * codes, what is done and undone, what the history tells. And the command line's own edges.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MARK_FILE, markTestDevice } from '#agent/test-device.ts';
import { createApi } from '#cli/chaos/api.ts';
import { Injector } from '#cli/chaos/injector.ts';
import { Ledger, openIn, readLedger } from '#cli/chaos/ledger.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { findMarks } from '#cli/chaos/marks.ts';
import { openSurroundings } from '#cli/chaos/surroundings.ts';
import type { Thing } from '#cli/chaos/targets.ts';
import { historyText } from '#cli/chaos/text.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import { identify, type ProcessId } from '#cli/processes.ts';

const directory = mkdtempSync(join(tmpdir(), 'midair-injector-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
let victim: ChildProcess;
let thing: Thing & { kind: 'part' };
let things: Thing[];
let look: () => Promise<Thing[]>;
let watch: { isWatching: boolean };
let ledger: Ledger;
let injector: Injector;
let api: ReturnType<typeof createApi>;

beforeEach(() => {
  victim = spawn('sleep', ['60'], { stdio: 'ignore' });
  const process = identify(victim.pid ?? 0) as ProcessId;
  thing = { kind: 'part', id: 'agent:d1', role: 'agent', device: 'd1', marked: true, directory, process };
  things = [thing];
  look = async () => things;
  watch = { isWatching: true };
  ledger = new Ledger(join(directory, `ledger-${count++}`));
  injector = new Injector({
    ledger,
    watch,
    numbers: { experiment: 0, injection: 0 },
    surroundings: { look: () => look() },
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
  });
  api = createApi(injector);
});
afterEach(async () => {
  await injector.close();
  ledger.close();
  victim.kill('SIGKILL');
});

const post = (body: unknown, headers: Record<string, string> = {}) =>
  api.request('/v1/chaos', {
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
    headers: { 'content-type': 'application/json', ...headers },
  });
const pauses = {
  failure: 'pause',
  frequencyMs: 250,
  probability: 1,
  durationMs: 60_000,
  criteria: 'device=d1',
};
/** `T`: stopped. */
const state = () => /\) (\w)/.exec(readFileSync(`/proc/${victim.pid}/stat`, 'utf8'))?.[1];
async function until(what: string, probe: () => boolean): Promise<void> {
  for (let i = 0; i < 1_500 && !probe(); i += 1) await sleep(10);
  expect(probe(), what).toBe(true);
}

describe('the API', () => {
  test('makes, shows, stops; and when a stop answers, all is undone', async () => {
    const made = await post(pauses);
    expect(made.status).toBe(201);
    const { experiment, matches } = (await made.json()) as { experiment: { id: string }; matches: string[] };
    expect(matches).toEqual(['agent of d1']);
    await until('it to stand', () => state() === 'T');
    const list = (await (await api.request('/v1/chaos')).json()) as { experiments: object[] };
    expect(list.experiments).toMatchObject([
      { id: 'x1', failure: 'pause', phase: 'running', injections: 1, active: [{ target: 'agent:d1' }] },
    ]);
    const stopped = await api.request(`/v1/chaos/${experiment.id}`, { method: 'DELETE' });
    expect(await stopped.json()).toMatchObject({
      experiment: { phase: 'ended', why: 'stopped', active: [] },
    });
    expect(state()).not.toBe('T');
    const told = (await (await api.request('/v1/chaos/events')).json()) as { events: { id: number }[] };
    expect(told.events).toMatchObject(
      ['created', 'begin', 'on', 'undone', 'ended'].map((type) => ({ type })),
    );
    const after = await api.request(`/v1/chaos/events?after=${told.events.at(-2)?.id}`);
    expect(await after.json()).toMatchObject({ events: [{ type: 'ended' }] });
  });

  test.each([
    ['not JSON', '{', {}, 400, 'INVALID_REQUEST'],
    ['an unknown failure', { failure: 'fire' }, {}, 400, 'INVALID_EXPERIMENT'],
    ['too long', { failure: 'kill', criteria: 'x'.repeat(CHAOS.httpBodyBytesMax) }, {}, 413, 'TOO_LARGE'],
    ['from a page', pauses, { origin: 'http://evil.example' }, 403, 'FOREIGN_ORIGIN'],
  ] as const)('%s is refused', async (_, body, headers, status, code) => {
    const answer = await post(body, headers);
    expect(answer.status).toBe(status);
    expect(await answer.json()).toMatchObject({ code });
    expect(injector.experiments).toEqual([]);
  });

  test('what is not marked is refused, by name, and what to do is said', async () => {
    things = [{ ...thing, marked: false }];
    const answer = await post(pauses);
    expect(answer.status).toBe(403);
    const { code, error } = (await answer.json()) as { code: string; error: string };
    expect(code).toBe('NOT_A_TEST_DEVICE');
    expect(error).toMatch(/agent of d1, which is not marked .*--test-device/);
  });

  test('unknown ones and other paths', async () => {
    expect(await (await api.request('/v1/chaos/x9')).json()).toMatchObject({ code: 'NO_SUCH_EXPERIMENT' });
    expect(await (await api.request('/v1/chaos/x9', { method: 'DELETE' })).json()).toMatchObject({
      code: 'NO_SUCH_EXPERIMENT',
    });
    expect((await api.request('/')).status).toBe(404);
    expect((await api.request('/v1/chaos/events?after=-1')).status).toBe(400);
  });

  test('not more than so many side by side; an ended one makes room', async () => {
    for (let i = 0; i < CHAOS.experimentsMax; i += 1) {
      expect((await post({ ...pauses, probability: 0 })).status).toBe(201);
    }
    expect(await (await post(pauses)).json()).toMatchObject({ code: 'TOO_MANY_EXPERIMENTS' });
    await injector.stop('x3');
    expect((await post({ ...pauses, probability: 0 })).status).toBe(201);
  });
});

test('its end undoes all, and nothing is taken any more', async () => {
  await post(pauses);
  await until('it to stand', () => state() === 'T');
  await injector.close();
  expect(state()).not.toBe('T');
  expect(openIn(readLedger(ledger.path))).toEqual([]);
  expect(await (await post(pauses)).json()).toMatchObject({ code: 'CLOSING' });
});

test('without a watchdog nothing is injected', async () => {
  watch.isWatching = false;
  await post(pauses);
  const passed = () => injector.events().find(({ type }) => type === 'passed');
  await until('it to be told', () => passed() !== undefined);
  expect(passed()?.text).toContain('NO_WATCHDOG');
  expect(state()).not.toBe('T');
});

test('who loses its mark between the choice and the deed is left alone', async () => {
  let looks = 0;
  const unmarked = [{ ...thing, marked: false }];
  // The first look makes the experiment, the second chooses, the third is right before the deed.
  look = async () => (++looks < 3 ? [thing] : unmarked);
  await post({ ...pauses, frequencyMs: 300 });
  const passed = () => injector.events().find(({ type }) => type === 'passed');
  await until('it to be told', () => passed() !== undefined);
  expect(passed()?.text).toContain('NOT_A_TEST_DEVICE');
  expect(injector.events().some(({ type }) => type === 'begin')).toBe(false);
  expect(state()).not.toBe('T');
});

test('what died between the choice and the deed is no target, nor who has its number', async () => {
  things = [{ ...thing, process: { ...thing.process, startTicks: '1' } }];
  await post(pauses);
  const failed = () => injector.events().find(({ type }) => type === 'failed' || type === 'on');
  await until('it to be told', () => failed() !== undefined);
  expect(state()).not.toBe('T');
});

test('the history reads as one', async () => {
  await post({ ...pauses, durationMs: 100, frequencyMs: 60_000 });
  await post({ ...pauses, durationMs: 100 });
  await until('one to be undone', () => injector.events().some(({ type }) => type === 'undone'));
  const text = historyText(injector.events());
  expect(text).toMatch(
    /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} {2}x1 +created +pause for 100 ms, every 60000 ms/,
  );
  expect(text).toMatch(/ x2 +i1 +begin +pause agent of d1\n/);
  expect(text).toMatch(/ x2 +i1 +undone +1 process goes on \(its time was over\)\n/);
});

describe('marks', () => {
  const part = (...names: string[]) => join(directory, 'marks', ...names);

  test('the agent’s is there as long as it is a test device, and is found up to two levels below', async () => {
    markTestDevice(part('one', 'agent'), 'd7', true);
    expect(findMarks([part()])).toMatchObject([{ role: 'agent', device: 'd7', pid: process.pid }]);
    expect(findMarks([directory])).toEqual([]);
    expect(await openSurroundings({ listOurs: async () => [] }, [part()]).look()).toMatchObject([
      { kind: 'part', id: 'agent:d7', marked: true },
    ]);
    markTestDevice(part('one', 'agent'), 'd7', false);
    expect(findMarks([part()])).toEqual([]);
  });

  test('one that is not whole is none', () => {
    markTestDevice(part('two'), 'd8', true);
    for (const text of [
      '',
      '{',
      '{"role":"pilot","device":"d8","pid":3,"startTicks":"1"}',
      '{"role":"agent"}',
    ]) {
      writeFileSync(part('two', MARK_FILE), text);
      expect(findMarks([part()])).toEqual([]);
    }
  });

  test('a container is one only by both: its label, and its device’s agent', async () => {
    const labels = { 'io.midair.app': 'a', 'io.midair.device': 'd9', 'io.midair.test-device': 'true' };
    const container = (more: object) => ({
      ...{ id: 'c'.repeat(64), name: 'c', imageId: 'i', release: 'v1', running: true, state: 'running' },
      ...{ pid: victim.pid ?? 0, exitCode: null, labels: { ...labels, ...more } },
    });
    const marked = async (more: object = {}) => {
      const found = await openSurroundings({ listOurs: async () => [container(more)] }, [part()]).look();
      return found.find(({ kind }) => kind === 'container')?.marked;
    };
    expect(await marked()).toBe(false);
    markTestDevice(part('three'), 'd9', true);
    expect(await marked()).toBe(true);
    expect(await marked({ 'io.midair.test-device': 'false' })).toBe(false);
    expect(await marked({ 'io.midair.device': 'd10' })).toBe(false);
  });
});

describe('the command line', () => {
  const midair = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(PACKAGE_ROOT, 'cli', 'bin.ts'), 'chaos', ...args],
      { encoding: 'utf8' },
    );
    return { status, out: stdout, err: stderr };
  };
  test('help names every command, and shows an example', () => {
    const { status, out } = midair('--help');
    expect(status).toBe(0);
    for (const name of ['serve', 'link', 'create', 'list', 'stop', 'log', 'undo'])
      expect(out).toContain(`  ${name} `);
    expect(out).toMatch(/Examples:\n {2}\$ /);
  });
  test.each([
    [['create'], /required option '--failure <kind>'/],
    [['create', '--failure', 'fire'], /Allowed choices are latency, loss/],
    [['create', '--failure', 'kill', '--frequency', '10'], /expected a time such as 250ms/],
    [['stop'], /either an id or --all/],
  ])('%j is not understood: status 2', (args, text) => {
    const { status, err } = midair(...args);
    expect(err).toMatch(text);
    expect(status).toBe(2);
  });
  test('no injector: status 1, and what to start; the log is read all the same', () => {
    const { status, err } = midair('list', '--dir', directory);
    expect(err).toMatch(/no injector runs in .*midair chaos serve.*\(INJECTOR_UNREACHABLE\)/);
    expect(status).toBe(1);
    expect(midair('log', '--dir', directory)).toMatchObject({ status: 0, out: 'nothing happened yet\n' });
    expect(midair('undo', '--dir', directory)).toMatchObject({ status: 0, out: 'nothing was left\n' });
  });
});
