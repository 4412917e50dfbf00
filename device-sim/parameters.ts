/**
 * The simulated quadrotor in numbers, in SI units, frames NED (world) and FRD (body).
 *
 * Invariant: airframe values are the defaults of PX4's own simulator, "simulation in hardware" (PX4-Autopilot
 * src/modules/simulation/simulator_sih/sih_params.c, SIH_*), so that what flies here is what others can fly too.
 */
export interface Parameters {
  readonly massKg: number;
  /** Diagonal of the inertia; the cross terms are 0. */
  readonly inertiaKgM2: readonly [x: number, y: number, z: number];
  /** Half the distance between left and right motors, and between front and rear motors. */
  readonly armM: { readonly roll: number; readonly pitch: number };
  /** One motor at full throttle; thrust and torque are proportional to its speed state, 0 to 1. */
  readonly thrustN: number;
  readonly torqueNm: number;
  /** First order: 63.2 % of a step after this time. */
  readonly motorTauS: number;
  /** Force -k v and moment -k w. */
  readonly dragNPerMS: number;
  readonly angularDragNmPerRadS: number;
  readonly gravityMS2: number;
  readonly sensors: SensorParameters;
  readonly battery: { readonly capacityS: number; readonly fullV: number; readonly emptyV: number };
}

/** White noise by its one-sided density: a sample at rate f has the standard deviation density * sqrt(f / 2). */
export interface SensorParameters {
  readonly gyroRadSPerSqrtHz: number;
  readonly accelerometerMS2PerSqrtHz: number;
  /** Constant of each flight, drawn from the seed: its standard deviation. */
  readonly gyroBiasRadS: number;
  readonly accelerometerBiasMS2: number;
  /** What is left after the board's own estimator: slowly wandering errors (first-order Gauss-Markov). */
  readonly attitudeErrorRad: number;
  readonly positionErrorM: number;
  readonly velocityNoiseMS: number;
  readonly wanderS: number;
  readonly magnetometerNoiseGauss: number;
  readonly pressureNoiseHPa: number;
  /** North, east, down; at the start place of PX4's simulator, 47.4 N 8.5 E. */
  readonly fieldGauss: readonly [number, number, number];
  readonly groundPressureHPa: number;
  readonly temperatureC: number;
}

export const PARAMETERS: Parameters = {
  massKg: 1.0, // SIH_MASS
  inertiaKgM2: [0.025, 0.025, 0.03], // SIH_IXX, SIH_IYY, SIH_IZZ
  armM: { roll: 0.2, pitch: 0.2 }, // SIH_L_ROLL, SIH_L_PITCH
  thrustN: 5.0, // SIH_T_MAX
  torqueNm: 0.1, // SIH_Q_MAX
  motorTauS: 0.05, // SIH_T_TAU
  dragNPerMS: 1.0, // SIH_KDV
  angularDragNmPerRadS: 0.025, // SIH_KDW
  gravityMS2: 9.80665, // CONSTANTS_ONE_G
  sensors: {
    // Bosch BMI088 (on Pixhawk 6 boards), data sheet: 0.014 deg/s/sqrt(Hz), 175 ug/sqrt(Hz).
    gyroRadSPerSqrtHz: 2.4e-4,
    accelerometerMS2PerSqrtHz: 1.7e-3,
    // After the usual calibration on the ground.
    gyroBiasRadS: 2e-3,
    accelerometerBiasMS2: 0.02,
    // A well-tuned estimator with RTK-class position.
    attitudeErrorRad: 1e-3,
    positionErrorM: 0.01,
    velocityNoiseMS: 0.01,
    wanderS: 10,
    magnetometerNoiseGauss: 0.003,
    pressureNoiseHPa: 0.01,
    fieldGauss: [0.21, 0.01, 0.43],
    groundPressureHPa: 955.8, // standard atmosphere at SIH_LOC_H0, 489.4 m
    temperatureC: 25,
  },
  // Twenty minutes of hover, four lithium cells.
  battery: { capacityS: 1_200, fullV: 16.8, emptyV: 14.0 },
};
