/** Every bound and rate of the harness, with its reason. */
export const FLY = {
  /** How often the simulator's record is taken: two minutes are kept there, a second is 60 kB. */
  tapeMs: 1_000,
  /** The record is taken up to so long ago: what the board stamps late is in it by then. */
  tapeLagMs: 300,
  /** How often state, hub and events are looked at, for the table and for what happens "on" an event. */
  lookMs: 200,
  /** Poses on the record: as fine as an eye can follow. The IMU is recorded at its own rate. */
  poseHz: 50,
  /** Of the record: as much as is in memory until it is written, three seconds of a flight. */
  chunkBytes: 256 * 1024,
  /** After the last thing that was to happen. */
  lingerMs: 3_000,
  /** Several drones install the same release at once, from one disk: seconds here, a minute each on a busy machine. */
  firstInstallMsMax: 300_000,
  /** For a manoeuvre to come to rest, or an update to its end. */
  settleMsMax: 240_000,
  /** Around a change of hands: from so many periods before to so many after. */
  periodsBefore: 2,
  periodsAfter: 5,
  /** Height is looked at from before the change to so long after. */
  heightBeforeMs: 100,
  heightAfterMs: 1_000,
  /** Around it, in the picture. */
  pictureBeforeMs: 250,
  pictureAfterMs: 250,
  /** A longer one is no handover: the picture would be all gap. */
  pictureGapUsMax: 1_000_000,
  /** A pilot's request that nobody answers: handovers are over by then. */
  askMsMax: 5_000,
  /** Into the hands of a fault that waits for its moment. */
  strikeMs: 1,
  /** Of the processor's time, taken by the machine's host: more, and lateness is rather the machine's. */
  stealShareMax: 0.05,
  /** Pictures of the gallery, for a page. */
  pngWidth: 1_100,
} as const;
