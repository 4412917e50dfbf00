/** What the cases do with what a program passes on: read its words, read on in its place, and hear its connections. */
import { CONFORM } from '#handover/conform/limits.ts';
import { expect, expectWithin, Miss } from '#handover/conform/wait.ts';
import type { Parcel, Seat, World } from '#handover/conform/world.ts';
import { LIMITS } from '#handover/limits.ts';
import type { Json, JsonObject } from '#handover/messages.ts';
import { AGAIN, isNativeError, native } from '#handover/native.ts';

export const payloadOf = ({ parts }: Parcel): JsonObject => parts[0]?.payload ?? {};
/** @throws Miss: the program's own words are not to be trusted */
export const numberOf = (value: Json | undefined, what: string): number => {
  expect(typeof value === 'number', `${what} is ${JSON.stringify(value)}`);
  return value;
};
export const namesOf = ({ parts }: Parcel): string[] =>
  parts.flatMap(({ payload }) => {
    const connections = payload?.connections;
    expect(Array.isArray(connections), 'a payload without connections');
    return connections.map((entry) => {
      const name = typeof entry === 'object' && entry !== null && 'fd' in entry ? entry.fd : undefined;
      expect(typeof name === 'string', `a connection without fd: ${JSON.stringify(entry)}`);
      return name;
    });
  });
export const sorted = (names: readonly string[]): string =>
  [...names].sort((a, b) => a.localeCompare(b)).join(' ');
export const prepares = async (world: World, seat: Seat): Promise<void> => {
  seat.send({ type: 'PREPARE' });
  const { message } = await seat.peer.next('READY', world.ms(LIMITS.prepareMsMax));
  expect(message.epoch === world.epoch, `READY of epoch ${message.epoch}, not ${world.epoch}`);
};

/** Reads on as the next owner would: frames must go on where the payload says. Returns the parcel for a grant. */
export const readOn = async (world: World, parcel: Parcel): Promise<Parcel> => {
  const { leftover, frames } = payloadOf(parcel);
  expect(typeof leftover === 'string' && typeof frames === 'number', 'payload without leftover or frames');
  const from = world.feed.frames;
  await expectWithin(world.ms(CONFORM.answerMsMax), () => world.feed.frames >= from + 4, 'no frames');
  const read = world.feed.read(Buffer.from(leftover, 'base64'));
  read.seqs.forEach((seq, at) => {
    expect(seq === frames + at, `frame ${seq} where ${frames + at} was due`);
  });
  expect(read.seqs.length >= 3, `${read.seqs.length} frames left for the successor`);
  const payload = { leftover: read.leftover.toString('base64'), frames: frames + read.seqs.length };
  return { from: 'release', parts: [{ payload, descriptors: [] }] };
};

/** An error of a connection is its end. */
const readOf = (fd: number, bytes: Buffer): number => {
  try {
    return native.read(fd, bytes, 0, bytes.length);
  } catch (error) {
    if (!isNativeError(error)) throw error;
    return 0;
  }
};

/** Says the end of a line to each, and hears its answer. */
export const answered = async (world: World, fds: readonly number[]): Promise<void> => {
  const waiting = new Map(fds.map((fd, at) => [fd, { due: `e n${at}!\n`, heard: '' }]));
  const end = Buffer.from('!\n');
  for (const fd of fds) {
    try {
      native.send(fd, end, 0, end.length, []);
    } catch (error) {
      if (!isNativeError(error)) throw error;
      throw new Miss(`a connection ended (${error.code})`);
    }
  }
  const bytes = Buffer.alloc(256);
  const look = (): boolean => {
    for (const [fd, entry] of waiting) {
      const got = readOf(fd, bytes);
      if (got === AGAIN) continue;
      expect(got > 0, `a connection ended; it was to say ${entry.due.trim()}`);
      entry.heard += bytes.toString('latin1', 0, got);
      if (entry.heard === entry.due) waiting.delete(fd);
      else expect(entry.due.startsWith(entry.heard), `"${entry.heard}", not "${entry.due}"`);
    }
    return waiting.size === 0;
  };
  await expectWithin(world.ms(CONFORM.answerMsMax), look, () => `${waiting.size} connections silent`);
};
