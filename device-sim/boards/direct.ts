/**
 * The `direct` kind: the companion closes all loops and commands the motors, an answer to each IMU sample
 * (HIL_ACTUATOR_CONTROLS: `time_usec` is the sample's, `flags` the handover's epoch).
 *
 * Invariants: the last command is held; 200 ms after it the board levels and descends by itself and listens to nobody
 * until it is down. It follows every valid command whoever sent it, as a real board would: keeping a second sender away
 * is the handover's duty, and the judge tells whether it was done.
 */
import type { Heartbeat, Profile } from '#device-sim/boards/profile.ts';
import { Streams } from '#device-sim/boards/streams.ts';
import { failsafeThrottles } from '#device-sim/failsafe.ts';
import { LIMITS } from '#device-sim/limits.ts';
import type { Vehicle } from '#device-sim/vehicle.ts';
import { type Fields, type Frame, MAV } from '#handover/mavlink/index.ts';

export class Direct implements Profile {
  readonly flies = false;
  readonly streams = new Streams(LIMITS.directHz);
  readonly #vehicle: Vehicle;

  constructor(vehicle: Vehicle) {
    this.#vehicle = vehicle;
  }

  hear(frame: Frame, tUs: number): void {
    if (frame.name === 'HIL_ACTUATOR_CONTROLS') this.#command(frame.fields, tUs);
    else if (frame.name === 'COMMAND_LONG') this.#order(frame.fields, frame.systemId, frame.componentId);
  }

  step(tUs: number): void {
    const vehicle = this.#vehicle;
    if (vehicle.armed && !vehicle.failsafe && vehicle.silentUs(tUs) >= LIMITS.failsafeUs) {
      if (vehicle.state.onGround) {
        vehicle.disarm();
      } else {
        vehicle.failsafe = true;
        vehicle.judge.failsafe(tUs);
      }
    }
    if (vehicle.failsafe) failsafeThrottles(vehicle.state.x, vehicle.parameters, vehicle.throttles);
  }

  fly(): void {}

  landed(): void {
    if (this.#vehicle.failsafe) this.#vehicle.disarm();
  }

  heartbeat(): Heartbeat {
    const { armed, failsafe, crashed } = this.#vehicle;
    const normal = armed ? MAV.STATE_ACTIVE : MAV.STATE_STANDBY;
    return {
      autopilot: MAV.AUTOPILOT_GENERIC,
      base_mode: MAV.MODE_FLAG_CUSTOM_MODE_ENABLED | (armed ? MAV.MODE_FLAG_SAFETY_ARMED : 0),
      custom_mode: 0,
      system_status: failsafe || crashed ? MAV.STATE_EMERGENCY : normal,
    };
  }

  landedState(): number {
    if (this.#vehicle.state.onGround) return MAV.LANDED_STATE_ON_GROUND;
    return this.#vehicle.failsafe ? MAV.LANDED_STATE_LANDING : MAV.LANDED_STATE_IN_AIR;
  }

  #command(fields: Fields<'HIL_ACTUATOR_CONTROLS'>, tUs: number): void {
    const vehicle = this.#vehicle;
    const arrival = { tUs, epoch: fields.flags, imuUs: fields.time_usec };
    if (vehicle.failsafe || vehicle.crashed) {
      vehicle.judge.refuse(arrival, 'ignored');
      return;
    }
    const arms = (fields.mode & MAV.MODE_FLAG_SAFETY_ARMED) !== 0;
    const finite = fields.controls.every(Number.isFinite);
    // Motors off is an order for the ground; and nobody can answer a sample that was not taken yet.
    if (!finite || fields.time_usec > vehicle.newestImuUs || (!arms && !vehicle.state.onGround)) {
      vehicle.judge.refuse(arrival, 'invalid');
      return;
    }
    if (!arms) {
      vehicle.disarm();
      return;
    }
    vehicle.armed = true;
    vehicle.judge.record(arrival);
    vehicle.followed(tUs, fields.flags);
    for (let motor = 0; motor < 4; motor += 1) {
      vehicle.throttles[motor] = Math.min(1, Math.max(0, fields.controls[motor] as number));
    }
  }

  /** Only disarming is known as an order; arming comes with the first command. */
  #order(fields: Fields<'COMMAND_LONG'>, systemId: number, componentId: number): void {
    const vehicle = this.#vehicle;
    const known = fields.command === MAV.CMD_COMPONENT_ARM_DISARM && fields.param1 === 0;
    const allowed = known && (vehicle.state.onGround || !vehicle.armed);
    if (allowed && vehicle.armed) vehicle.disarm();
    const refused = known ? MAV.RESULT_DENIED : MAV.RESULT_UNSUPPORTED;
    const result = allowed ? MAV.RESULT_ACCEPTED : refused;
    vehicle.answer({
      command: fields.command,
      result,
      target_system: systemId,
      target_component: componentId,
    });
  }
}
