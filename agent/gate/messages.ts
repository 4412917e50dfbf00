/**
 * What is said on the gate's control socket: JSON lines with descriptors (handover/lines.ts), by the agent, by an
 * operator, and by the gate that is to take over.
 */
import * as v from 'valibot';
import { GATE } from '#agent/gate/limits.ts';
import { ProtocolError } from '#handover/messages.ts';

const epoch = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const bytes = v.pipe(v.string(), v.base64(), v.maxLength(2 * GATE.bytesMax));
const fds = v.optional(v.pipe(v.array(v.string()), v.maxLength(3)), []);

const toGate = v.variant('type', [
  /** Descriptors `gate` and `app`: the two ends of the epoch's channel. Answered by `opened` or `refused`. */
  v.object({
    type: v.literal('open'),
    epoch,
    previous: v.picklist(['released', 'dead', 'unknown']),
    fds,
  }),
  /** No channel from here on; these bytes go to the tty. Answered by `opened` or `refused`. */
  v.object({ type: v.literal('command'), epoch, bytes, fds }),
  v.object({ type: v.literal('stats'), fds }),
  /** Answered by `state`, or `refused`. Then the other says `running`; if it goes away before, all stays as it was. */
  v.object({ type: v.literal('handover'), fds }),
  v.object({ type: v.literal('running'), fds }),
]);
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const fromGate = v.variant('type', [
  v.object({ type: v.literal('opened'), epoch, fds }),
  v.object({ type: v.literal('refused'), code: v.string(), text: v.string(), fds }),
  v.object({ type: v.literal('stats'), stats: v.record(v.string(), count), fds }),
  /** Descriptors: `tty`, and `gate` and `app` if a channel is open. */
  v.object({
    type: v.literal('state'),
    epoch,
    partial: bytes,
    waiting: v.pipe(v.array(bytes), v.maxLength(GATE.waitingFramesMax + 1)),
    fds,
  }),
]);
export type ToGate = v.InferOutput<typeof toGate>;
export type FromGate = v.InferOutput<typeof fromGate>;

const parsed =
  <T extends v.GenericSchema>(schema: T) =>
  (line: string): v.InferOutput<T> => {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      throw new ProtocolError('INVALID_JSON', 'the line is not JSON', { cause });
    }
    const result = v.safeParse(schema, value);
    if (result.success) return result.output;
    const [issue] = result.issues;
    throw new ProtocolError('INVALID_MESSAGE', `${v.getDotPath(issue) ?? ''}: ${issue.message}`);
  };

/** @throws ProtocolError `INVALID_JSON`, `INVALID_MESSAGE` */
export const parseToGate = parsed(toGate);
export const parseFromGate = parsed(fromGate);
