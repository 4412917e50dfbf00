/**
 * What a device is offered beside the release as it was pushed: deltas that were made later for what it has, and earlier
 * images to go by way of.
 *
 * Invariant: a release never changes; what is made for it later is kept beside it. One delta is made at a time, behind
 * everything else. A pair that failed or did not pay is not tried again before the hub's next start.
 *
 * A push makes deltas for what the fleet is known to have. A device that comes back after several releases has something
 * else: it is told at once by way of which images it can go, and a direct delta is made meanwhile.
 */
import type { BaseLogger } from 'pino';
import type { Blobs } from '#fleet/blobs.ts';
import { makeOffer, missingBytes } from '#fleet/deltas.ts';
import { LIMITS } from '#fleet/limits.ts';
import type { Current, DeltaOffer, Image, Release } from '#fleet/protocol.ts';
import type { Store } from '#fleet/store.ts';

export interface OffersOptions {
  store: Store;
  blobs: Blobs;
  /** A delta from that image is there now: whoever has it is to be told. */
  onOffer: (basis: string) => Promise<void>;
  log: BaseLogger;
  /** In tests another. */
  make?: typeof makeOffer;
}

interface Pair {
  basis: Image;
  target: Image;
}

export class Offers {
  readonly #options: OffersOptions;
  readonly #closing = new AbortController();
  readonly #waiting: Pair[] = [];
  /** `basis target` of all that were ever begun or wait. */
  readonly #known = new Set<string>();
  #running: Promise<void> | undefined;

  constructor(options: OffersOptions) {
    this.#options = options;
  }

  /** The release with everything that helps a device that has these images. */
  release(release: Release, has: ReadonlySet<string>): Release {
    const services = Object.entries(release.services).map(([name, service]) => {
      const image = this.#withDeltas(service.image);
      const direct = has.has(image.id) || image.deltas.some(({ basis }) => has.has(basis));
      const bridges = direct ? [] : this.#bridges(release.app, image, has);
      return [name, { ...service, image: bridges.length > 0 ? { ...image, bridges } : image }];
    });
    return { ...release, services: Object.fromEntries(services) };
  }

  #withDeltas(image: Image): Image {
    const bases = new Set(image.deltas.map(({ basis }) => basis));
    const later = this.#options.store.deltas(image.id).filter(({ basis }) => !bases.has(basis));
    return { ...image, deltas: [...image.deltas, ...later] };
  }

  /** The app's earlier images, newest first, if a way leads over them from what the device has. */
  #bridges(app: string, target: Image, has: ReadonlySet<string>): Image[] {
    const images = new Map<string, Image>();
    for (const release of this.#options.store.releases(LIMITS.bridgeReleasesMax)) {
      if (release.app !== app) continue;
      for (const { image } of Object.values(release.services)) {
        if (image.id !== target.id && !images.has(image.id)) images.set(image.id, this.#withDeltas(image));
      }
    }
    const bridges = [...images.values()].slice(0, LIMITS.bridgesMax);
    const reached = new Set(has);
    // Oldest first, as deltas go.
    for (const { id, deltas } of bridges.toReversed()) {
      if (deltas.some(({ basis }) => reached.has(basis))) reached.add(id);
    }
    const leads = target.deltas.some(({ basis }) => reached.has(basis));
    return leads ? bridges.filter(({ id }) => reached.has(id) && !has.has(id)) : [];
  }

  /** A device said what it has: makes the delta that it lacks, if one can be made. */
  consider({ images, owner }: Current): void {
    const { store } = this.#options;
    const has = new Set(owner ? [owner.imageId, ...images] : images);
    for (const { image } of Object.values(store.target().release?.services ?? {})) {
      if (has.size === 0 || has.has(image.id)) continue;
      if (this.#withDeltas(image).deltas.some(({ basis }) => has.has(basis))) continue;
      const found = [...has].flatMap((id) => {
        const release = store.releaseOfImage(id);
        return Object.values(release?.services ?? {}).filter((service) => service.image.id === id);
      });
      const [basis] = found
        .map((service) => service.image)
        .toSorted((a, b) => missingBytes(a, image) - missingBytes(b, image));
      if (basis && missingBytes(basis, image) > 0) this.#want({ basis, target: image });
    }
  }

  #want(pair: Pair): void {
    const key = `${pair.basis.id} ${pair.target.id}`;
    if (this.#known.has(key) || this.#closing.signal.aborted) return;
    this.#known.add(key);
    this.#waiting.push(pair);
    this.#running ??= this.#work().finally(() => {
      this.#running = undefined;
    });
  }

  async #work(): Promise<void> {
    for (let pair = this.#waiting.shift(); pair; pair = this.#waiting.shift()) {
      if (this.#closing.signal.aborted) return;
      await this.#makeOne(pair);
    }
  }

  async #makeOne({ basis, target }: Pair): Promise<void> {
    const { store, blobs, onOffer, log, make = makeOffer } = this.#options;
    const wanted = Object.values(store.target().release?.services ?? {});
    const names = { basis: basis.id, target: target.id };
    // A newer release came meanwhile.
    if (!wanted.some(({ image }) => image.id === target.id)) return;
    try {
      const startMs = Date.now();
      const { bytes, offer } = await make(basis, target, { blobs, signal: this.#closing.signal });
      log.info(
        { ...names, bytes, ms: Date.now() - startMs, offered: offer !== null },
        'delta made for a device',
      );
      if (!offer) return;
      store.putDelta(target.id, offer satisfies DeltaOffer);
      await onOffer(basis.id);
    } catch (error) {
      if (!this.#closing.signal.aborted) log.warn({ err: error, ...names }, 'no delta for a device');
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }
}
