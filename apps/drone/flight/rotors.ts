/**
 * The rotors as a resource: the loop on its link, handed over with all that it knows.
 *
 * Invariant: a state that cannot be read is refused while its owner can still take the rotors back; only when the prior
 * is dead does the drone fly on from what the board says.
 */
import {
  type Grant,
  type JsonObject,
  type LinkRehearsal,
  type RotorsPayload,
  SerialLink,
} from 'midair/handover';
import { MAV, MAVLINK_LIMITS, SignedLink, Writer } from 'midair/handover/mavlink';
import * as v from 'valibot';
import type { ControllerState } from './control.ts';
import { GRAVITY_MS2, HOVER, LIMITS } from './limits.ts';
import { Loop, type Output } from './loop.ts';
import { parseState, STATE_VERSION } from './state.ts';

const byte = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(255));
const sequenceSchema = v.fallback(byte, 255);
const timestamp = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAVLINK_LIMITS.timestampMax));

/** What the prior heard, so that none of it is heard again. Without it the signing's own rule holds: one minute. */
const streamsSchema = v.fallback(
  v.pipe(v.array(v.tuple([byte, byte, byte, timestamp])), v.maxLength(MAVLINK_LIMITS.signedStreamsMax)),
  [],
);

/** Of a rehearsal. */
const SIGNING = { key: Buffer.alloc(32).toString('base64'), linkId: 1 };
const BOARD = { systemId: 1, componentId: MAV.COMP_ID_AUTOPILOT1 };

const stateOf = (loop: Loop) => {
  const { state, sequence, partial, signing } = loop.cursor();
  return {
    link: { seq: sequence, ...(signing && { streams: signing.streams.map((stream) => [...stream]) }) },
    ...(signing && { signing: { linkId: signing.linkId, lastTimestamp: signing.lastTimestamp } }),
    partial,
    state: state as unknown as JsonObject,
    stateVersion: STATE_VERSION,
  };
};

const goOn = (
  loop: Loop,
  payload: RotorsPayload | null,
  { from, signing }: Pick<Grant, 'from' | 'signing'>,
  log: (text: string) => void,
): void => {
  let state: ControllerState | null = null;
  try {
    if (payload !== null) state = parseState(payload.state, payload.stateVersion);
  } catch (error) {
    if (from !== 'snap') throw error;
    log(`the prior is gone and its state cannot be read, so the flight goes on without it: ${String(error)}`);
  }
  if (payload === null && from === 'snap')
    log('the prior is gone and its last heartbeat cannot be read: the flight goes on without its state');
  const streams = v.parse(streamsSchema, payload?.link.streams);
  const signed = signing && new SignedLink({ ...signing, streams });
  loop.resume(state, v.parse(sequenceSchema, payload?.link.seq), signed);
};

/** A loop of its own that is where `loop` is, and a board that says what this one hears in each cycle. */
const rehearsal = (loop: Loop): LinkRehearsal => {
  const { state, sequence } = loop.cursor();
  const own = new Loop(HOVER);
  own.resume(state, sequence, new SignedLink({ ...SIGNING, lastTimestamp: 0 }));
  const board = new Writer({ ...BOARD, signing: new SignedLink({ ...SIGNING, lastTimestamp: 0 }) });
  let { imuUs } = state;
  const sample = () => {
    imuUs += 1_000 * LIMITS.cycleMs;
    const time = { time_boot_ms: Math.floor(imuUs / 1_000) % 2 ** 32 };
    const attitude = { ...time, q1: 1, q2: 0, q3: 0, q4: 0, rollspeed: 0, pitchspeed: 0, yawspeed: 0 };
    const place = { ...time, x: 0, y: 0, z: 0, vx: 0, vy: 0, vz: 0 };
    return Buffer.concat([
      board.encode('ATTITUDE_QUATERNION', { ...attitude, repr_offset_q: [0, 0, 0, 0] }),
      board.encode('LOCAL_POSITION_NED', place),
      board.encode('HIGHRES_IMU', {
        ...{ time_usec: imuUs, xacc: 0, yacc: 0, zacc: -GRAVITY_MS2, xgyro: 0, ygyro: 0, zgyro: 0 },
        ...{ xmag: 0, ymag: 0, zmag: 0, abs_pressure: 0, diff_pressure: 0, pressure_alt: 0, temperature: 0 },
        ...{ fields_updated: 0, id: 0 },
      }),
    ]);
  };
  return { link: createRotors(own, () => undefined), sample, signing: SIGNING };
};

export const createRotors = (loop: Loop, log: (text: string) => void): SerialLink => {
  const link = new SerialLink({
    onData: (bytes) => loop.read(bytes),
    state: () => stateOf(loop),
    resume: (payload, grant) => {
      goOn(loop, payload, grant, log);
      loop.output = output;
    },
    rehearsal: () => rehearsal(loop),
    onLost: (error) => log(`the rotor link failed: ${error.message}`),
  });
  loop.onRefused = (refusal) => log(`the board is not heard: its frames are refused (${refusal})`);
  const output: Output = {
    get epoch() {
      return link.epoch;
    },
    send: (frame, answersUs) => link.write(frame, answersUs !== null),
  };
  return link;
};
