/**
 * The device's side of the fleet link.
 *
 * Invariant: what arrives is a whole target state or nothing; what leaves is observed. The link may be down for
 * hours: the drone flies on, the latest current state replaces older ones, events wait (bounded, oldest lost first).
 */
import { randomUUID } from 'node:crypto';
import mqtt from 'mqtt';
import * as v from 'valibot';
import { AgentError } from '#agent/errors.ts';
import { LIMITS } from '#agent/limits.ts';
import type { Log } from '#agent/log.ts';
import {
  type Channel,
  type Current,
  type DeviceEvent,
  type Target,
  targetSchema,
  topic,
} from '#fleet/protocol.ts';

export interface LinkOptions {
  readonly url: string;
  readonly fleet: string;
  readonly device: string;
  readonly log: Log;
  onTarget(target: Target): void;
}
export interface Link {
  current(current: Current): void;
  event(event: DeviceEvent): void;
  close(): Promise<void>;
}

/** @throws AgentError `BAD_TARGET` */
export const parseTarget = (bytes: Uint8Array): Target => {
  if (bytes.length > LIMITS.targetBytesMax) {
    throw new AgentError(
      'BAD_TARGET',
      `the target state has ${bytes.length} bytes; at most ${LIMITS.targetBytesMax}`,
    );
  }
  try {
    return v.parse(targetSchema, JSON.parse(Buffer.from(bytes).toString('utf8')));
  } catch (cause) {
    throw new AgentError('BAD_TARGET', 'the hub sent a target state that this agent cannot read', { cause });
  }
};

/** Returns at once; connects, and connects again, by itself. */
export const openLink = (options: LinkOptions): Link => {
  const { url, fleet, device, log } = options;
  const on = (channel: Channel) => topic(fleet, device, channel);
  const session = randomUUID();
  const presence = (online: boolean) => JSON.stringify({ device, session, online });
  const client = mqtt.connect(url, {
    clientId: `midair-${device}-${session.slice(0, 8)}`,
    clean: true,
    keepalive: LIMITS.mqttKeepAliveSec,
    reconnectPeriod: LIMITS.mqttReconnectMs,
    connectTimeout: LIMITS.mqttConnectTimeoutMs,
    queueQoSZero: false,
    will: { topic: on('presence'), payload: Buffer.from(presence(false)), qos: 1, retain: true },
  });
  let latest: Current | null = null;
  let waiting: DeviceEvent[] = [];
  let told = false;

  const publish = (channel: Channel, value: unknown, retain: boolean) =>
    client.publish(on(channel), JSON.stringify(value), { qos: 1, retain });
  client.on('connect', () => {
    told = false;
    log.info({ url }, 'connected to the hub');
    client.subscribe(on('target'), { qos: 1 });
    client.publish(on('presence'), presence(true), { qos: 1, retain: true });
    if (latest) publish('current', latest, true);
    for (const event of waiting) publish('event', event, false);
    waiting = [];
  });
  client.on('message', (_topic, payload) => {
    try {
      options.onTarget(parseTarget(payload));
    } catch (error) {
      log.error({ err: error }, 'target state refused; the last one stays');
    }
  });
  client.on('error', (error) => log.warn({ err: error }, 'hub link'));
  client.on('close', () => {
    if (!told) log.warn({ url }, 'the hub cannot be reached; flying on, and trying again');
    told = true;
  });

  return {
    current(current) {
      latest = current;
      if (client.connected) publish('current', current, true);
    },
    event(event) {
      if (client.connected) publish('event', event, false);
      else waiting = [...waiting, event].slice(-LIMITS.eventsWaitingMax);
    },
    async close() {
      if (client.connected)
        await client.publishAsync(on('presence'), presence(false), { qos: 1, retain: true });
      await client.endAsync(true);
    },
  };
};
