/**
 * The UDP socket on which an ArduPilot (SITL, `--model JSON:127.0.0.1`) finds its physics.
 *
 * Invariants: only loopback is bound, since whoever can send to it flies the drone. One ArduPilot at a time: another
 * one's frames are dropped until the present one has been silent for a second. What is no servo packet is dropped and
 * told once, never answered.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { BlockList, isIP } from 'node:net';
import { pino } from 'pino';
import * as v from 'valibot';
import { AIRFRAMES } from '#device-sim/airframes.ts';
import { JsonPhysics, MOTOR_ORDER_NAMES, parseServos, type Reply } from '#device-sim/json-physics.ts';
import { COMMON, parseWith, SimError } from '#device-sim/options.ts';
import { nowUs } from '#handover/native.ts';

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

export const isLoopback = (host: string): boolean =>
  isIP(host) !== 0 && LOOPBACK.check(host, isIP(host) === 6 ? 'ipv6' : 'ipv4');

/** ArduPilot's default of `--sim-port-out`. */
export const JSON_PORT = 9_002;
/** ArduPilot repeats an unanswered frame after a second or more: whoever is silent for so long is gone. */
const PEER_SILENT_US = 1_000_000;

const schema = v.strictObject({
  ...COMMON,
  /** Its own name and default: ArduPilot looks for the physics there. */
  port: v.optional(COMMON.port.wrapped, JSON_PORT),
  host: v.optional(
    v.pipe(
      v.string('must be an address'),
      v.check(
        isLoopback,
        'must be an address of loopback (127.0.0.0/8 or ::1): whoever reaches it flies the drone',
      ),
    ),
    '127.0.0.1',
  ),
  /** The numbering of the motors there: FRAME_TYPE. */
  motors: v.optional(v.picklist(MOTOR_ORDER_NAMES, `must be one of ${MOTOR_ORDER_NAMES.join(', ')}`), 'x'),
});
export type JsonServerOptions = v.InferInput<typeof schema>;

export interface JsonServer {
  readonly host: string;
  readonly port: number;
  readonly physics: JsonPhysics;
  /** Rejects if the socket fails; resolves after `close`. */
  readonly ended: Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** @throws SimError `INVALID_OPTIONS`, `NO_START` */
export const startJsonServer = async (options: JsonServerOptions): Promise<JsonServer> => {
  const { seed, airframe, wind, motors, host, port, logLevel } = parseWith(schema, options);
  const log = pino({ name: 'sim-json', level: logLevel }, pino.destination(2));
  const physics = new JsonPhysics({ parameters: AIRFRAMES[airframe], seed, wind, motors });
  const socket = createSocket(isIP(host) === 6 ? 'udp6' : 'udp4');
  const bound = await bind(socket, host, port);
  const ended = Promise.withResolvers<void>();
  ended.promise.catch(() => undefined);
  socket.on('error', (cause) =>
    ended.reject(new SimError('NO_START', `the socket failed: ${cause.message}`, { cause })),
  );
  let peer = { name: '', heardUs: Number.NEGATIVE_INFINITY };
  const told = new Set<string>();
  const tellOnce = (kind: string, fields: object, text: string): void => {
    if (told.has(kind)) return;
    told.add(kind);
    log.warn(fields, text);
  };

  socket.on('message', (bytes, from) => {
    const packet = parseServos(bytes);
    const name = nameOf(from);
    if (typeof packet === 'string') {
      tellOnce('packet', { from: name, wrong: packet }, 'dropped what is no servo packet of ArduPilot');
      return;
    }
    const now = nowUs();
    if (name !== peer.name) {
      if (now - peer.heardUs < PEER_SILENT_US) {
        tellOnce(name, { from: name, peer: peer.name }, 'dropped: another ArduPilot flies this drone');
        return;
      }
      peer = { name, heardUs: now };
    }
    peer.heardUs = now;
    const { line, event } = physics.take(packet);
    tell(event, name, packet.frameCount, packet.frameRate);
    socket.send(line, from.port, from.address);
  });
  const tell = (event: Reply['event'], from: string, frame: number, rateHz: number): void => {
    if (event === 'start') log.info({ from, frame, rateHz }, 'an ArduPilot starts on the ground');
    else if (event === 'lost') log.debug({ from, frame }, 'frames before this one were lost');
  };

  let closing: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    await new Promise<void>((resolve) => {
      socket.close(() => resolve());
    });
    ended.resolve();
  };
  const close = (): Promise<void> => {
    closing ??= end();
    return closing;
  };
  log.info({ host, port: bound, airframe, motors, seed }, 'waits for an ArduPilot');
  return { host, port: bound, physics, ended: ended.promise, close };
};

const nameOf = ({ address, port }: RemoteInfo): string => `${address}:${port}`;

const bind = async (socket: Socket, host: string, port: number): Promise<number> =>
  await new Promise((resolve, reject) => {
    const fail = (cause: Error & { code?: string }): void => {
      const why =
        cause.code === 'EADDRINUSE'
          ? `port ${port} is taken: stop what listens there, or name another port here and as ArduPilot's --sim-port-out`
          : cause.message;
      reject(new SimError('NO_START', `no UDP socket on ${host}: ${why}`, { cause }));
    };
    socket.once('error', fail);
    socket.bind({ port, address: host, exclusive: true }, () => {
      socket.off('error', fail);
      resolve(socket.address().port);
    });
  });
