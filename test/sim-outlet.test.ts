import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Outlet } from '#device-sim/outlet.ts';
import { Parser, Writer } from '#handover/mavlink/index.ts';

test('property: whatever a full port takes, it gets whole frames, and each is counted as sent or dropped', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -1, max: 60 }), { minLength: 1, maxLength: 60 }), (rooms) => {
      const writer = new Writer({ systemId: 1, componentId: 1 });
      const parser = new Parser();
      const received: number[] = [];
      let room = 0;
      const outlet = new Outlet((bytes, offset, length) => {
        const taken = Math.min(length, room);
        if (taken <= 0) return -1;
        room -= taken;
        const part = bytes.subarray(offset, offset + taken);
        received.push(...parser.read(part).map((frame) => frame.sequence));
        return taken;
      });
      const two = (): Uint8Array =>
        Buffer.concat(
          [1, 2].map((landed_state) => writer.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state })),
        );
      for (room of rooms) outlet.send(two());
      // At last there is room again.
      for (let count = 0; count < 2; count += 1) {
        room = 1_000;
        outlet.send(two());
      }
      expect(parser.counts).toMatchObject({ garbageBytes: 0, badChecksums: 0 });
      expect(received).toEqual([...new Set(received)].toSorted((a, b) => a - b));
      expect(outlet.framesSent).toBe(received.length);
      expect(outlet.framesSent + outlet.framesDropped).toBe(2 * (rooms.length + 2));
    }),
    { seed: 2, numRuns: 500 },
  );
});

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
  outlet.send(frame());
  expect(new Parser().read(Uint8Array.from(sent)).map(({ sequence }) => sequence)).toEqual([1]);
});
