/** Bounds of a MAVLink 2 frame (https://mavlink.io/en/guide/serialization.html), unit last. */
export const LIMITS = {
  payloadBytesMax: 255,
  headerBytes: 10,
  checksumBytes: 2,
  /** Link id, 48 bits of time, 48 bits of hash. */
  signatureBytes: 13,
  /** Largest frame, signed; also the most that a parser keeps as a partial frame. */
  frameBytesMax: 10 + 255 + 2 + 13,
  /** A u64 is a JavaScript number here: exact up to this. In microseconds since boot that is 285 years. */
  u64Max: Number.MAX_SAFE_INTEGER,
  /** Frames are cut from blocks of this size, each used once: about one new block a second at 250 Hz. */
  writeBlockBytes: 16 * 1024,
  signingKeyBytes: 32,
  ticksPerMs: 100,
  /** 48 bits of 10 us: the year 2104. */
  timestampMax: 2 ** 48 - 1,
  /** A stream that is heard for the first time may be one minute behind (signing guide, "Accepting Signed Packets"). */
  firstBehindTicksMax: 6_000_000,
  /** As ArduPilot's: system, component and link id of all who ever signed here. One more is not heard. */
  signedStreamsMax: 16,
} as const;
