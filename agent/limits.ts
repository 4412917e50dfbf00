import { BOUNDS } from '#handover/bounds.ts';

/** Every bound of the supervisor, unit last, with its reason. */
export const LIMITS = {
  /** How long an app may shut down by itself before it is killed; it holds nothing any more. */
  stopSec: 3,
  reconnectPollMs: 20,
  /** Pauses between tries of a step that failed for the device's own reasons (hub away, disk full, engine busy). */
  retryMsMin: 1_000,
  retryMsMax: 60_000,
  /** Current state is told at most this often while bytes flow. */
  progressIntervalMs: 200,
  /** Of each second, for one app's control loop; two of them fit beside the flight controller's link. */
  appRealtimeUs: 400_000,
  mqttReconnectMs: 1_000,
  mqttConnectTimeoutMs: 10_000,
  mqttKeepAliveSec: 15,
  /** A target state with its layers and deltas; one that is larger is not ours. */
  targetBytesMax: 1024 * 1024,
  /** The machine's state is a few hundred bytes; names in it are bounded. */
  handoverJournalBytesMax: 4_080,
  /** A target and three releases, each of at most `targetBytesMax`. */
  memoryJournalBytesMax: 4 * 1024 * 1024,
  /** A target that could not be remembered (disk full) is tried again after this. */
  targetRetryMs: 10_000,
  /** Last lines of a failed container, as its reason. */
  logLinesMax: 20,
  logCharsMax: 1_500,
  /** A device that talks too much loses its oldest words, not its flight. */
  eventsWaitingMax: 1_000,
  /** After the rotors have passed: ten cycles that nothing of ours disturbs; far below any probation. */
  settleMs: 40,
  /** Of 1,024 on v1, of 100 on v2, which everything else has: for the process that patches. */
  patchingCpuShares: 64,
  patchingCpuWeight: 6,
  /** Of 100 (v2) or 500 (v1). */
  patchingIoWeight: 10,
  /** Between two looks whether who flies is ending, while another could take over: some 25 µs each, one core's twentieth. */
  lookMs: 0.5,
  /** A watched heartbeat is made every 4 ms, and some time on its way: who is later than this is looked at more often. */
  lateMs: 4.8,
  lookLateMs: 0.25,
  /** By now even an unwatched heartbeat, one each 20 ms, is late; the limit of silence is 100 by default. */
  silentMs: 25,
  /** Of 8 KiB: more than a unix socket holds (net.core.wmem_default is 208 KiB). Who says more meanwhile is not waited for. */
  hearTurnsMax: 32,
  /** The kernel ends an idle worker after five minutes; new ones come when all are busy. */
  workersLookMs: 1_000,
  /** Below the control loop’s, above all that is ordinary. */
  workersFifoPriority: 2,
  /** Above all who fly: whoever has real time is woken on another core than it. */
  endingFifoPriority: BOUNDS.fifoPriority + 1,
  /** Of the agent while who flies is silent or ending, and of its successor's helpers: below the workers that may bring its word. */
  urgentFifoPriority: 1,
} as const;
