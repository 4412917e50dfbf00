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
  COMMAND_INT: {
    id: 75,
    fields: {
      target_system: 'uint8_t',
      target_component: 'uint8_t',
      frame: 'uint8_t',
      command: 'uint16_t',
      current: 'uint8_t',
      autocontinue: 'uint8_t',
      param1: 'float',
      param2: 'float',
      param3: 'float',
      param4: 'float',
      x: 'int32_t',
      y: 'int32_t',
      z: 'float',
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
  SET_ATTITUDE_TARGET: {
    id: 82,
    fields: {
      time_boot_ms: 'uint32_t',
      target_system: 'uint8_t',
      target_component: 'uint8_t',
      type_mask: 'uint8_t',
      q: 'float[4]',
      body_roll_rate: 'float',
      body_pitch_rate: 'float',
      body_yaw_rate: 'float',
      thrust: 'float',
    },
    extensions: { thrust_body: 'float[3]' },
  },
  SET_POSITION_TARGET_LOCAL_NED: {
    id: 84,
    fields: {
      time_boot_ms: 'uint32_t',
      target_system: 'uint8_t',
      target_component: 'uint8_t',
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
  AUTOPILOT_ARDUPILOTMEGA: 3,
  AUTOPILOT_INVALID: 8,
  AUTOPILOT_PX4: 12,
  MODE_FLAG_CUSTOM_MODE_ENABLED: 1,
  MODE_FLAG_AUTO_ENABLED: 4,
  MODE_FLAG_GUIDED_ENABLED: 8,
  MODE_FLAG_STABILIZE_ENABLED: 16,
  MODE_FLAG_MANUAL_INPUT_ENABLED: 64,
  MODE_FLAG_SAFETY_ARMED: 128,
  STATE_STANDBY: 3,
  STATE_ACTIVE: 4,
  STATE_CRITICAL: 5,
  STATE_EMERGENCY: 6,
  LANDED_STATE_ON_GROUND: 1,
  LANDED_STATE_IN_AIR: 2,
  LANDED_STATE_TAKEOFF: 3,
  LANDED_STATE_LANDING: 4,
  CMD_NAV_LAND: 21,
  CMD_NAV_TAKEOFF: 22,
  CMD_DO_SET_MODE: 176,
  CMD_PREFLIGHT_REBOOT_SHUTDOWN: 246,
  CMD_COMPONENT_ARM_DISARM: 400,
  CMD_SET_MESSAGE_INTERVAL: 511,
  /** Second parameter of CMD_COMPONENT_ARM_DISARM: whatever speaks against it. */
  ARM_DISARM_FORCE: 21_196,
  RESULT_ACCEPTED: 0,
  RESULT_TEMPORARILY_REJECTED: 1,
  RESULT_DENIED: 2,
  RESULT_UNSUPPORTED: 3,
  RESULT_FAILED: 4,
  FRAME_GLOBAL_RELATIVE_ALT: 3,
  FRAME_LOCAL_NED: 1,
  FRAME_LOCAL_OFFSET_NED: 7,
  FRAME_BODY_NED: 8,
  FRAME_BODY_OFFSET_NED: 9,
  /** ATTITUDE_TARGET_TYPEMASK: what of SET_ATTITUDE_TARGET does not count. */
  ATTITUDE_ROLL_RATE_IGNORE: 1,
  ATTITUDE_PITCH_RATE_IGNORE: 2,
  ATTITUDE_YAW_RATE_IGNORE: 4,
  ATTITUDE_THROTTLE_IGNORE: 64,
  ATTITUDE_ATTITUDE_IGNORE: 128,
  /** POSITION_TARGET_TYPEMASK: of SET_POSITION_TARGET_LOCAL_NED. x, y and z of each have a bit of their own. */
  POSITION_IGNORE: 0x007,
  POSITION_VELOCITY_IGNORE: 0x038,
  POSITION_ACCELERATION_IGNORE: 0x1c0,
  POSITION_FORCE_SET: 0x200,
  POSITION_YAW_IGNORE: 0x400,
  POSITION_YAW_RATE_IGNORE: 0x800,
  COMP_ID_AUTOPILOT1: 1,
  COMP_ID_ONBOARD_COMPUTER: 191,
} as const;
