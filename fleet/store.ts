/**
 * What the hub remembers: the contract that every store keeps.
 *
 * Invariant: a call that returned is durable, and each call is one transaction. Target generations only rise; a
 * release never changes; a device's current state never goes back to an earlier sequence or an earlier boot.
 */
import type { Current, DeltaOffer, DeviceEvent, Presence, Release } from '#fleet/protocol.ts';

/** The same bytes once as tar (diffId) and once as the compressed blob that holds them. */
export interface LayerRecord {
  diffId: string;
  bytes: number;
  blob: { digest: string; bytes: number };
}

export interface DeviceRecord {
  name: string;
  online: boolean;
  /** The session that its last birth named; '' if it never said. */
  session: string;
  seenAtMs: number;
  current: Current | null;
  currentAtMs: number | null;
}

export interface TargetRecord {
  generation: number;
  release: Release | null;
  changedAtMs: number;
}

export interface EventRecord extends DeviceEvent {
  /** Rises in the order of arrival; what `after` refers to. */
  id: number;
  receivedAtMs: number;
}

export type Taken = 'new' | 'stale';

export interface Store {
  /** Made once, with the store: tells this hub's things on a shared engine from another hub's. */
  readonly hubId: string;

  layer(diffId: string): LayerRecord | undefined;
  putLayer(layer: LayerRecord): void;

  /** `v{n}` for the next release of `app`. */
  nextReleaseId(app: string): string;
  /** Keeps a built release that is not offered to anyone yet: git has not moved the branch. */
  putPending(release: Release): void;
  pending(app: string): Release[];
  dropPending(app: string, id: string): void;
  /** The pending release becomes a release, and the target; one transaction. */
  acceptPending(app: string, id: string, atMs: number): TargetRecord;
  /** Accepted releases, newest first. */
  releases(limit: number): Release[];
  release(app: string, id: string): Release | undefined;
  /** All apps' accepted releases with that id. */
  releasesNamed(id: string): Release[];
  /** The newest accepted release that has this image. */
  releaseOfImage(imageId: string): Release | undefined;
  latestRelease(app: string): Release | undefined;

  /** Deltas that were made for an image after its release; at most one a basis, the last one counts. */
  deltas(imageId: string): DeltaOffer[];
  putDelta(imageId: string, delta: DeltaOffer): void;

  target(): TargetRecord;
  /** A new generation with that release, durable before it returns. */
  setTarget(app: string, id: string, atMs: number): TargetRecord;

  /** Makes it known. `false`: there are too many devices. */
  seen(device: string, atMs: number): boolean;
  presence(presence: Presence, atMs: number): Taken;
  /** After a restart nobody is online until it says so. */
  allOffline(): void;
  current(current: Current, atMs: number): Taken;
  event(event: DeviceEvent, atMs: number): Taken;
  devices(): DeviceRecord[];
  device(name: string): DeviceRecord | undefined;
  events(query: { device?: string; afterId?: number; limit: number }): EventRecord[];

  close(): void;
}
