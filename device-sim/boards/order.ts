/** An order, whether it came as COMMAND_LONG or as COMMAND_INT: what the profiles share of reading and answering it. */
import { isMine } from '#device-sim/boards/companion.ts';
import type { Streams } from '#device-sim/boards/streams.ts';
import type { Vehicle } from '#device-sim/vehicle.ts';
import { type Frame, MAV } from '#handover/mavlink/index.ts';

export interface Order {
  readonly command: number;
  /** param1 to param7; COMMAND_INT's x and y are whole numbers (degrees * 1e7 for a place). */
  readonly params: readonly [number, number, number, number, number, number, number];
}

/** Undefined: no order, or not for this board. */
export const orderOf = (frame: Frame): Order | undefined => {
  if (frame.name !== 'COMMAND_LONG' && frame.name !== 'COMMAND_INT') return undefined;
  if (!isMine(frame.fields.target_system, frame.fields.target_component)) return undefined;
  const { command, param1, param2, param3, param4 } = frame.fields;
  const rest: [number, number, number] =
    frame.name === 'COMMAND_LONG'
      ? [frame.fields.param5, frame.fields.param6, frame.fields.param7]
      : [frame.fields.x, frame.fields.y, frame.fields.z];
  return { command, params: [param1, param2, param3, param4, ...rest] };
};

/** To the one who sent it. */
export const answer = (vehicle: Vehicle, frame: Frame, { command }: Order, result: number): void =>
  vehicle.answer({
    command,
    result,
    target_system: frame.systemId,
    target_component: frame.componentId,
  });

/** MAV_CMD_SET_MESSAGE_INTERVAL: message, us. @param refused the result for a message that the board does not have */
export const setInterval = (streams: Streams, { params }: Order, refused: number): number =>
  streams.set(params[0], params[1]) ? MAV.RESULT_ACCEPTED : refused;
