/**
 * The flight recorder: one MCAP file a drone, for Foxglove and every other reader of the format.
 *
 * Invariant: written as the flight goes, in chunks of bounded size; what it counts is what it wrote. Times are Unix
 * nanoseconds; places and attitudes are turned from NED and FRD to ENU and FLU, as readers expect.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { zstdCompressSync } from 'node:zlib';
import { McapWriter } from '@mcap/core';
import { FLY } from '#cli/fly/limits.ts';
import { CHANNELS, type ChannelName } from '#cli/fly/recorder-schemas.ts';
import { PERIOD_MS } from '#cli/limits.ts';
import type { FlightSample, Trace } from '#cli/sim-client.ts';

export type Counts = Readonly<Record<ChannelName, number>>;
type Command = Trace['commands'][number];

const POSE_EVERY = Math.round(1000 / PERIOD_MS / FLY.poseHz);
const LEVELS = { info: 2, warning: 3, error: 4 } as const;

export class FlightRecorder {
  readonly path: string;
  readonly #file: FileHandle;
  readonly #writer: McapWriter;
  readonly #channels = new Map<ChannelName, { id: number; sequence: number }>();
  /** From the monotonic clock to Unix time, us. */
  readonly #offsetUs: number;
  #samples = 0;
  #owner: number | undefined;
  /** One write after the other: the writer asks for it. */
  #queue: Promise<void> = Promise.resolve();

  /** @param drone its name; @param offsetUs from the monotonic clock to Unix time */
  static async open(path: string, drone: string, offsetUs: number): Promise<FlightRecorder> {
    const recorder = new FlightRecorder(path, await open(path, 'w'), offsetUs);
    await recorder.#begin(drone);
    return recorder;
  }

  private constructor(path: string, file: FileHandle, offsetUs: number) {
    this.path = path;
    this.#file = file;
    this.#offsetUs = offsetUs;
    let position = 0n;
    this.#writer = new McapWriter({
      chunkSize: FLY.chunkBytes,
      compressChunk: (data) => ({ compression: 'zstd', compressedData: zstdCompressSync(data) }),
      writable: {
        position: () => position,
        write: async (bytes) => {
          await file.writeFile(bytes);
          position += BigInt(bytes.length);
        },
      },
    });
  }

  async #begin(drone: string): Promise<void> {
    const writer = this.#writer;
    await writer.start({ profile: '', library: 'midair' });
    const schemas = new Map<string, number>();
    for (const [name, { schema, topic }] of Object.entries(CHANNELS)) {
      const { title } = schema;
      const schemaId =
        schemas.get(title) ??
        (await writer.registerSchema({
          name: title,
          encoding: 'jsonschema',
          data: Buffer.from(JSON.stringify(schema)),
        }));
      schemas.set(title, schemaId);
      const id = await writer.registerChannel({
        schemaId,
        topic,
        messageEncoding: 'json',
        metadata: new Map([['drone', drone]]),
      });
      this.#channels.set(name as ChannelName, { id, sequence: 0 });
    }
  }

  get counts(): Counts {
    const entries = [...this.#channels].map(([name, { sequence }]) => [name, sequence]);
    return Object.fromEntries(entries) as Counts;
  }

  /** Of the IMU all, of the poses every fifth. */
  flight(samples: readonly FlightSample[]): Promise<void> {
    return this.#then(async () => {
      for (const sample of samples) {
        const { tUs, imuUs, gyro, accelerometer } = sample;
        await this.#add('imu', tUs, {
          imu_time_us: imuUs,
          angular_velocity: flu(gyro),
          linear_acceleration: flu(accelerometer),
        });
        if (this.#samples % POSE_EVERY === 0) await this.#pose(sample);
        this.#samples += 1;
      }
    });
  }

  async #pose({ tUs, position, velocity, attitude, throttles, batteryPercent }: FlightSample): Promise<void> {
    const [translation, rotation] = [enu(position), enuAttitude(attitude)];
    await this.#add('pose', tUs, {
      frame_id: 'world',
      pose: { position: translation, orientation: rotation },
    });
    await this.#add('transform', tUs, {
      parent_frame_id: 'world',
      child_frame_id: 'drone',
      translation,
      rotation,
    });
    await this.#add('state', tUs, {
      velocity: enu(velocity),
      height_m: -(position[2] as number),
      throttles,
      battery_percent: batteryPercent,
    });
  }

  /** @param releaseOf whose epoch it is, as far as it is known */
  commands(commands: readonly Command[], releaseOf: (epoch: number) => string | undefined): Promise<void> {
    return this.#then(async () => {
      for (const { tUs, epoch, imuUs, gapMs, kind } of commands) {
        const sender = releaseOf(epoch) ?? '';
        await this.#add('command', tUs, { epoch, sender, kind, gap_ms: gapMs, imu_time_us: imuUs });
        if (kind !== 'fresh' || epoch === this.#owner) continue;
        await this.#add('owner', tUs, { epoch, sender, before_epoch: this.#owner ?? null });
        this.#owner = epoch;
      }
    });
  }

  /** A line for a person: what the agent told, what the scenario did. */
  log(
    channel: 'event' | 'mark',
    tUs: number,
    name: string,
    message: string,
    level: keyof typeof LEVELS = 'info',
  ): Promise<void> {
    const line = { level: LEVELS[level], message, name, file: '', line: 0 };
    return this.#then(() => this.#add(channel, tUs, line));
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#then(async () => {
      if (this.#closed) return;
      this.#closed = true;
      await this.#writer.end();
      await this.#file.close();
    });
  }
  #closed = false;

  #then(act: () => Promise<void>): Promise<void> {
    const done = this.#queue.then(act);
    this.#queue = done.catch(() => undefined);
    return done;
  }

  async #add(name: ChannelName, tUs: number, fields: object): Promise<void> {
    const channel = this.#channels.get(name);
    if (channel === undefined || this.#closed) return;
    const unixUs = BigInt(Math.round(tUs + this.#offsetUs));
    const logTime = unixUs * 1_000n;
    const timestamp = { sec: Number(unixUs / 1_000_000n), nsec: Number((unixUs % 1_000_000n) * 1_000n) };
    const data = Buffer.from(JSON.stringify({ timestamp, ...fields }));
    const { id, sequence } = channel;
    channel.sequence += 1;
    await this.#writer.addMessage({ channelId: id, sequence, logTime, publishTime: logTime, data });
  }
}

const xyz = (x: number, y: number, z: number) => ({ x, y, z });
/** Body: forward, right, down to forward, left, up. */
const flu = ([x = 0, y = 0, z = 0]: readonly number[]) => xyz(x, -y, -z);
/** World: north, east, down to east, north, up. */
const enu = ([x = 0, y = 0, z = 0]: readonly number[]) => xyz(y, x, -z);

const HALF = Math.SQRT1_2;
/** FRD in NED, w first, to FLU in ENU: half a turn about the world's (1, 1, 0), and half a turn about the body's x. */
const enuAttitude = ([w = 1, x = 0, y = 0, z = 0]: readonly number[]) => ({
  w: HALF * (w + z),
  x: HALF * (x + y),
  y: HALF * (x - y),
  z: HALF * (w - z),
});
