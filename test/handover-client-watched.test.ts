/** The SDK while another could take over: heartbeats, shadows both ways, what it takes and what it refuses. */
import { describe, expect, it, vi } from 'vitest';
import { Heartbeat } from '#handover/heartbeat.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll } from '#handover/lines.ts';
import { RESOURCES } from '#handover/messages.ts';
import { type Mirror, MirrorSource } from '#handover/mirror.ts';
import { native } from '#handover/native.ts';
import { DivergedError } from '#handover/shadow.ts';
import { type AppEnd, scriptedAgent } from './handover-agent.ts';
import { Diary, descriptor, own, setUp } from './handover-client-kit.ts';
import { cleanUp, descriptorCount, until } from './handover-kit.ts';

/** Rotors that command when a test says so, and are mirrored until it says that they are not. */
class Flier extends Diary {
  mirroring = true;
  #waiters: (() => void)[] = [];
  tick(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, withinMs);
      this.#waiters.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
  command(): void {
    for (const settle of this.#waiters.splice(0)) settle();
  }
}

/** Heartbeats that come in so long. */
const snapsIn = async (app: AppEnd, ms: number): Promise<number> => {
  const before = app.count('SNAP');
  await new Promise((resolve) => setTimeout(resolve, ms));
  return app.count('SNAP') - before;
};
const watch = (app: AppEnd, epoch: number, snapIntervalMs: number): number => {
  const [reading, writing] = native.socketPair();
  app.send({ type: 'SHADOW', epoch, role: 'source', snapIntervalMs }, [{ name: 'mirror', fd: writing }]);
  native.close(writing);
  cleanUp(() => native.close(reading));
  return reading;
};

describe('the heartbeat', () => {
  /** On a clock that the test moves. */
  const beating = () => {
    vi.useFakeTimers();
    cleanUp(() => vi.useRealTimers());
    const rotors = new Flier('rotors');
    const atMs: number[] = [];
    const startMs = performance.now();
    const heartbeat = new Heartbeat(rotors, () => atMs.push(Math.round(performance.now() - startMs)));
    cleanUp(() => heartbeat.stop());
    /** A loop that commands each `periodMs`, for so long. */
    const fly = async (periodMs: number, ms: number): Promise<void> => {
      for (let at = 0; at < ms; at += periodMs) {
        await vi.advanceTimersByTimeAsync(periodMs);
        rotors.command();
      }
      await vi.advanceTimersByTimeAsync(0);
    };
    return { rotors, heartbeat, fly, heard: () => atMs.splice(0) };
  };

  it('is at the usual interval, beside whatever the loop does', async () => {
    const { heartbeat, fly, heard } = beating();
    heartbeat.start();
    await fly(4, 80);
    expect(heard()).toEqual([0, 20, 40, 60, 80]);
  });

  it('follows each command while it is watched, but not those of a loop that is faster than it is to speak', async () => {
    const { heartbeat, fly, heard } = beating();
    heartbeat.start(4);
    await fly(4, 20);
    expect(heard()).toEqual([0, 4, 8, 12, 16, 20]);
    await fly(1, 8);
    expect(heard()).toEqual([22, 24, 26, 28]);
  });

  it('goes on without commands: a loop that stands still is told by its cycles, not by silence', async () => {
    const { heartbeat, heard } = beating();
    heartbeat.start(4);
    await vi.advanceTimersByTimeAsync(24);
    expect(heard()).toEqual([0, 8, 16, 24]);
  });

  it('rests when nobody reads the mirror any more, or when it is told to; and stops', async () => {
    const { rotors, heartbeat, fly, heard } = beating();
    heartbeat.start(4);
    await fly(4, 8);
    rotors.mirroring = false;
    await fly(4, 64);
    expect(heard()).toEqual([0, 4, 8, 12, 12, 32, 52, 72]);
    rotors.mirroring = true;
    heartbeat.start(4);
    heartbeat.usual();
    heartbeat.start();
    await fly(4, 20);
    expect(heard()).toEqual([72, 72, 92]);
    heartbeat.stop();
    await fly(4, 40);
    expect(heard()).toEqual([]);
  });
});

describe('who is watched', () => {
  it('tells its cycles and its error; is silent without the rotors, at the usual interval when they are back', async () => {
    let cycles = 0;
    const rotors = new Flier('rotors');
    const health = () => ({ cycles, error: 0.25 });
    const { app } = await setUp({ holders: { rotors }, health });
    await own(app, ['rotors']);
    watch(app, 2, 4);
    await until('it is mirrored', () => rotors.mirrored.length === 1);
    cycles = 7;
    rotors.command();
    await until('it tells', () =>
      app.heard.some(({ message }) => message.type === 'SNAP' && message.cycles === 7),
    );
    expect(app.heard.at(-1)?.message).toMatchObject({ type: 'SNAP', epoch: 2, cycles: 7, error: 0.25 });
    app.send({ type: 'RELEASE', epoch: 3, resource: 'rotors', deadlineMs: 50 });
    await app.next('RELEASED');
    rotors.command();
    expect(await snapsIn(app, 3 * LIMITS.snapIntervalMs)).toBe(0);
    app.send({ type: 'GRANT', epoch: 4, resource: 'rotors', from: 'release', payload: {} }, [
      descriptor('rotors'),
    ]);
    await app.next('GRANTED');
    expect(await snapsIn(app, 10 * LIMITS.snapIntervalMs)).toBeLessThanOrEqual(11);
  });
});

describe('the prior, in the probation of its successor', () => {
  it('follows in its shadow until all comes back, or goes for good', async () => {
    const follows: Mirror[] = [];
    const { app, holders } = await setUp({ follow: (mirror) => follows.push(mirror) });
    await own(app, ['rotors']);
    const shadow = (epoch: number): number => {
      const [reading, writing] = native.socketPair();
      // Of a version that it cannot read: it has to do without.
      const payload = { state: {}, stateVersion: 99 };
      app.send({ type: 'SHADOW', epoch, role: 'shadow', payload }, [{ name: 'mirror', fd: reading }]);
      native.close(reading);
      cleanUp(() => native.close(writing));
      return writing;
    };
    // Not while it flies itself.
    shadow(2);
    app.send({ type: 'RELEASE', epoch: 3, resource: 'rotors', deadlineMs: 50 });
    await app.next('RELEASED');
    expect(follows.length).toBe(0);

    const source = new MirrorSource(native.duplicate(shadow(3)));
    await until('it follows', () => follows.length === 1);
    expect(follows[0]?.payload).toBe(undefined);
    const seen: string[] = [];
    follows[0]?.onRecord(({ bytes }) => seen.push(bytes.toString()));
    source.record('in', Buffer.from('imu'));
    await until('it hears', () => seen.length === 1);
    app.send({ type: 'GRANT', epoch: 4, resource: 'rotors', from: 'snap', payload: { a: 1 } }, [
      descriptor('rotors'),
    ]);
    await app.next('GRANTED');
    expect(follows[0]?.ended).toBe(true);
    expect(holders.rotors.grants.at(-1)?.payload).toEqual({ a: 1 });

    app.send({ type: 'RELEASE', epoch: 5, resource: 'rotors', deadlineMs: 50 });
    await app.next('RELEASED');
    shadow(5);
    await until('it follows again', () => follows.length === 2);
    app.send({ type: 'COMMIT', epoch: 5, role: 'retired' });
    await app.next('RETIRE');
    expect(follows[1]?.ended).toBe(true);
    expect(app.count('READY') + app.count('FAULT')).toBe(0);
  });

  it('closes a mirror that it has no use for', async () => {
    const { app } = await setUp();
    const before = descriptorCount();
    const [reading, writing] = native.socketPair();
    app.send({ type: 'SHADOW', epoch: 1, role: 'shadow' }, [{ name: 'mirror', fd: reading }]);
    closeAll([reading]);
    const source = new MirrorSource(writing);
    await until('nobody reads', () => {
      source.record('in', Buffer.from('x'));
      return !source.open;
    });
    expect(descriptorCount()).toBe(before);
  });
});

describe('a candidate', () => {
  it('is told what its release asks of the shadow, and tells by its own code that it diverged', async () => {
    const asked: unknown[] = [];
    const { app } = await setUp({
      warmUp: (_mirror, _signal, bounds) => {
        asked.push(bounds);
        return asked.length === 1
          ? Promise.resolve({ cycles: 3, divergence: 0 })
          : Promise.reject(new DivergedError('far off'));
      },
    });
    app.send({ type: 'OFFER', epoch: 1, role: 'candidate' });
    await app.next('READY');
    const shadow = { cyclesMin: 12, divergenceMax: 0.5 };
    app.send({ type: 'OFFER', epoch: 1, role: 'candidate', shadow });
    expect((await app.next('FAULT')).message).toMatchObject({ code: 'DIVERGED', text: 'far off' });
    expect(asked).toEqual([null, shadow]);
  });

  it('takes what there is in any order: the rotors of a dead one first', async () => {
    const { app, holders, session } = await setUp();
    let epoch = 2;
    for (const resource of ['rotors', 'connections', 'camera'] as const) {
      const fds = resource === 'connections' ? [] : [descriptor(resource)];
      const payload = resource === 'rotors' ? { lastWriteUs: 9 } : null;
      app.send({ type: 'GRANT', epoch, resource, from: 'snap', payload }, fds);
      expect((await app.next('GRANTED')).message).toMatchObject({ epoch, resource });
      epoch += 1;
    }
    expect(holders.rotors.grants[0]).toMatchObject({ from: 'snap', payload: { lastWriteUs: 9 } });
    expect(RESOURCES.filter((one) => session.owns(one))).toEqual(['camera', 'connections', 'rotors']);
    await app.next('SNAP');
  });

  it('refuses a state of a version that it does not read, untouched; from the dead it takes what there is', async () => {
    const { app, holders, session } = await setUp();
    const before = descriptorCount();
    const payload = { stateVersion: 3 };
    app.send({ type: 'GRANT', epoch: 2, resource: 'rotors', from: 'release', payload }, [
      descriptor('rotors'),
    ]);
    expect((await app.next('FAULT')).message.code).toBe('INCOMPATIBLE_STATE');
    expect(holders.rotors.lines).toEqual([]);
    expect(session.owns('rotors')).toBe(false);
    // The pair's own end stays open until the clean-up.
    expect(descriptorCount()).toBe(before + 1);
    app.send({ type: 'GRANT', epoch: 3, resource: 'rotors', from: 'snap', payload }, [descriptor('rotors')]);
    await app.next('GRANTED');
    expect(holders.rotors.grants[0]?.payload).toEqual(payload);
  });
});

describe('the rotors', () => {
  it('come with the signing of their link, also to one whose release nobody heard', async () => {
    const { agent, path, app, holders } = await setUp();
    const signing = { key: Buffer.alloc(32, 7).toString('base64'), linkId: 3, lastTimestamp: 12 };
    app.send({ type: 'GRANT', epoch: 2, resource: 'rotors', from: 'start', payload: null, signing }, [
      descriptor('rotors'),
    ]);
    await app.next('GRANTED');
    expect(holders.rotors.grants[0]?.signing).toEqual(signing);
    let letGo = (): void => {};
    holders.rotors.releasing = new Promise((resolve) => {
      letGo = resolve;
    });
    app.send({ type: 'RELEASE', epoch: 3, resource: 'rotors', deadlineMs: 50 });
    await until('it is asked', () => holders.rotors.lines.length === 2);
    agent.die();
    const { app: again } = await scriptedAgent(path).app();
    letGo();
    await again.next('SNAP');
    expect(holders.rotors.grants[1]).toMatchObject({ from: 'release', epoch: 2, signing });
  });

  it('are left at once at a DROP: held no more, every copy closed, no heartbeat, and they may come again', async () => {
    const { app, holders, session } = await setUp();
    await own(app, ['camera', 'rotors']);
    app.send({ type: 'DROP', epoch: 3, resource: 'rotors' });
    await until('they are left', () => !session.owns('rotors'));
    expect(holders.rotors.lines.at(-1)).toBe('drop');
    expect(holders.camera.lines).toEqual(['grant start 2']);
    expect(await snapsIn(app, 3 * LIMITS.snapIntervalMs)).toBe(0);
    await own(app, ['rotors'], 4);
    expect(session.owns('rotors')).toBe(true);
  });
});
