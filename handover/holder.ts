/**
 * What an app gives the SDK for each resource: how to let go of it, and how to take it.
 *
 * Invariant: between the settling of `release` and the next `grant` a holder neither reads nor writes its
 * resource. Implement it for a resource of your own, or use the ready-made ones beside this file.
 */
import { closeAll, type NamedDescriptor } from '#handover/lines.ts';
import type { JsonObject, Signing } from '#handover/messages.ts';
import type { Rehearsal } from '#handover/rehearsal.ts';

export interface Grant<P extends JsonObject = JsonObject> {
  /** The prior's own last words, its last heartbeat (it died), or nothing (first start: `payload` is null). */
  readonly from: 'release' | 'snap' | 'start';
  readonly payload: P | null;
  /** By name; the holder's from here on. */
  readonly descriptors: ReadonlyMap<string, number>;
  readonly epoch: number;
  /** Rotors only, where the device signs its link: every frame is to be later than `lastTimestamp`. */
  readonly signing?: Signing;
}

export interface Released<P extends JsonObject = JsonObject> {
  readonly payload: P;
  /** Stay the holder's until `drop`, which follows once they are sent. */
  readonly descriptors?: readonly NamedDescriptor[];
}

export interface Holder<P extends JsonObject = JsonObject> {
  /**
   * Stops using it. After the promise settles nothing is read or written.
   * @param deadlineMs how long the agent waits, from now, before it fences this process
   */
  release(deadlineMs: number): Promise<Released<P>>;
  /** Takes it. Resolves once it was used as the owner (rotors: once the first command is written). */
  grant(grant: Grant<P>): Promise<void>;
  /**
   * It is ours already, and was granted anew under a higher epoch (after the agent's own death): go on as before, by the
   * grant's descriptors if they are of another file than ours (a gate gives each epoch a channel of its own). They are
   * the holder's from here on. Resolves as `grant` does. Without it the SDK closes them and answers at once.
   */
  renew?(grant: Grant<P>): Promise<void>;
  /**
   * The successor has everything for good, and this process is about to end: what could not be passed is ended in order.
   * The agent waits a few seconds for it.
   */
  retire?(): Promise<void>;
  /** Closes every copy of its descriptors. Also ends a `grant` that has not resolved. Idempotent. */
  drop(): void;
  /** For HELLO after the agent came back: what it holds, one descriptor named as the resource. */
  descriptors?(): readonly NamedDescriptor[];
  /**
   * Runs the way through `grant` and `release` once, on something of its own, during the warm-up: code that runs for
   * the first time in the moment of the handover takes milliseconds of a control loop that has four.
   */
  rehearse?(): Promise<void>;
  /** Rotors only, instead: the same as it would be in the handover, over something of its own; the SDK practises with it. */
  rehearsal?(): Rehearsal;
  /** Rotors only: resolves right after the next command was written, or after `withinMs`. */
  tick?(withinMs: number): Promise<void>;
  /** Rotors only: mirror all input and output to this descriptor (taken over), instead of an earlier one. */
  mirror?(fd: number): void;
  /** Rotors only: whether somebody still reads the mirror. */
  readonly mirroring?: boolean;
}

export type HolderCode =
  | 'NOT_OWNER'
  | 'NO_DESCRIPTOR'
  | 'DROPPED'
  | 'LINK_LOST'
  | 'WRITE_STUCK'
  | 'TIMEOUT'
  | 'FRAME_TOO_LARGE'
  | 'WRONG_PAYLOAD'
  | 'INCOMPATIBLE_STATE'
  | 'NO_KEY'
  | 'NOT_SIGNING';

/** A resource that could not be taken or let go; the agent hears of it as a FAULT of this code. */
export class HolderError extends Error {
  override readonly name = 'HolderError';
  readonly code: HolderCode;
  constructor(code: HolderCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

/** The one descriptor of a grant; any other that came is closed. @throws HolderError `NO_DESCRIPTOR` */
export const takeOne = (grant: Pick<Grant, 'descriptors'>, name: string): number => {
  closeAll([...grant.descriptors].filter(([other]) => other !== name).map(([, fd]) => fd));
  const fd = grant.descriptors.get(name);
  if (fd === undefined) throw new HolderError('NO_DESCRIPTOR', `the grant has no descriptor "${name}"`);
  return fd;
};
