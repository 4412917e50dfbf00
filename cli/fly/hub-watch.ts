/**
 * What the hub hears from the drones: one look for all of them, each event told once.
 *
 * Invariant: an event that came while nobody looked is told at the next look; the order is the hub's.
 */
import type { EventRecord, HubClient, HubStatus } from '#cli/hub-client.ts';

export type Device = HubStatus['devices'][number];

export class HubWatch {
  readonly #hub: HubClient;
  #seen: number;
  #devices = new Map<string, Device>();

  static async open(hub: HubClient): Promise<HubWatch> {
    return new HubWatch(hub, (await hub.events()).at(-1)?.id ?? 0);
  }

  private constructor(hub: HubClient, seen: number) {
    this.#hub = hub;
    this.#seen = seen;
  }

  device(name: string): Device | undefined {
    return this.#devices.get(name);
  }

  /** @returns what is new */
  async look(): Promise<EventRecord[]> {
    const [{ devices }, events] = await Promise.all([this.#hub.status(), this.#hub.events(this.#seen)]);
    this.#devices = new Map(devices.map((device) => [device.name, device]));
    this.#seen = events.at(-1)?.id ?? this.#seen;
    return events;
  }
}
