/** Every bound of the handover, unit last, with its reason. */
export const LIMITS = {
  /** A line of JSON; large enough for a partial camera frame in base64, small enough to bound a bad peer. */
  lineBytesMax: 256 * 1024,
  /** SCM_MAX_FD of the kernel is 253. */
  descriptorsPerLineMax: 250,
  nameCharsMax: 128,
  textCharsMax: 2_000,
  stateVersionsMax: 32,
  durationMsMax: 600_000,

  /** Container start, load of the program, and its warm-up in shadow. */
  warmMsMax: 60_000,
  /** A candidate that was ready answers at once. */
  prepareMsMax: 250,
  /** The flight controller's failsafe fires at 200 ms without a command: a silent release and a silent grant fit in. */
  rotorReleaseMsMax: 50,
  rotorGrantMsMax: 60,
  /** Nothing falls when these wait; 500 sockets are flushed within it. */
  otherReleaseMsMax: 1_000,
  otherGrantMsMax: 1_000,
  /** Killing and confirming takes milliseconds; the engine's own call, the last resort, takes seconds. */
  fenceMsMax: 10_000,
  /** Heartbeats of the owner; and while it is mirrored to one that could take over: one a cycle of a 250 Hz loop. */
  snapIntervalMs: 20,
  watchedSnapIntervalMs: 4,
  /**
   * A held command does no harm for 100 ms, and a takeover ends well before the controller's failsafe at 200. Shorter only
   * where real time is granted: without it a busy machine was seen to hold up a healthy loop for more than 40 ms.
   */
  heartbeatMsMax: 100,
  /** With nobody to take over a pause of the machine is borne; the controller's failsafe has acted by then. */
  aloneSilenceMsMax: 500,
  probationMs: 2_000,
  /** The rate of a loop is known to a few in a hundred over 60 cycles of 250 Hz. */
  rateWindowMs: 250,
  /** One second of a 250 Hz loop, after which its code is compiled and warm. */
  shadowCyclesMin: 250,
  /** In the app's unit; the example's is the share of full thrust. */
  divergenceMax: 0.1,
  /** An app that holds the update lock is asked again each second, for ten minutes. */
  lockRetryMs: 1_000,
  lockMsMax: 600_000,
  /** The prior's own shutdown work before it is stopped anyway. */
  retireMsMax: 5_000,
  /** An app looks for the agent's socket five times a second; after the agent's death it is given ten tries. */
  reconnectIntervalMs: 200,
  reconnectMsMax: 2_000,
} as const;
export type Limits = { readonly [K in keyof typeof LIMITS]: number };
