/**
 * The rotors as a resource: the loop on its link, handed over with all that it knows.
 *
 * Invariant: a state that cannot be read is refused while its owner can still take the rotors back; only when the prior
 * is dead does the drone fly on from what the board says.
 */
import { type JsonObject, SerialLink } from 'midair/handover';
import * as v from 'valibot';
import type { ControllerState } from './control.ts';
import type { Loop, Output } from './loop.ts';
import { parseState, STATE_VERSION } from './state.ts';

const sequenceSchema = v.fallback(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(255)), 255);

export const createRotors = (loop: Loop, log: (text: string) => void): SerialLink => {
  const link = new SerialLink({
    onData: (bytes) => loop.read(bytes),
    state: () => {
      const { state, sequence, partial } = loop.cursor();
      return {
        link: { seq: sequence },
        partial,
        state: state as unknown as JsonObject,
        stateVersion: STATE_VERSION,
      };
    },
    resume: (payload, { from }) => {
      let state: ControllerState | null = null;
      try {
        if (payload !== null) state = parseState(payload.state);
      } catch (error) {
        if (from !== 'snap') throw error;
        log(
          `the prior is gone and its state cannot be read, so the flight goes on without it: ${String(error)}`,
        );
      }
      loop.resume(state, v.parse(sequenceSchema, payload?.link.seq));
      loop.output = output;
    },
    onLost: (error) => log(`the rotor link failed: ${error.message}`),
  });
  const output: Output = {
    get epoch() {
      return link.epoch;
    },
    send: (frame, answersUs) => link.write(frame, answersUs !== null),
  };
  return link;
};
