/** The one command that the agent itself ever writes: land, here and now, when nobody is left to fly. */
import { MAV, SignedLink, Writer } from '#handover/mavlink/index.ts';
import type { Signing } from '#handover/messages.ts';

/** @param signing of a signed link; a time above all that was signed on it, else the board does not hear */
export const landCommand = (signing?: Signing): Uint8Array => {
  const link = signing && new SignedLink(signing);
  const writer = new Writer({ systemId: 1, componentId: MAV.COMP_ID_ONBOARD_COMPUTER, signing: link });
  return writer.encode('COMMAND_LONG', {
    target_system: 1,
    target_component: MAV.COMP_ID_AUTOPILOT1,
    command: MAV.CMD_NAV_LAND,
    confirmation: 0,
    param1: 0,
    param2: 0,
    param3: 0,
    param4: Number.NaN,
    param5: 0,
    param6: 0,
    param7: 0,
  });
};
