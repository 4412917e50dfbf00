/**
 * The device's side of the fleet link: MQTT's promises over a network that keeps none.
 *
 * Invariant: as agent/link.ts: at least once (QoS 1) for what is told, the latest current state replaces older ones; a
 * session ends with its agent, and what the hub retains is told anew to each new one.
 */
import type { Current, DeviceEvent, Target } from '#fleet/protocol.ts';
import type { Agent } from './agent.ts';
import type { Drone } from './drone.ts';
import { seconds } from './world.ts';

export type ToHub =
  | { readonly type: 'connect' | 'ping' }
  | { readonly type: 'publish'; readonly id: number; readonly channel: 'current'; readonly payload: Current }
  | {
      readonly type: 'publish';
      readonly id: number;
      readonly channel: 'event';
      readonly payload: DeviceEvent;
    }
  | { readonly type: 'puback'; readonly id: number };
export type ToDevice =
  | { readonly type: 'connack' | 'pong' | 'reset' }
  | { readonly type: 'puback'; readonly id: number }
  | { readonly type: 'target'; readonly id: number; readonly target: Target };

const RETRY_US = seconds(3);
const KEEPALIVE_US = seconds(15);
/** Unacknowledged messages on their way at once. */
const FLYING_MAX = 20;

export class Link {
  readonly #drone: Drone;
  readonly #agent: Agent;
  readonly #outgoing = new Map<number, Extract<ToHub, { type: 'publish' }>>();
  #tries = 0;
  #session = '';
  #connected = false;
  #heardUs = 0;
  #ids = 0;
  #retrying = false;

  constructor(drone: Drone, agent: Agent) {
    this.#drone = drone;
    this.#agent = agent;
  }

  open(): void {
    this.#connect();
    this.#keepAlive();
  }

  current(current: Current): void {
    for (const [id, { channel }] of this.#outgoing) if (channel === 'current') this.#outgoing.delete(id);
    this.#publish({ type: 'publish', id: ++this.#ids, channel: 'current', payload: current });
  }

  event(type: string, data: Record<string, unknown>): void {
    const id = ++this.#ids;
    const device = this.#drone.name;
    const key = `${device}-${this.#agent.life}-${id}`;
    this.#publish({
      type: 'publish',
      id,
      channel: 'event',
      payload: { device, key, atMs: 0, type, text: type, data },
    });
  }

  #publish(packet: Extract<ToHub, { type: 'publish' }>): void {
    this.#outgoing.set(packet.id, packet);
    if (this.#connected) this.#send(packet);
    this.#retry();
  }

  #retry(): void {
    if (this.#retrying || this.#outgoing.size === 0) return;
    this.#retrying = true;
    this.#agent.process.after(RETRY_US, () => {
      this.#retrying = false;
      if (this.#connected) this.#again();
      this.#retry();
    });
  }
  #again(): void {
    for (const packet of [...this.#outgoing.values()].slice(0, FLYING_MAX)) this.#send(packet);
  }

  #connect(): void {
    if (this.#connected) return;
    this.#session = `${this.#agent.life}.${++this.#tries}`;
    const session = this.#session;
    this.#send({ type: 'connect' });
    this.#agent.process.after(RETRY_US, () => {
      if (session === this.#session) this.#connect();
    });
  }

  #keepAlive(): void {
    this.#agent.process.after(KEEPALIVE_US, () => {
      if (this.#connected && this.#agent.process.nowUs - this.#heardUs > 2 * KEEPALIVE_US) {
        this.#connected = false;
        this.#connect();
      } else if (this.#connected) this.#send({ type: 'ping' });
      this.#keepAlive();
    });
  }

  #send(packet: ToHub): void {
    const { world, name } = this.#drone;
    const session = this.#session;
    world.network.send(name, this.#agent.process.nowUs, () =>
      world.hub?.heard(name, session, packet, (answer) =>
        world.network.send(name, world.scheduler.nowUs, () => this.#heard(session, answer)),
      ),
    );
  }

  #heard(session: string, packet: ToDevice): void {
    this.#agent.process.post(() => {
      if (session !== this.#session) return;
      this.#heardUs = this.#agent.process.nowUs;
      switch (packet.type) {
        case 'connack':
          if (this.#connected) return;
          this.#connected = true;
          this.#again();
          return;
        case 'pong':
          return;
        case 'reset':
          this.#connected = false;
          this.#connect();
          return;
        case 'puback':
          this.#outgoing.delete(packet.id);
          return;
        case 'target':
          this.#send({ type: 'puback', id: packet.id });
          this.#agent.target(packet.target);
          return;
      }
    });
  }
}
