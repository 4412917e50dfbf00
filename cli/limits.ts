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
  /** Of a second, for all private engines' containers together: leaves a tenth to everything else. */
  realTimeRuntimeUs: 900_000,
  /** A base image's layer that no longer fits this checkout may still serve another one for this long. */
  layerKeptMsMax: 3_600_000,
  /** Lines of a log that an error quotes. */
  logTailLines: 12,
} as const;
