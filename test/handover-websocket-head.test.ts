/** A websocket's receiver, stopped after any byte and told as bytes, goes on elsewhere as if nothing had been. */
import { describe, expect, it } from 'vitest';
import * as ws from 'ws';
import { type Receiver, receiverHead, receiverIsKnown } from '#handover/websocket-head.ts';
import { seeded } from './handover-kit.ts';

const ReceiverOfWs = (ws as unknown as { Receiver: new (options: object) => Receiver }).Receiver;

const receiver = (events: string[]): Receiver => {
  const made = new ReceiverOfWs({ isServer: true, maxPayload: 1 << 20 });
  made.on('message', (data: Buffer, binary: boolean) =>
    events.push(`${binary ? 'b' : 't'}:${data.toString('hex')}`),
  );
  made.on('ping', (data: Buffer) => events.push(`ping:${data.toString('hex')}`));
  made.on('pong', (data: Buffer) => events.push(`pong:${data.toString('hex')}`));
  made.on('error', (error: Error) => events.push(`error:${error.message}`));
  return made;
};

/** RFC 6455 §5.2, as a client sends it. */
const frame = (fin: boolean, opcode: number, payload: Buffer, mask: Buffer): Buffer => {
  const length =
    payload.length < 126
      ? Buffer.from([0x80 | payload.length])
      : payload.length < 65_536
        ? Buffer.from([0x80 | 126, payload.length >> 8, payload.length & 255])
        : Buffer.from([
            0x80 | 127,
            0,
            0,
            0,
            0,
            0,
            payload.length >> 16,
            (payload.length >> 8) & 255,
            payload.length & 255,
          ]);
  const masked = Buffer.from(payload.map((byte, at) => byte ^ (mask[at % 4] as number)));
  return Buffer.concat([Buffer.from([(fin ? 0x80 : 0) | opcode]), length, mask, masked]);
};

/** Messages, whole or in fragments (empty ones too), with pings between. */
const stream = (random: () => number): { bytes: Buffer; starts: number[] } => {
  const parts: Buffer[] = [];
  const some = (max: number): Buffer => {
    const sizes = [0, Math.floor(random() * 10), 125, 126, Math.floor(random() * max)];
    return Buffer.alloc(sizes[Math.floor(random() * sizes.length)] as number, 97 + Math.floor(random() * 26));
  };
  const mask = (): Buffer => Buffer.from(Array.from({ length: 4 }, () => Math.floor(random() * 256)));
  for (let message = 0; message < 4; message++) {
    const fragments = random() < 0.4 ? 1 : 1 + Math.floor(random() * 4);
    const opcode = random() < 0.5 ? 1 : 2;
    for (let at = 0; at < fragments; at++) {
      if (random() < 0.3)
        parts.push(frame(true, random() < 0.5 ? 9 : 10, some(126).subarray(0, 125), mask()));
      parts.push(
        frame(
          at === fragments - 1,
          at === 0 ? opcode : 0,
          random() < 0.05 ? Buffer.alloc(65_536, 120) : some(400),
          mask(),
        ),
      );
    }
  }
  const starts: number[] = [];
  let at = 0;
  for (const part of parts) {
    starts.push(at);
    at += part.length;
  }
  return { bytes: Buffer.concat(parts), starts };
};

const feed = (into: Receiver, bytes: Buffer, random: () => number): void => {
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + Math.floor(random() * (random() < 0.5 ? 7 : bytes.length - at));
    into.write(Buffer.from(bytes.subarray(at, at + length)));
    at += length;
  }
};

describe('the head of a websocket', () => {
  it('goes on from any byte of 1,500 random streams, over up to four moves', () => {
    const states = new Set<number>();
    for (let seed = 0; seed < 1_500; seed++) {
      const random = seeded(seed);
      const { bytes, starts } = stream(random);
      const expected: string[] = [];
      feed(receiver(expected), bytes, random);
      expect(expected.some((event) => event.startsWith('error'))).toBe(false);

      const seen: string[] = [];
      let current = receiver(seen);
      // Half of them within a frame's header, where the states are.
      const cut = (): number =>
        random() < 0.5
          ? Math.floor(random() * (bytes.length + 1))
          : Math.min(
              bytes.length,
              (starts[Math.floor(random() * starts.length)] as number) + Math.floor(random() * 14),
            );
      const cuts = Array.from({ length: 1 + Math.floor(random() * 4) }, cut);
      let from = 0;
      for (const to of [...cuts.sort((a, b) => a - b), bytes.length]) {
        feed(current, bytes.subarray(from, to), random);
        from = to;
        states.add(current._state + (current._fragmented === 0 ? 0 : 10));
        expect(receiverIsKnown(current)).toBe(true);
        const head = receiverHead(current) as Buffer;
        current = receiver(seen);
        feed(current, head, random);
      }
      expect(seen, `seed ${seed}`).toEqual(expected);
    }
    // Every state was met, between messages and within fragmented ones.
    expect([...states].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
  }, 120_000);

  it('is refused when the receiver has failed, and when ws is not as it was', () => {
    const events: string[] = [];
    const failed = receiver(events);
    failed.write(Buffer.from([0xff, 0xff]));
    expect(receiverHead(failed)).toBeUndefined();
    expect(receiverIsKnown(undefined)).toBe(false);
    expect(receiverIsKnown({ _state: 'INFO' } as unknown as Receiver)).toBe(false);
  });
});
