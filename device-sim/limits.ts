/** Every bound and rate of the simulated drone, unit last, with its reason. */
export const LIMITS = {
  /** The board's cycle: 250 Hz, an IMU sample and an attitude each. */
  tickUs: 4_000,
  /** Physics: 50 steps within the motors' time constant. */
  stepUs: 1_000,
  /** What the `direct` board sends, and how often. */
  directHz: {
    HIGHRES_IMU: 250,
    ATTITUDE_QUATERNION: 250,
    LOCAL_POSITION_NED: 50,
    EXTENDED_SYS_STATE: 5,
    HEARTBEAT: 1,
    SYS_STATUS: 1,
  },
  /** At motor level a held command is harmless up to 100 ms; 500 ms tumble an agile drone. */
  failsafeUs: 200_000,
  /** From an order to reboot to the first word: a short one of the real boards' (3 to 10 s). */
  rebootUs: 3_000_000,
  /** Without commands for so long nobody is taken to read either: see the link's header. */
  unreadUs: 200_000,
  /** A board that is told now and then takes somebody to read as long as it hears anything: three heartbeats. */
  companionUs: 3_000_000,
  /** How often the unread is then discarded: a new listener hears at most 40 ms of the past. */
  unreadTicks: 10,
  /** A tick later than this counts as late: half a cycle, where a missed cycle may be the board's own fault. */
  lateTickUs: 2_000,
  /** After a longer sleep (a suspended machine) the excess is not simulated: nothing flew in it. */
  catchUpUs: 1_000_000,
  /** From the slowest that a radio modem has to above what a flight controller's UART does. */
  baudMin: 1_200,
  baudMax: 12_000_000,
  /** Between the board and its UART, and between the companion's tty and its own: Linux has a page (UART_XMIT_SIZE). */
  wireOutBytes: 2_048,
  wireInBytes: 4_096,
  /** Of the board's buffer, kept for what is said seldom: a status, a heartbeat, two answers, signed. */
  wireSeldomBytes: 256,
  /** How often bytes of a paced wire are passed on: a bit over one byte at 9,600 baud, a quarter of a cycle. */
  wireUs: 1_000,
  /** Read from the pty per wake-up at most: 16 reads of 4 KiB. */
  readBytes: 4_096,
  readsMax: 16,
  /** All frames of one tick: 73 + 44 + 40 + 14 + 21 + 43 bytes, 13 more each when signed, four answers, and room. */
  tickBytesMax: 1_024,

  historyUs: 120_000_000,
  /** Samples at 250 Hz for 131 s; the surplus is what a reader may be overtaken by. */
  samplesMax: 32_768,
  /** Commands: twice the rate, since doubled ones are recorded too. */
  commandsMax: 65_536,
  failsafesMax: 1_024,
  /** Of a ring, the oldest entries that a reader leaves alone, since the writer may be on them. */
  overtakenMax: 512,
  epochsMax: 256,

  /** A harder touchdown, or one on its side, is a crash: the drone stays down. */
  touchdownMSMax: 4,
  touchdownTiltDegMax: 60,

  visible: { width: 160, height: 120, rateHz: 20, jpegQuality: 60 },
  thermal: { width: 80, height: 60, rateHz: 9 },
  cameraHeaderBytes: 16,
  cameraFrameBytesMax: 64 * 1024,
  /** Beyond the kernel's own socket buffer: with it, over a second of both streams while ownership changes. */
  cameraQueueBytesMax: 256 * 1024,
  /** A camera later than this starts its schedule anew instead of sending a burst. */
  cameraLateUsMax: 1_000_000,

  httpBodyBytesMax: 4_096,
  startMsMax: 10_000,
} as const;
