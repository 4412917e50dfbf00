/**
 * The board's words: which frames a tick sends, from what the sensors say.
 *
 * Invariant: an IMU sample comes first in every tick, the attitude of the same instant behind it; nothing is
 * allocated per tick but the frames. `time_usec` is CLOCK_MONOTONIC, `time_boot_ms` counts from power-on.
 */
import type { Battery } from '#device-sim/battery.ts';
import type { Profile } from '#device-sim/boards/profile.ts';
import { LIMITS } from '#device-sim/limits.ts';
import type { Sensors } from '#device-sim/sensors.ts';
import type { Vehicle } from '#device-sim/vehicle.ts';
import {
  type Fields,
  type FieldsToSend,
  MAV,
  type MessageName,
  type SignedLink,
  Writer,
} from '#handover/mavlink/index.ts';

/** HIGHRES_IMU_UPDATED_FLAGS: all but the differential pressure. */
const UPDATED = 0x1bff;
/** MAV_SYS_STATUS_SENSOR: gyro, accelerometer, magnetometer, pressure, motor outputs. */
const SENSORS = 0x01 | 0x02 | 0x04 | 0x08 | 0x8000;

export class Telemetry {
  readonly #startUs: number;
  readonly #writer: Writer;
  readonly #out = new Uint8Array(LIMITS.tickBytesMax);
  #length = 0;
  readonly #imu: Fields<'HIGHRES_IMU'> = {
    time_usec: 0,
    xacc: 0,
    yacc: 0,
    zacc: 0,
    xgyro: 0,
    ygyro: 0,
    zgyro: 0,
    xmag: 0,
    ymag: 0,
    zmag: 0,
    abs_pressure: 0,
    diff_pressure: 0,
    pressure_alt: 0,
    temperature: 25,
    fields_updated: UPDATED,
    id: 0,
  };
  readonly #attitude = {
    time_boot_ms: 0,
    q1: 1,
    q2: 0,
    q3: 0,
    q4: 0,
    rollspeed: 0,
    pitchspeed: 0,
    yawspeed: 0,
  };

  constructor(startUs: number, signing?: SignedLink) {
    this.#startUs = startUs;
    this.#writer = new Writer({ systemId: 1, componentId: MAV.COMP_ID_AUTOPILOT1, signing });
  }

  /** @returns bytes that are valid until the next call */
  frames(tick: number, tUs: number, vehicle: Vehicle, profile: Profile, battery: Battery): Uint8Array {
    this.#length = 0;
    const { sensors } = vehicle;
    const { streams } = profile;
    const bootMs = Math.floor((tUs - this.#startUs) / 1_000) % 2 ** 32;
    if (streams.due('HIGHRES_IMU', tick)) this.#sample(tUs, sensors);
    if (streams.due('ATTITUDE_QUATERNION', tick)) this.#stance(bootMs, sensors);
    if (streams.due('LOCAL_POSITION_NED', tick)) this.#position(bootMs, sensors);
    if (streams.due('EXTENDED_SYS_STATE', tick)) {
      this.#put('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state: profile.landedState() });
    }
    if (streams.due('HEARTBEAT', tick)) {
      this.#put('HEARTBEAT', { type: MAV.TYPE_QUADROTOR, mavlink_version: 3, ...profile.heartbeat() });
    }
    if (streams.due('SYS_STATUS', tick)) this.#status(battery);
    for (let answer = vehicle.nextAnswer(); answer !== undefined; answer = vehicle.nextAnswer()) {
      this.#put('COMMAND_ACK', answer);
    }
    return this.#out.subarray(0, this.#length);
  }

  #put<N extends MessageName>(name: N, fields: FieldsToSend<N>): void {
    const frame = this.#writer.encode(name, fields);
    this.#out.set(frame, this.#length);
    this.#length += frame.length;
  }

  #sample(tUs: number, sensors: Sensors): void {
    const { accelerometer, gyro, magnetometer } = sensors;
    const imu = this.#imu;
    imu.time_usec = tUs;
    imu.xacc = accelerometer[0] as number;
    imu.yacc = accelerometer[1] as number;
    imu.zacc = accelerometer[2] as number;
    imu.xgyro = gyro[0] as number;
    imu.ygyro = gyro[1] as number;
    imu.zgyro = gyro[2] as number;
    imu.xmag = magnetometer[0] as number;
    imu.ymag = magnetometer[1] as number;
    imu.zmag = magnetometer[2] as number;
    imu.abs_pressure = sensors.pressureHPa;
    imu.pressure_alt = sensors.pressureAltitudeM;
    this.#put('HIGHRES_IMU', imu);
  }

  #stance(bootMs: number, { attitude, gyro }: Sensors): void {
    const quaternion = this.#attitude;
    quaternion.time_boot_ms = bootMs;
    quaternion.q1 = attitude[0] as number;
    quaternion.q2 = attitude[1] as number;
    quaternion.q3 = attitude[2] as number;
    quaternion.q4 = attitude[3] as number;
    quaternion.rollspeed = gyro[0] as number;
    quaternion.pitchspeed = gyro[1] as number;
    quaternion.yawspeed = gyro[2] as number;
    this.#put('ATTITUDE_QUATERNION', quaternion);
  }

  #position(bootMs: number, { position, velocity }: Sensors): void {
    this.#put('LOCAL_POSITION_NED', {
      time_boot_ms: bootMs,
      x: position[0] as number,
      y: position[1] as number,
      z: position[2] as number,
      vx: velocity[0] as number,
      vy: velocity[1] as number,
      vz: velocity[2] as number,
    });
  }

  #status(battery: Battery): void {
    this.#put('SYS_STATUS', {
      onboard_control_sensors_present: SENSORS,
      onboard_control_sensors_enabled: SENSORS,
      onboard_control_sensors_health: SENSORS,
      load: 0,
      voltage_battery: Math.round(battery.volts * 1_000),
      current_battery: Math.round(battery.amps * 100),
      battery_remaining: Math.round(battery.percent),
      drop_rate_comm: 0,
      errors_comm: 0,
      errors_count1: 0,
      errors_count2: 0,
      errors_count3: 0,
      errors_count4: 0,
    });
  }
}
