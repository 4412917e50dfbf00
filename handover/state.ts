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
export interface Pair {
  /** `null`: a first start, nobody owns anything yet. */
  readonly prior: AppId | null;
  readonly candidate: AppId;
  /** Confirmed dead; never granted anything again. */
  readonly fenced: Readonly<Record<Role, boolean>>;
  /** Why the candidate is not to have it; `null` while all is well. */
  readonly failure: Failure | null;
}
export interface Transfer extends Pair {
  readonly direction: Direction;
  /** The one in hand. Those before it in RESOURCES are the candidate's, those after it the prior's. */
  readonly resource: Resource;
}

export type State = { readonly epoch: number } & (
  | { readonly phase: 'idle'; readonly owner: AppId | null }
  | ({ readonly phase: 'warming' | 'ready'; readonly deadlineMs: number } & Pair)
  | ({ readonly phase: 'releasing' | 'granting'; readonly deadlineMs: number } & Transfer)
  | ({
      readonly phase: 'fencing';
      readonly who: Role;
      /** Still to come before the resource may be granted: the giver's RELEASED, asked before the fault. */
      readonly awaitsRelease: boolean;
      readonly deadlineMs: number;
    } & Transfer)
  | ({ readonly phase: 'probation'; readonly deadlineMs: number; readonly heardMs: number } & Pair)
  | ({ readonly phase: 'committed'; readonly deadlineMs: number } & Pair)
  | { readonly phase: 'failsafe'; readonly failure: Failure }
);

export type Event = { readonly atMs: number } & (
  | { readonly type: 'boot' }
  | { readonly type: 'tick' }
  /** A candidate's container was started. */
  | { readonly type: 'update'; readonly candidate: AppId }
  | { readonly type: 'message'; readonly from: AppId; readonly message: AppMessage }
  /** Its connection closed; the process may live. */
  | { readonly type: 'gone'; readonly who: AppId }
  /** Confirmed dead: by a fence that was asked for, or by itself. */
  | { readonly type: 'dead'; readonly who: AppId }
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
export type Moving = In<'releasing' | 'granting' | 'fencing'>;

export const initial: State = { phase: 'idle', epoch: 0, owner: null };
