/** What the browsers get, and when, while camera and connections change hands. */
import { EventEmitter } from 'node:events';
import { afterEach, expect, it } from 'vitest';
import { type WebSocket, WebSocket as Ws } from 'ws';
import { createCamera } from '#apps/drone/camera/camera.ts';
import { LIMITS } from '#apps/drone/panel/limits.ts';
import { Viewers } from '#apps/drone/panel/viewers.ts';
import { native } from '#handover/native.ts';
import { until } from '#test/app-kit.ts';

const VIEWS = [{ kind: 0, id: 'visible', title: 'Camera', module: '/views/visible.js' }];

/** The part of a websocket that is used of it. */
class Browser extends EventEmitter {
  readonly got: string[] = [];
  readyState: number = Ws.OPEN;
  bufferedAmount = 0;
  closed: number | null = null;
  send(data: Buffer | string): void {
    this.got.push(
      typeof data === 'string' ? (JSON.parse(data) as { type: string }).type : `frame ${data[1]}`,
    );
  }
  close(code: number): void {
    this.closed = code;
  }
}
const join = (viewers: Viewers, browser = new Browser()): Browser => {
  viewers.add(browser as unknown as WebSocket);
  return browser;
};
const frame = (number: number, kind = 0, bytes = 20): Buffer => {
  const buffer = Buffer.alloc(bytes);
  buffer[0] = kind;
  buffer[1] = number;
  return buffer;
};
const frames = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => `frame ${from + i}`);

it('keeps frames until the connections are there, then sends them behind the greeting, in order', () => {
  const viewers = new Viewers('v2', VIEWS);
  viewers.frame(frame(1));
  viewers.frame(frame(2));
  viewers.frame(frame(9, 1));
  const browser = join(viewers);
  viewers.telemetry({});
  viewers.frame(frame(3));
  expect(browser.got).toEqual(['hello']);
  viewers.open();
  viewers.frame(frame(4));
  viewers.telemetry({});
  expect(browser.got).toEqual(['hello', ...frames(1, 4), 'telemetry']);
  expect(viewers.dropped).toBe(0);
});

it('says nothing more once the connections go', () => {
  const viewers = new Viewers('v1', VIEWS);
  const browser = join(viewers);
  viewers.open();
  viewers.close();
  viewers.frame(frame(1));
  viewers.telemetry({});
  expect(browser.got).toEqual(['hello']);
  expect(viewers.takeWaiting().map((bytes) => bytes[1])).toEqual([1]);
  expect(viewers.takeWaiting()).toEqual([]);
});

it('is bounded: the oldest waiting frames go first, and it says how many', () => {
  const viewers = new Viewers('v2', VIEWS);
  for (let number = 0; number < LIMITS.framesWaitingMax + 5; number += 1) viewers.frame(frame(number));
  expect(viewers.dropped).toBe(5);
  expect(viewers.takeWaiting()[0]?.[1]).toBe(5);
  for (let number = 0; number < 3; number += 1)
    viewers.frame(frame(number, 0, LIMITS.framesPassedBytesMax / 2));
  expect(viewers.takeWaiting().map((bytes) => bytes[1])).toEqual([1, 2]);
  expect(viewers.dropped).toBe(6);
});

it('does not wait for a browser that does not read', () => {
  const viewers = new Viewers('v1', VIEWS);
  const [slow, good] = [join(viewers), join(viewers)];
  viewers.open();
  slow.bufferedAmount = LIMITS.backlogBytesMax + 1;
  viewers.frame(frame(1));
  slow.bufferedAmount = 0;
  viewers.frame(frame(2));
  expect(slow.got).toEqual(['hello', 'frame 2']);
  expect(good.got).toEqual(['hello', 'frame 1', 'frame 2']);
  expect(viewers.dropped).toBe(1);
});

it('refuses more browsers than it can hand over', () => {
  const viewers = new Viewers('v1', VIEWS);
  for (let count = 0; count < LIMITS.connectionsMax; count += 1) join(viewers);
  expect(join(viewers).closed).toBe(1013);
  expect(viewers.count).toBe(LIMITS.connectionsMax);
});

const open: number[] = [];
afterEach(() => {
  for (const fd of open.splice(0)) native.close(fd);
});

it('passes the camera there and back with nothing lost: half a frame, and frames that found no connection', async () => {
  const [source, reader] = native.socketPair();
  open.push(source);
  const write = (bytes: Buffer) => native.write(source, bytes, 0, bytes.length);
  const whole = (number: number) => {
    const bytes = Buffer.concat([Buffer.alloc(4), frame(number)]);
    bytes.writeUInt32LE(20, 0);
    return bytes;
  };
  const grant = (fd: number, payload: object | null) =>
    ({ from: 'release', payload, descriptors: new Map([['camera', fd]]), epoch: 1 }) as never;
  const [one, two] = [new Viewers('v1', VIEWS), new Viewers('v2', VIEWS)];
  const [first, second] = [createCamera(one, () => {}), createCamera(two, () => {})];

  const browser = join(one);
  one.open();
  await first.grant(grant(native.duplicate(reader), null));
  write(Buffer.concat([whole(1), whole(2), whole(3).subarray(0, 9)]));
  await until('two frames and a half', () => browser.got.length === 3);
  const there = await first.release(50);
  first.drop();

  // The second version gets the camera and never the connections: all it reads goes back.
  await second.grant(grant(native.duplicate(reader), there.payload));
  write(Buffer.concat([whole(3).subarray(9), whole(4), whole(5).subarray(0, 4)]));
  await until('it has read', () => {
    const { length } = two.takeWaiting().map((bytes) => two.frame(bytes));
    return length === 2;
  });
  const back = await second.release(50);
  second.drop();

  await first.grant(grant(reader, JSON.parse(JSON.stringify(back.payload))));
  write(whole(5).subarray(4));
  await until('the fifth', () => browser.got.includes('frame 5'));
  first.drop();
  expect(browser.got).toEqual(['hello', ...frames(1, 5)]);
});
