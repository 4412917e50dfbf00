/**
 * Payloads that need several lines: live connections, of which one line carries at most 250.
 *
 * Invariant: joining what was split gives the same payload and descriptors, or nothing.
 */
import { BOUNDS } from '#handover/bounds.ts';
import type { Released } from '#handover/holder.ts';
import { LIMITS } from '#handover/limits.ts';
import { closeAll, type NamedDescriptor } from '#handover/lines.ts';
import { type Json, type JsonObject, ProtocolError } from '#handover/messages.ts';

export interface Batch {
  readonly payload: JsonObject;
  readonly descriptors: readonly NamedDescriptor[];
}

const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * At least one batch. Only `payload.connections` is split, each of its entries with the descriptor that its
 * `fd` names; the last batch has the payload's other fields.
 * @throws ProtocolError `LINE_TOO_LONG`: an entry, or all but the connections, does not fit one line
 */
export const split = ({ payload, descriptors = [] }: Released): Batch[] => {
  const { connections, ...rest } = payload;
  if (!Array.isArray(connections)) return [checked({ payload, descriptors })];
  const byName = new Map(descriptors.map((descriptor) => [descriptor.name, descriptor]));
  const batches: Batch[] = [];
  let entries: Json[] = [];
  let fds: NamedDescriptor[] = [];
  let bytes = Buffer.byteLength(JSON.stringify(rest));
  for (const entry of connections) {
    const size = Buffer.byteLength(JSON.stringify(entry)) + 1;
    if (fds.length === LIMITS.descriptorsPerLineMax || bytes + size > BOUNDS.payloadBytesMax) {
      if (entries.length > 0) batches.push({ payload: { connections: entries }, descriptors: fds });
      [entries, fds, bytes] = [[], [], Buffer.byteLength(JSON.stringify(rest))];
    }
    const name = isObject(entry) ? entry.fd : undefined;
    const descriptor = typeof name === 'string' ? byName.get(name) : undefined;
    if (descriptor !== undefined) fds.push(descriptor);
    entries.push(entry);
    bytes += size;
  }
  batches.push({ payload: { ...rest, connections: entries }, descriptors: fds });
  return batches.map(checked);
};

const checked = (batch: Batch): Batch => {
  const bytes = Buffer.byteLength(JSON.stringify(batch.payload));
  if (bytes <= BOUNDS.payloadBytesMax) return batch;
  throw new ProtocolError('LINE_TOO_LONG', `a payload of ${bytes} bytes does not fit one line`);
};

/** Joins the lines of one GRANT. Holds their descriptors until `done` or `drop`. */
export class Joined {
  readonly descriptors = new Map<string, number>();
  payload: JsonObject | null = null;
  #lines = 0;

  /** @throws ProtocolError `INVALID_MESSAGE`, `WRONG_DESCRIPTORS`; the descriptors are closed then, all of them */
  add(payload: JsonObject | null, descriptors: ReadonlyMap<string, number>): void {
    this.#lines += 1;
    let fault: ProtocolError | undefined;
    if (this.#lines > BOUNDS.grantLinesMax)
      fault = new ProtocolError('INVALID_MESSAGE', 'a grant has no end');
    for (const [name, fd] of descriptors) {
      if (this.descriptors.has(name)) {
        fault = new ProtocolError('WRONG_DESCRIPTORS', `two descriptors "${name}" in one grant`);
        closeAll([fd]);
      } else this.descriptors.set(name, fd);
    }
    if (fault !== undefined) {
      this.drop();
      throw fault;
    }
    if (payload === null) return;
    const before = this.payload?.connections;
    const { connections } = payload;
    this.payload =
      Array.isArray(before) && Array.isArray(connections)
        ? { ...this.payload, ...payload, connections: [...before, ...connections] }
        : { ...this.payload, ...payload };
  }

  drop(): void {
    closeAll(this.descriptors.values());
    this.descriptors.clear();
  }
}
