/**
 * ArduPilot's JSON physics interface. The bytes are built from its specification (libraries/SITL/examples/JSON/readme.md
 * and SIM_JSON.h), not captured from an ArduPilot: none is on this machine.
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { AIRFRAME_NAMES, AIRFRAMES, type AirframeName } from '#device-sim/airframes.ts';
import {
  JsonPhysics,
  MOTOR_ORDERS,
  parseServos,
  type ServoPacket,
  throttleOf,
} from '#device-sim/json-physics.ts';
import {
  isLoopback,
  type JsonServer,
  type JsonServerOptions,
  startJsonServer,
} from '#device-sim/json-server.ts';
import { AT, hoverThrottle } from '#device-sim/physics.ts';
import { LeePilot } from '#test/sim-lee.ts';

/** magic 18458, 400 Hz, frame 7, motors at 1500, 1501, 1502 and 1503 us, the rest at 1000. */
const GOLDEN_16 = `1a48 9001 07000000 dc05 dd05 de05 df05 ${'e803 '.repeat(12)}`.replaceAll(' ', '');
/** magic 29569, 1200 Hz, frame 65536, 32 channels, of which the first is 2000 and the last not used. */
const GOLDEN_32 = `8173 b004 00000100 d007 ${'dc05 '.repeat(30)} 0000`.replaceAll(' ', '');

const packet = (frameCount: number, pwm: readonly number[], frameRate = 400): Buffer => {
  const bytes = Buffer.alloc(40);
  bytes.writeUInt16LE(18458, 0);
  bytes.writeUInt16LE(frameRate, 2);
  bytes.writeUInt32LE(frameCount, 4);
  for (let at = 0; at < 16; at += 1) bytes.writeUInt16LE(pwm[at] ?? 0, 8 + 2 * at);
  return bytes;
};
const servos = (frameCount: number, pwm: readonly number[], frameRate = 400): ServoPacket => {
  const parsed = parseServos(packet(frameCount, pwm, frameRate));
  if (typeof parsed === 'string') throw new Error(parsed);
  return parsed;
};
/** The output that `throttleOf` turns into this throttle. */
const pwmOf = (throttle: number): number => {
  const output = (-0.35 + Math.sqrt(0.35 ** 2 + 4 * 0.65 * throttle)) / (2 * 0.65);
  return Math.round(1000 + 1000 * output);
};

interface Report {
  timestamp: number;
  imu: { gyro: number[]; accel_body: number[] };
  position: number[];
  attitude: number[];
  quaternion: number[];
  velocity: number[];
  velocity_wind: number[];
  battery: { voltage: number; current: number };
}
const reportOf = (line: string): Report => JSON.parse(line) as Report;
const stateOf = ({ position, velocity, quaternion, imu }: Report): number[] => [
  ...position,
  ...velocity,
  ...quaternion,
  ...imu.gyro,
];

describe('the packet', () => {
  test('16 channels, from bytes in hex', () => {
    expect(parseServos(Buffer.from(GOLDEN_16, 'hex'))).toEqual({
      frameRate: 400,
      frameCount: 7,
      pwm: [1500, 1501, 1502, 1503, ...Array<number>(12).fill(1000)],
    });
  });

  test('32 channels, from bytes in hex', () => {
    expect(parseServos(Buffer.from(GOLDEN_32, 'hex'))).toEqual({
      frameRate: 1200,
      frameCount: 65_536,
      pwm: [2000, ...Array<number>(30).fill(1500), 0],
    });
  });

  test.each([
    ['1a48', '2 bytes are too few'],
    [`0000${GOLDEN_16.slice(4)}`, 'magic 0 is neither 18458 (16 channels) nor 29569 (32 channels)'],
    [GOLDEN_16.slice(0, -2), '39 bytes, where 16 channels take 40'],
    [`${GOLDEN_16}00`, '41 bytes, where 16 channels take 40'],
    [GOLDEN_16.replace('9001', '0000'), 'frame rate 0'],
  ])('%s: %s', (hex, wrong) => {
    expect(parseServos(Buffer.from(hex, 'hex'))).toBe(wrong);
  });
});

describe('the exchange', () => {
  const start = () => new JsonPhysics({ parameters: AIRFRAMES.x500, seed: 1 });

  test('a golden first reply: on the ground, the fields of the readme, a newline on both sides', () => {
    const { line, event } = start().take(servos(0, [1000, 1000, 1000, 1000]));
    expect(event).toBe('start');
    expect(line).toBe(
      '\n{"timestamp":0.0025,"imu":{"gyro":[0,0,0],"accel_body":[0,0,-9.80665]},"position":[0,0,0],' +
        '"attitude":[0,0,0],"quaternion":[1,0,0,0],"velocity":[0,0,0],"velocity_wind":[0,0,0],' +
        '"battery":{"voltage":16.4116,"current":0}}\n',
    );
    // SIM_JSON.cpp looks for the first "velocity" in the text.
    expect(line.indexOf('velocity')).toBe(line.indexOf('"velocity":') + 1);
  });

  test('time goes with the frames; one that was answered is answered with the same bytes, and moves nothing', () => {
    const physics = start();
    const full = [1900, 1900, 1900, 1900];
    for (let frame = 0; frame < 400; frame += 1) physics.take(servos(frame, full));
    const last = physics.take(servos(400, full));
    const height = physics.state.x[AT.position + 2];
    expect(reportOf(last.line).timestamp).toBeCloseTo(401 / 400, 9);
    expect(height).toBeLessThan(-1);
    for (let times = 0; times < 3; times += 1) {
      expect(physics.take(servos(400, [1000, 1000, 1000, 1000]))).toEqual({
        line: last.line,
        event: 'repeat',
      });
    }
    expect(physics.state.x[AT.position + 2]).toBe(height);
    expect(physics.take(servos(403, full)).event).toBe('lost');
  });

  test('a count that goes back is a restarted ArduPilot: back on the ground, at time 0, the same flight again', () => {
    const physics = start();
    const flight = (): string[] =>
      Array.from({ length: 200 }, (_, frame) => physics.take(servos(frame, [1900, 1900, 1900, 1900])).line);
    const first = flight();
    expect(physics.take(servos(0, [1000, 1000, 1000, 1000]))).toMatchObject({ event: 'start' });
    expect(physics.state.onGround).toBe(true);
    expect(
      new JsonPhysics({ parameters: AIRFRAMES.x500, seed: 1 }).take(servos(0, [1900, 1900, 1900, 1900])).line,
    ).toBe(first[0]);
  });

  test('the step is one frame long, at most 50 ms, whatever the rate', () => {
    const physics = start();
    expect(reportOf(physics.take(servos(0, [], 1)).line).timestamp).toBeCloseTo(0.05, 12);
    expect(reportOf(physics.take(servos(1, [], 65_535)).line).timestamp).toBeCloseTo(0.05 + 1 / 65_535, 12);
  });

  test("outputs become throttles along ArduPilot's thrust curve, and stay within 0 and 1", () => {
    expect([0, 900, 1000, 1500, 2000, 2500].map(throttleOf)).toEqual([
      0,
      0,
      0,
      0.35 * 0.5 + 0.65 * 0.25,
      1,
      1,
    ]);
    for (const throttle of [0.1, 0.5, 0.9]) expect(throttleOf(pwmOf(throttle))).toBeCloseTo(throttle, 2);
  });

  test.each([
    // SIM_Frame.cpp, quad_x_motors: 45, -135, -45, 135 degrees.
    ['x', ['front right', 'rear left', 'front left', 'rear right']],
    ['bfx', ['rear right', 'front right', 'rear left', 'front left']],
    ['djix', ['front right', 'front left', 'rear left', 'rear right']],
    ['cwx', ['front right', 'rear right', 'rear left', 'front left']],
  ] as const)('FRAME_TYPE %s: output 1 to 4 is %s', (motors, places) => {
    places.forEach((place, output) => {
      const physics = new JsonPhysics({ parameters: AIRFRAMES.x500, seed: 1, motors });
      const all = [1800, 1800, 1800, 1800];
      for (let frame = 0; frame < 200; frame += 1) physics.take(servos(frame, all));
      const more = all.map((pwm, at) => (at === output ? pwm + 20 : pwm));
      for (let frame = 200; frame < 220; frame += 1) physics.take(servos(frame, more));
      const [roll, pitch] = physics.state.x.subarray(AT.rates) as unknown as [number, number];
      // The front pitches it up, the right side rolls it left.
      expect([pitch > 0 ? 'front' : 'rear', roll < 0 ? 'right' : 'left'].join(' ')).toBe(place);
    });
    expect(new Set(MOTOR_ORDERS[motors])).toEqual(new Set([0, 1, 2, 3]));
  });
});

/** Attitude slower than the motors, position slower than the attitude, both critically damped. */
const pilotOf = (airframe: AirframeName, goal: [number, number, number]): LeePilot => {
  const parameters = AIRFRAMES[airframe];
  const { massKg, inertiaKgM2, motorTauS } = parameters;
  const turn = 1 / (4 * motorTauS + 0.02);
  const move = turn / 5;
  const gains = {
    kx: massKg * move ** 2,
    kv: massKg * 2 * move,
    kR: inertiaKgM2[0] * turn ** 2,
    kOmega: inertiaKgM2[0] * 2 * turn,
  };
  return new LeePilot(parameters, gains, goal);
};

test.each(AIRFRAME_NAMES)('%s takes off to its place and hovers there, flown by PWM alone', (airframe) => {
  const parameters = AIRFRAMES[airframe];
  const physics = new JsonPhysics({ parameters, seed: 1 });
  const pilot = pilotOf(airframe, [0.5, -0.5, -2]);
  let report = reportOf(physics.take(servos(0, [1000, 1000, 1000, 1000])).line);
  for (let frame = 1; frame < 6_000; frame += 1) {
    const throttles = pilot.fly(stateOf(report), 1 / 400);
    report = reportOf(physics.take(servos(frame, Array.from(throttles, pwmOf))).line);
  }
  // Without an integral a sagging battery costs some height, and 1 us of PWM is coarse for a Crazyflie.
  [0.5, -0.5, -2].forEach((goal, axis) => {
    expect(Math.abs((report.position[axis] as number) - goal)).toBeLessThan(0.2);
  });
  expect(Math.hypot(...report.velocity)).toBeLessThan(0.05);
  expect(report.imu.accel_body[2]).toBeCloseTo(-9.8, 0);
  const { voltage, current } = report.battery;
  const { cells, capacityAh, hoverS } = parameters.battery;
  expect((voltage * current) / ((capacityAh * 3600 * cells * 3.8) / hoverS)).toBeCloseTo(1, 0);
});

describe('the socket', () => {
  const endings: (() => unknown)[] = [];
  afterEach(async () => {
    for (const end of endings.splice(0).reverse()) await end();
  });
  const serve = async (options: JsonServerOptions = {}): Promise<JsonServer> => {
    const server = await startJsonServer({ port: 0, logLevel: 'silent', airframe: 'x500', ...options });
    endings.push(() => server.close());
    return server;
  };
  const client = (): Socket => {
    const socket = createSocket('udp4');
    endings.push(() => socket.close());
    return socket;
  };
  const ask = async (socket: Socket, server: JsonServer, bytes: Uint8Array): Promise<string> => {
    const answered = once(socket, 'message', { signal: AbortSignal.timeout(5_000) });
    socket.send(bytes, server.port, server.host);
    const [answer] = (await answered) as [Buffer];
    return answer.toString();
  };

  test('the x500 takes off, flown over UDP in lockstep', async () => {
    const server = await serve();
    const socket = client();
    const pilot = pilotOf('x500', [0, 0, -2]);
    let report = reportOf(await ask(socket, server, packet(0, [1000, 1000, 1000, 1000])));
    for (let frame = 1; frame < 1_200; frame += 1) {
      const throttles = pilot.fly(stateOf(report), 1 / 400);
      report = reportOf(await ask(socket, server, packet(frame, Array.from(throttles, pwmOf))));
    }
    expect(report.timestamp).toBeCloseTo(3, 6);
    expect(report.position[2]).toBeLessThan(-1.8);
  });

  test('wind blows it away, and is told', async () => {
    const server = await serve({ wind: { speedMS: 4, fromDeg: 270, turbulence: 'none', gustMS: 0 } });
    const socket = client();
    const lift = pwmOf(1.05 * hoverThrottle(AIRFRAMES.x500));
    let report = reportOf(await ask(socket, server, packet(0, [])));
    for (let frame = 1; frame < 800; frame += 1) {
      report = reportOf(await ask(socket, server, packet(frame, [lift, lift, lift, lift])));
    }
    expect(report.velocity_wind.map((value) => Math.round(value * 1e6) / 1e6)).toEqual([0, 4, 0]);
    expect(report.position[1]).toBeGreaterThan(0.3);
    expect(Math.abs(report.position[0] as number)).toBeLessThan(1e-6);
  });

  test('garbage is not answered, and a second ArduPilot not while the first one flies', async () => {
    const server = await serve();
    const [first, second] = [client(), client()];
    let heard = 0;
    second.on('message', () => {
      heard += 1;
    });
    await ask(first, server, packet(0, [1000]));
    const send = async (bytes: Uint8Array): Promise<void> =>
      await new Promise((resolve, reject) => {
        second.send(bytes, server.port, server.host, (error) => (error ? reject(error) : resolve()));
      });
    await send(packet(5, [2000, 2000, 2000, 2000]));
    await send(Buffer.from('{"not":"a packet"}'));
    // Whatever the second one sent came before this.
    const report = reportOf(await ask(first, server, packet(1, [1000])));
    expect(report.timestamp).toBeCloseTo(2 / 400, 9);
    expect(heard).toBe(0);
    expect(server.physics.state.onGround).toBe(true);
  });

  test.each(['0.0.0.0', '::', '192.168.1.1', 'example.org', ''])('%s is no place to listen', async (host) => {
    await expect(serve({ host })).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      message: expect.stringContaining('loopback'),
    });
  });

  test('what is loopback', () => {
    expect(['127.0.0.1', '127.3.2.1', '::1', '128.0.0.1', '::2', 'localhost'].map(isLoopback)).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  test('a taken port is told with what to do', async () => {
    const { port } = await serve();
    await expect(serve({ port })).rejects.toMatchObject({
      code: 'NO_START',
      message: expect.stringContaining('sim-port-out'),
    });
  });
});
