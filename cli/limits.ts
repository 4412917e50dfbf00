/** Every bound of the command line's own work, with its reason. */
export const LIMITS = {
  /** An engine on a local socket answers a ping in a millisecond; two seconds is a hung one. */
  pingMsMax: 2_000,
  /** dockerd is up in 0.3 s here; the first start on a slow disk formats its stores. */
  engineStartMsMax: 60_000,
  /** dockerd waits up to 15 s for containers that ignore SIGTERM; ours are removed before. */
  engineStopMsMax: 20_000,
  /** Killed processes vanish at once; frozen ones after the thaw. */
  processGoneMsMax: 5_000,
  /** Removing all of a private engine's containers before it is stopped. */
  sweepMsMax: 10_000,
  /** Private engines of one name side by side (two demos at once), each with its own data root. */
  engineSlotsMax: 8,
  /** Of 1,024, which everything else has: for the private engine's daemon. */
  engineCpuShares: 64,
  /** Of a second, for all private engines' containers together: leaves a tenth to everything else. */
  realTimeRuntimeUs: 900_000,
  /** A base image's layer that no longer fits this checkout may still serve another one for this long. */
  layerKeptMsMax: 3_600_000,
  /** Lines of a log that an error quotes. */
  logTailLines: 12,
  /** A hub or a simulator on this machine. */
  requestMsMax: 5_000,
  /** From a spawned part of the demo to its ready line: under a second here, many where all else runs too. */
  childReadyMsMax: 60_000,
  /** From SIGTERM to the end of a part; the hub gives up a running build first. */
  childStopMsMax: 8_000,
  /** A push builds, stores and makes a delta of a small app: 5 s here, a minute on a slow disk. */
  pushMsMax: 180_000,
  /** From a release's target state to hovering (or to its failure): install, warm-up, take-off. */
  updateMsMax: 60_000,
  /** How often hub and simulator are asked while something is awaited. */
  pollMs: 50,
  /** Higher than this above the ground it is in the air, by a margin to the hover's 2 m. */
  hoverAltitudeMMin: 1.8,
  /** Steady: this slow (m/s) and this level (degrees) for `hoverSteadyMs`. */
  hoverSpeedMSMax: 0.15,
  hoverTiltDegMax: 3,
  hoverSteadyMs: 1_000,
  /** Ordinary flight, to compare the handover with: 1250 cycles. */
  baselineMs: 5_000,
  /** Flight after the handover that belongs to the record. */
  aftermathMs: 1_500,
  /** Around the handover, in the picture. */
  traceBeforeMs: 250,
  traceAfterMs: 250,
  /** Directories of earlier demos (logs and picture) that stay. */
  runsKept: 5,
} as const;

/** The control loop's period: 250 Hz. */
export const PERIOD_MS = 4;
