/**
 * What an app gives the SDK for each resource: how to let go of it, and how to take it.
 *
 * Invariant: between the settling of `release` and the next `grant` a holder neither reads nor writes its
 * resource. Implement it for a resource of your own, or use the ready-made ones beside this file.
 */
import type { NamedDescriptor } from '#handover/lines.ts';
import type { JsonObject } from '#handover/messages.ts';

export interface Grant<P extends JsonObject = JsonObject> {
  /** The prior's own last words, its last heartbeat (it died), or nothing (first start: `payload` is null). */
  readonly from: 'release' | 'snap' | 'start';
  readonly payload: P | null;
  /** By name; the holder's from here on. */
  readonly descriptors: ReadonlyMap<string, number>;
  readonly epoch: number;
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
  /** Closes every copy of its descriptors. Also ends a `grant` that has not resolved. Idempotent. */
  drop(): void;
  /** For HELLO after the agent came back: what it holds, one descriptor named as the resource. */
  descriptors?(): readonly NamedDescriptor[];
  /** Rotors only: mirror all input and output to this descriptor (taken over), instead of an earlier one. */
  mirror?(fd: number): void;
}
