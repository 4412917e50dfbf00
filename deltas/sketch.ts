/**
 * A sketch of a file: a sample of what is in it, by which files that have something in common are found, wherever in them
 * it is and whatever they are called.
 *
 * A feature is the hash of 32 bytes in a row. Which 32 is decided by the bytes themselves (a Gear hash of them with seven
 * zeros in front), so that both files choose the same ones: about one in each 128 bytes, fewer from large images. The part of
 * its features that a file shares with another is about the part of its bytes that it shares.
 *
 * Invariant: memory is bounded whatever is sampled. A sketch only ever decides how small a delta is.
 */
import { GEAR } from '#deltas/anchors.ts';
import { LIMITS } from '#deltas/limits.ts';

const FEATURE_BYTES = 32;
/** Seven bits: one place in 128, about. */
const ZEROS = 0xfe000000 | 0;

const LIMIT_MAX = 2 ** 32;

/**
 * How many of the features are kept, the same for all files that are compared: those below `limit`, a power of two. It is halved
 * whenever more than `featuresMax` are there.
 */
export class SampleRate {
  limit = LIMIT_MAX;
  readonly #featuresMax: number;
  #kept = 0;

  constructor(featuresMax: number = LIMITS.sketchFeaturesMax) {
    this.#featuresMax = featuresMax;
  }

  add(features: number): void {
    this.#kept += features;
    // Sketches made before keep what they have until they are compared: with each halving that is half as much more.
    if (this.#kept > this.#featuresMax) this.halve();
  }

  /** Keeps no more than was kept of a layer that was sampled by itself. */
  lower(limit: number): void {
    while (this.limit > limit) this.halve();
  }

  halve(): void {
    this.limit /= 2;
    this.#kept /= 2;
  }
}

/** Samples one file after the other. */
export class Sampler {
  readonly #rate: SampleRate;
  readonly #tail = Buffer.alloc(2 * FEATURE_BYTES);
  #features = new Uint32Array(1024);
  #count = 0;
  #hash = 0;
  /** Bytes of the file that `#tail` ends its first half with. */
  #before = 0;

  constructor(rate: SampleRate) {
    this.#rate = rate;
  }

  /** The next bytes of the file. */
  update(piece: Uint8Array): void {
    let hash = this.#hash;
    const length = piece.length;
    for (let at = 0; at < length; at += 1) {
      hash = ((hash << 1) + (GEAR[piece[at] as number] as number)) | 0;
      if ((hash & ZEROS) === 0) this.#found(piece, at);
    }
    this.#hash = hash;
    this.#remember(piece);
  }

  #found(piece: Uint8Array, at: number): void {
    const from = at + 1 - FEATURE_BYTES;
    let feature: number;
    if (from >= 0) {
      feature = featureOf(piece, from);
    } else {
      if (at + 1 + this.#before < FEATURE_BYTES) return;
      this.#tail.set(piece.subarray(0, at + 1), FEATURE_BYTES);
      feature = featureOf(this.#tail, FEATURE_BYTES + from);
    }
    // The same again and again is what one value repeated gives.
    const again = this.#count > 0 && this.#features[this.#count - 1] === feature;
    if (feature >= this.#rate.limit || again) return;
    if (this.#count >= this.#features.length) this.#grow();
    this.#features[this.#count++] = feature;
  }

  #grow(): void {
    if (this.#count < LIMITS.sketchFeaturesMax) {
      const more = new Uint32Array(2 * this.#count);
      more.set(this.#features);
      this.#features = more;
      return;
    }
    this.#rate.halve();
    const kept = this.#features.filter((feature) => feature < this.#rate.limit);
    this.#features.set(kept);
    this.#count = kept.length;
  }

  #remember(piece: Uint8Array): void {
    const some = Math.min(piece.length, FEATURE_BYTES);
    this.#tail.copyWithin(0, some, FEATURE_BYTES);
    this.#tail.set(piece.subarray(piece.length - some), FEATURE_BYTES - some);
    this.#before = Math.min(FEATURE_BYTES, this.#before + some);
  }

  /** Features of the file, in their order in it. The next bytes are another file's. */
  finish(): Uint32Array {
    const features = this.#features.slice(0, this.#count);
    this.#count = 0;
    this.#hash = 0;
    this.#before = 0;
    return features;
  }
}

/** FNV-1a, and its bits mixed: the limit looks at the high ones. */
function featureOf(bytes: Uint8Array, from: number): number {
  let hash = 0x811c9dc5 | 0;
  for (let at = from; at < from + FEATURE_BYTES; at += 1)
    hash = Math.imul(hash ^ (bytes[at] as number), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Those that are kept at `limit`, as a Sampler at that limit gives them. */
export function below(features: Uint32Array, limit: number): Uint32Array {
  if (limit >= LIMIT_MAX) return features;
  const kept = features.filter((feature) => feature < limit);
  return kept.filter((feature, at) => at === 0 || feature !== kept[at - 1]);
}

/** Each once, by rising value. */
export function sorted(features: Uint32Array): Uint32Array {
  const all = features.toSorted();
  let count = 0;
  for (let at = 0; at < all.length; at += 1)
    if (at === 0 || all[at] !== all[at - 1]) all[count++] = all[at] as number;
  return all.slice(0, count);
}
