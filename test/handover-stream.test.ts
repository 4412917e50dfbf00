import { describe, expect, it } from 'vitest';
import { BOUNDS } from '#handover/bounds.ts';
import { closeAll } from '#handover/lines.ts';
import { AGAIN, native } from '#handover/native.ts';
import { FrameStream, type FramesPayload } from '#handover/stream.ts';
import { cleanUp, descriptorCount, seeded, turn, until } from './handover-kit.ts';

const framed = (body: Buffer): Buffer => {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(body.length);
  return Buffer.concat([length, body]);
};
const holder = () => {
  const frames: Buffer[] = [];
  const ends: (Error | undefined)[] = [];
  const stream = new FrameStream({
    onFrame: (frame) => frames.push(frame),
    onEnd: (error) => ends.push(error),
  });
  cleanUp(() => stream.drop());
  const start = (fd: number, payload: FramesPayload | null = null): Promise<void> =>
    stream.grant({
      from: payload === null ? 'start' : 'release',
      payload,
      descriptors: new Map([['camera', native.duplicate(fd)]]),
      epoch: 1,
    });
  return { stream, frames, ends, start };
};

describe('a stream of frames', () => {
  it('passes to and fro 300 times, cut at any byte, with every frame once and whole', async () => {
    const before = descriptorCount();
    const random = seeded(21);
    const [source, reader] = native.socketPair();
    let made = 0;
    let pending = Buffer.alloc(0);
    const push = (): void => {
      if (pending.length < 100_000) {
        const body = Buffer.alloc(8 + Math.floor(random() * (random() < 0.1 ? 60_000 : 900)), made % 251);
        body.writeUInt32LE(made, 0);
        made += 1;
        pending = Buffer.concat([pending, framed(body)]);
      }
      const length = 1 + Math.floor(random() * (pending.length - 1));
      const sent = native.send(source, pending, 0, length, []);
      if (sent !== AGAIN) pending = pending.subarray(sent);
    };
    const holders = [holder(), holder()];
    let [owner, other] = holders as [ReturnType<typeof holder>, ReturnType<typeof holder>];
    const seen: number[] = [];
    const collect = ({ frames }: typeof owner): void => {
      for (const frame of frames.splice(0)) {
        const number = frame.readUInt32LE(0);
        expect(frame.subarray(4).every((byte) => byte === number % 251)).toBe(true);
        seen.push(number);
      }
    };
    await owner.start(reader);
    let partials = 0;
    for (let round = 0; round < 300; round++) {
      for (let n = Math.floor(random() * 4); n >= 0; n--) {
        push();
        await turn();
      }
      const { payload } = await owner.stream.release();
      if (payload.leftover !== '') partials += 1;
      collect(owner);
      await other.start(reader, payload);
      owner.stream.drop();
      [owner, other] = [other, owner];
    }
    while (pending.length > 0) {
      const sent = native.send(source, pending, 0, pending.length, []);
      if (sent === AGAIN) await turn();
      else pending = pending.subarray(sent);
    }
    await until('all came', () => {
      collect(owner);
      return seen.length >= made;
    });
    expect(seen).toEqual(Array.from({ length: made }, (_, n) => n));
    expect(partials).toBeGreaterThan(50);
    owner.stream.drop();
    closeAll([source, reader]);
    expect(descriptorCount()).toBe(before);
  });

  it('leaves to its successor what a frame’s own callback lets go', async () => {
    const [source, reader] = native.socketPair();
    let payload: FramesPayload | undefined;
    const first = new FrameStream({
      onFrame: () => {
        void first.release().then((released) => {
          payload = released.payload;
        });
      },
    });
    await first.grant({
      from: 'start',
      payload: null,
      descriptors: new Map([['camera', native.duplicate(reader)]]),
      epoch: 1,
    });
    const bytes = Buffer.concat([
      framed(Buffer.from('one')),
      framed(Buffer.from('two')),
      framed(Buffer.from('three')),
    ]);
    native.send(source, bytes, 0, bytes.length, []);
    await until('it let go', () => payload !== undefined);
    const second = holder();
    await second.start(reader, payload as FramesPayload);
    first.drop();
    await until('the rest came', () => second.frames.length === 2);
    expect(second.frames.map(String)).toEqual(['two', 'three']);
    closeAll([source, reader]);
  });

  it('tells of an end and of a broken framing, and refuses a leftover that is none', async () => {
    for (const length of [0, BOUNDS.frameBytesMax + 1]) {
      const [source, reader] = native.socketPair();
      const { ends, frames, start } = holder();
      await start(reader);
      const bytes = Buffer.alloc(8);
      bytes.writeUInt32LE(length);
      native.send(source, bytes, 0, bytes.length, []);
      await until('it is told', () => ends.length === 1);
      expect(ends[0]).toMatchObject({ code: 'FRAME_TOO_LARGE' });
      expect(frames).toEqual([]);
      closeAll([source, reader]);
    }
    const [source, reader] = native.socketPair();
    const { ends, stream, start } = holder();
    await start(reader);
    native.close(source);
    await until('the end', () => ends.length === 1);
    expect(ends[0]).toBeUndefined();
    await expect(stream.release()).rejects.toMatchObject({ code: 'NOT_OWNER' });
    const huge = { leftover: Buffer.alloc(BOUNDS.frameBytesMax + 5).toString('base64') };
    await expect(Promise.resolve().then(() => start(reader, huge))).rejects.toMatchObject({
      code: 'WRONG_PAYLOAD',
    });
    native.close(reader);
  });
});
