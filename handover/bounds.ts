/** Bounds of the sockets and of the SDK, unit last, beside the protocol's own in limits.ts. */
import { LIMITS } from '#handover/limits.ts';

export const BOUNDS = {
  /** What a peer that does not read may make us keep: a full set of connections in a few lines, and heartbeats. */
  sendQueueBytesMax: 8 * 1024 * 1024,
  /** One turn of the event loop on one socket: a control loop may be waiting behind it, also behind a flood of short lines. */
  receiveTurnBytesMax: 8 * 1024,
  receiveChunkBytes: 8 * 1024,
  acceptTurnCountMax: 32,
  /** A device has a handful of apps; more is a fault. */
  connectionsMax: 64,
  backlogCount: 64,
  /** When the process has no descriptor left: ask again then, not at once for ever. */
  acceptRetryMs: 100,

  /** The agent is back within a second or two; a drone notices nothing meanwhile. */
  reconnectMs: 200,
  /** SHADOW follows its OFFER at once, and does not come at a first start. */
  mirrorWaitMs: 100,
  /** A candidate that has not settled in so many times the cycles asked for will not. */
  shadowCyclesFactor: 8,
  /** A heartbeat follows each command; without one it follows after so many intervals. */
  snapIntervalsMax: 2,
  /** Low among the real-time priorities: above ordinary work, below the kernel's own threads. */
  fifoPriority: 10,
  /** Of a candidate that takes what passes before the rotors: below who flies, and below the kernel workers that bring its samples. */
  standByFifoPriority: 1,
  /** Lines of one GRANT: 64 x 250 descriptors is beyond what one process may open. */
  grantLinesMax: 64,
  /** Payload of one RELEASED line; the rest of `LIMITS.lineBytesMax` is its envelope. */
  payloadBytesMax: 224 * 1024,
  /** Steps of the agent that may wait behind one that is being done; its machine has one at a time. */
  stepsWaitingMax: 8,
  /** Refusals that an app answers, and reports of an app that change nothing; beyond, a flood would cost flight more than it tells. */
  repeatsPerSecMax: 50,

  /** After a release, for the first request of a connection that was just accepted. */
  freshConnectionMsMax: 1_000,

  /** A camera frame; in base64 its leftover fits in a line. */
  frameBytesMax: 64 * 1024,
  /** Bytes between two turns of the event loop; a frame callback may be slow. */
  frameTurnBytesMax: 64 * 1024,

  /** Mirrored records that a slow shadow may leave unread before the oldest go: 4 s of a 250 Hz link, both ways. */
  mirrorQueueCountMax: 2_000,
  mirrorRecordBytesMax: 64 * 1024,

  /** Handovers that a candidate practises: V8 compiles what has run some hundred times. The slower the machine, the fewer fit. */
  rehearsals: 150,
  rehearsalMsMax: 500,

  /** A release waits for the next command, so that the successor has a whole period: 2 periods of a slow link. */
  releaseTickMsMax: 20,
  /** A write younger than this leaves the period to the successor already. */
  freshWriteUsMax: 500,
  /**
   * What a dead prior may have signed after its last heartbeat: it was silent and then frozen, as long as the agent
   * waits for either; and some for the clock's own corrections and for several frames in one tick.
   */
  signedUnheardMsMax: LIMITS.aloneSilenceMsMax + LIMITS.fenceMsMax,
  signedSlackMs: 100,

  /** Beyond it a slow client's unsent bytes stay behind: its connection is closed with 1012. */
  websocketFlushMsMax: 50,
  /** For its close frame to go out behind them. */
  websocketCloseMsMax: 2_000,
  /** Bytes of a half received message; in base64 beside its envelope it must fit in a line. */
  websocketHeadBytesMax: 128 * 1024,
  /** Connections handled in one turn of the event loop: the prior still flies then. */
  websocketTurnCountMax: 16,
  websocketMetaBytesMax: 4 * 1024,
} as const;
