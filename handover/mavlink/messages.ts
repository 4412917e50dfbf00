/**
 * The MAVLink messages in use, as data, in the order of the official definitions (common.xml, minimal.xml).
 *
 * Invariant: a definition here is a copy of the published one; its order on the wire and its CRC_EXTRA are
 * derived (layout.ts) and a test compares the latter with the published constants. Field names stay MAVLink's
 * own, so that https://mavlink.io/en/messages/common.html is their documentation. Units as there: metres,
 * seconds, radians; `time_usec` is CLOCK_MONOTONIC in microseconds on this link.
 */
export type Scalar =
  | 'uint8_t'
  | 'int8_t'
  | 'uint16_t'
  | 'int16_t'
  | 'uint32_t'
  | 'int32_t'
  | 'uint64_t'
  | 'float';
export type FieldType = Scalar | `${Scalar}[${number}]`;

export interface Definition {
  readonly id: number;
  readonly fields: Readonly<Record<string, FieldType>>;
  /** Sent behind the others, in this order, and no part of CRC_EXTRA (MAVLink 2 extension fields). */
  readonly extensions?: Readonly<Record<string, FieldType>>;
}

export const MESSAGES = {
  HEARTBEAT: {
    id: 0,
    fields: {
      type: 'uint8_t',
      autopilot: 'uint8_t',
      base_mode: 'uint8_t',
      custom_mode: 'uint32_t',
      system_status: 'uint8_t',
      mavlink_version: 'uint8_t',
    },
  },
  SYS_STATUS: {
    id: 1,
    fields: {
      onboard_control_sensors_present: 'uint32_t',
      onboard_control_sensors_enabled: 'uint32_t',
      onboard_control_sensors_health: 'uint32_t',
      load: 'uint16_t',
      voltage_battery: 'uint16_t',
      current_battery: 'int16_t',
      battery_remaining: 'int8_t',
      drop_rate_comm: 'uint16_t',
      errors_comm: 'uint16_t',
      errors_count1: 'uint16_t',
      errors_count2: 'uint16_t',
      errors_count3: 'uint16_t',
      errors_count4: 'uint16_t',
    },
    extensions: {
      onboard_control_sensors_present_extended: 'uint32_t',
      onboard_control_sensors_enabled_extended: 'uint32_t',
      onboard_control_sensors_health_extended: 'uint32_t',
    },
  },
  ATTITUDE_QUATERNION: {
    id: 31,
    fields: {
      time_boot_ms: 'uint32_t',
      q1: 'float',
      q2: 'float',
      q3: 'float',
      q4: 'float',
      rollspeed: 'float',
      pitchspeed: 'float',
      yawspeed: 'float',
    },
    extensions: { repr_offset_q: 'float[4]' },
  },
  LOCAL_POSITION_NED: {
    id: 32,
    fields: {
      time_boot_ms: 'uint32_t',
      x: 'float',
      y: 'float',
      z: 'float',
      vx: 'float',
      vy: 'float',
      vz: 'float',
    },
  },
  COMMAND_LONG: {
    id: 76,
    fields: {
      target_system: 'uint8_t',
      target_component: 'uint8_t',
      command: 'uint16_t',
      confirmation: 'uint8_t',
      param1: 'float',
      param2: 'float',
      param3: 'float',
      param4: 'float',
      param5: 'float',
      param6: 'float',
      param7: 'float',
    },
  },
  COMMAND_ACK: {
    id: 77,
    fields: { command: 'uint16_t', result: 'uint8_t' },
    extensions: {
      progress: 'uint8_t',
      result_param2: 'int32_t',
      target_system: 'uint8_t',
      target_component: 'uint8_t',
    },
  },
  POSITION_TARGET_LOCAL_NED: {
    id: 85,
    fields: {
      time_boot_ms: 'uint32_t',
      coordinate_frame: 'uint8_t',
      type_mask: 'uint16_t',
      x: 'float',
      y: 'float',
      z: 'float',
      vx: 'float',
      vy: 'float',
      vz: 'float',
      afx: 'float',
      afy: 'float',
      afz: 'float',
      yaw: 'float',
      yaw_rate: 'float',
    },
  },
  HIL_ACTUATOR_CONTROLS: {
    id: 93,
    fields: { time_usec: 'uint64_t', controls: 'float[16]', mode: 'uint8_t', flags: 'uint64_t' },
  },
  HIGHRES_IMU: {
    id: 105,
    fields: {
      time_usec: 'uint64_t',
      xacc: 'float',
      yacc: 'float',
      zacc: 'float',
      xgyro: 'float',
      ygyro: 'float',
      zgyro: 'float',
      xmag: 'float',
      ymag: 'float',
      zmag: 'float',
      abs_pressure: 'float',
      diff_pressure: 'float',
      pressure_alt: 'float',
      temperature: 'float',
      fields_updated: 'uint16_t',
    },
    extensions: { id: 'uint8_t' },
  },
  EXTENDED_SYS_STATE: {
    id: 245,
    fields: { vtol_state: 'uint8_t', landed_state: 'uint8_t' },
  },
} as const satisfies Record<string, Definition>;

export type MessageName = keyof typeof MESSAGES;

type Base<N extends MessageName> = (typeof MESSAGES)[N]['fields'];
type Extensions<N extends MessageName> = (typeof MESSAGES)[N] extends { extensions: infer E } ? E : unknown;

/** What a frame carries: numbers, and arrays of numbers of the defined length. */
export type Fields<N extends MessageName> = {
  -readonly [K in keyof (Base<N> & Extensions<N>)]: (Base<N> & Extensions<N>)[K] extends Scalar
    ? number
    : number[];
};

type Input<T> = { readonly [K in keyof T]: T[K] extends Scalar ? number : ArrayLike<number> };
/** What is given to be sent: every field; arrays may be shorter (the rest is 0); extensions may be left out (0). */
export type FieldsToSend<N extends MessageName> = Input<Base<N>> & Partial<Input<Extensions<N>>>;

/** The values of MAVLink's enumerations that are in use, by MAVLink's names. */
export const MAV = {
  TYPE_QUADROTOR: 2,
  TYPE_ONBOARD_CONTROLLER: 18,
  AUTOPILOT_GENERIC: 0,
  AUTOPILOT_INVALID: 8,
  MODE_FLAG_CUSTOM_MODE_ENABLED: 1,
  MODE_FLAG_SAFETY_ARMED: 128,
  STATE_STANDBY: 3,
  STATE_ACTIVE: 4,
  STATE_EMERGENCY: 6,
  LANDED_STATE_ON_GROUND: 1,
  LANDED_STATE_IN_AIR: 2,
  LANDED_STATE_TAKEOFF: 3,
  LANDED_STATE_LANDING: 4,
  FRAME_LOCAL_NED: 1,
  POSITION_TARGET_TYPEMASK_YAW_RATE_IGNORE: 2048,
  CMD_NAV_LAND: 21,
  CMD_COMPONENT_ARM_DISARM: 400,
  RESULT_ACCEPTED: 0,
  RESULT_DENIED: 2,
  RESULT_UNSUPPORTED: 3,
  COMP_ID_AUTOPILOT1: 1,
  COMP_ID_ONBOARD_COMPUTER: 191,
} as const;
