/** Failure injection at its doors: experiments, criteria, marks, the ledger; and what may pass a valve of the link. */
import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { milliseconds, parseCriteria, parseExperiment } from '#cli/chaos/experiment.ts';
import {
  Ledger,
  LedgerReader,
  type LedgerRecord,
  numbersIn,
  openIn,
  readLedger,
  shortenLedger,
} from '#cli/chaos/ledger.ts';
import { CHAOS } from '#cli/chaos/limits.ts';
import { match, type Thing } from '#cli/chaos/targets.ts';
import { bootId, undo } from '#cli/chaos/undo.ts';
import { type Fault, together } from '#cli/chaos/wire/link.ts';
import { CLEAR, type Item, Valve } from '#cli/chaos/wire/valve.ts';

const directory = mkdtempSync(join(tmpdir(), 'midair-chaos-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe('an experiment', () => {
  test('has defaults for all but its failure', () => {
    expect(parseExperiment({ failure: 'kill' }, 5)).toMatchObject({
      ...{ frequencyMs: 10_000, probability: 0.5, durationMs: 2_000, seed: 5, criteria: {} },
    });
  });
  test.each([
    [{}, /^failure: .*latency, loss/],
    [{ failure: 'fire' }, /^failure: must be one of/],
    [{ failure: 'kill', probability: 1.1 }, /^probability: must be a number from 0 to 1/],
    [{ failure: 'kill', frequencyMs: 1 }, /^frequencyMs: must be a number from 250/],
    [{ failure: 'kill', durationMs: 1e9 }, /^durationMs: /],
    [{ failure: 'kill', forMs: 1e12 }, /^forMs: /],
    [{ failure: 'kill', force: true }, /^force: is not known/],
    [{ failure: 'kill', criteria: 'who=me' }, /"who=me" is not one; write KEY=VALUE/],
    [{ failure: 'kill', criteria: 'role=pilot' }, /role=pilot is none of owner, candidate/],
    [{ failure: 'kill', criteria: 'app=a,app=b' }, /"app=b" is not one/],
    ['kill', /must be an object/],
  ])('%j is refused, by field', (input, text) => {
    expect(() => parseExperiment(input, 0)).toThrow(text);
    expect(() => parseExperiment(input, 0)).toThrow(expect.objectContaining({ code: 'INVALID_EXPERIMENT' }));
  });
  test('times', () => {
    expect(['250ms', '10s', '1.5m', '2h'].map(milliseconds)).toEqual([250, 10_000, 90_000, 7_200_000]);
    for (const bad of ['10', 's', '1d', '-1s', '1e3s']) expect(() => milliseconds(bad)).toThrow('250ms');
  });
});

describe('criteria', () => {
  const process = { pid: 10, startTicks: '1' };
  const container = (id: string, more: object): Thing => ({
    ...{ kind: 'container', name: `midair-${id}`, app: 'hover', service: 'main', release: 'v1' },
    ...{ role: null, device: 'd1', marked: true, id, process },
    ...more,
  });
  const part = (role: 'agent' | 'hub' | 'sim', device: string | null): Thing => ({
    ...{ kind: 'part', role, device, marked: true, directory: '/d', process },
    id: device === null ? role : `${role}:${device}`,
  });
  const link = (device: string, marked = true): Thing => ({
    ...{ kind: 'link', role: 'link', device, marked, control: '/l', id: `link:${device}`, process },
  });
  const things = [
    container('aaa', { role: 'owner' }),
    container('bbb', { role: 'candidate', release: 'v2' }),
    container('ccc', { device: 'd2', app: 'survey' }),
    ...[part('agent', 'd1'), part('agent', 'd2'), part('hub', null), part('sim', 'd1'), link('d1')],
  ];
  const ids = (failure: Parameters<typeof match>[0], criteria: string, all = things) =>
    match(failure, parseCriteria(criteria), all).targets.map(({ id }) => id);

  test('all that is given must fit', () => {
    expect(ids('kill', 'service=main')).toEqual(['aaa', 'bbb', 'ccc']);
    expect(ids('kill', 'service=main,role=owner')).toEqual(['aaa']);
    expect(ids('kill', 'service=main,device=d2')).toEqual(['ccc']);
    expect(ids('kill', 'release=v2')).toEqual(['bbb']);
    expect(ids('kill', 'container=bb')).toEqual(['bbb']);
    expect(ids('kill', 'container=midair-ccc')).toEqual(['ccc']);
    expect(ids('kill', 'role=agent,device=d1')).toEqual(['agent:d1']);
    expect(ids('kill', 'service=camera')).toEqual([]);
  });
  test('a link is not killed: nobody would put it back', () => {
    expect(ids('kill', '')).not.toContain('link:d1');
    expect(ids('pause', 'role=link')).toEqual([]);
  });
  test('what fails at the device is meant by anything on it', () => {
    expect(ids('partition', 'service=main,role=owner')).toEqual(['link:d1']);
    expect(ids('latency', 'device=d1')).toEqual(['link:d1']);
    expect(ids('disk-full', 'service=main')).toEqual(['agent:d1', 'agent:d2']);
    expect(match('loss', parseCriteria('app=survey'), things).notes[0]).toMatch(
      /d2 has no link .* midair chaos link/,
    );
  });
  test('without the mark nobody is a target, and it is said', () => {
    const bare = container('ddd', { device: 'd9', marked: false });
    const found = match('kill', parseCriteria('service=main'), [...things, bare]);
    expect(found.targets).not.toContain(bare);
    expect(found.unmarked).toEqual([bare]);
    const wire = match('partition', parseCriteria('device=d9'), [bare, link('d9', false)]);
    expect(wire.targets).toEqual([]);
    expect(wire.unmarked.map(({ id }) => id)).toContain('ddd');
  });
});

describe('the ledger', () => {
  const begin = (injection: string, file = `/x/.midair-chaos-${injection}`): LedgerRecord => ({
    ...{ type: 'begin', atMs: 1, injection, experiment: 'x3', dueMs: 9, boot: 'b', failure: 'disk-full' },
    ...{ target: 't', undo: { type: 'remove', file }, text: 'fill' },
  });
  const undone = (injection: string): LedgerRecord => ({
    ...{ type: 'undone', atMs: 2, injection, by: 'injector', text: 'done' },
  });
  let count = 0;
  const fresh = () => join(directory, `ledger-${count++}`);

  test('what was begun is open until it is undone, over any number of writers', () => {
    const path = fresh();
    const [injector, watchdog] = [new Ledger(path), new Ledger(path)];
    injector.append(begin('i1'));
    injector.append(begin('i2'));
    watchdog.append(undone('i1'));
    expect(openIn(readLedger(path)).map(({ begun }) => begun.injection)).toEqual(['i2']);
    expect(numbersIn(readLedger(path))).toEqual({ experiment: 3, injection: 2 });
    const reader = new LedgerReader(path);
    expect(reader.read().length).toBe(3);
    injector.append(undone('i2'));
    expect(reader.read()).toEqual([undone('i2')]);
    for (const one of [injector, watchdog]) one.close();
  });

  test('torn anywhere, the records before it stand, and those that are written after it', () => {
    const path = fresh();
    const ledger = new Ledger(path);
    ledger.append(begin('i1'));
    const whole = readFileSync(path).length;
    ledger.append(begin('i2'));
    const bytes = readFileSync(path);
    for (let length = whole; length < bytes.length - 1; length += 1) {
      writeFileSync(path, bytes.subarray(0, length));
      const later = new Ledger(path);
      later.append(begin('i3'));
      later.close();
      const open = openIn(readLedger(path)).map(({ begun }) => begun.injection);
      expect(open, `torn at ${length}`).toEqual(['i1', 'i3']);
    }
    ledger.close();
  });

  test('a flipped bit costs its own record', () => {
    const path = fresh();
    const ledger = new Ledger(path);
    for (const id of ['i1', 'i2', 'i3']) ledger.append(begin(id));
    ledger.close();
    const bytes = readFileSync(path);
    const at = bytes.indexOf('"i2"') + 2;
    bytes[at] = (bytes[at] as number) ^ 0x10;
    writeFileSync(path, bytes);
    expect(openIn(readLedger(path)).map(({ begun }) => begun.injection)).toEqual(['i1', 'i3']);
  });

  test('cut short, what is open stays', () => {
    const path = fresh();
    const ledger = new Ledger(path);
    ledger.append(begin('i1'));
    const filler = 'x'.repeat(3_000);
    for (let i = 0; i * 3_000 < CHAOS.ledgerBytesMax + 3_000 * CHAOS.ledgerRecordsKept; i += 1_000) {
      appendFileSync(path, `${filler}\n`.repeat(1_000));
    }
    ledger.append(begin('i2'));
    ledger.close();
    shortenLedger(path);
    expect(readFileSync(path).length).toBeLessThan(1_000);
    expect(openIn(readLedger(path)).map(({ begun }) => begun.injection)).toEqual(['i1', 'i2']);
  });

  test('undoing removes a ballast and nothing else', async () => {
    const ours = join(directory, '.midair-chaos-i1');
    const other = join(directory, 'precious');
    writeFileSync(ours, 'x');
    writeFileSync(other, 'x');
    const open = (file: string) =>
      openIn([begin('i1', file)])[0] as NonNullable<ReturnType<typeof openIn>[0]>;
    expect(await undo(open(ours))).toBe('1 bytes given back');
    expect(await undo(open(ours))).toBe('already gone');
    await expect(undo(open(other))).rejects.toThrow('no ballast of ours');
    expect(readFileSync(other, 'utf8')).toBe('x');
  });

  test('processes of before the machine’s last start are left alone', async () => {
    const self = { pid: process.pid, startTicks: '0' };
    const record = { ...begin('i1'), undo: { type: 'end', processes: [self] } } as LedgerRecord;
    const [old] = openIn([record]);
    expect(old?.begun.boot).not.toBe(bootId());
    expect(await undo(old as NonNullable<typeof old>)).toContain('last start');
    // And under this boot a number whose process is another: not signalled either, or this test would be dead.
    const [now] = openIn([{ ...record, boot: bootId() } as LedgerRecord]);
    expect(await undo(now as NonNullable<typeof now>)).toBe('busy loops ended');
  });
  // The file that tests cut is theirs alone.
  test('an empty or cut file is no error', () => {
    const path = fresh();
    expect(readLedger(path)).toEqual([]);
    writeFileSync(path, 'abc');
    truncateSync(path, 0);
    expect(readLedger(path)).toEqual([]);
  });
});

describe('a valve of the link', () => {
  /** With a clock that is set by hand. */
  function valve(seed = 1) {
    const out: (Item | string)[] = [];
    let nowMs = 0;
    let wakes: { atMs: number; back: () => void } | undefined;
    const one = new Valve({
      seed,
      nowMs: () => nowMs,
      wake: (atMs, back) => {
        wakes = { atMs, back };
      },
      out: (item) => {
        out.push(item.type === 'bytes' ? Buffer.from(item.bytes).toString() : item.type);
        return true;
      },
    });
    const bytes = (text: string) => one.put({ type: 'bytes', bytes: Buffer.from(text) });
    const to = (ms: number) => {
      while (wakes !== undefined && wakes.atMs <= ms) {
        nowMs = wakes.atMs;
        const { back } = wakes;
        wakes = undefined;
        back();
      }
      nowMs = ms;
    };
    return { one, out, bytes, to };
  }

  test('clear, bytes pass at once', () => {
    const { out, bytes } = valve();
    bytes('a');
    bytes('b');
    expect(out).toEqual(['a', 'b']);
  });
  test('latency: later, in order, the hang-up behind the bytes', () => {
    const { one, out, bytes, to } = valve();
    one.set({ ...CLEAR, latencyMs: 100 });
    bytes('a');
    to(50);
    bytes('b');
    one.put({ type: 'end' });
    to(99);
    expect(out).toEqual([]);
    to(100);
    expect(out).toEqual(['a']);
    to(150);
    expect(out).toEqual(['a', 'b', 'end']);
  });
  test('partition: nothing passes, not even the news that the sender is gone; then all of it', () => {
    const { one, out, bytes, to } = valve();
    one.set({ ...CLEAR, partitioned: true });
    bytes('a');
    one.put({ type: 'reset' });
    to(100_000);
    expect(out).toEqual([]);
    one.set(CLEAR);
    expect(out).toEqual(['a', 'reset']);
  });
  test('full, it says so; empty again, it is read again', () => {
    const { one } = valve();
    one.set({ ...CLEAR, partitioned: true });
    one.put({ type: 'bytes', bytes: Buffer.alloc(CHAOS.wireQueueBytesMax - 1) });
    expect(one.isFull).toBe(false);
    one.put({ type: 'bytes', bytes: Buffer.alloc(1) });
    expect(one.isFull).toBe(true);
    one.set(CLEAR);
    expect(one.isFull).toBe(false);
  });
  test('loss: stalls of 200 ms and more, and all that is lost too often ends the connection', () => {
    const { one, out, bytes, to } = valve(3);
    one.set({ ...CLEAR, lossPercent: 50 });
    const sent = Array.from({ length: 20 }, (_, i) => String(i));
    for (const each of sent) bytes(each);
    expect(out.length).toBeLessThan(20);
    to(60_000);
    const whole = out.at(-1) !== 'reset';
    expect(out.filter((each) => each !== 'reset')).toEqual(sent.slice(0, out.length - Number(!whole)));
    const dead = valve();
    dead.one.set({ ...CLEAR, lossPercent: 100 });
    dead.bytes('a');
    dead.to(60_000);
    expect(dead.out).toEqual(['reset']);
  });
  test('whatever is set when: every byte, once, in order', () => {
    const conditions = fc.record({
      partitioned: fc.boolean(),
      latencyMs: fc.nat({ max: 500 }),
      jitterMs: fc.nat({ max: 500 }),
      lossPercent: fc.nat({ max: 30 }),
    });
    const action = fc.oneof(
      conditions.map((value) => ({ set: value })),
      fc.nat({ max: 400 }).map((value) => ({ wait: value })),
      fc.constant({ put: true }),
    );
    fc.assert(
      fc.property(fc.nat(), fc.array(action, { maxLength: 80 }), (seed, actions) => {
        const { one, out, bytes, to } = valve(seed);
        let sent = 0;
        let nowMs = 0;
        for (const each of actions) {
          if ('set' in each) one.set(each.set);
          else if ('wait' in each) {
            nowMs += each.wait;
            to(nowMs);
          } else bytes(String(sent++));
        }
        one.set(CLEAR);
        to(nowMs + 1);
        const passed = out.filter((each) => each !== 'reset');
        expect(passed).toEqual(Array.from({ length: passed.length }, (_, i) => String(i)));
        if (!out.includes('reset')) expect(passed.length).toBe(sent);
      }),
    );
  });
  test('faults on one link add up, each on its way', () => {
    const fault = (failure: Fault['failure'], way: Fault['way']): Fault => ({
      ...{ id: failure + way, failure, way, latencyMs: 100, jitterMs: 5, lossPercent: 20, seed: 1, forMs: 1 },
    });
    const all = [fault('latency', 'both'), fault('latency', 'to-hub'), fault('partition', 'from-hub')];
    expect(together(all, 'to-hub')).toEqual({ ...CLEAR, latencyMs: 200, jitterMs: 10 });
    expect(together(all, 'from-hub')).toEqual({ ...CLEAR, latencyMs: 100, jitterMs: 5, partitioned: true });
  });
});
