import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Outlet } from '#device-sim/outlet.ts';
import { Parser, SignedLink, Writer } from '#handover/mavlink/index.ts';

test.each([
  ['unsigned', undefined],
  ['signed', new Uint8Array(32)],
])(
  'property: %s: whatever a full port takes, it gets whole frames, and each is counted as sent or dropped',
  (_, key) => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -1, max: 60 }), { minLength: 1, maxLength: 60 }), (rooms) => {
        const signing = key && new SignedLink({ key, linkId: 0, lastTimestamp: 0 });
        const writer = new Writer({ systemId: 1, componentId: 1, signing });
        const parser = new Parser();
        const received: number[] = [];
        let call = 0;
        const outlet = new Outlet((bytes, offset, length) => {
          // Room may come between two calls; at last there is enough.
          const taken = Math.min(length, rooms[call] ?? 1_000);
          call += 1;
          if (taken <= 0) return -1;
          const part = bytes.subarray(offset, offset + taken);
          received.push(...parser.read(part).map((frame) => frame.sequence));
          return taken;
        });
        const two = (): Uint8Array =>
          Buffer.concat(
            [1, 2].map((landed_state) =>
              writer.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state }),
            ),
          );
        let sends = 0;
        for (; sends < 500 && (call <= rooms.length || sends < 2); sends += 1) outlet.send(two());
        expect(parser.counts).toMatchObject({ garbageBytes: 0, badChecksums: 0 });
        expect(received).toEqual([...new Set(received)].toSorted((a, b) => a - b));
        expect(outlet.framesSent).toBe(received.length);
        expect(outlet.framesSent + outlet.framesDropped).toBe(2 * sends);
      }),
      { seed: 2, numRuns: 500 },
    );
  },
);

test('after the far end discarded its input, the end of a cut frame is not sent', () => {
  const writer = new Writer({ systemId: 1, componentId: 1 });
  const frame = (): Uint8Array => writer.encode('EXTENDED_SYS_STATE', { vtol_state: 1, landed_state: 1 });
  let room = 5;
  const sent: number[] = [];
  const outlet = new Outlet((bytes, offset, length) => {
    const taken = Math.min(length, room);
    sent.push(...bytes.subarray(offset, offset + taken));
    return taken;
  });
  outlet.send(frame());
  sent.length = 0;
  outlet.forget();
  room = 100;
  const next = frame();
  outlet.send(next);
  expect(sent).toEqual([...next]);
});
