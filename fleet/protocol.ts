/**
 * What hub and devices say to each other: topics, and the JSON that travels on them.
 *
 * Invariant: a device is told a whole target state, never a command; it answers with what it observed.
 * No image bytes travel here: blobs and deltas are fetched over HTTP by digest, `GET {hub}/v1/blobs/{digest}`,
 * with `Range`.
 */
import * as v from 'valibot';

export const TOPIC_ROOT = 'midair/v1';
export type Channel = 'target' | 'current' | 'presence' | 'event' | 'telemetry';
export const topic = (fleet: string, device: string, channel: Channel): string =>
  `${TOPIC_ROOT}/${fleet}/${device}/${channel}`;

const digest = v.pipe(v.string(), v.regex(/^sha256:[0-9a-f]{64}$/, 'not a sha256 digest'));
const bytes = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const name = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'not a name: lower case, digits, . _ -'),
);
const integer = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

/** One immutable file at the hub: its digest and length, as `GET /v1/blobs/{digest}` gives it. */
const blob = v.object({ digest, bytes });

const layer = v.object({
  /** Digest and length of the uncompressed tar. */
  diffId: digest,
  bytes,
  /** The same tar, zstd-compressed. */
  blob,
});

/** What applying a delta took at the hub, which does it once before it offers one; an older hub did not. */
const cost = v.object({
  /** Length of the layers that it rebuilds. */
  outputBytes: bytes,
  /** Of the basis files that it names: what is spooled where the engine's own are out of sight. */
  basisBytes: v.optional(bytes),
  /** Processor time at the hub: the device's own speed scales it. */
  cpuMs: integer,
  /** How far the process that applied it grew. */
  memoryBytes: v.optional(bytes),
});

/** One artifact; it rebuilds every layer of its image that the basis lacks. */
export const deltaSchema = v.object({ basis: digest, blob, cost: v.optional(cost) });

const imageEntries = {
  /** The image's identity: the digest of its config, which is itself a blob. */
  id: digest,
  config: blob,
  layers: v.array(layer),
  deltas: v.array(deltaSchema),
};

const image = v.object({
  ...imageEntries,
  /** Earlier images with their deltas, for a device that has no basis of a delta of this one: it may go by way of them. */
  bridges: v.optional(v.array(v.object(imageEntries))),
});

const release = v.object({
  /** `v1`, `v2`, …: counted by the hub per app. */
  id: name,
  app: name,
  commit: v.string(),
  createdAtMs: integer,
  services: v.record(name, v.object({ image, labels: v.record(v.string(), v.string()) })),
});

export const targetSchema = v.object({
  fleet: name,
  /** Rises with every change; a device never goes back. */
  generation: integer,
  release: v.nullable(release),
});

/** A step of an update, in order; `stagesMs` gives the length of each that was reached. */
export const STAGES = ['fetch', 'pull', 'start', 'warm', 'handover', 'probation', 'retire'] as const;
export type Stage = (typeof STAGES)[number];

/** Failures that say nothing about the release: the device tries again by itself. */
export const BLAMELESS: readonly string[] = ['AGENT_RESTARTED', 'LOCKED', 'SUPERSEDED', 'UNWATCHED'];

const failure = v.object({ code: v.string(), text: v.string() });

export const currentSchema = v.object({
  device: name,
  /** Echo of the target that this state answers. */
  generation: integer,
  bootId: v.string(),
  sequence: integer,
  atMs: integer,
  /** What flies now, by the device's own observation. */
  owner: v.nullable(v.object({ release: name, imageId: digest, container: v.string() })),
  images: v.array(digest),
  update: v.variant('status', [
    v.object({ status: v.literal('idle') }),
    v.object({
      status: v.literal('updating'),
      release: name,
      stage: v.picklist(STAGES),
      doneBytes: bytes,
      allBytes: bytes,
    }),
    v.object({
      status: v.literal('done'),
      release: name,
      stagesMs: v.record(v.string(), v.number()),
      fetched: v.object({ as: v.picklist(['delta', 'layers', 'nothing']), bytes }),
    }),
    v.object({ status: v.literal('failed'), release: name, failure }),
  ]),
});

export const presenceSchema = v.object({ device: name, session: v.string(), online: v.boolean() });

export const eventSchema = v.object({
  device: name,
  /** Idempotent: the same event may arrive twice. */
  key: v.string(),
  atMs: integer,
  type: v.string(),
  text: v.string(),
  data: v.optional(v.record(v.string(), v.unknown()), {}),
});

export type Blob = v.InferOutput<typeof blob>;
export type Layer = v.InferOutput<typeof layer>;
export type DeltaOffer = v.InferOutput<typeof deltaSchema>;
export type Image = v.InferOutput<typeof image>;
export type Release = v.InferOutput<typeof release>;
export type Target = v.InferOutput<typeof targetSchema>;
export type Current = v.InferOutput<typeof currentSchema>;
export type Presence = v.InferOutput<typeof presenceSchema>;
export type DeviceEvent = v.InferOutput<typeof eventSchema>;
