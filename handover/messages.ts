/**
 * What may be said on a device's handover socket: one JSON object a line, both ways.
 *
 * Invariant: nothing untyped passes this file. A line is parsed here once, at the door, and refused with a
 * stable code; behind it every message is a typed value. Descriptors ride beside their line and are named
 * by its `fds`, in order (docs/handover-protocol.md).
 */
import * as v from 'valibot';
import { LIMITS } from '#handover/limits.ts';

export const PROTOCOL_VERSION = 1;

/** Things with exactly one owner, in the order in which they pass to the candidate; back in reverse. */
export const RESOURCES = ['camera', 'listener', 'connections', 'rotors'] as const;
export type Resource = (typeof RESOURCES)[number];

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

const epoch = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const name = v.pipe(v.string(), v.minLength(1), v.maxLength(LIMITS.nameCharsMax));
const text = v.pipe(v.string(), v.maxLength(LIMITS.textCharsMax));
const resource = v.picklist(RESOURCES);
const payload = v.record(v.string(), v.unknown()) as unknown as v.GenericSchema<JsonObject>;
const fds = v.optional(v.pipe(v.array(name), v.maxLength(LIMITS.descriptorsPerLineMax)), []);
const version = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const durationMs = v.pipe(v.number(), v.minValue(0), v.maxValue(LIMITS.durationMsMax));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const measure = v.pipe(v.number(), v.minValue(0));
/** MAVLink 2 signing: 32 bytes in base64, and the time of the last signed frame in units of 10 us since 2015-01-01 UTC. */
const signing = v.object({
  key: v.pipe(v.string(), v.base64(), v.length(44)),
  linkId: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(255)),
  lastTimestamp: count,
});
export type Signing = v.InferOutput<typeof signing>;

const object = <Type extends string, Entries extends v.ObjectEntries>(type: Type, entries: Entries) =>
  v.object({ type: v.literal(type), epoch, fds, ...entries });

const fromApp = {
  /** First line of every connection. `holds`: what it owns now, descriptors beside it; empty at first start. */
  HELLO: object('HELLO', {
    v: v.literal(PROTOCOL_VERSION),
    app: name,
    release: name,
    reads: v.pipe(v.array(version), v.minLength(1), v.maxLength(LIMITS.stateVersionsMax)),
    writes: version,
    holds: v.pipe(v.array(resource), v.maxLength(RESOURCES.length)),
  }),
  /** Warm enough to take over; answers OFFER (after its warm-up) and PREPARE (at once, same epoch). */
  READY: object('READY', { cycles: count, divergence: measure }),
  /**
   * Heartbeat of the owner: the state from which a successor could go on. `cycles`: control cycles since its process
   * began; `error`: how far it is from its setpoint now, in the app's own unit. Both are judged in probation. `atUs`: when
   * it was made, CLOCK_MONOTONIC; silence counts from then, without it from the line's arrival.
   */
  SNAP: object('SNAP', {
    payload,
    cycles: v.optional(count),
    error: v.optional(measure),
    atUs: v.optional(count),
  }),
  /** Answers RELEASE: from this line on its sender does not touch the resource. `more`: a further line follows. */
  RELEASED: object('RELEASED', { resource, payload, more: v.optional(v.boolean(), false) }),
  /** Answers GRANT: its sender has acted as the owner (for the rotors: has written a command). */
  GRANTED: object('GRANTED', { resource }),
  FAULT: object('FAULT', { code: name, text }),
  /** "Stop me": answers COMMIT to the prior. */
  RETIRE: object('RETIRE', {}),
};

const fromAgent = {
  /**
   * Answers HELLO. `owner`: keep what you hold. `candidate`: warm up, then READY. `shadow`, beside `candidate` where
   * there is a prior to follow: so many cycles in its shadow, each no further from its output than that.
   */
  OFFER: object('OFFER', {
    role: v.picklist(['owner', 'candidate']),
    shadow: v.optional(v.object({ cyclesMin: count, divergenceMax: measure })),
  }),
  /**
   * Mirrored input. To who flies with the writing end, to who follows with the reading end of a socket pair: to prior and
   * candidate while it warms up, the other way round in probation. `snapIntervalMs`, to the source: from here on a
   * SNAP at least that often. `payload`, to the shadow: the source's last SNAP, from which it goes on.
   */
  SHADOW: object('SHADOW', {
    role: v.picklist(['source', 'shadow']),
    snapIntervalMs: v.optional(v.pipe(v.number(), v.minValue(1), v.maxValue(LIMITS.snapIntervalMs))),
    payload: v.optional(payload),
  }),
  /** The last question before the prior lets go: still there? Answered by READY. */
  PREPARE: object('PREPARE', {}),
  RELEASE: object('RELEASE', { resource, deadlineMs: durationMs }),
  /** `from`: the prior's own words, its last heartbeat, or nothing (first start). */
  GRANT: object('GRANT', {
    resource,
    from: v.picklist(['release', 'snap', 'start']),
    payload: v.nullable(payload),
    more: v.optional(v.boolean(), false),
    /** Rotors only, where the device signs its link: frames from here on are later than `lastTimestamp`. */
    signing: v.optional(signing),
  }),
  /** Close your copies of this resource's descriptors; you are not its owner. */
  DROP: object('DROP', { resource }),
  /** To the candidate: yours for good. To the prior: you may go, answer RETIRE. */
  COMMIT: object('COMMIT', { role: v.picklist(['owner', 'retired']) }),
  /** The candidate will not get anything: it is about to be stopped. */
  REVOKE: object('REVOKE', { code: name, text }),
};

type Union<T> = { [K in keyof T]: T[K] extends v.GenericSchema ? v.InferOutput<T[K]> : never }[keyof T];
export type AppMessage = Union<typeof fromApp>;
export type AgentMessage = Union<typeof fromAgent>;

export type ProtocolCode =
  | 'LINE_TOO_LONG'
  | 'INVALID_JSON'
  | 'INVALID_MESSAGE'
  | 'UNKNOWN_TYPE'
  | 'WRONG_DESCRIPTORS'
  | 'TRUNCATED_CONTROL_DATA'
  | 'UNEXPECTED_MESSAGE'
  | 'STALE_EPOCH';

/** A fault of the peer's: its line is dropped, its descriptors closed, its connection ended. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
  readonly code: ProtocolCode;
  constructor(code: ProtocolCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

const parse = <T extends Record<string, v.GenericSchema>>(table: T, line: string): Union<T> => {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new ProtocolError('INVALID_JSON', 'the line is not JSON', { cause });
  }
  const type = typeof value === 'object' && value !== null && 'type' in value ? value.type : undefined;
  if (typeof type !== 'string' || !Object.hasOwn(table, type)) {
    throw new ProtocolError('UNKNOWN_TYPE', `no message of type ${JSON.stringify(type)?.slice(0, 80)}`);
  }
  const result = v.safeParse(table[type] as v.GenericSchema, value);
  if (result.success) return result.output as Union<T>;
  const issue = result.issues[0];
  throw new ProtocolError('INVALID_MESSAGE', `${type}.${v.getDotPath(issue) ?? ''}: ${issue.message}`);
};

/**
 * @param line one line without its newline, at most `LIMITS.lineBytesMax`
 * @throws ProtocolError `INVALID_JSON`, `UNKNOWN_TYPE`, `INVALID_MESSAGE`
 */
export const parseAppMessage = (line: string): AppMessage => parse(fromApp, line);
/** The other direction; see {@link parseAppMessage}. */
export const parseAgentMessage = (line: string): AgentMessage => parse(fromAgent, line);
