/** Every bound of the hub, unit last, with its reason. */
export const LIMITS = {
  /** One push's pack; a checkout with its history, not a data set. Git itself refuses beyond it, with a clear line. */
  packBytesMax: 2 * 1024 ** 3,
  /** The HTTP body around the pack; reached only by what does not speak git. */
  pushBodyBytesMax: 2 * 1024 ** 3 + 64 * 1024 ** 2,
  /** Waiting in line, upload, build, store and deltas together. */
  pushMsMax: 45 * 60_000,
  /** After a push was given up, how long git has to end by itself before it is killed. */
  gitGraceMsMax: 10_000,
  gitHeadBytesMax: 16 * 1024,
  gitProcessesMax: 32,
  /** Answers of git commands that the hub reads whole: a root directory, a Dockerfile. */
  gitAnswerBytesMax: 8 * 1024 ** 2,
  refsPerPushMax: 200,
  /** What the hook tells the hub: the refs and where git keeps the new objects. */
  hookBodyBytesMax: 256 * 1024,

  /** Of 1,024, which everything else has. */
  buildCpuShares: 128,

  dockerfileBytesMax: 1024 ** 2,
  contextBytesMax: 4 * 1024 ** 3,
  buildMsMax: 30 * 60_000,
  /** How long a cancelled build's container may keep its image in use, and how often the hub looks. */
  engineSettleMsMax: 15_000,
  engineSettlePollMs: 250,
  /** Lines of build output that reach the pusher; the rest is counted. */
  buildLinesMax: 20_000,
  lineCharsMax: 500,
  /** One JSON line of the engine's build output. */
  engineLineBytesMax: 1024 ** 2,

  layersMax: 127,
  /** A file of an exported image that is held in memory: config, manifest. */
  documentBytesMax: 4 * 1024 ** 2,
  imageBytesMax: 64 * 1024 ** 3,
  /** Layers above it that are here already are recognised by their length first; short ones are often as long as each other. */
  spooledLayerBytes: 1024 ** 2,
  /** Better levels cost seconds on every push and give a few per cent; deltas are what travels. */
  zstdLevel: 6,

  /** Distinct images in a fleet for which a push makes deltas, those with the most devices first. */
  deltasPerReleaseMax: 8,
  deltaMsMax: 10 * 60_000,
  /** Earlier images that a device is told of, and among how many releases they are looked for: each has its layers' digests. */
  bridgesMax: 4,
  bridgeReleasesMax: 20,

  appsMax: 100,
  devicesMax: 10_000,
  /** MQTT: a whole packet; past it the connection is closed. */
  packetBytesMax: 1024 ** 2,
  currentBytesMax: 256 * 1024,
  eventBytesMax: 64 * 1024,
  presenceBytesMax: 4 * 1024,
  telemetryBytesMax: 64 * 1024,
  /** Older events are dropped from the store. */
  eventsPerDeviceMax: 5_000,
  /** Boot ids of a device that are remembered, so that a late message of an old boot is recognised. */
  bootsPerDeviceMax: 32,

  requestBytesMax: 64 * 1024,
  releasesPerAnswerMax: 200,
  eventsPerAnswerMax: 500,
} as const;
