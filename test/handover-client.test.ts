import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { LIMITS as AGENT_LIMITS } from '#agent/limits.ts';
import { parseStat } from '#agent/proc-stat.ts';
import { split } from '#handover/batches.ts';
import { BOUNDS } from '#handover/bounds.ts';
import { join } from '#handover/client.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll } from '#handover/lines.ts';
import type { JsonObject } from '#handover/messages.ts';
import { type Mirror, MirrorSource } from '#handover/mirror.ts';
import { native } from '#handover/native.ts';
import { setFifo } from '#handover/realtime.ts';
import { pass, scriptedAgent } from './handover-agent.ts';
import { Diary, descriptor, own, setUp } from './handover-client-kit.ts';
import { cleanUp, descriptorCount, until } from './handover-kit.ts';

describe('the good path', () => {
  it('of a first start: warms up without a mirror, is granted, sends heartbeats, is committed', async () => {
    const { app, hello, warm, holders, logs, session } = await setUp();
    expect(hello.message).toMatchObject({
      v: 1,
      epoch: 0,
      app: 'hover',
      release: 'r1',
      reads: [1, 2],
      writes: 2,
      holds: [],
    });
    expect(hello.descriptors.size).toBe(0);
    app.send({ type: 'OFFER', epoch: 1, role: 'candidate' });
    await until('it warms up', () => warm.length === 1);
    expect(warm[0]?.mirror.available).toBe(false);
    expect(app.heard).toEqual([]);
    warm[0]?.resolve({ cycles: 12, divergence: 0.5 });
    expect((await app.next('READY')).message).toMatchObject({ epoch: 1, cycles: 12, divergence: 0.5 });
    app.send({ type: 'PREPARE', epoch: 1 });
    expect((await app.next('READY')).message).toMatchObject({ epoch: 1, cycles: 12 });

    let commanded = (): void => {};
    holders.rotors.granting = new Promise((resolve) => {
      commanded = resolve;
    });
    app.send({ type: 'GRANT', epoch: 2, resource: 'rotors', from: 'start', payload: null }, [
      descriptor('rotors'),
    ]);
    await until('it is taken', () => session.owns('rotors'));
    expect(app.count('GRANTED') + app.count('SNAP')).toBe(0);
    commanded();
    await app.next('GRANTED');
    const startMs = performance.now();
    for (let n = 0; n < 20; n++)
      expect((await app.next('SNAP')).message).toMatchObject({ epoch: 2, payload: { lastWriteUs: 1 } });
    const eachMs = (performance.now() - startMs) / 20;
    expect(eachMs).toBeGreaterThan(LIMITS.snapIntervalMs * 0.8);
    app.send({ type: 'COMMIT', epoch: 2, role: 'owner' });
    await until('it knows', () => logs.includes('owner'));
    expect(session.epoch).toBe(2);
  });

  // Of the main thread, by the 40th field of proc(5)'s stat.
  const priority = (): number =>
    Number(parseStat(readFileSync(`/proc/${process.pid}/stat`, 'latin1')).field(40));
  const missing = setFifo('flies') ?? setFifo('nobody');
  it.skipIf(missing !== undefined)(
    'that asks for real time: below who flies as long as it stands by, as who flies when it does, none after',
    async () => {
      cleanUp(() => setFifo('nobody'));
      const { app, warm } = await setUp({ realtime: 'fifo' });
      app.send({ type: 'OFFER', epoch: 1, role: 'candidate' });
      await until('it warms up', () => warm.length === 1);
      expect(priority()).toBe(0);
      warm[0]?.resolve({ cycles: 12, divergence: 0 });
      await app.next('READY');
      app.send({ type: 'PREPARE', epoch: 1 });
      await app.next('READY');
      expect(priority()).toBe(BOUNDS.standByFifoPriority);
      expect(priority()).toBeLessThan(AGENT_LIMITS.workersFifoPriority);
      await own(app, ['camera', 'connections', 'rotors']);
      expect(priority()).toBe(BOUNDS.fifoPriority);
      expect(priority()).toBeGreaterThan(AGENT_LIMITS.workersFifoPriority);
      app.send({ type: 'RELEASE', epoch: 9, resource: 'rotors', deadlineMs: 50 });
      await app.next('RELEASED');
      await until('it is over', () => priority() === 0);
    },
  );

  it('whose prior dies while it takes something else: the rotors do not wait behind that', async () => {
    const { app, holders, session } = await setUp();
    let taken = (): void => {};
    holders.connections.granting = new Promise((resolve) => {
      taken = resolve;
    });
    app.send({ type: 'GRANT', epoch: 2, resource: 'connections', from: 'release', payload: null });
    await until('it takes the connections', () => holders.connections.lines.length === 1);
    app.send({ type: 'GRANT', epoch: 3, resource: 'rotors', from: 'snap', payload: null }, [
      descriptor('rotors'),
    ]);
    expect((await app.next('GRANTED')).message).toMatchObject({ epoch: 3, resource: 'rotors' });
    expect(session.owns('rotors')).toBe(true);
    // What is asked of the rotors themselves keeps its order.
    app.send({ type: 'RELEASE', epoch: 4, resource: 'rotors', deadlineMs: 50 });
    taken();
    expect((await app.next('GRANTED')).message).toMatchObject({ epoch: 2, resource: 'connections' });
    expect((await app.next('RELEASED')).message).toMatchObject({ epoch: 4, resource: 'rotors' });
  });

  it('of an update: follows the mirror until it has the rotors; the prior lets go, drops, retires', async () => {
    const { agent, path, app, holders, session, logs } = await setUp();
    let epoch = await own(app, ['camera', 'rotors']);
    const second = { camera: new Diary('camera'), rotors: new Diary('rotors') };
    const seen: string[] = [];
    const mirrors: Mirror[] = [];
    const candidate = await join({
      app: 'hover',
      release: 'r2',
      socketPath: path,
      stateVersions: { reads: [2], writes: 2 },
      holders: second,
      snapshot: () => ({ lastWriteUs: 2 }),
      warmUp: async (mirror) => {
        let cycles = 0;
        mirrors.push(mirror);
        mirror.onRecord(({ kind, bytes }) => seen.push(`${kind} ${bytes.toString()}`));
        await until('it is warm', () => {
          cycles = seen.length;
          return cycles >= 5;
        });
        return { cycles, divergence: 0 };
      },
    });
    cleanUp(() => candidate.close());
    const { app: taker } = await agent.app();
    taker.send({ type: 'OFFER', epoch, role: 'candidate' });
    const [reading, writing] = native.socketPair();
    app.send({ type: 'SHADOW', epoch, role: 'source' }, [{ name: 'mirror', fd: writing }]);
    const payload = { state: { learned: 1 }, stateVersion: 2 };
    taker.send({ type: 'SHADOW', epoch, role: 'shadow', payload }, [{ name: 'mirror', fd: reading }]);
    await until('the prior mirrors', () => holders.rotors.mirrored.length === 1);
    closeAll([reading]);
    const source = new MirrorSource(writing);
    for (let n = 0; n < 5; n++) source.record('in', Buffer.from(`imu${n}`));
    expect((await taker.next('READY')).message).toMatchObject({ cycles: 5, divergence: 0 });

    expect(mirrors[0]?.payload).toEqual(payload);

    holders.camera.gives = { payload: { leftover: 'abc' } };
    holders.rotors.gives = { payload: { lastWriteUs: 77 } };
    await pass(app, taker, 'camera', ++epoch, [descriptor('camera')]);
    source.record('in', Buffer.from('goes on'));
    await until('the mirror goes on', () => seen.at(-1) === 'in goes on');
    expect(mirrors[0]?.ended).toBe(false);
    await pass(app, taker, 'rotors', ++epoch, [descriptor('rotors')]);
    expect(second.camera.grants[0]?.payload).toEqual({ leftover: 'abc' });
    expect(second.rotors.grants[0]).toMatchObject({ from: 'release', payload: { lastWriteUs: 77 }, epoch });
    expect([...(second.rotors.grants[0]?.descriptors.keys() ?? [])]).toEqual(['rotors']);
    expect(holders.camera.lines).toEqual(['grant start 2', 'release 1000', 'drop']);
    expect(holders.rotors.lines).toEqual(['grant start 3', 'release 50', 'drop']);
    expect(session.owns('rotors')).toBe(false);
    expect(mirrors.map(({ ended }) => ended)).toEqual([true]);
    await taker.next('SNAP');
    const snaps = app.count('SNAP');
    app.send({ type: 'COMMIT', epoch, role: 'retired' });
    expect((await app.next('RETIRE')).message.epoch).toBe(epoch);
    expect(logs).toContain('retire');
    expect(app.count('SNAP')).toBe(snaps);
    expect(app.count('FAULT') + taker.count('FAULT')).toBe(0);
  });

  it('of a hand-back: the same resource again under a higher epoch', async () => {
    const { app, holders } = await setUp();
    await own(app, ['rotors']);
    app.send({ type: 'RELEASE', epoch: 3, resource: 'rotors', deadlineMs: 50 });
    await app.next('RELEASED');
    app.send({ type: 'GRANT', epoch: 5, resource: 'rotors', from: 'snap', payload: { a: 1 } }, [
      descriptor('rotors'),
    ]);
    expect((await app.next('GRANTED')).message.epoch).toBe(5);
    expect(holders.rotors.lines).toEqual(['grant start 2', 'release 50', 'drop', 'grant snap 5']);
    app.send({ type: 'DROP', epoch: 5, resource: 'rotors' });
    await until('it is dropped', () => holders.rotors.lines.at(-1) === 'drop');
  });

  it('of many connections: in lines of at most 250 descriptors and 256 KiB, joined again', async () => {
    const { app, agent, path, holders } = await setUp();
    let epoch = await own(app, ['connections']);
    const taking = new Diary('connections');
    const candidate = await join({
      app: 'hover',
      release: 'r2',
      socketPath: path,
      stateVersions: { reads: [2], writes: 2 },
      holders: { connections: taking },
      warmUp: () => Promise.resolve({ cycles: 0, divergence: 0 }),
    });
    cleanUp(() => candidate.close());
    const { app: taker } = await agent.app();
    const pairs = Array.from({ length: 300 }, () => native.socketPair());
    closeAll(pairs.map(([, other]) => other));
    const connections = pairs.map((_, at) => ({ fd: `c${at}`, head: 'x'.repeat(at < 4 ? 100_000 : 10) }));
    holders.connections.gives = {
      payload: { connections, closed: 3 },
      descriptors: pairs.map(([fd], at) => ({ name: `c${at}`, fd })),
    };
    holders.connections.fds = pairs.map(([fd], at) => ({ name: `c${at}`, fd }));
    epoch += 1;
    const { lines } = await pass(app, taker, 'connections', epoch);
    expect(lines).toHaveLength(3);
    expect(taking.grants[0]?.payload).toEqual({ connections, closed: 3 });
    expect(taking.fds.map(({ name }) => name)).toEqual(connections.map(({ fd }) => fd));
    expect(app.count('FAULT') + taker.count('FAULT')).toBe(0);
  });
});

describe('without the agent', () => {
  it('waits for it at the start, flies on when it dies, and tells the next one what it holds', async () => {
    const { path, agent, app, holders, session, logs } = await setUp();
    await own(app, ['camera', 'connections', 'rotors']);
    expect(session.connected).toBe(true);
    agent.die();
    await until('it is noticed', () => !session.connected);
    expect(logs.some((line) => line.includes('flying on'))).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 2.5 * BOUNDS.reconnectMs));
    expect(session.owns('rotors')).toBe(true);
    expect(holders.rotors.lines).toEqual(['grant start 4']);
    const startMs = performance.now();
    const next = scriptedAgent(path);
    const { app: again, hello } = await next.app();
    expect(performance.now() - startMs).toBeLessThan(3 * BOUNDS.reconnectMs);
    expect(hello.message.holds).toEqual(['camera', 'rotors', 'connections']);
    expect(hello.message.epoch).toBe(4);
    expect([...hello.descriptors.keys()]).toEqual(['camera', 'rotors']);
    closeAll(hello.descriptors.values());
    again.send({ type: 'OFFER', epoch: 4, role: 'owner' });
    await again.next('SNAP');
    // What it holds already may be granted anew: it goes on.
    again.send({ type: 'GRANT', epoch: 5, resource: 'rotors', from: 'snap', payload: {} }, [
      descriptor('rotors'),
    ]);
    expect((await again.next('GRANTED')).message.epoch).toBe(5);
    expect(holders.rotors.lines).toEqual(['grant start 4', 'renew 5']);
    expect((await again.next('SNAP')).message).toBeDefined();
    expect(again.count('FAULT')).toBe(0);
  });

  it('uses a resource again that nobody heard it let go', async () => {
    const { agent, path, app, holders, session, logs } = await setUp();
    await own(app, ['camera', 'rotors']);
    let letGo = (): void => {};
    holders.rotors.releasing = new Promise((resolve) => {
      letGo = resolve;
    });
    holders.rotors.gives = { payload: { lastWriteUs: 5 } };
    app.send({ type: 'RELEASE', epoch: 4, resource: 'rotors', deadlineMs: 50 });
    await until('it is asked', () => holders.rotors.lines.length === 2);
    agent.die();
    await until('it is noticed', () => !session.connected);
    // The next agent is there before it has let go: that one never asked.
    const next = scriptedAgent(path);
    const { app: again, hello } = await next.app();
    expect(hello.message.holds).toEqual(['camera', 'rotors']);
    letGo();
    await until('it is taken again', () => holders.rotors.lines.length === 3);
    expect(holders.rotors.lines).toEqual(['grant start 3', 'release 50', 'grant release 3']);
    expect(holders.rotors.grants[1]?.payload).toEqual({ lastWriteUs: 5 });
    expect(logs.some((line) => line.includes('nobody heard'))).toBe(true);
    await again.next('SNAP');
    expect(again.count('RELEASED')).toBe(0);
    expect(session.owns('rotors')).toBe(true);
  });

  it('ends a warm-up, and starts another when it is offered again', async () => {
    const { agent, path, app, warm, session } = await setUp();
    app.send({ type: 'OFFER', epoch: 1, role: 'candidate' });
    await until('it warms up', () => warm.length === 1);
    agent.die();
    await until('it is told', () => warm[0]?.signal.aborted === true);
    warm[0]?.resolve({ cycles: 1, divergence: 0 });
    const next = scriptedAgent(path);
    const { app: again } = await next.app();
    expect(session.connected).toBe(true);
    again.send({ type: 'OFFER', epoch: 1, role: 'candidate' });
    await until('it warms up anew', () => warm.length === 2);
    expect(again.count('READY')).toBe(0);
    warm[1]?.resolve({ cycles: 2, divergence: 0 });
    expect((await again.next('READY')).message.cycles).toBe(2);
  });
});

describe('refusals', () => {
  it('of a stale epoch: neither step is done, the descriptors are closed, the agent is told', async () => {
    const { app, holders } = await setUp();
    await own(app, ['camera', 'rotors'], 7);
    const before = descriptorCount();
    app.send({ type: 'RELEASE', epoch: 8, resource: 'rotors', deadlineMs: 50 });
    expect((await app.next('FAULT')).message).toMatchObject({ code: 'STALE_EPOCH', epoch: 8 });
    app.send({ type: 'GRANT', epoch: 6, resource: 'camera', from: 'start', payload: null }, [
      descriptor('camera'),
    ]);
    expect((await app.next('FAULT')).message.code).toBe('STALE_EPOCH');
    app.send({ type: 'DROP', epoch: 7, resource: 'rotors' });
    expect((await app.next('FAULT')).message.code).toBe('STALE_EPOCH');
    expect(holders.rotors.lines).toEqual(['grant start 8']);
    expect(holders.camera.lines).toEqual(['grant start 7']);
    // The pair's own end stays open until the clean-up.
    expect(descriptorCount()).toBe(before + 1);
    app.send({ type: 'RELEASE', epoch: 9, resource: 'rotors', deadlineMs: 50 });
    await app.next('RELEASED');
  });

  it('of a flood: each is refused, so many a second are answered', async () => {
    const { app, holders, session } = await setUp();
    await own(app, ['rotors'], 7);
    for (let line = 0; line < 10 * BOUNDS.repeatsPerSecMax; line += 1)
      app.send({ type: 'DROP', epoch: 6, resource: 'rotors' });
    app.send({ type: 'RELEASE', epoch: 8, resource: 'rotors', deadlineMs: 50 });
    await app.next('RELEASED');
    expect(holders.rotors.lines).toEqual(['grant start 7', 'release 50', 'drop']);
    expect(session.owns('rotors')).toBe(false);
    // Two, if the second ends meanwhile.
    expect(app.count('FAULT')).toBeGreaterThanOrEqual(BOUNDS.repeatsPerSecMax);
    expect(app.count('FAULT')).toBeLessThanOrEqual(2 * BOUNDS.repeatsPerSecMax);
  });

  it('of a revocation: obeyed by a candidate, refused by who flies', async () => {
    const flying = await setUp();
    await own(flying.app, ['rotors']);
    flying.app.send({ type: 'REVOKE', epoch: 2, code: 'X', text: 'go' });
    expect((await flying.app.next('FAULT')).message.code).toBe('UNEXPECTED_MESSAGE');
    expect(flying.session.owns('rotors')).toBe(true);
    flying.app.send({ type: 'COMMIT', epoch: 2, role: 'retired' });
    expect((await flying.app.next('FAULT')).message.code).toBe('UNEXPECTED_MESSAGE');
    expect(flying.app.count('RETIRE')).toBe(0);

    const { app, warm, logs, session } = await setUp();
    app.send({ type: 'OFFER', epoch: 1, role: 'candidate' });
    await until('it warms up', () => warm.length === 1);
    app.send({ type: 'REVOKE', epoch: 1, code: 'TIMEOUT', text: 'too slow' });
    await until('it is told', () => logs.includes('revoked TIMEOUT'));
    expect(warm[0]?.signal.aborted).toBe(true);
    await until('it left', () => app.ended);
    expect(session.connected).toBe(false);
  });

  it('of what is not its own, and of what fails, with the resource dropped', async () => {
    const { app, holders, session } = await setUp();
    app.send({ type: 'RELEASE', epoch: 1, resource: 'camera', deadlineMs: 50 });
    expect((await app.next('FAULT')).message.code).toBe('NOT_OWNER');
    app.send({ type: 'GRANT', epoch: 2, resource: 'listener', from: 'start', payload: null }, [
      descriptor('listener'),
    ]);
    expect((await app.next('FAULT')).message.code).toBe('NO_HOLDER');
    const failing = Promise.reject(Object.assign(new Error('lens cap'), { code: 'LENS_CAP' }));
    failing.catch(() => {});
    holders.camera.granting = failing;
    app.send({ type: 'GRANT', epoch: 3, resource: 'camera', from: 'start', payload: null }, [
      descriptor('camera'),
    ]);
    expect((await app.next('FAULT')).message).toMatchObject({
      code: 'LENS_CAP',
      text: 'GRANT of the camera: lens cap',
    });
    expect(holders.camera.lines).toEqual(['grant start 3', 'drop']);
    expect(session.owns('camera')).toBe(false);
    expect(app.count('GRANTED')).toBe(0);
  });

  it('of a warm-up that fails or tells nonsense', async () => {
    const { app, warm } = await setUp();
    app.send({ type: 'OFFER', epoch: 1, role: 'candidate' });
    await until('it warms up', () => warm.length === 1);
    warm[0]?.resolve({ cycles: 1, divergence: Number.NaN });
    expect((await app.next('FAULT')).message.code).toBe('WARM_UP_FAILED');
    expect(app.count('READY')).toBe(0);
  });

  it('of bytes that are no protocol: leaves that agent, flies on, and tries again', async () => {
    const { path, agent, app, session } = await setUp();
    await own(app, ['rotors']);
    app.send({ type: 'NONSENSE', epoch: 3 });
    await until('it leaves', () => app.ended);
    expect(session.owns('rotors')).toBe(true);
    const { hello } = await agent.app();
    expect(hello.message.holds).toEqual(['rotors']);
    closeAll(hello.descriptors.values());
    expect(path).toBeTruthy();
  });
});

describe('batches', () => {
  it('leave a payload without connections whole, and refuse what fits no line', () => {
    expect(split({ payload: { leftover: 'x' } })).toEqual([{ payload: { leftover: 'x' }, descriptors: [] }]);
    expect(split({ payload: { connections: [], closed: 2 } })).toEqual([
      { payload: { connections: [], closed: 2 }, descriptors: [] },
    ]);
    const big = 'x'.repeat(BOUNDS.payloadBytesMax);
    expect(() => split({ payload: { big } })).toThrow('LINE_TOO_LONG');
    expect(() => split({ payload: { connections: [{ fd: 'c0', big }] as unknown as JsonObject[] } })).toThrow(
      'LINE_TOO_LONG',
    );
  });
});
