/** The kinds of board, by name. */
import { ArduPilot } from '#device-sim/boards/ardupilot.ts';
import { Direct } from '#device-sim/boards/direct.ts';
import type { BoardName, Profile } from '#device-sim/boards/profile.ts';
import { Px4 } from '#device-sim/boards/px4.ts';
import type { Vehicle } from '#device-sim/vehicle.ts';

const KINDS: Readonly<Record<BoardName, new (vehicle: Vehicle) => Profile>> = {
  direct: Direct,
  px4: Px4,
  ardupilot: ArduPilot,
};

export const createProfile = (kind: BoardName, vehicle: Vehicle): Profile => new KINDS[kind](vehicle);
