/** Bounds of the panel, unit last, with the reason. */
export const LIMITS = {
  /** 25 Hz: smooth for the eye; every message carries all gyro samples since the one before. */
  telemetryIntervalMs: 40,
  /** Frames that wait while the camera is here and the connections are not: 2 s of both kinds (20 + 9 a second). */
  framesWaitingMax: 58,
  /** Of those, what fits into the 224 KiB of one RELEASED payload beside a partial frame, when base64 has made four bytes out of three. */
  framesPassedBytesMax: 96 * 1024,
  /** A browser that does not read for this long a backlog loses frames; the others do not wait for it. */
  backlogBytesMax: 4 * 1024 * 1024,
  /** A pilot's request has 100; a longer message closes its connection. */
  messageBytesMax: 1024,
  /** Browsers at one time: the descriptors of one handover line are bounded too. */
  connectionsMax: 200,
  requestMs: 10_000,
  /** Browsers that connect in the milliseconds between the listening socket's coming and the connections'. */
  upgradesWaitingMax: 64,
} as const;
