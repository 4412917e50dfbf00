/**
 * What a flight's record holds, channel by channel, as JSON Schema. Where Foxglove has a schema of its own, it is that one,
 * by its name and fields, so that its panels show it without being told anything.
 */
const number = { type: 'number' } as const;
const integer = { type: 'integer' } as const;
const string = { type: 'string' } as const;
const timestamp = {
  type: 'object',
  title: 'time',
  properties: {
    sec: { type: 'integer', minimum: 0 },
    nsec: { type: 'integer', minimum: 0, maximum: 999_999_999 },
  },
} as const;
const vector = { type: 'object', properties: { x: number, y: number, z: number } } as const;
const quaternion = { type: 'object', properties: { x: number, y: number, z: number, w: number } } as const;

const schema = (title: string, properties: object, description: string) => ({
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title,
  description,
  type: 'object',
  properties: { timestamp, ...properties },
});

const LOG = schema(
  'foxglove.Log',
  { level: integer, message: string, name: string, file: string, line: integer },
  'A log message',
);

export const CHANNELS = {
  imu: {
    topic: '/imu',
    schema: schema(
      'midair.Imu',
      { imu_time_us: number, angular_velocity: vector, linear_acceleration: vector },
      'What the board measured: rad/s and m/s^2, body frame, forward, left, up',
    ),
  },
  pose: {
    topic: '/pose',
    schema: schema(
      'foxglove.PoseInFrame',
      {
        frame_id: string,
        pose: { type: 'object', properties: { position: vector, orientation: quaternion } },
      },
      'A timestamped pose for an object or reference frame in 3D space',
    ),
  },
  transform: {
    topic: '/tf',
    schema: schema(
      'foxglove.FrameTransform',
      { parent_frame_id: string, child_frame_id: string, translation: vector, rotation: quaternion },
      'A transform between two reference frames in 3D space',
    ),
  },
  state: {
    topic: '/state',
    schema: schema(
      'midair.State',
      {
        velocity: vector,
        height_m: number,
        throttles: { type: 'array', items: number },
        battery_percent: number,
      },
      'True velocity (m/s, east, north, up), height, motor commands (0 to 1), battery',
    ),
  },
  command: {
    topic: '/commands',
    schema: schema(
      'midair.Command',
      {
        epoch: integer,
        sender: string,
        kind: string,
        gap_ms: { type: ['number', 'null'] },
        imu_time_us: number,
      },
      "A rotor command as the flight controller got it: the sender's epoch and release, and what the judge says of it",
    ),
  },
  owner: {
    topic: '/owner',
    schema: schema(
      'midair.Owner',
      { epoch: integer, sender: string, before_epoch: { type: ['integer', 'null'] } },
      "The rotors changed hands: the new owner's first command",
    ),
  },
  event: { topic: '/events', schema: LOG },
  mark: { topic: '/scenario', schema: LOG },
} as const;
export type ChannelName = keyof typeof CHANNELS;
