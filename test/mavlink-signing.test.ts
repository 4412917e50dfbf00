import { createHash } from 'node:crypto';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  MAVLINK_LIMITS,
  Parser,
  parseKey,
  type Refusal,
  readKeyFile,
  SignedLink,
  type SigningOptions,
  systemTicks,
  Writer,
} from '#handover/mavlink/index.ts';
import { directory } from './handover-kit.ts';

const KEY = Uint8Array.from({ length: 32 }, (_, at) => at + 1);
const MINUTE = MAVLINK_LIMITS.firstBehindTicksMax;
const NOW = 36_000_000_000_000;

const end = (options: Partial<SigningOptions> = {}): SignedLink =>
  new SignedLink({ key: KEY, linkId: 1, lastTimestamp: 0, now: () => NOW, ...options });
/** A sender; each call is its next frame, of which `landed_state` tells one from the other. */
const sender = (options: Partial<SigningOptions> = {}, ids = { systemId: 1, componentId: 191 }) => {
  const writer = new Writer({ ...ids, signing: end(options) });
  return (landed_state = 1): Uint8Array =>
    writer.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state });
};
const receiver = (options: Partial<SigningOptions> = {}) => {
  const signing = end(options);
  const refused: Refusal[] = [];
  const parser = new Parser({ signing, onRefused: (refusal) => refused.push(refusal) });
  /** Why the frame did not pass, or that it did. */
  const hear = (frame: Uint8Array): Refusal | 'heard' => {
    const before = refused.length;
    const frames = parser.read(frame);
    expect(frames.length + refused.length - before).toBe(1);
    return refused[before] ?? 'heard';
  };
  return { signing, parser, refused, hear };
};
const timestampOf = (frame: Uint8Array): number => Buffer.from(frame).readUIntLE(frame.length - 12, 6);

describe('the signature', () => {
  // Published by another implementation: gomavlib, pkg/frame/reader_test.go, "v2 frame with decoded message, signed".
  const VECTOR = Buffer.from('fd090100000000000000040000000102030503d9d1010200000000000e47040cef9b', 'hex');
  const vectorKey = new Uint8Array(32).fill(0x4f);

  it('has the bytes of another implementation, and passes', () => {
    const now = (): number => 2;
    const writer = new Writer({
      systemId: 0,
      componentId: 0,
      signing: new SignedLink({ key: vectorKey, linkId: 1, lastTimestamp: 0, now }),
    });
    const fields = {
      type: 1,
      autopilot: 2,
      base_mode: 3,
      custom_mode: 4,
      system_status: 5,
      mavlink_version: 3,
    };
    expect(Buffer.from(writer.encode('HEARTBEAT', fields))).toEqual(VECTOR);
    const { hear } = receiver({ key: vectorKey, now });
    expect(hear(VECTOR)).toBe('heard');
  });

  it('property: is the hash over key, frame, link id and time, computed anew; a changed bit never passes', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.integer({ min: 0, max: 255 }),
        fc.integer({ min: 0, max: MAVLINK_LIMITS.timestampMax }),
        fc.array(fc.float({ noNaN: true }), { maxLength: 16 }),
        fc.nat(),
        (key, linkId, timestamp, controls, nat) => {
          const now = (): number => timestamp;
          const signing = new SignedLink({ key, linkId, lastTimestamp: 0, now });
          const writer = new Writer({ systemId: 1, componentId: 191, signing });
          const fields = { time_usec: 7, controls, mode: 129, flags: 3 };
          const frame = writer.encode('HIL_ACTUATOR_CONTROLS', fields);
          expect(timestampOf(frame)).toBe(Math.max(1, timestamp));
          const signed = frame.subarray(0, frame.length - 6);
          const digest = createHash('sha256').update(key).update(signed).digest();
          expect(Buffer.from(frame.subarray(-6))).toEqual(digest.subarray(0, 6));

          const bit = nat % (13 * 8);
          const changed = Buffer.from(frame);
          const at = frame.length - 13 + (bit >> 3);
          changed.writeUInt8(changed.readUInt8(at) ^ (1 << (bit & 7)), at);
          const { hear } = receiver({ key, now });
          expect(hear(changed)).toBe('badSignature');
          expect(hear(frame)).toBe('heard');
        },
      ),
      { seed: 4, numRuns: 300 },
    );
  });

  it('is passed over where nobody has the key, and framed whole wherever it is cut', () => {
    const next = sender();
    const stream = Buffer.concat([next(1), next(2), next(3)]);
    for (let cut = 0; cut <= stream.length; cut += 1) {
      const prior = new Parser();
      const before = prior.read(stream.subarray(0, cut));
      const successor = new Parser({ head: prior.partial(), signing: end() });
      const after = successor.read(stream.subarray(cut));
      expect([...before, ...after].map(({ sequence }) => sequence)).toEqual([0, 1, 2]);
      expect(prior.counts.garbageBytes + successor.counts.garbageBytes).toBe(0);
    }
  });
});

describe('the sender', () => {
  it('takes the later of the clock and one tick a message, and starts from now', () => {
    let nowTicks = NOW;
    const signing = end({ lastTimestamp: NOW - 5, now: () => nowTicks });
    const writer = new Writer({ systemId: 1, componentId: 191, signing });
    const next = (): number =>
      timestampOf(writer.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state: 1 }));
    // A burst within one tick of the clock.
    expect([next(), next(), next()]).toEqual([NOW, NOW + 1, NOW + 2]);
    nowTicks += 400;
    expect([next(), next()]).toEqual([NOW + 400, NOW + 401]);
    // The clock is put back by an hour, and was never set.
    nowTicks -= 60 * MINUTE;
    expect([next(), next()]).toEqual([NOW + 402, NOW + 403]);
    nowTicks = -1;
    expect(next()).toBe(NOW + 404);
    expect(signing.lastTimestamp).toBe(NOW + 404);
    const aSecond = 100_000;
    expect(Math.abs(systemTicks() - (Date.now() / 1_000 - 1_420_070_400) * 100_000)).toBeLessThan(aSecond);
  });

  it('is above all that it heard: an end without a clock takes the time of the other', () => {
    const signing = end({ now: () => -1 });
    const parser = new Parser({ signing });
    expect(parser.read(sender({ linkId: 0 }, { systemId: 1, componentId: 1 })())).toHaveLength(1);
    const writer = new Writer({ systemId: 1, componentId: 191, signing });
    const frame = writer.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state: 1 });
    expect(timestampOf(frame)).toBe(NOW + 1);
  });

  it('uses up no timestamp for a frame that was refused to the caller', () => {
    const signing = end();
    const writer = new Writer({ systemId: 1, componentId: 191, signing });
    const fields = { vtol_state: 256, landed_state: 0 };
    expect(() => writer.encode('EXTENDED_SYS_STATE', fields)).toThrow('FIELD_OUT_OF_RANGE');
    expect(signing.lastTimestamp).toBe(0);
  });
});

describe('the receiver', () => {
  it('refuses, each with its reason: unsigned, another key, heard before, older than what was heard', () => {
    const { parser, hear } = receiver();
    const next = sender();
    const [first, second] = [next(), next()];
    const plain = new Writer({ systemId: 1, componentId: 191 });
    expect(hear(plain.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state: 1 }))).toBe('unsigned');
    expect(hear(sender({ key: new Uint8Array(32) })())).toBe('badSignature');
    expect(hear(second)).toBe('heard');
    expect(hear(second)).toBe('replayed');
    expect(hear(first)).toBe('replayed');
    expect(hear(next())).toBe('heard');
    expect(parser.counts).toMatchObject({
      frames: 2,
      unsigned: 1,
      badSignature: 1,
      replayed: 2,
      garbageBytes: 0,
    });
    // What did not pass is in nobody's sequence: 1, then 2.
    expect(parser.counts.lost).toBe(0);
  });

  it('a stream that is new may be a minute behind, and no more', () => {
    const late = (ticks: number) => receiver().hear(sender({ now: () => NOW - ticks })());
    expect(late(MINUTE)).toBe('heard');
    expect(late(MINUTE + 1)).toBe('tooOld');
    // What was heard moves the time, not the clock alone.
    const { hear } = receiver({ now: () => 0 });
    expect(hear(sender({ now: () => NOW })())).toBe('heard');
    expect(hear(sender({ linkId: 2, now: () => NOW - MINUTE - 1 })())).toBe('tooOld');
    // Of a stream that is known only the order counts.
    const known = receiver({ streams: [[1, 191, 1, 5]] });
    expect(known.hear(sender({ now: () => 6 })())).toBe('heard');
  });

  it('keeps 16 streams, for good; a successor goes on with them', () => {
    const prior = receiver();
    const frames = Array.from({ length: 17 }, (_, linkId) => sender({ linkId })());
    const heard = frames.map((frame) => prior.hear(frame));
    expect(heard).toEqual([...Array<string>(16).fill('heard'), 'tooManyStreams']);
    const { lastTimestamp, streams } = prior.signing;
    expect(streams).toHaveLength(16);
    const successor = receiver({ lastTimestamp, streams: JSON.parse(JSON.stringify(streams)) });
    expect(frames.map((frame) => successor.hear(frame))).toEqual([
      ...Array<string>(16).fill('replayed'),
      'tooManyStreams',
    ]);
    expect(successor.signing.streams).toEqual(streams);
  });

  it('nothing forged moves its time or opens a stream', () => {
    const { signing, hear } = receiver();
    const forged = sender({ key: new Uint8Array(32), now: () => NOW + 100 * MINUTE })();
    expect(hear(forged)).toBe('badSignature');
    expect([signing.lastTimestamp, signing.streamCount]).toEqual([0, 0]);
  });
});

describe('a key', () => {
  const hex = Buffer.from(KEY).toString('hex');

  it('is 32 bytes as they are, in hex or in base64, and nothing else', () => {
    const texts = [hex, hex.toUpperCase(), `${hex}\n`, Buffer.from(KEY).toString('base64')];
    for (const text of texts) expect(parseKey(text)).toEqual(KEY);
    for (const text of ['', hex.slice(2), `${hex}00`, `x${hex.slice(1)}`, 'password']) {
      expect(() => parseKey(text)).toThrow('INVALID_KEY');
    }
    expect(() => end({ key: new Uint8Array(31) })).toThrow('INVALID_KEY');
    expect(() => end({ linkId: 256 })).toThrow('INVALID_ID');
    expect(() => end({ lastTimestamp: -1 })).toThrow('INVALID_TIMESTAMP');
    expect(() => end({ lastTimestamp: 2 ** 48 })).toThrow('INVALID_TIMESTAMP');
    expect(() => end({ streams: [[1, 256, 0, 0]] })).toThrow('INVALID_ID');
  });

  it('comes from a file, with a word on who else may read it, and is never shown', () => {
    const path = join(directory(), 'key');
    writeFileSync(path, `${hex}\n`, { mode: 0o600 });
    expect(readKeyFile(path)).toEqual({ key: KEY, shared: false });
    chmodSync(path, 0o640);
    expect(readKeyFile(path).shared).toBe(true);
    expect(() => readKeyFile(`${path}.none`)).toThrow(/INVALID_KEY: cannot read .*key\.none \(ENOENT\)/);
    writeFileSync(path, 'a secret of the wrong length');
    expect(() => readKeyFile(path)).toThrow(/INVALID_KEY: .*: a key is 32 bytes/);
    expect(() => readKeyFile(path)).not.toThrow('secret');
  });
});
