/** Every bound of the supervisor, unit last, with its reason. */
export const LIMITS = {
  /** How long an app may shut down by itself before it is killed; it holds nothing any more. */
  stopSec: 3,
  reconnectPollMs: 20,
  /** Looks, a millisecond apart, at a process whose connection closed. */
  deathPollCountMax: 50,
  /** Pauses between tries of a step that failed for the device's own reasons (hub away, disk full, engine busy). */
  retryMsMin: 1_000,
  retryMsMax: 60_000,
  /** Current state is told at most this often while bytes flow. */
  progressIntervalMs: 200,
  mqttReconnectMs: 1_000,
  mqttConnectTimeoutMs: 10_000,
  mqttKeepAliveSec: 15,
  /** A target state with its layers and deltas; one that is larger is not ours. */
  targetBytesMax: 1024 * 1024,
  /** Last lines of a failed container, as its reason. */
  logLinesMax: 20,
  logCharsMax: 1_500,
  /** A device that talks too much loses its oldest words, not its flight. */
  eventsWaitingMax: 1_000,
} as const;
