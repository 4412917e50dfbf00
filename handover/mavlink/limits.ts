/** Bounds of a MAVLink 2 frame (https://mavlink.io/en/guide/serialization.html), unit last. */
export const LIMITS = {
  payloadBytesMax: 255,
  headerBytes: 10,
  checksumBytes: 2,
  /** Largest frame without a signature; also the most that a parser keeps as a partial frame. */
  frameBytesMax: 10 + 255 + 2,
  /** A u64 is a JavaScript number here: exact up to this. In microseconds since boot that is 285 years. */
  u64Max: Number.MAX_SAFE_INTEGER,
  /** Frames are cut from blocks of this size, each used once: about one new block a second at 250 Hz. */
  writeBlockBytes: 16 * 1024,
} as const;
