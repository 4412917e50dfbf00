/**
 * The airframe, the gains and the bounds of the flight, each with its reason; one place to tune.
 *
 * Frames: NED in the world (z down), FRD in the body. Motors as PX4's quad-x: 1 front right, 2 rear left (both
 * counter-clockwise), 3 front left, 4 rear right (both clockwise). SI units; motor commands 0..1 of full thrust.
 */

/** PX4 SIH's quadrotor (its published defaults). */
export const AIRFRAME = {
  massKg: 1,
  inertiaKgM2: [0.025, 0.025, 0.03],
  /** Lever of every motor about the roll and about the pitch axis. */
  armM: 0.2,
  thrustPerMotorNMax: 5,
  torquePerMotorNmMax: 0.1,
  motorTimeConstantS: 0.05,
  /** In still air; fed forward in a climb, so that the integral does not learn it and has to unlearn it at the top. */
  dragNPerMS: 1,
} as const;

export const GRAVITY_MS2 = 9.80665;

export const GAINS = {
  /** The command leads the motor so that thrust answers as if it had this time constant; below it noise costs more than it buys. */
  motorLeadTimeConstantS: 0.02,
  /** 1/s, rate error to angular acceleration. With 20 ms of motor lag: damping 1 / (2 √(20 · 0.02)) = 0.79. Yaw has a tenth of the torque. */
  rate: [20, 20, 8],
  /** 1/s², takes out what is constant: a bent arm, an off-centre battery. Five times slower than the rate loop. */
  rateIntegral: [12, 12, 3],
  /** 1/s, attitude error to rate; a third of the rate loop's, so that the two stay apart. Yaw last: it does not hold the drone up. */
  attitude: [6.5, 6.5, 2],
  /** 1/s, velocity error to acceleration; a third of the attitude loop's. Height has no tilt in the way and may be stiffer. */
  velocity: [2.4, 2.4, 4],
  /** 1/s², wind and a tired battery. */
  velocityIntegral: [0.7, 0.7, 1.6],
  /** 1/s, position error to velocity; under half of the velocity loop's. */
  position: [0.9, 0.9, 1.4],
  /**
   * Share of a 50 Hz measurement that is believed; the rest is the IMU's. Small, since the velocity's noise would else be
   * seen as a trembling of the attitude; not smaller, since the accelerometer's bias would then show as a speed.
   */
  positionCorrection: 0.15,
  velocityCorrection: 0.08,
  /** Gyro low-pass, Hz: far above the rate loop (3 Hz), below half of 250 Hz. */
  gyroCutoffHz: 80,
} as const;

export const LIMITS = {
  /** Keeps 91 % of the thrust for lift and the camera on the ground below. */
  tiltRadMax: 0.42,
  rateRadSMax: 3.5,
  speedMSMax: [1.5, 1.5, 1.2],
  accelerationMS2Max: [4, 4, 5],
  velocityIntegralMS2Max: [2.5, 2.5, 3],
  rateIntegralRadS2Max: [6, 6, 2],
  /** Turning motors keep authority on every side; never stopped in the air, never flat out in the mixer. */
  motorMin: 0.04,
  motorMax: 1,
  /** Yaw may take this share of a motor's range: it must not cost lift. */
  yawShareMax: 0.15,

  /** The link's cycle. A shorter or longer step is clipped: a stall must not become one large wrong integration. */
  cycleMs: 4,
  stepMsMin: 0.5,
  stepMsMax: 40,
  /** Farther off than this, a measurement is a new start of the estimate, not a correction. */
  positionJumpM: 1,

  /** Mission: motors spool up, then a climb to the hover height, eased at its end. */
  spoolS: 0.8,
  spoolThrottle: 0.18,
  climbMS: 0.8,
  landMS: 0.5,
  /** How the eased setpoint gains and loses speed on its way from place to place. */
  easeMS2: 0.6,
  /** From place to place at most: drag and easing together stay well within `tiltRadMax`. */
  cruiseMSMax: 3,
  /** Towards the middle of a circle; at `cruiseMSMax`, with its drag, 23 degrees of tilt. */
  turnMS2Max: 3,
  /** How far a pilot may send it, m: a fence against a slipped digit, not a mission's. */
  placeMMax: 100,
  heightM: { min: 0.5, max: 50 },
  /** Above this the drone is in the air when a controller starts without any state: it holds its place, it does not "take off". */
  airborneM: 0.3,
  /** On the ground for this long although it should hover: something else landed it. Motors stay off until the next start. */
  landedS: 0.5,

  /** 1 Hz, counted in cycles: the loop has no timer. */
  heartbeatCycles: 250,
  /** 50 Hz: what is between is led on by the shadow itself. */
  targetCycles: 5,

  /** A state handed over: bound on what is accepted. */
  stateValueMax: 1e9,

  /** Outputs of the prior kept for comparison: 100 ms, far more than the mirror's own delay. */
  warmUpOutputs: 25,
} as const;

export interface Setpoint {
  /** Height of the hover above the place of the take-off; null: stands until it is asked to take off. */
  altitudeM: number | null;
}
export const HOVER = { altitudeM: 2 } satisfies Setpoint;
