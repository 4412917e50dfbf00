/**
 * Signing before it counts: the first hash of a process loads its library and takes a fraction of a millisecond, and
 * cold code a multiple of warm; a successor is given the key in the very moment in which it is to fly.
 */
import { Parser } from '#handover/mavlink/parser.ts';
import { SignedLink } from '#handover/mavlink/signing.ts';
import { Writer } from '#handover/mavlink/writer.ts';

/** After so many calls V8 has compiled what it will. */
const FRAMES = 500;

/** Signs and hears some hundred frames under a key of its own, in a few milliseconds. */
export const rehearseSigning = (): void => {
  const end = () => new SignedLink({ key: new Uint8Array(32), linkId: 0, lastTimestamp: 0 });
  const writer = new Writer({ systemId: 1, componentId: 1, signing: end() });
  const parser = new Parser({ signing: end() });
  for (let frame = 0; frame < FRAMES; frame += 1) {
    const fields = { time_usec: frame, controls: [0, 0, 0, 0], mode: 0, flags: 0 };
    parser.read(writer.encode('HIL_ACTUATOR_CONTROLS', fields));
  }
};
