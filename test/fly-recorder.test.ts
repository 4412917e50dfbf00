/** The flight recorder: what is put in comes out of the file, as readers of the format expect it. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { FlightRecorder } from '#cli/fly/recorder.ts';
import { CHANNELS } from '#cli/fly/recorder-schemas.ts';
import type { FlightSample } from '#cli/sim-client.ts';
import { readRecord } from '#test/fly-kit.ts';

const directory = mkdtempSync(join(tmpdir(), 'midair-record-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const OFFSET_US = 1.7e15;
const PERIOD_US = 4_000;
/** North-east of the start, 3 m up, nose to the east, level. */
const sampleAt = (index: number): FlightSample => ({
  tUs: 1_000_000 + index * PERIOD_US,
  imuUs: 1_000_000 + index * PERIOD_US - 100,
  gyro: [0.1, 0.2, 0.3],
  accelerometer: [0, 0.5, -9.8],
  position: [1, 2, -3],
  velocity: [0.5, 0, 0.25],
  attitude: [Math.SQRT1_2, 0, 0, Math.SQRT1_2],
  throttles: [0.5, 0.5, 0.5, 0.5],
  batteryPercent: 90,
});
const commandAt = (index: number, epoch: number, kind = 'fresh') => ({
  tUs: 1_001_000 + index * PERIOD_US,
  epoch,
  imuUs: 1_000_000 + index * PERIOD_US,
  gapMs: kind === 'fresh' ? 4 : null,
  kind,
});

test('a flight goes in piece by piece and comes out whole: counts, order, names, times', async () => {
  const recorder = await FlightRecorder.open(join(directory, 'whole.mcap'), 'drone-1', OFFSET_US);
  const releaseOf = (epoch: number) => (epoch === 4 ? 'v1' : epoch === 8 ? 'v2' : undefined);
  for (let second = 0; second < 20; second += 1) {
    const ticks = Array.from({ length: 250 }, (_, tick) => second * 250 + tick);
    // Not awaited: the recorder keeps the order by itself.
    void recorder.flight(ticks.map(sampleAt));
    void recorder.commands(
      ticks.map((tick) => commandAt(tick, tick < 2_500 ? 4 : 8)),
      releaseOf,
    );
    void recorder.log('event', 1_000_000 + second * 1e6, 'handover.release', 'prior is asked', 'warning');
  }
  await recorder.commands([commandAt(5_000, 4, 'stale')], releaseOf);
  await recorder.log('mark', 2_000_000, 'drone-1', 'takeoff 5m');
  await recorder.close();
  await recorder.close();
  // After the end nothing is taken, and nothing fails.
  await recorder.log('mark', 3_000_000, 'drone-1', 'late');

  const { messages, schemas, messageCount, chunks, compression } = await readRecord(recorder.path);
  const of = (topic: string) => messages.filter((message) => message.topic === topic);
  expect(recorder.counts).toEqual({
    ...{ imu: 5_000, pose: 1_000, transform: 1_000, state: 1_000 },
    ...{ command: 5_001, owner: 2, event: 20, mark: 1 },
  });
  for (const [name, { topic }] of Object.entries(CHANNELS)) {
    expect(of(topic).length, topic).toBe(recorder.counts[name as keyof typeof CHANNELS]);
  }
  expect(messageCount).toBe(BigInt(messages.length));
  expect(chunks).toBeGreaterThan(1);
  expect(compression).toEqual(['zstd']);
  expect(Object.fromEntries([...schemas].map(([topic, { name }]) => [topic, name]))).toEqual({
    '/imu': 'midair.Imu',
    '/pose': 'foxglove.PoseInFrame',
    '/tf': 'foxglove.FrameTransform',
    '/state': 'midair.State',
    '/commands': 'midair.Command',
    '/owner': 'midair.Owner',
    '/events': 'foxglove.Log',
    '/scenario': 'foxglove.Log',
  });
  // Every field that is written is in its schema.
  for (const { topic, data } of messages) {
    expect(schemas.get(topic)?.encoding).toBe('jsonschema');
    expect(schemas.get(topic)?.properties).toEqual(expect.arrayContaining(Object.keys(data)));
  }
  // Unix nanoseconds, the same in the message and in its index.
  const [first] = of('/imu');
  expect(first?.logTime).toBe(BigInt(OFFSET_US + 1_000_000) * 1_000n);
  expect(first?.data.timestamp).toEqual({ sec: 1_700_000_001, nsec: 0 });
  expect(of('/owner').map(({ data }) => [data.sender, data.epoch, data.before_epoch])).toEqual([
    ['v1', 4, null],
    ['v2', 8, 4],
  ]);
  expect(of('/commands').at(-1)?.data).toMatchObject({ kind: 'stale', sender: 'v1', epoch: 4 });
  expect(of('/events')[0]?.data).toMatchObject({ level: 3, name: 'handover.release' });
});

test('what was NED and FRD is ENU and FLU: east is x, up is z, a drone that looks east is not turned', async () => {
  const recorder = await FlightRecorder.open(join(directory, 'turned.mcap'), 'd', OFFSET_US);
  await recorder.flight([sampleAt(0)]);
  await recorder.close();
  const { messages } = await readRecord(recorder.path);
  const of = (topic: string) => messages.find((message) => message.topic === topic)?.data as never;
  const { pose } = of('/pose') as {
    pose: { position: object; orientation: Record<'w' | 'x' | 'y' | 'z', number> };
  };
  expect(pose.position).toEqual({ x: 2, y: 1, z: 3 });
  const { w, x, y, z } = pose.orientation;
  expect(w).toBeCloseTo(1, 9);
  expect(Math.hypot(x, y, z)).toBeCloseTo(0, 9);
  expect(of('/imu')).toMatchObject({
    angular_velocity: { x: 0.1, y: -0.2, z: -0.3 },
    linear_acceleration: { x: 0, y: -0.5, z: 9.8 },
  });
  expect(of('/state')).toMatchObject({ velocity: { x: 0, y: 0.5, z: -0.25 }, height_m: 3 });
});

test('memory does not grow with the flight: ten minutes go to the disk as they come', async () => {
  const recorder = await FlightRecorder.open(join(directory, 'long.mcap'), 'd', OFFSET_US);
  const bytes: number[] = [];
  for (let second = 0; second < 600; second += 10) {
    await recorder.flight(Array.from({ length: 2_500 }, (_, tick) => sampleAt(second * 250 + tick)));
    bytes.push(statSync(recorder.path).size);
  }
  // What waits in memory is never more than a chunk, so the file grows all the way.
  const flat = bytes.filter((size, at) => at > 0 && size === bytes[at - 1]).length;
  expect(flat).toBe(0);
  await recorder.close();
  expect(recorder.counts.imu).toBe(150_000);
  expect(statSync(recorder.path).size).toBeLessThan(60e6);
});
