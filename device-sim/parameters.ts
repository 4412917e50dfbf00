/**
 * The simulated quadrotor in numbers, in SI units, frames NED (world) and FRD (body).
 *
 * Invariant: the default airframe is that of PX4's own simulator, "simulation in hardware" (PX4-Autopilot
 * src/modules/simulation/simulator_sih/sih_params.c, SIH_*), so that what flies here is what others can fly too. The
 * other airframes are in airframes.ts.
 */
export interface Parameters {
  readonly massKg: number;
  /** Diagonal of the inertia; the cross terms are 0. */
  readonly inertiaKgM2: readonly [x: number, y: number, z: number];
  /** Half the distance between left and right motors, and between front and rear motors. */
  readonly armM: { readonly roll: number; readonly pitch: number };
  /** One motor at full throttle, the battery full and hovering. */
  readonly thrustN: number;
  readonly torqueNm: number;
  /**
   * A throttle is a share of full thrust; this is what follows it with first order. `thrust`: the thrust itself.
   * `speed`: the rotor's speed, with the throttle's root as its goal, and thrust and torque as its square.
   */
  readonly motorState: 'thrust' | 'speed';
  /** 63.2 % of a step after this time: upwards, and downwards. */
  readonly motorTauS: number;
  readonly motorTauDownS: number;
  /** Force -k v against the air, and moment -k w. */
  readonly dragNPerMS: number;
  readonly angularDragNmPerRadS: number;
  readonly gravityMS2: number;
  readonly sensors: SensorParameters;
  readonly battery: BatteryParameters;
}

/** A lithium polymer battery; its curve is in battery.ts. */
export interface BatteryParameters {
  readonly cells: number;
  readonly capacityAh: number;
  /** Of the whole pack with its wires. */
  readonly resistanceOhm: number;
  /** How long a full one carries the hover; the power of the motors follows from it. */
  readonly hoverS: number;
}

/** White noise by its one-sided density: a sample at rate f has the standard deviation density * sqrt(f / 2). */
export interface SensorParameters {
  readonly gyroRadSPerSqrtHz: number;
  readonly accelerometerMS2PerSqrtHz: number;
  /** At power-on, drawn from the seed: its standard deviation. */
  readonly gyroBiasRadS: number;
  readonly accelerometerBiasMS2: number;
  /** From there the bias walks: by density * sqrt(t), until it forgets after the correlation time. */
  readonly gyroWalkRadSPerSqrtS: number;
  readonly gyroWalkS: number;
  readonly accelerometerWalkMS2PerSqrtS: number;
  readonly accelerometerWalkS: number;
  readonly gps: GpsParameters;
  readonly barometer: BarometerParameters;
  /** What is left after the board's own estimator: slowly wandering errors (first-order Gauss-Markov). */
  readonly attitudeErrorRad: number;
  readonly velocityNoiseMS: number;
  readonly wanderS: number;
  readonly magnetometerNoiseGauss: number;
  /** North, east, down; at the start place of PX4's simulator, 47.4 N 8.5 E. */
  readonly fieldGauss: readonly [number, number, number];
  readonly temperatureC: number;
}

export interface GpsParameters {
  readonly rateHz: number;
  /** From the measurement to the fix. */
  readonly latencyS: number;
  /** Of each axis: standard deviation of an error that wanders within `wanderS`, not white. */
  readonly horizontalM: number;
  readonly verticalM: number;
  readonly speedMS: number;
  readonly wanderS: number;
}

export interface BarometerParameters {
  readonly groundPressureHPa: number;
  readonly noiseHPa: number;
  /** Weather and temperature: standard deviation of an error that wanders within `driftS`. */
  readonly driftHPa: number;
  readonly driftS: number;
}

/** u-blox ZED-F9P data sheet (UBX-17051259): RTK 0.01 m + 1 ppm CEP, 0.05 m/s, RTK at 8 Hz with four constellations. */
const RTK: GpsParameters = {
  rateHz: 8,
  latencyS: 0.11, // PX4 EKF2_GPS_DELAY, its default
  horizontalM: 0.01,
  verticalM: 0.01,
  speedMS: 0.05,
  wanderS: 10,
};

/** u-blox NEO-M9N data sheet (UBX-19014285): 2.0 m CEP, 0.05 m/s; vertical as PX4's simulator, 1.5 times (SensorGpsSim). */
export const STANDARD_GPS: GpsParameters = {
  rateHz: 8,
  latencyS: 0.11,
  horizontalM: 1.7, // CEP / 1.177: of each axis
  verticalM: 2.5,
  speedMS: 0.05,
  wanderS: 60,
};

const SENSORS: SensorParameters = {
  // Bosch BMI088 (on Pixhawk 6 boards and on the Crazyflie 2.1), data sheet: 0.014 deg/s/sqrt(Hz), 175 ug/sqrt(Hz).
  gyroRadSPerSqrtHz: 2.4e-4,
  accelerometerMS2PerSqrtHz: 1.7e-3,
  // After the usual calibration on the ground.
  gyroBiasRadS: 2e-3,
  accelerometerBiasMS2: 0.02,
  // RotorS gazebo_imu_plugin.h, kDefaultAdis*RandomWalk and *BiasCorrelationTime (ADIS16448); Bosch publishes none.
  gyroWalkRadSPerSqrtS: 3.8785e-5,
  gyroWalkS: 1_000,
  accelerometerWalkMS2PerSqrtS: 6e-3,
  accelerometerWalkS: 300,
  gps: RTK,
  barometer: {
    groundPressureHPa: 955.8, // standard atmosphere at SIH_LOC_H0, 489.4 m
    noiseHPa: 0.01, // 1 Pa RMS: PX4 SensorBaroSim.cpp, abs_pressure_noise
    driftHPa: 0.1, // assumed: 0.8 m in ten minutes, as on a day of quiet weather
    driftS: 600,
  },
  // A well-tuned estimator. Its position wanders with the GPS; the IMU smooths its speed.
  attitudeErrorRad: 1e-3,
  velocityNoiseMS: 0.01,
  wanderS: 10,
  magnetometerNoiseGauss: 0.003,
  fieldGauss: [0.21, 0.01, 0.43],
  temperatureC: 25,
};

export const PARAMETERS: Parameters = {
  massKg: 1.0, // SIH_MASS
  inertiaKgM2: [0.025, 0.025, 0.03], // SIH_IXX, SIH_IYY, SIH_IZZ
  armM: { roll: 0.2, pitch: 0.2 }, // SIH_L_ROLL, SIH_L_PITCH
  thrustN: 5.0, // SIH_T_MAX
  torqueNm: 0.1, // SIH_Q_MAX
  motorState: 'thrust', // sih.cpp, generate_force_and_torques
  motorTauS: 0.05, // SIH_T_TAU
  motorTauDownS: 0.05,
  dragNPerMS: 1.0, // SIH_KDV
  angularDragNmPerRadS: 0.025, // SIH_KDW
  gravityMS2: 9.80665, // CONSTANTS_ONE_G
  sensors: SENSORS,
  // SIH has none: four cells that carry a kilogram for twenty minutes (88 W).
  battery: { cells: 4, capacityAh: 2, resistanceOhm: 0.04, hoverS: 1_200 },
};
