import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import jpeg from 'jpeg-js';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { CAMERA, CAMERA_REFUSAL, Camera, createCameraCounts, frameBytes } from '#device-sim/camera.ts';
import { JpegEncoder } from '#device-sim/jpeg.ts';
import { LIMITS } from '#device-sim/limits.ts';
import { createState } from '#device-sim/physics.ts';
import { Random } from '#device-sim/random.ts';
import { type Pose, renderThermal, renderVisible, stampNumber } from '#device-sim/scene.ts';
import { TRUTH, Truth } from '#device-sim/truth.ts';
import { native } from '#handover/native.ts';
import { until } from '#test/sim-kit.ts';

const LEVEL: Pose = { n: 0, e: 0, d: -2, w: 1, x: 0, y: 0, z: 0 };

let directory: string;
let path: string;
let truth: Truth;
let memory: SharedArrayBuffer;
let counts: Float64Array;
let camera: Camera;
const sockets: Socket[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'midair-camera-'));
  path = join(directory, 'camera');
  truth = new Truth();
  truth.values.set(createState(2).x, TRUTH.state);
  memory = createCameraCounts();
  counts = new Float64Array(memory);
  camera = new Camera(truth, memory, 1);
  await camera.listen(path);
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await camera.close();
  await rm(directory, { recursive: true, force: true });
});

interface Frame {
  kind: number;
  number: number;
  captureUs: number;
  picture: Buffer;
}

/** A reader that takes the stream apart by the documented layout. */
const read = async () => {
  const socket = connect(path);
  sockets.push(socket);
  const frames: Frame[] = [];
  let bytes = Buffer.alloc(0);
  let ended = false;
  socket.on('close', () => {
    ended = true;
  });
  socket.on('error', () => undefined);
  socket.on('data', (chunk) => {
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.length >= 4 && bytes.length >= 4 + bytes.readUInt32LE(0)) {
      const length = bytes.readUInt32LE(0);
      const rest = bytes.subarray(4, 4 + length);
      expect([0, 1, CAMERA_REFUSAL]).toContain(rest.readUInt32LE(0));
      frames.push({
        kind: rest.readUInt8(0),
        number: rest.readUInt32LE(4),
        captureUs: rest.readDoubleLE(8),
        picture: Buffer.from(rest.subarray(16)),
      });
      bytes = bytes.subarray(4 + length);
    }
  });
  await new Promise((resolve) => socket.once('connect', resolve));
  return { socket, frames, ended: () => ended };
};
const numbersOf = (frames: Frame[], kind: number): number[] =>
  frames.filter((frame) => frame.kind === kind).map((frame) => frame.number);
const from = (first: number, length: number): number[] => Array.from({ length }, (_, i) => first + i);

test('the header, byte by byte', () => {
  const bytes = frameBytes(1, 0x01020304, 1_500_000.5, Uint8Array.of(0xaa, 0xbb));
  expect(bytes.toString('hex')).toBe('12000000' + '01000000' + '04030201' + '0000008060e33641' + 'aabb');
});

test('both streams arrive numbered without a gap, at 20 and 9 Hz by their capture times', async () => {
  const reader = await read();
  const span = (kind: number): Frame[] => reader.frames.filter((frame) => frame.kind === kind).slice(-20);
  const rateHz = (kind: number): number => {
    const [first, ...rest] = span(kind);
    return rest.length / (((rest.at(-1)?.captureUs ?? 0) - (first?.captureUs ?? 0)) / 1e6);
  };
  // On a busy machine a camera may fall behind and catch up; left alone it keeps its rate.
  const steady = (kind: number, hz: number): boolean =>
    span(kind).length === 20 && Math.abs(rateHz(kind) - hz) < 0.1 * hz;
  await until('twenty frames at 20 Hz', () => steady(0, 20));
  await until('twenty frames at 9 Hz', () => steady(1, 9));
  for (const kind of [0, 1]) {
    const numbers = numbersOf(reader.frames, kind);
    expect(numbers).toEqual(from(numbers[0] as number, numbers.length));
  }
  const visible = reader.frames.find((frame) => frame.kind === 0) as Frame;
  expect(jpeg.decode(visible.picture)).toMatchObject({ width: 160, height: 120 });
  const thermal = reader.frames.find((frame) => frame.kind === 1) as Frame;
  expect(thermal.picture.length).toBe(80 * 60);
});

test('frames are counted and numbered whether anybody reads or not', async () => {
  await until('ten frames', () => (counts[CAMERA.produced] as number) >= 10);
  expect(counts[CAMERA.sent]).toBe(0);
  expect(counts[CAMERA.unread]).toBe(counts[CAMERA.produced]);
  const reader = await read();
  await until('a frame', () => numbersOf(reader.frames, 0).length > 0);
  expect(numbersOf(reader.frames, 0)[0]).toBeGreaterThanOrEqual(10);
});

const BUSY = 'CAMERA_BUSY: the camera has another reader; stop it, or wait until it is gone';
const refusalOf = async (reader: Awaited<ReturnType<typeof read>>): Promise<string> => {
  await until('it is refused', () => reader.ended());
  expect(reader.frames.map(({ kind }) => kind)).toEqual([CAMERA_REFUSAL]);
  return reader.frames[0]?.picture.toString() ?? '';
};

test('a second reader is told so, and gets no picture; when the first goes, another may come', async () => {
  const first = await read();
  expect(await refusalOf(await read())).toBe(BUSY);
  expect(counts[CAMERA.refused]).toBe(1);
  expect(counts[CAMERA.reader]).toBe(1);
  const before = first.frames.length;
  await until('the first reads on', () => first.frames.length > before + 3);
  first.socket.destroy();
  await until('the place is free', () => counts[CAMERA.reader] === 0);
  const third = await read();
  await until('the third gets frames', () => third.frames.length > 3);
  expect(third.ended()).toBe(false);
});

test('a reader that is killed, without having read for long: its place is free at once, and no number is missing', async () => {
  const code = `require('node:net').connect(process.argv[1]).once('data', function () { this.pause(); console.log('read'); }); setInterval(() => {}, 1000)`;
  const child = spawn(process.execPath, ['-e', code, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await new Promise((resolve) => child.stdout.once('data', resolve));
    expect(await refusalOf(await read())).toBe(BUSY);
    await until('its queue is full', () => (counts[CAMERA.dropped] as number) > 0, 30_000);
    expect(await refusalOf(await read())).toBe(BUSY);
  } finally {
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
  }
  await until('the place is free', () => counts[CAMERA.reader] === 0, 1_000);
  const produced = counts[CAMERA.produced] as number;
  const next = await read();
  await until('the next one reads', () => numbersOf(next.frames, 0).length > 3);
  const numbers = numbersOf(next.frames, 0);
  expect(numbers[0]).toBeGreaterThanOrEqual(produced);
  expect(numbers).toEqual(from(numbers[0] as number, numbers.length));
}, 60_000);

test('a reader that dies while another holds its end, as the agent does: the place stays taken until that one lets go', async () => {
  const held = native.unixConnect(path);
  try {
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], {
      stdio: ['ignore', 'ignore', 'ignore', held],
    });
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
    await until('it is taken', () => counts[CAMERA.reader] === 1);
    expect(await refusalOf(await read())).toBe(BUSY);
  } finally {
    native.close(held);
  }
  await until('the place is free', () => counts[CAMERA.reader] === 0);
});

test('a reader that stops for a second loses nothing; one that stops for long loses counted frames, whole', async () => {
  const reader = await read();
  await until('a frame', () => reader.frames.length > 0);
  reader.socket.pause();
  const start = counts[CAMERA.produced] as number;
  await until('a second of frames', () => (counts[CAMERA.produced] as number) >= start + 20);
  expect(counts[CAMERA.dropped]).toBe(0);
  await until('frames are dropped', () => (counts[CAMERA.dropped] as number) >= 5, 30_000);
  const dropped = (): number => (counts[CAMERA.dropped] as number) + (counts[CAMERA.dropped + 1] as number);
  const sent = (): number => (counts[CAMERA.sent] as number) + (counts[CAMERA.sent + 1] as number);
  const before = sent();
  reader.socket.resume();
  await until('it is sent to again', () => sent() > before);
  const settled = dropped();
  const target = sent() + 10;
  await until('all that was sent is there', () => reader.frames.length >= target);
  expect(dropped()).toBe(settled);
  const numbers = numbersOf(reader.frames, 0);
  const first = numbers[0] as number;
  const missing = (numbers.at(-1) as number) - first + 1 - numbers.length;
  expect(missing).toBe(counts[CAMERA.dropped]);
  for (const kind of [0, 1]) {
    const [produced, ...parts] = [CAMERA.produced, CAMERA.sent, CAMERA.dropped, CAMERA.unread].map(
      (index) => counts[index + kind] as number,
    );
    expect(parts.reduce((sum, part) => sum + part, 0)).toBe(produced);
  }
}, 60_000);

const visible = (pose: Pose): Uint8Array => {
  const { width, height } = LIMITS.visible;
  const rgba = new Uint8Array(width * height * 4);
  renderVisible(pose, width, height, rgba);
  return rgba;
};
const meanRow = (rgba: Uint8Array, row: number): number[] =>
  [0, 1, 2].map((channel) => {
    let sum = 0;
    for (let column = 0; column < 160; column += 1) sum += rgba[(row * 160 + column) * 4 + channel] as number;
    return sum / 160;
  });

test('the picture follows the pose: sky above meadow, and the horizon moves with the pitch', () => {
  const [skyRed, , skyBlue] = meanRow(visible(LEVEL), 0) as [number, number, number];
  expect(skyBlue).toBeGreaterThan(skyRed);
  const [red, green, blue] = meanRow(visible(LEVEL), 100) as [number, number, number];
  expect(green).toBeGreaterThan(red);
  expect(green).toBeGreaterThan(blue);
  const horizon = (pose: Pose): number => {
    const rgba = visible(pose);
    let row = 0;
    while (row < 119 && (meanRow(rgba, row)[2] as number) > (meanRow(rgba, row)[1] as number)) row += 1;
    return row;
  };
  const up: Pose = { ...LEVEL, w: Math.cos(0.1), y: Math.sin(0.1) };
  expect(horizon(up)).toBeGreaterThan(horizon(LEVEL) + 5);
});

test('the thermal picture has one warm spot, where the visible one shows nothing bright', () => {
  const { width, height } = LIMITS.thermal;
  const grey = new Uint8Array(width * height);
  const random = new Random(1);
  renderThermal(LEVEL, width, height, grey, () => 0.4 * random.normal());
  const warm = [...grey].flatMap((value, index) => (value > 200 ? [index] : []));
  expect(warm.length).toBeGreaterThan(10);
  expect(warm.length).toBeLessThan(200);
  const rgba = visible(LEVEL);
  for (const index of warm) {
    const at = ((index / width) | 0) * 2 * 160 + (index % width) * 2;
    expect(rgba[at * 4] as number).toBeLessThan(140);
  }
});

test('the number is stamped so that it can be read back', () => {
  const picture = (value: number): string => {
    const bytes = new Uint8Array(80 * 60).fill(100);
    stampNumber(value, 80, 60, bytes, 1);
    return Array.from({ length: 5 }, (_, row) =>
      Array.from({ length: 7 }, (_, column) =>
        bytes[(54 + row) * 80 + 1 + column] === 255 ? '#' : '.',
      ).join(''),
    ).join('\n');
  };
  expect(picture(17)).toBe(['.#..###', '##....#', '.#....#', '.#....#', '###...#'].join('\n'));
});

test('the JPEG encoder: another decoder gives the picture back, in every quality and on noise', () => {
  const { width, height } = LIMITS.visible;
  const encode = (rgba: Uint8Array, quality: number): number => {
    const encoder = new JpegEncoder(width, height, quality);
    encoder.encode(rgba.map((value) => 255 - value));
    const { data } = jpeg.decode(encoder.encode(rgba), { useTArray: true });
    const squares = rgba.reduce((sum, value, i) => sum + (value - (data[i] as number)) ** 2, 0);
    return 10 * Math.log10(255 ** 2 / (squares / rgba.length));
  };
  const scene = visible(LEVEL);
  expect(encode(scene, 60)).toBeGreaterThan(30);
  expect(encode(scene, 95)).toBeGreaterThan(38);
  const random = new Random(5);
  const noise = Uint8Array.from({ length: width * height * 4 }, (_, i) =>
    i % 4 === 3 ? 255 : random.uint32() & 0xff,
  );
  expect(encode(noise, 100)).toBeGreaterThan(40);
});
