/**
 * One device flown by turns in two languages, under the real coordinator: TypeScript to Python and back, by
 * commit and by hand-back. @flight: the coordinator's deadlines are the drone's, 50 and 60 ms.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { Coordinator, type Processes, type Report } from '#agent/coordinator.ts';
import { createDevices } from '#agent/devices.ts';
import { openJournal } from '#agent/journal.ts';
import { LIMITS as AGENT_LIMITS } from '#agent/limits.ts';
import { createLock } from '#agent/lock.ts';
import { policyOf } from '#agent/policy.ts';
import { Board } from '#handover/conform/board.ts';
import { initial, type Outcome, type State } from '#handover/state.ts';
import { subjects } from './conform-kit.ts';
import { cleanUp, directory, until } from './handover-kit.ts';

const setUp = async () => {
  const path = directory();
  const board = new Board();
  cleanUp(() => board.close());
  const devices = createDevices({
    rotors: board.path,
    baud: 57_600,
    camera: `${path}/no-camera`,
    panel: { host: '127.0.0.1', port: 0 },
  });
  cleanUp(() => devices.close());
  const journal = openJournal<State>({
    path: `${path}/journal`,
    bytesMax: AGENT_LIMITS.handoverJournalBytesMax,
    parse: (value) => value as State,
    empty: initial,
  });
  cleanUp(() => journal.close());

  const children = new Map<string, ChildProcess>();
  const has = (id: string): boolean => {
    const child = children.get(id);
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  };
  const end = async (id: string, signal: NodeJS.Signals): Promise<void> => {
    const child = children.get(id);
    if (child === undefined || !has(id)) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  };
  const processes: Processes = {
    containerOfPid: (pid) => [...children].find(([, child]) => child.pid === pid)?.[0],
    fence: async (id) => {
      await end(id, 'SIGKILL');
      return { dead: Promise.resolve(true) };
    },
    stop: (id) => end(id, 'SIGTERM'),
  };
  const reports: Report[] = [];
  const outcomes: Outcome[] = [];
  const coordinator = new Coordinator({
    socketPath: `${path}/s`,
    journal,
    devices,
    processes,
    resources: ['rotors'],
    lock: createLock(`${path}/locks`),
    log: pino({ level: 'silent' }),
    onReport: (report) => reports.push(report),
    onSettle: (outcome) => outcomes.push(outcome),
  });
  cleanUp(() => coordinator.close());
  await coordinator.start(new Set());

  const start = (id: string, [file = '', ...args]: string[]): void => {
    coordinator.update(id, { ...policyOf({}), shadowCyclesMin: 0 });
    const child = spawn(file, args, {
      env: { ...process.env, MIDAIR_SOCKET: `${path}/s`, MIDAIR_APP: 'hover', MIDAIR_RELEASE: id },
      stdio: ['ignore', 'ignore', process.env.MIDAIR_TEST_VERBOSE ? 'inherit' : 'ignore'],
    });
    children.set(id, child);
    cleanUp(() => child.kill('SIGKILL'));
  };
  const told = (): string => reports.map(({ type, text }) => `${type}: ${text}`).join('\n');
  const settled = async (count: number): Promise<Outcome> => {
    await until(`update ${count} is settled`, () => outcomes.length >= count, 30_000);
    return outcomes[count - 1] as Outcome;
  };
  return { board, coordinator, start, settled, told, has };
};

test('TypeScript hands the rotors to Python and gets them back: no byte lost or doubled', async () => {
  const { board, coordinator, start, settled, told, has } = await setUp();
  board.pause(false);
  start('v1', subjects.typescript());
  expect(await settled(1), told()).toEqual({ type: 'updated', owner: 'v1' });

  // TypeScript to Python, for good.
  start('v2', subjects.python());
  expect(await settled(2), told()).toEqual({ type: 'updated', owner: 'v2' });
  await until('the first has ended', () => !has('v1'));

  // Python to TypeScript, taken back in its probation: the rotors go to TypeScript and return to Python.
  start('v3', subjects.typescript());
  await until('the third flies', () => coordinator.state.phase === 'probation', 30_000);
  coordinator.abort({ code: 'OPERATOR', text: 'the operator took it back' });
  expect(await settled(3), told()).toMatchObject({ type: 'failed', owner: 'v2' });
  await until('the third has ended', () => !has('v3'));

  // And for good.
  start('v4', subjects.typescript());
  expect(await settled(4), told()).toEqual({ type: 'updated', owner: 'v4' });
  await until('the second has ended', () => !has('v2'));

  // TypeScript to Python and back by a hand-back, the other way round.
  start('v5', subjects.python());
  await until('the fifth flies', () => coordinator.state.phase === 'probation', 30_000);
  coordinator.abort({ code: 'OPERATOR', text: 'the operator took it back' });
  expect(await settled(5), told()).toMatchObject({ type: 'failed', owner: 'v4' });

  board.pause(true);
  await until('all is answered', () => board.last.n === board.inputs);
  expect(board.problems, told()).toEqual([]);
  // One epoch a step, each seen by the board in its turn: start, V2, V3, back, V4, V5, back.
  expect(board.firsts.map(({ epoch }) => epoch)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect(board.last.seq).toBe(board.inputs);
  expect(coordinator.state).toEqual({
    phase: 'idle',
    epoch: 7,
    owner: 'v4',
    speaks: { reads: [1], writes: 1 },
  });
  expect(told()).not.toMatch(/fault|stale|failsafe/);
}, 120_000);
