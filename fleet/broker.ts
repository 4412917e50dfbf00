/**
 * The fleet link: an MQTT broker in the hub, and the door for what devices say.
 *
 * Invariant: what a device sent is in the store before it is acknowledged, or it was refused and logged with the
 * device's name. Only the hub publishes targets. The broker's memory is a copy: everything is in the store.
 */

import type { EventEmitter } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { Duplex } from 'node:stream';
import { promisify } from 'node:util';
import type { Client, PublishPacket } from 'aedes';
import { Aedes } from 'aedes';
import type { BaseLogger } from 'pino';
import * as v from 'valibot';
import { LIMITS } from '#fleet/limits.ts';
import { listen } from '#fleet/listen.ts';
import { PacketCap } from '#fleet/packets.ts';
import {
  type Channel,
  type Current,
  currentSchema,
  eventSchema,
  presenceSchema,
  type Target,
  TOPIC_ROOT,
  topic,
} from '#fleet/protocol.ts';
import type { Store } from '#fleet/store.ts';

const DEVICE_NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;
/** Where a refused payload goes: nobody can subscribe to it, and nothing of it is left. */
const NOWHERE = 'midair/refused';

const BYTES_MAX = {
  current: LIMITS.currentBytesMax,
  presence: LIMITS.presenceBytesMax,
  event: LIMITS.eventBytesMax,
  telemetry: LIMITS.telemetryBytesMax,
} as const;

export interface BrokerOptions {
  fleet: string;
  store: Store;
  /** A device that was just born, or that the hub sees for the first time: it is to get the target. */
  onDevice: (device: string) => void;
  /** What a device has, newer than what was known. */
  onCurrent: (current: Current) => void;
  log: BaseLogger;
}

export interface Broker {
  listen(at: { host: string; port: number }): Promise<AddressInfo>;
  publishTarget(device: string, target: Target): Promise<void>;
  close(): Promise<void>;
}

export async function createBroker(options: BrokerOptions): Promise<Broker> {
  const { log } = options;
  const aedes = await Aedes.createBroker({
    authorizePublish: (client, packet, done) => {
      try {
        done(receive(options, client, packet));
      } catch (error) {
        // Not stored, so not acknowledged: the connection closes and the device sends it again.
        log.error({ err: error, topic: packet.topic }, 'a message could not be stored');
        done(error instanceof Error ? error : new Error(String(error)));
      }
    },
  });
  aedes.on('clientError', (client: Client, error: Error) => {
    log.info({ client: client.id, error: error.message }, 'mqtt client failed');
  });
  aedes.on('connectionError', (_client: Client, error: Error) => {
    log.info({ error: error.message }, 'mqtt connection failed');
  });
  const emitter: EventEmitter = aedes;
  emitter.on('error', (error: unknown) => log.error({ err: error }, 'mqtt broker failed'));

  const server = net.createServer((socket) => {
    socket.setNoDelay(true);
    const capped = socket.pipe(new PacketCap(LIMITS.packetBytesMax));
    capped.on('error', (error) => socket.destroy(error));
    socket.on('error', () => capped.destroy());
    socket.on('close', () => capped.destroy());
    aedes.handle(Duplex.from({ readable: capped, writable: socket }));
  });
  const publish = promisify(
    aedes.publish.bind(aedes) as (packet: PublishPacket, done: (e?: Error) => void) => void,
  );

  return {
    listen: (at) => listen(server, at),

    async publishTarget(device, target) {
      await publish({
        cmd: 'publish',
        topic: topic(options.fleet, device, 'target'),
        payload: Buffer.from(JSON.stringify(target)),
        qos: 1,
        retain: true,
        dup: false,
      });
    },

    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      await new Promise<void>((resolve) => aedes.close(() => resolve()));
      await closed;
    },
  };
}

/** An error closes the connection: that client does not keep to the topics. Null: go on, the packet may be changed. */
function receive(options: BrokerOptions, client: Client | null, packet: PublishPacket): Error | null {
  const { fleet, log } = options;
  const place = /^(.+)\/([^/]+)\/([^/]+)\/([^/]+)$/.exec(packet.topic);
  const [, root, itsFleet, device = '', channel = ''] = place ?? [];
  if (root !== TOPIC_ROOT || itsFleet !== fleet || !DEVICE_NAME.test(device) || !isDeviceChannel(channel)) {
    log.warn(
      { client: client?.id, topic: packet.topic.slice(0, 200) },
      'refused: a client may not publish there',
    );
    return new Error(`not a topic for a device of fleet ${fleet}`);
  }
  // Retained, it would be kept for every device name that anybody thinks of.
  if (channel === 'telemetry') packet.retain = false;
  const payload = Buffer.from(packet.payload);
  // An empty retained message clears what is retained (MQTT 3.1.1 §3.3.1.3); it says nothing to the hub.
  if (payload.length === 0 && packet.retain) return null;
  const problem = take(options, device, channel, payload);
  if (problem === null) return null;
  log.warn(
    { device, channel, client: client?.id, bytes: payload.length, problem },
    'dropped an invalid message',
  );
  packet.topic = NOWHERE;
  packet.payload = Buffer.alloc(0);
  packet.retain = false;
  return null;
}

const isDeviceChannel = (channel: string): channel is Exclude<Channel, 'target'> =>
  Object.hasOwn(BYTES_MAX, channel);

/** Stores what is valid; tells what is wrong with what is not. */
function take(
  { store, onDevice, onCurrent, log }: BrokerOptions,
  device: string,
  channel: Exclude<Channel, 'target'>,
  payload: Buffer,
): string | null {
  if (payload.length > BYTES_MAX[channel]) return `longer than ${BYTES_MAX[channel]} bytes`;
  // Of no interest to the store; passed on to who listens.
  if (channel === 'telemetry') return null;
  const now = Date.now();
  const schema = { presence: presenceSchema, current: currentSchema, event: eventSchema }[channel];
  const parsed = v.safeParse(schema, parseJson(payload));
  if (!parsed.success) return v.summarize(parsed.issues).slice(0, 500);
  if (parsed.output.device !== device) return `it names another device, ${parsed.output.device}`;
  if (!store.seen(device, now)) return `the hub knows ${LIMITS.devicesMax} devices already`;

  const message = parsed.output;
  if ('online' in message) {
    const taken = store.presence(message, now);
    if (taken === 'new') log.info({ device, session: message.session, online: message.online }, 'presence');
    if (message.online) onDevice(device);
  } else if ('bootId' in message) {
    if (store.current(message, now) === 'new') onCurrent(message);
    else log.debug({ device, sequence: message.sequence }, 'stale state');
  } else if (store.event(message, now) === 'new') {
    log.info({ device, type: message.type, text: message.text }, 'event');
  }
  return null;
}

function parseJson(payload: Buffer): unknown {
  try {
    return JSON.parse(payload.toString('utf8'));
  } catch {
    return undefined;
  }
}
