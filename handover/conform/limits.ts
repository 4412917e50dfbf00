/** Bounds of the conformance runner, unit last; the protocol's own (limits.ts) are multiplied by its patience. */
export const CONFORM = {
  /** How much later than the protocol's deadlines an answer may come: a busy desk is no drone. 1 on a device. */
  patience: 20,
  patienceMax: 1_000,
  pollMs: 2,
  /** For what has no deadline in the protocol: an echo, a command on the tty, a frame. */
  answerMsMax: 250,
  /** A program that is not connected by then does not start. */
  startMsMax: 20_000,
  /** For a revoked program to end. */
  exitMsMax: 250,
  /** For SIGSTOP to have its effect. */
  stopMsMax: 1_000,
  /** Long enough for one that does what it must not to be seen doing it: ten of the board's periods. */
  quietMs: 100,
  /** Slower than a real board's 4 ms: judged is order, not speed. */
  boardPeriodMs: 10,
  /** In a burst, for the mirror's pair to fill. */
  burstCount: 10,
  burstMs: 800,
  framePeriodMs: 20,
  frameImageBytes: 1_000,
  heartbeatCount: 10,
  /** What a candidate is asked for; it gives up long before it was given all of `divergedCycles`. */
  warmCycles: 15,
  warmDivergenceMax: 0.5,
  divergedCycles: 400,
  /**
   * Of the board's, at a real board's pace: a heartbeat at the usual interval is heard in one of five. A machine so
   * busy that they took more than `watchedMsMax` proves nothing: in that time there are at most 12 of the usual ones.
   */
  watchedPeriods: 20,
  watchedPeriodMs: 4,
  watchedMsMax: 240,
  manyConnectionsCount: 300,
  /** Kept of what the program prints, for the report. */
  outputCharsMax: 2_000,
} as const;
