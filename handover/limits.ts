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
  probationMs: 2_000,
  /** Heartbeats of the owner, and how long their absence is borne (in probation). */
  snapIntervalMs: 20,
  snapSilenceMsMax: 500,
  /** The prior's own shutdown work before it is stopped anyway. */
  retireMsMax: 5_000,
  /** An app looks for the agent's socket five times a second; after the agent's death it is given ten tries. */
  reconnectIntervalMs: 200,
  reconnectMsMax: 2_000,
} as const;
export type Limits = { readonly [K in keyof typeof LIMITS]: number };
