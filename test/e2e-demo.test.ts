/**
 * `midair demo` as a user runs it: its promises, its JSON, and that nothing of it is left, whenever it is stopped.
 *
 * It has a state directory of its own, so that what is left can be told from what others run. One engine for the
 * file's other tests is MIDAIR_TEST_ENGINE's business; the demo opens its own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { mountsBelow } from '#cli/engine-sweep.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import { processesNaming } from '#cli/processes.ts';

const state = mkdtempSync('/var/tmp/midair-test-');
const running = new Set<ChildProcess>();

interface Run {
  child: ChildProcess;
  lines: string[];
  ended: Promise<{ status: number | null; text: string }>;
  /** Resolves at the first line that matches. */
  line(pattern: RegExp): Promise<string>;
}

function demo(...args: string[]): Run {
  const child = spawn(
    process.execPath,
    [join(PACKAGE_ROOT, 'cli', 'bin.ts'), 'demo', '--panel-port', '0', ...args],
    {
      env: { ...process.env, MIDAIR_STATE: state },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  running.add(child);
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      for (const look of waiting) look();
    });
  }
  const ended = new Promise<{ status: number | null; text: string }>((resolve) => {
    child.once('close', (status) => {
      running.delete(child);
      resolve({ status, text: lines.join('\n') });
      for (const look of waiting) look();
    });
  });
  const line = (pattern: RegExp) =>
    new Promise<string>((resolve, reject) => {
      const look = () => {
        const found = lines.find((text) => pattern.test(text));
        if (found !== undefined) resolve(found);
        else if (running.has(child)) return;
        else reject(new Error(`the demo ended without ${pattern}:\n${lines.join('\n')}`));
        waiting.delete(look);
      };
      waiting.add(look);
      look();
    });
  return { child, lines, ended, line };
}

/** Resolves once a daemon of this state directory runs. */
async function daemon(): Promise<void> {
  while (!processesNaming(state).some(({ args }) => args[0]?.endsWith('dockerd'))) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** What a run may leave: nothing. */
function leftovers() {
  return {
    processes: processesNaming(state).map(({ pid, args }) => `${pid} ${args.join(' ')}`),
    mounts: mountsBelow(state),
    sockets: ['hub', 'drone'].filter((name) => existsSync(join(state, 'engines', name, 'run'))),
  };
}
const NOTHING = { processes: [], mounts: [], sockets: [] };

afterEach(async () => {
  for (const child of running) child.kill('SIGTERM');
  while (running.size > 0) await new Promise((resolve) => setTimeout(resolve, 50));
});
afterAll(() => rmSync(state, { recursive: true, force: true }));

describe('to the end', () => {
  test('every promise holds, and the last line is the JSON', async () => {
    const run = demo('--exit', '--json');
    const { status, text } = await run.ended;
    const report = JSON.parse(run.lines.at(-1) ?? '');
    expect(
      report.promises.filter(({ held }: { held: boolean }) => !held),
      text,
    ).toEqual([]);
    expect(status, text).toBe(0);
    expect(report).toMatchObject({
      owner: 'v2',
      imageIdMatches: true,
      bytes: { fetchedAs: 'delta' },
      handover: {
        periodMs: 4,
        framesLost: 0,
        socketsClosed: 0,
        staleCommands: 0,
        doubledCommands: 0,
        failsafes: 0,
      },
    });
    expect(report.handover.missedCycles).toBeLessThanOrEqual(3);
    expect(report.handover.gapMs).toBeLessThan(20);
    expect(report.bytes.delta).toBeLessThan(report.bytes.full);
    expect(report.bytes.full).toBeLessThan(report.bytes.image);
    expect(report.attitude.duringDeg).toBeLessThan(2);
    expect(Object.keys(report.stagesMs)).toEqual(
      expect.arrayContaining(['fetch', 'start', 'warm', 'handover']),
    );
    expect(readFileSync(report.svg, 'utf8')).toContain('Handover in flight');
    expect(leftovers()).toEqual(NOTHING);
  }, 180_000);
});

describe('stopped at any moment, it leaves nothing', () => {
  test.each([
    ['SIGINT', 'while engines start', undefined],
    ['SIGTERM', 'while the base image loads', /Base image/],
    ['SIGINT', 'while V1 is built', /remote: Step 2/],
    ['SIGHUP', 'while V1 is installed', /Install and start V1/],
    ['SIGINT', 'during the handover', /Update in flight/],
  ] as const)(
    '%s %s',
    async (signal, _, pattern) => {
      const run = demo('--exit');
      // The first moment is before anything is said.
      if (pattern !== undefined) await run.line(pattern);
      else await daemon();
      run.child.kill(signal);
      run.child.kill(signal);
      const { status, text } = await run.ended;
      expect(status, text).toBe(130);
      expect(leftovers()).toEqual(NOTHING);
    },
    120_000,
  );

  test('the pty is gone too', async () => {
    const run = demo('--exit');
    await run.line(/Agent on the drone/);
    const sim = processesNaming(state).find(({ args }) => args.includes('sim'));
    const directory = sim?.args[sim.args.indexOf('--dir') + 1] ?? '';
    const pty = readlinkSync(join(directory, 'rotors'));
    expect(existsSync(pty)).toBe(true);
    run.child.kill('SIGINT');
    await run.ended;
    expect(existsSync(pty)).toBe(false);
    expect(leftovers()).toEqual(NOTHING);
  }, 60_000);

  test('killed with no chance to clean up: the next start does', async () => {
    const first = demo('--exit');
    await first.line(/Take off and hover/);
    first.child.kill('SIGKILL');
    await first.ended;
    expect(leftovers().processes.length).toBeGreaterThan(4);
    const second = demo('--exit');
    await second.line(/✔ Hub/);
    second.child.kill('SIGINT');
    await second.ended;
    expect(leftovers()).toEqual(NOTHING);
  }, 120_000);
});
