/** Every bound of image installation, unit last, with its reason. */
export const LIMITS = {
  /** The config is held in memory and parsed; real ones are a few KiB. */
  configBytesMax: 4 * 1024 * 1024,

  /** First pause after a failed request; doubles up to the cap, with full jitter so that a fleet does not knock in step. */
  backoffMsMin: 500,
  backoffMsMax: 30_000,
  /** Failed requests in a row without one new byte. With the pauses above this is about a minute and a half. */
  failuresInRowMax: 7,
  /** A link in flight fades for seconds; a connection silent for longer is dead. */
  idleMsMax: 20_000,
  /** A blob that does not match its digest is fetched again from zero this often. */
  corruptRefetchesMax: 1,

  /** Left free on each disk beside what an install needs: the flying version's logs and journal live there too. */
  spareBytesMin: 32 * 1024 * 1024,
  /** The engine spools a layer's tar and then unpacks it: its data root holds both for a while. */
  engineCopiesOfLayer: 2,

  /** RFC 8878 §3.1.1.1.2 lets a frame ask for terabytes; 2^27 = 128 MiB is zstd's own default bound. */
  zstdWindowLogMax: 27,
  /** One read of a file by the code that rebuilds layers. */
  readBytesMax: 16 * 1024 * 1024,
  /** Looks at files of one directory in flight while a basis is listed. */
  lookupsAtOnce: 32,
  /** Files of a basis, listed or asked for; a full Debian root has about 100,000. */
  basisFilesMax: 1_000_000,
  /** Opaque directories in one layer's records. */
  opaqueDirectoriesMax: 100_000,
  /** One line of the engine's tar-split records: a name in base64 with a tar header's padding. */
  tarSplitLineCharsMax: 4 * 1024 * 1024,

  /** One question to the engine (inspect, list, tag). A busy SD card has been seen to need seconds. */
  engineCallMsMax: 30_000,
  /** A pull in which the engine neither asks for bytes nor reports progress for this long is dead. */
  pullStallMsMax: 120_000,
  /** Between two words of how much the engine took. */
  servedIntervalMs: 50,
  /** A patcher that is asked to end removes a container and a spool. */
  patcherEndMsMax: 10_000,
  /** Between the engine's "connection refused" and the kernel's word that the patcher is dead. */
  patcherDeathMsMax: 1_000,
  /** Of what it said before it died. */
  patcherWordsMax: 4_000,
  /** Images looked at for layers they share with the target. */
  imagesMax: 1_000,
} as const;
