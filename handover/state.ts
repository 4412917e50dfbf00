/**
 * The words of the handover machine: its states, events and effects. handover/machine.ts says what they mean.
 *
 * Invariant: a state is plain JSON, whole in itself: it is the journal's entry, and what a step starts from.
 */
import type { Limits } from '#handover/limits.ts';
import type { AgentMessage, AppMessage, Resource } from '#handover/messages.ts';

/** The identity of a running app: its container's id. */
export type AppId = string;
export type Role = 'prior' | 'candidate';
export type Direction = 'forward' | 'handback';
export interface Failure {
  readonly code: string;
  readonly text: string;
}
/** The state that a release can take over (`reads`), and the one that it hands over (`writes`); from its HELLO. */
export interface Versions {
  readonly reads: readonly number[];
  readonly writes: number;
}
/** What a release asks of its own update; agent/policy.ts reads it from its labels. */
export interface Policy {
  /** Cycles in the prior's shadow, each no further from the prior's output than `divergenceMax` (the app's unit). */
  readonly shadowCyclesMin: number;
  readonly divergenceMax: number;
  /** While another could take over at once, who flies is fenced after this long without a heartbeat. */
  readonly heartbeatMsMax: number;
  /** How long it is watched before it owns for good; what it must keep up meanwhile. 0 and null: not judged. */
  readonly probationMs: number;
  readonly loopHzMin: number;
  readonly errorMax: number | null;
}
export interface Pair {
  /** `null`: a first start, nobody owns anything yet. */
  readonly prior: AppId | null;
  readonly candidate: AppId;
  /** Confirmed dead; never granted anything again. */
  readonly fenced: Readonly<Record<Role, boolean>>;
  /** Why the candidate is not to have it; `null` while all is well. */
  readonly failure: Failure | null;
  /** `null` until it said HELLO. */
  readonly speaks: Readonly<Record<Role, Versions | null>>;
  readonly policy: Policy;
  /** When who flies (`pilotOf` in transfer.ts) was last heard; no meaning while nobody is watched. */
  readonly heardMs: number;
}
export interface Transfer extends Pair {
  readonly direction: Direction;
  /** The one in hand. */
  readonly resource: Resource;
  /** Still to pass after it, in this order: rotors last while their giver flies, first when it does not. */
  readonly left: readonly Resource[];
}

export type State = { readonly epoch: number } & (
  | { readonly phase: 'idle'; readonly owner: AppId | null; readonly speaks: Versions | null }
  | ({ readonly phase: 'warming'; readonly deadlineMs: number } & Pair)
  /** PREPARE was sent. `untilMs`: it was postponed before, and is given up then. */
  | ({ readonly phase: 'ready'; readonly deadlineMs: number; readonly untilMs?: number } & Pair)
  /** Warm, and waiting for the app's update lock: asked again at `deadlineMs`, given up at `untilMs`. */
  | ({ readonly phase: 'postponed'; readonly deadlineMs: number; readonly untilMs: number } & Pair)
  | ({ readonly phase: 'releasing'; readonly deadlineMs: number } & Transfer)
  | ({ readonly phase: 'granting'; readonly deadlineMs: number } & Transfer)
  | ({
      readonly phase: 'fencing';
      readonly who: Role;
      /** Still to come before the resource may be granted: the giver's RELEASED, asked before the fault. */
      readonly awaitsRelease: boolean;
      readonly deadlineMs: number;
    } & Transfer)
  | ({
      readonly phase: 'probation';
      readonly deadlineMs: number;
      /** Where the loop's rate is measured from. */
      readonly loop: { readonly atMs: number; readonly cycles: number } | null;
    } & Pair)
  | ({ readonly phase: 'committed'; readonly deadlineMs: number } & Pair)
  | { readonly phase: 'failsafe'; readonly failure: Failure }
);

export type Event = { readonly atMs: number } & (
  | {
      readonly type: 'boot';
      /** Those of the state's apps that can act no more, dead or frozen. */
      readonly gone: readonly AppId[];
    }
  | { readonly type: 'tick' }
  /** A candidate's container was started. */
  | { readonly type: 'update'; readonly candidate: AppId; readonly policy: Policy }
  | { readonly type: 'message'; readonly from: AppId; readonly message: AppMessage }
  /** Its connection closed; the process may live. */
  | { readonly type: 'gone'; readonly who: AppId }
  /** Confirmed dead: by a fence that was asked for, or by itself. */
  | { readonly type: 'dead'; readonly who: AppId }
  /** Something is wrong with it that it did not say itself: the engine's health check, for one. */
  | { readonly type: 'trouble'; readonly who: AppId; readonly failure: Failure }
  /** Answers the effect `lock`: whether the update lock is ours now. */
  | { readonly type: 'lock'; readonly taken: boolean }
  /** The operator's, or a newer target state's. */
  | { readonly type: 'abort'; readonly failure: Failure }
);

type Without<M, K extends PropertyKey> = M extends unknown ? Omit<M, K> : never;
export type Outcome =
  | { readonly type: 'updated'; readonly owner: AppId }
  | { readonly type: 'failed'; readonly owner: AppId | null; readonly failure: Failure };
export type Effect =
  /** Make the state that this step returned durable before any later effect. */
  | { readonly do: 'persist' }
  /** Descriptors, and a grant's payload, are attached by whoever executes this. */
  | {
      readonly do: 'send';
      readonly to: AppId;
      readonly message: Without<AgentMessage, 'fds' | 'payload' | 'more'>;
    }
  /** Make sure that it can no longer act, then say `dead`. */
  | { readonly do: 'fence'; readonly who: AppId }
  /** It may end by itself first; then as `fence`. */
  | { readonly do: 'stop'; readonly who: AppId }
  /** Take the update lock, so that from here on no app can refuse the update; say `lock`. Given back at `settle`. */
  | { readonly do: 'lock' }
  | { readonly do: 'mirror'; readonly from: AppId; readonly to: AppId }
  | { readonly do: 'failsafe'; readonly failure: Failure }
  | { readonly do: 'report'; readonly type: string; readonly text: string; readonly resource?: Resource }
  | { readonly do: 'settle'; readonly outcome: Outcome };

export interface Config {
  readonly limits: Limits;
  /** Those that this device has, in the order of RESOURCES, rotors last. */
  readonly resources: readonly Resource[];
}
export type Step = [State, Effect[]];
export type In<P extends State['phase']> = Extract<State, { phase: P }>;
/** The candidate holds nothing yet. */
export type Waiting = In<'warming' | 'ready' | 'postponed'>;
export type Moving = In<'releasing' | 'granting' | 'fencing'>;

export const initial: State = { phase: 'idle', epoch: 0, owner: null, speaks: null };
