/**
 * The fleet's target state, and its way to every device.
 *
 * Invariant: a generation is durable before anybody hears of it; what is retained at the broker is a copy.
 */
import { FleetError } from '#fleet/errors.ts';
import type { Release, Target } from '#fleet/protocol.ts';
import type { DeviceRecord, Store, TargetRecord } from '#fleet/store.ts';

export interface TargetsOptions {
  fleet: string;
  store: Store;
  /** The release as a device that has these images is to see it. */
  offer: (release: Release, has: ReadonlySet<string>) => Release;
  /** Publishes, retained, to one device. */
  publish: (device: string, target: Target) => Promise<void>;
}

export class Targets {
  readonly #options: TargetsOptions;

  constructor(options: TargetsOptions) {
    this.#options = options;
  }

  now(): Target {
    const { generation, release } = this.#options.store.target();
    return { fleet: this.#options.fleet, generation, release };
  }

  audience(): { known: number; online: number } {
    const devices = this.#options.store.devices();
    return { known: devices.length, online: devices.filter((device) => device.online).length };
  }

  async publishAll(): Promise<void> {
    const target = this.now();
    for (const device of this.#options.store.devices()) await this.#publish(target, device.name, device);
  }

  async publishTo(device: string): Promise<void> {
    await this.#publish(this.now(), device, this.#options.store.device(device));
  }

  /** The same generation again, to who has that image: there is a delta from it now. */
  async publishAgain(imageId: string): Promise<void> {
    const target = this.now();
    for (const device of this.#options.store.devices()) {
      if (imagesOf(device).has(imageId)) await this.#publish(target, device.name, device);
    }
  }

  async #publish(target: Target, name: string, device: DeviceRecord | undefined): Promise<void> {
    const { publish, offer } = this.#options;
    const release = target.release && offer(target.release, imagesOf(device));
    await publish(name, { ...target, release });
  }

  /**
   * Makes an older or newer release the target, also the one that is it already: that asks all devices again.
   *
   * @throws FleetError `NOT_FOUND`, `AMBIGUOUS`
   */
  async choose(id: string, app?: string): Promise<TargetRecord> {
    const { store } = this.#options;
    const named = store.releasesNamed(id).filter((release) => app === undefined || release.app === app);
    const [release, second] = named;
    if (!release) {
      throw new FleetError(
        'NOT_FOUND',
        `there is no release ${id}${app ? ` of ${app}` : ''}`,
        'see GET /v1/releases',
      );
    }
    if (second) {
      const apps = named.map((one: Release) => one.app).join(', ');
      throw new FleetError('AMBIGUOUS', `several apps have a release ${id}: ${apps}`, 'name the app as well');
    }
    const record = store.setTarget(release.app, release.id, Date.now());
    await this.publishAll();
    return record;
  }
}

const imagesOf = (device: DeviceRecord | undefined): ReadonlySet<string> => {
  const { images = [], owner } = device?.current ?? {};
  return new Set(owner ? [owner.imageId, ...images] : images);
};
