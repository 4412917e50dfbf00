/** A wire of some baud, in virtual time: what comes through when, and what does not. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LIMITS } from '#device-sim/limits.ts';
import { PacedPort } from '#device-sim/paced-port.ts';
import { Wire } from '#device-sim/wire.ts';
import { MAV, Parser, Writer } from '#handover/mavlink/index.ts';
import { BoardBench } from '#test/sim-boards-kit.ts';

const drain = (wire: Wire, nowUs: number, size = 64): number[] => {
  const into = new Uint8Array(size);
  const out: number[] = [];
  for (let count = wire.take(nowUs, into); count > 0; count = wire.take(nowUs, into)) {
    out.push(...into.subarray(0, count));
  }
  return out;
};

test('one byte takes ten bits: 1,042 us at 9,600 baud', () => {
  const wire = new Wire(9_600, 16);
  wire.push(Uint8Array.of(1, 2, 3), 1_000);
  expect(drain(wire, 2_041)).toEqual([]);
  expect(drain(wire, 2_042)).toEqual([1]);
  expect(drain(wire, 4_124)).toEqual([2]);
  expect(drain(wire, 4_125)).toEqual([3]);
  // After a pause the line is free: the next byte takes its own time only.
  wire.push(Uint8Array.of(4), 10_000);
  expect(drain(wire, 11_041)).toEqual([]);
  expect(drain(wire, 11_042)).toEqual([4]);
});

test('what does not fit is dropped from the end and counted; a whole frame is taken whole or not at all', () => {
  const wire = new Wire(9_600, 4);
  wire.push(Uint8Array.of(1, 2, 3, 4, 5, 6), 0);
  expect([wire.room, wire.droppedBytes]).toEqual([0, 2]);
  expect(drain(wire, 2_090)).toEqual([1, 2]);
  expect(wire.pushWhole(Uint8Array.of(7, 8, 9), 2_090)).toBe(false);
  expect(wire.droppedBytes).toBe(5);
  expect(wire.pushWhole(Uint8Array.of(7, 8), 2_090)).toBe(true);
  expect(drain(wire, 1e9)).toEqual([3, 4, 7, 8]);
});

test('property: in order, each once, never above the rate, none late by more than a full buffer', () => {
  const step = fc.record({
    waitUs: fc.integer({ min: 0, max: 20_000 }),
    bytes: fc.integer({ min: 0, max: 60 }),
  });
  fc.assert(
    fc.property(
      fc.constantFrom(9_600, 57_600, 921_600),
      fc.integer({ min: 1, max: 200 }),
      fc.array(step, { minLength: 1, maxLength: 80 }),
      (baud, size, steps) => {
        const byteUs = 1e7 / baud;
        const wire = new Wire(baud, size);
        const sent: { value: number; atUs: number }[] = [];
        const heard: { value: number; atUs: number }[] = [];
        let nowUs = 0;
        let count = 0;
        for (const { waitUs, bytes } of steps) {
          nowUs += waitUs;
          for (const value of drain(wire, nowUs)) heard.push({ value, atUs: nowUs });
          const fits = Math.min(bytes, wire.room);
          const values = Uint8Array.from({ length: bytes }, () => count++ & 0xff);
          wire.push(values, nowUs);
          for (const value of values.subarray(0, fits)) sent.push({ value, atUs: nowUs });
          // By now no more can have left than a line of this rate carries.
          expect(heard.length).toBeLessThanOrEqual(nowUs / byteUs + 1e-6);
        }
        for (const value of drain(wire, nowUs + 1e9)) heard.push({ value, atUs: Number.NaN });
        expect(heard.map(({ value }) => value)).toEqual(sent.map(({ value }) => value));
        expect(wire.droppedBytes).toBe(count - sent.length);
        heard.forEach(({ atUs }, index) => {
          // It is looked at every 20 ms at most.
          const came = sent[index]?.atUs ?? 0;
          if (!Number.isNaN(atUs)) expect(atUs - came).toBeLessThanOrEqual((size + 1) * byteUs + 20_001);
        });
      },
    ),
    { seed: 3, numRuns: 300 },
  );
});

describe('the board behind it', () => {
  /** A second of a `direct` board's words at this baud: what the far end hears of it. */
  const secondAt = (baud: number) => {
    const bench = new BoardBench('direct');
    const parser = new Parser();
    let bytes = 0;
    const port = new PacedPort(
      baud,
      (chunk, offset, length) => {
        bytes += length;
        bench.frames.push(...parser.read(chunk.subarray(offset, offset + length)));
        return length;
      },
      () => undefined,
    );
    for (let tick = 0; tick < 500; tick += 1) {
      bench.tUs += LIMITS.tickUs;
      port.send(bench.board.tick(bench.tUs, 0, 0), bench.tUs);
      for (let step = 1; step < 4; step += 1) port.pump(bench.tUs + step * 1_000);
    }
    return { bench, parser, port, bytes };
  };

  test('at 921,600 baud all of its 32 kB/s come through', () => {
    const { parser, port } = secondAt(921_600);
    expect(port.framesDropped).toBe(0);
    expect(parser.counts).toMatchObject({ lost: 0, garbageBytes: 0, badChecksums: 0 });
  });

  test('at 57,600 baud 5.76 kB/s do: whole frames, fewer of them, and what is missing is counted', () => {
    const { bench, parser, port, bytes } = secondAt(57_600);
    expect(bytes).toBeGreaterThan(0.97 * 2 * 5_760);
    expect(bytes).toBeLessThanOrEqual(2 * 5_760);
    expect(parser.counts).toMatchObject({ garbageBytes: 0, badChecksums: 0 });
    expect(port.framesDropped).toBeGreaterThan(800);
    expect(parser.counts.frames + port.framesDropped).toBeGreaterThan(1_000);
    const count = (wanted: string): number => bench.frames.filter(({ name }) => name === wanted).length;
    // A fifth of 500 each, as many of the one as of the other; what is said seldom is said in full.
    expect(count('HIGHRES_IMU')).toBeGreaterThan(80);
    expect(count('HIGHRES_IMU')).toBeLessThan(130);
    expect(Math.abs(count('ATTITUDE_QUATERNION') - count('HIGHRES_IMU'))).toBeLessThan(5);
    expect([count('HEARTBEAT'), count('SYS_STATUS')]).toEqual([2, 2]);
    expect(count('EXTENDED_SYS_STATE')).toBeGreaterThanOrEqual(8);
    // As late as a full buffer behind a slow line: 1.8 kB are 311 ms.
    const heard = bench.frames.flatMap((frame) =>
      frame.name === 'HIGHRES_IMU' ? [frame.fields.time_usec] : [],
    );
    expect(bench.tUs - (heard.at(-1) ?? 0)).toBeGreaterThan(200_000);
    expect(bench.tUs - (heard.at(-1) ?? 0)).toBeLessThan(450_000);
  });

  test('commands that come faster than the wire are late, and then cut: the board drops what it cannot read', () => {
    const bench = new BoardBench('direct');
    const writer = new Writer({ systemId: 1, componentId: 191 });
    const parser = new Parser();
    const arrivals: number[] = [];
    const port = new PacedPort(
      57_600,
      (_, __, length) => length,
      (bytes, tUs) => {
        for (const frame of parser.read(bytes)) {
          if (frame.name === 'HIL_ACTUATOR_CONTROLS') arrivals.push(tUs - frame.fields.time_usec);
        }
      },
    );
    for (let tick = 0; tick < 500; tick += 1) {
      bench.tUs += LIMITS.tickUs;
      const fields = { time_usec: bench.tUs, controls: [0.5], mode: MAV.MODE_FLAG_SAFETY_ARMED, flags: 1 };
      port.receive(writer.encode('HIL_ACTUATOR_CONTROLS', fields), bench.tUs);
      for (let step = 1; step < 4; step += 1) port.pump(bench.tUs + step * 1_000);
    }
    // The first takes the time of its own bytes; later ones stand behind a page full of others.
    expect(arrivals[0]).toBeGreaterThan(10_000);
    expect(Math.max(...arrivals)).toBeGreaterThan(600_000);
    expect(port.inDroppedBytes).toBeGreaterThan(10_000);
    expect(parser.counts.badChecksums).toBeGreaterThan(0);
  });

  test('nobody listens: what comes out is lost, and counted', () => {
    const bench = new BoardBench('direct');
    const port = new PacedPort(
      921_600,
      () => -1,
      () => undefined,
    );
    for (let tick = 0; tick < 50; tick += 1) {
      bench.tUs += LIMITS.tickUs;
      port.send(bench.board.tick(bench.tUs, 0, 0), bench.tUs);
    }
    expect(port.outDroppedBytes).toBeGreaterThan(5_000);
  });
});
