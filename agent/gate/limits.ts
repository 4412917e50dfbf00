/** Bounds of the rotor gate, unit last, with their reason. */
export const GATE = {
  /** MAVLink 2: header, longest payload, checksum, signature. */
  frameBytesMax: 280,
  /** Read from one descriptor in one turn, so that a flood in one direction cannot hold up the other. */
  turnBytesMax: 16 * 1024,
  /** Frames that wait for a tty which takes no bytes: 40 ms of commands. What is older helps nobody any more. */
  waitingFramesMax: 20,
  /** Former channels that are still open at their other end; the oldest is closed for the next. */
  staleCountMax: 4,
  /** The agent's own command, or a state that is handed over, in base64 in a line. */
  bytesMax: 8 * 1024,
  /** Between two tries of the agent to reach a gate that does not answer. */
  retryMs: 50,
  /** A gate that another is about to take over from, or that was just started, answers by then. */
  answerMsMax: 10_000,
} as const;
