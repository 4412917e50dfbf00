/**
 * The rotors as a resource: the loop on its link, handed over with all that it knows.
 *
 * Invariant: a state that cannot be read is refused while its owner can still take the rotors back; only when the prior
 * is dead does the drone fly on from what the board says.
 */
import { type Grant, type JsonObject, type RotorsPayload, SerialLink } from 'midair/handover';
import { MAVLINK_LIMITS, SignedLink } from 'midair/handover/mavlink';
import * as v from 'valibot';
import type { ControllerState } from './control.ts';
import { HOVER } from './limits.ts';
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

/** After so many calls V8 has compiled what it will. */
const REHEARSALS = 300;
const KEY = Buffer.alloc(32).toString('base64');

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
  const streams = v.parse(streamsSchema, payload?.link.streams);
  const signed = signing && new SignedLink({ ...signing, streams });
  loop.resume(state, v.parse(sequenceSchema, payload?.link.seq), signed);
};

/** On a loop of its own: the successor of one that died has no time for code that runs for the first time. */
const rehearse = (): void => {
  const loop = new Loop(HOVER);
  const signing = { key: KEY, linkId: 1, lastTimestamp: 0 };
  for (let i = 0; i < REHEARSALS; i += 1) {
    const { partial, ...said } = stateOf(loop);
    const payload = JSON.parse(JSON.stringify({ ...said, partial: '', lastWriteUs: partial.length }));
    goOn(loop, payload, { from: 'snap', signing }, () => undefined);
  }
};

export const createRotors = (loop: Loop, log: (text: string) => void): SerialLink => {
  const link = new SerialLink({
    onData: (bytes) => loop.read(bytes),
    state: () => stateOf(loop),
    resume: (payload, grant) => {
      goOn(loop, payload, grant, log);
      loop.output = output;
    },
    rehearse,
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
