/**
 * Airframes that others have measured and published, by name.
 *
 * Invariant: every figure has its source beside it; what is computed from one says how. What no source gives is marked
 * "assumed". Sensors are the same on all: what they differ in is the airframe.
 */
import { PARAMETERS, type Parameters } from '#device-sim/parameters.ts';

/**
 * Rotors of Gazebo and RotorS: thrust k w^2, torque c times the thrust, drag of each rotor d w v. The drag is taken at
 * the rotors' speed in hover, where it is linear, and in all directions.
 */
interface Rotors {
  readonly newtonPerRadS2: number;
  readonly torquePerThrustM: number;
  readonly radSMax: number;
  readonly dragKgPerRad: number;
}

const driven = (massKg: number, { newtonPerRadS2, torquePerThrustM, radSMax, dragKgPerRad }: Rotors) => {
  const thrustN = newtonPerRadS2 * radSMax ** 2;
  const hoverRadS = Math.sqrt((massKg * PARAMETERS.gravityMS2) / (4 * newtonPerRadS2));
  const dragNPerMS = 4 * dragKgPerRad * hoverRadS;
  return { massKg, thrustN, torqueNm: torquePerThrustM * thrustN, dragNPerMS, motorState: 'speed' } as const;
};

/** PX4-gazebo-models, models/x500_base/model.sdf (masses, places) and models/x500/model.sdf (motors). */
const X500: Parameters = {
  ...PARAMETERS,
  ...driven(2.0 + 4 * 0.016077, {
    newtonPerRadS2: 8.54858e-6, // motorConstant
    torquePerThrustM: 0.016, // momentConstant
    radSMax: 1_000, // maxRotVelocity
    dragKgPerRad: 8.06428e-5, // rotorDragCoefficient
  }),
  // base_link 0.021667, 0.021667, 0.04, and four rotors of 0.016077 kg at 0.174, 0.174, 0.058 m from the common centre.
  inertiaKgM2: [0.02389, 0.02389, 0.044],
  armM: { roll: 0.174, pitch: 0.174 }, // pose of rotor_0 to rotor_3
  motorTauS: 0.0125, // timeConstantUp
  motorTauDownS: 0.025, // timeConstantDown
  angularDragNmPerRadS: 0, // none in the model
  // As Holybro sells the X500: four cells, 5 Ah, about 18 minutes of hover. The resistance is assumed.
  battery: { cells: 4, capacityAh: 5, resistanceOhm: 0.02, hoverS: 1_080 },
};

/** Crazyflie 2.x: RotorS urdf/crazyflie2.xacro, with the motors as J. Förster identified them (ETH Zurich, 2015). */
const CRAZYFLIE: Parameters = {
  ...PARAMETERS,
  ...driven(0.027, {
    newtonPerRadS2: 2.3e-8, // RotorPy crazyflie_params.py, k_eta
    torquePerThrustM: 5.964552e-3, // moment_constant; Förster: torque by thrust
    // 0.1592 N at full PWM: Förster's 0.09149 + 0.06767 (firmware, PWM_TO_THRUST_a and _b).
    radSMax: Math.sqrt(0.1592 / 2.3e-8),
    dragKgPerRad: 1.02506e-6, // RotorPy k_d; Förster's drag matrix, x
  }),
  inertiaKgM2: [1.657171e-5, 1.657171e-5, 2.9261652e-5], // body_inertia
  armM: { roll: 0.046 * Math.SQRT1_2, pitch: 0.046 * Math.SQRT1_2 }, // arm_length, in x
  motorTauS: 0.072, // RotorPy tau_m: brushed motors
  motorTauDownS: 0.072,
  angularDragNmPerRadS: 0,
  // As Bitcraze sells it: one cell, 250 mAh, about 7 minutes. The resistance is assumed.
  battery: { cells: 1, capacityAh: 0.25, resistanceOhm: 0.1, hoverS: 420 },
};

/** AscTec Hummingbird: RotorS urdf/hummingbird.xacro (after Wang et al.). It flies there as a plus, here as an x. */
const HUMMINGBIRD: Parameters = {
  ...PARAMETERS,
  ...driven(0.68 + 4 * 0.009, {
    newtonPerRadS2: 8.54858e-6, // motor_constant
    torquePerThrustM: 0.016, // moment_constant
    radSMax: 838, // max_rot_velocity
    dragKgPerRad: 8.06428e-5, // rotor_drag_coefficient
  }),
  // body_inertia 0.007, 0.007, 0.012, and four rotors of 0.009 kg on arms of 0.17 m.
  inertiaKgM2: [0.00752, 0.00752, 0.01304],
  armM: { roll: 0.17 * Math.SQRT1_2, pitch: 0.17 * Math.SQRT1_2 }, // arm_length, turned by 45 degrees
  motorTauS: 0.0125, // time_constant_up
  motorTauDownS: 0.025, // time_constant_down
  angularDragNmPerRadS: 0,
  // As Ascending Technologies sold it: three cells, 2.1 Ah, up to 20 minutes. The resistance is assumed.
  battery: { cells: 3, capacityAh: 2.1, resistanceOhm: 0.03, hoverS: 1_200 },
};

export const AIRFRAMES = {
  sih: PARAMETERS,
  x500: X500,
  crazyflie: CRAZYFLIE,
  hummingbird: HUMMINGBIRD,
} as const satisfies Record<string, Parameters>;

export type AirframeName = keyof typeof AIRFRAMES;
export const AIRFRAME_NAMES = Object.keys(AIRFRAMES) as AirframeName[];
