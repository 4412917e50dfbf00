/** The rotor gate: one channel passes, whole frames only, and nobody is waited for. */
import { describe, expect, it } from 'vitest';
import { Framer } from '#agent/gate/frames.ts';
import { type Ends, Gate } from '#agent/gate/gate.ts';
import { GATE } from '#agent/gate/limits.ts';
import { native } from '#handover/native.ts';
import { Controller, frameOf, readAll, write } from './agent-gate-kit.ts';
import { cleanUp, descriptorCount, seeded, turn, until } from './handover-kit.ts';

const setUp = () => {
  const controller = new Controller();
  const lost: Error[] = [];
  const state = { epoch: 0, partial: Buffer.alloc(0), waiting: [], tty: native.duplicate(controller.slave) };
  const gate = new Gate(state, (error) => lost.push(error));
  cleanUp(() => gate.close());
  /** The app's end stays ours. */
  const open = (epoch: number, previous: 'released' | 'dead' | 'unknown' = 'released'): number => {
    const [near, app] = native.socketPair();
    cleanUp(() => native.close(app));
    gate.open(epoch, previous, { gate: near, app: native.duplicate(app) });
    return app;
  };
  return { controller, gate, lost, open };
};
const heardBy = (controller: Controller, count: number) =>
  until(`${count} are heard`, () => controller.hear().heard.length >= count).then(() => controller.heard);

describe('frames', () => {
  it('come out whole and in order, however they are cut, without what is none', () => {
    const random = seeded(7);
    const frames = Array.from({ length: 200 }, (_, n) => frameOf(n, n));
    const noise = Buffer.from('no frame at all');
    const stream = Buffer.concat(frames.flatMap((frame, n) => (n % 10 === 0 ? [noise, frame] : [frame])));
    const framer = new Framer();
    const out: Buffer[] = [];
    for (let at = 0; at < stream.length; ) {
      const end = at + 1 + Math.floor(random() * 150);
      out.push(...framer.take(stream.subarray(at, end)).map((frame) => Buffer.from(frame)));
      at = end;
    }
    expect(Buffer.concat(out).equals(Buffer.concat(frames))).toBe(true);
    expect(out).toHaveLength(frames.length);
    expect(framer.garbageBytes).toBe(20 * noise.length);
    expect(framer.partial).toHaveLength(0);
  });

  it('signed ones end behind their signature', () => {
    const signed = Buffer.concat([frameOf(1, 1), Buffer.alloc(13, 5)]);
    signed[2] = 1;
    expect(new Framer().take(Buffer.concat([signed, frameOf(1, 2)]))).toEqual([signed, frameOf(1, 2)]);
  });

  it('of any noise less than one frame is kept', () => {
    const random = seeded(11);
    const framer = new Framer();
    for (let i = 0; i < 2_000; i += 1) {
      framer.take(Buffer.from(Array.from({ length: 97 }, () => (random() < 0.1 ? 0xfd : random() * 256))));
      expect(framer.partial.length).toBeLessThan(GATE.frameBytesMax);
    }
  });
});

describe('a gate', () => {
  it('passes both ways', async () => {
    const { controller, gate, open } = setUp();
    const app = open(3);
    write(app, frameOf(3, 1));
    write(app, frameOf(3, 2));
    expect(await heardBy(controller, 2)).toEqual([
      [3, 1],
      [3, 2],
    ]);
    controller.say('imu');
    await until('it is read', () => readAll(app).toString() === 'imu');
    expect(gate.stats).toMatchObject({ epoch: 3, frames: 2, bytesToApp: 3, staleBytes: 0 });
  });

  it('takes what was written before the release, and nothing after it', async () => {
    const { controller, gate, open } = setUp();
    const first = open(1);
    write(first, frameOf(1, 1));
    // Still unread when the next channel is opened.
    const second = open(2, 'released');
    write(first, frameOf(1, 2));
    write(second, frameOf(2, 1));
    await heardBy(controller, 2);
    await until('the rest is refused', () => gate.stats.staleBytes === frameOf(1, 2).length);
    expect(controller.hear().heard).toEqual([
      [1, 1],
      [2, 1],
    ]);
  });

  it('refuses what the dead one left unread', async () => {
    const { controller, gate, open } = setUp();
    const first = open(1);
    write(first, frameOf(1, 1));
    const second = open(2, 'dead');
    write(second, frameOf(2, 1));
    await until('it is refused', () => gate.stats.staleBytes > 0);
    expect(await heardBy(controller, 1)).toEqual([[2, 1]]);
  });

  it('never ends a frame of one in the bytes of the next', async () => {
    const { controller, gate, open } = setUp();
    const first = open(1);
    write(first, frameOf(1, 1).subarray(0, 30));
    await turn();
    const second = open(2, 'released');
    write(first, frameOf(1, 1).subarray(30));
    write(second, frameOf(2, 1));
    expect(await heardBy(controller, 1)).toEqual([[2, 1]]);
    expect(controller.garbageBytes).toBe(0);
    await until('it is refused', () => gate.stats.staleBytes === frameOf(1, 1).length);
  });

  it('gives the successor what the one before it did not read, once, before what is newer', async () => {
    const { controller, gate, open } = setUp();
    const first = open(1);
    controller.say('one ');
    await until('it waits there', () => gate.stats.bytesToApp === 4);
    const second = open(2, 'dead');
    controller.say('two');
    await until('it waits there', () => gate.stats.bytesToApp === 7);
    expect(readAll(second).toString()).toBe('one two');
    expect(readAll(first).toString()).toBe('');
  });

  it('leaves what the board says in the tty while nobody has a channel', async () => {
    const { controller, gate, open } = setUp();
    controller.say('early');
    await turn();
    expect(gate.stats.bytesToApp).toBe(0);
    const app = open(1);
    await until('it is read', () => readAll(app).toString() === 'early');
  });

  it('refuses an older epoch and takes the same for the same, and keeps no descriptor of either', () => {
    const { gate, open } = setUp();
    open(5);
    const before = descriptorCount();
    const ends = (): Ends => {
      const [near, app] = native.socketPair();
      return { gate: near, app };
    };
    expect(() => gate.open(4, 'released', ends())).toThrow('epoch 4 is older than 5');
    gate.open(5, 'released', ends());
    expect(() => gate.command(4, frameOf(4, 1))).toThrow('older');
    expect(descriptorCount()).toBe(before);
  });

  it("writes the agent's own words, and no app's any more", async () => {
    const { controller, gate, open } = setUp();
    const app = open(1);
    gate.command(1, frameOf(1, 99));
    write(app, frameOf(1, 1));
    await until('it is refused', () => gate.stats.staleBytes > 0);
    expect(controller.hear().heard).toEqual([[1, 99]]);
  });

  it('loses the oldest frames when the tty takes no bytes, and cuts none', async () => {
    const { controller, gate, open } = setUp();
    const app = open(1);
    const count = 400;
    for (let n = 1; n <= count; n += 1) {
      write(app, frameOf(1, n));
      if (n % 10 === 0) await turn();
    }
    await until('all came', () => gate.stats.frames === count);
    expect(gate.stats.droppedFrames).toBeGreaterThan(0);
    const heard = await heardBy(controller, count - gate.stats.droppedFrames);
    expect(controller.garbageBytes).toBe(0);
    expect(heard.at(-1)).toEqual([1, count]);
    expect(heard.map(([, n]) => n)).toEqual(heard.map(([, n]) => n).toSorted((a, b) => a - b));
  });

  it('waits for no app that does not read', async () => {
    const { controller, gate, open } = setUp();
    const app = open(1);
    const words = 'x'.repeat(2_000);
    let said = 0;
    while (gate.stats.droppedToAppBytes === 0) {
      controller.say(words);
      said += words.length;
      await until('it is taken', () => gate.stats.bytesToApp + gate.stats.droppedToAppBytes === said);
    }
    write(app, frameOf(1, 1));
    expect(await heardBy(controller, 1)).toEqual([[1, 1]]);
  });

  it('is replaced by another that goes on in the middle of a frame', async () => {
    const { controller, gate, open } = setUp();
    const app = open(1);
    write(app, frameOf(1, 1).subarray(0, 20));
    await turn();
    await turn();
    const other = new Gate(gate.pause(), () => undefined);
    write(app, frameOf(1, 1).subarray(20));
    expect(await heardBy(controller, 1)).toEqual([[1, 1]]);
    expect(other.stats).toMatchObject({ epoch: 1, frames: 1, garbageBytes: 0 });
    other.pause();
  });

  it('says so when the tty fails', async () => {
    const { master, slave } = native.openPty();
    const lost: Error[] = [];
    const gate = new Gate({ epoch: 0, partial: Buffer.alloc(0), waiting: [], tty: slave }, (error) =>
      lost.push(error),
    );
    cleanUp(() => gate.close());
    const [near, app] = native.socketPair();
    cleanUp(() => native.close(app));
    gate.open(1, 'unknown', { gate: near, app: native.duplicate(app) });
    native.close(master);
    await until('it is told', () => lost.length > 0);
    expect(lost).toHaveLength(1);
  });
});
