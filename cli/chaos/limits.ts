/** Every bound of failure injection, unit last, with its reason. */
export const CHAOS = {
  /** Experiments that run side by side. */
  experimentsMax: 16,
  /** Ended ones that are still listed. */
  endedKept: 64,
  /** More often is no failure any more but a state; that is what a longer duration is for. */
  frequencyMsMin: 250,
  frequencyMsMax: 3_600_000,
  /** Of one injection: longer than any deadline of a handover or of the fleet link, shorter than a coffee. */
  durationMsMin: 20,
  durationMsMax: 120_000,
  durationMsDefault: 2_000,
  /** Of an experiment: nobody finds one still running the next morning. */
  forMsMax: 4 * 3_600_000,
  forMsDefault: 300_000,
  latencyMsMax: 30_000,
  coresMax: 64,
  criteriaCharsMax: 512,

  /** Undoing that failed is tried again after this, for as long as it takes. */
  undoRetryMs: 500,
  /** What undoes an injection may take so long before the watchdog does it, too. */
  graceMs: 1_000,
  /** How often the watchdog looks for what is overdue. */
  watchMs: 100,
  /** From SIGKILL of the injector to all undone; the watchdog waits no longer for the wire to answer. */
  wireAnswerMsMax: 2_000,
  /** From its start to the watchdog's word that it watches. */
  watchdogReadyMsMax: 10_000,
  /** Containers and processes are looked for within this, or the beat is let go. */
  lookMsMax: 10_000,

  /** Processes of one container that are stopped; more is no app of ours. */
  processesMax: 256,
  /** Rounds of stopping, for processes that were being born during the last one. */
  stopRoundsMax: 10,

  /** A disk that may be filled is at most this large: made for it, and never the machine's own. */
  diskBytesMax: 512 * 1024 * 1024,
  diskChunkBytes: 1024 * 1024,

  /** A busy loop looks this often whether its target still lives: its control group must be empty for the engine to remove it. */
  burnSliceMs: 5,

  /** One record of the ledger: a container's processes are the longest thing in it. */
  recordBytesMax: 32 * 1024,
  /** At a start a longer ledger is cut to what is open and the newest records. */
  ledgerBytesMax: 4 * 1024 * 1024,
  ledgerRecordsKept: 2_000,

  /** Bytes that one direction of one connection may hold back; then its sender is no longer read, as behind a full pipe. */
  wireQueueBytesMax: 1024 * 1024,
  wireConnectionsMax: 256,
  wireFaultsMax: 32,
  /** First retransmission after a lost segment: Linux's minimum (TCP_RTO_MIN), doubled each time it is lost again. */
  retransmitMs: 200,
  /** Segments in a row that may be lost before the connection counts as dead. */
  lossesInRowMax: 6,

  httpBodyBytesMax: 16 * 1024,
  requestMsMax: 15_000,
  eventsMax: 500,
} as const;
