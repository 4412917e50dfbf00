import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  crcOf,
  type FieldsToSend,
  LAYOUTS,
  MAVLINK_LIMITS,
  MESSAGES,
  type MessageName,
  Parser,
  Writer,
} from '#handover/mavlink/index.ts';

const NAMES = Object.keys(MESSAGES) as MessageName[];
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytesOf = (text: string): Buffer => Buffer.from(text, 'hex');

/** The same values went through node-mavlink 2.3.0 (protocol 2, system 1, component 1): its bytes. */
const GOLDEN: { [N in MessageName]: { sequence: number; fields: FieldsToSend<N>; frame: string } } = {
  HEARTBEAT: {
    sequence: 0,
    fields: {
      type: 2,
      autopilot: 0,
      base_mode: 129,
      custom_mode: 7,
      system_status: 4,
      mavlink_version: 3,
    },
    frame: 'fd090000000101000000070000000200810403a63f',
  },
  SYS_STATUS: {
    sequence: 1,
    fields: {
      onboard_control_sensors_present: 3,
      onboard_control_sensors_enabled: 3,
      onboard_control_sensors_health: 1,
      load: 500,
      voltage_battery: 15800,
      current_battery: -1,
      battery_remaining: 87,
      drop_rate_comm: 0,
      errors_comm: 0,
      errors_count1: 0,
      errors_count2: 0,
      errors_count3: 0,
      errors_count4: 0,
    },
    frame: 'fd1f0000010101010000030000000300000001000000f401b83dffff000000000000000000000000574f03',
  },
  ATTITUDE_QUATERNION: {
    sequence: 2,
    fields: {
      time_boot_ms: 123456,
      q1: 1,
      q2: 0.25,
      q3: -0.5,
      q4: 0,
      rollspeed: 0.125,
      pitchspeed: -2,
      yawspeed: 0,
    },
    frame: 'fd1c00000201011f000040e201000000803f0000803e000000bf000000000000003e000000c00e46',
  },
  LOCAL_POSITION_NED: {
    sequence: 3,
    fields: { time_boot_ms: 123456, x: 1.5, y: -2.5, z: -2, vx: 0, vy: 0, vz: 0.5 },
    frame: 'fd1c000003010120000040e201000000c03f000020c0000000c000000000000000000000003ff5aa',
  },
  COMMAND_INT: {
    sequence: 7,
    fields: {
      target_system: 1,
      target_component: 1,
      frame: 3,
      command: 22,
      current: 0,
      autocontinue: 0,
      param1: 0,
      param2: 0,
      param3: 0,
      param4: 0.5,
      x: -5,
      y: 1234567,
      z: 12.5,
    },
    frame: 'fd2100000701014b00000000000000000000000000000000003ffbffffff87d61200000048411600010103feb4',
  },
  SET_ATTITUDE_TARGET: {
    sequence: 8,
    fields: {
      time_boot_ms: 123456,
      target_system: 1,
      target_component: 1,
      type_mask: 7,
      q: [1, 0.25, -0.5, 0],
      body_roll_rate: 0,
      body_pitch_rate: -2,
      body_yaw_rate: 0.125,
      thrust: 0.5,
      thrust_body: [0, 0, -0.25],
    },
    frame:
      'fd33000008010152000040e201000000803f0000803e000000bf0000000000000000000000c00000003e0000003f' +
      '0101070000000000000000000080be4235',
  },
  SET_POSITION_TARGET_LOCAL_NED: {
    sequence: 9,
    fields: {
      time_boot_ms: 123456,
      target_system: 1,
      target_component: 1,
      coordinate_frame: 1,
      type_mask: 0xdf8,
      x: 1.5,
      y: -2.5,
      z: -2,
      vx: 0,
      vy: 0,
      vz: 0.5,
      afx: 0,
      afy: 0,
      afz: -9.75,
      yaw: 0.25,
      yaw_rate: 0,
    },
    frame:
      'fd35000009010154000040e201000000c03f000020c0000000c000000000000000000000003f00000000000000000000' +
      '1cc10000803e00000000f80d010101c167',
  },
  COMMAND_LONG: {
    sequence: 5,
    fields: {
      target_system: 1,
      target_component: 1,
      command: 400,
      confirmation: 0,
      param1: 1,
      param2: 0,
      param3: 0,
      param4: 0,
      param5: 0,
      param6: 0,
      param7: 0.5,
    },
    frame: 'fd2000000501014c00000000803f00000000000000000000000000000000000000000000003f900101012560',
  },
  COMMAND_ACK: {
    sequence: 6,
    fields: {
      command: 400,
      result: 2,
      progress: 0,
      result_param2: -5,
      target_system: 255,
      target_component: 190,
    },
    frame: 'fd0a00000601014d000090010200fbffffffffbec384',
  },
  HIL_ACTUATOR_CONTROLS: {
    sequence: 254,
    fields: { time_usec: 123456789012, controls: [0.5, 0.25, 0.75, 1], mode: 129, flags: 42 },
    frame:
      'fd510000fe01015d0000141a99be1c0000002a000000000000000000003f0000803e0000403f0000803f' +
      '000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000810828',
  },
  HIGHRES_IMU: {
    sequence: 255,
    fields: {
      time_usec: 123456789012,
      xacc: 0.5,
      yacc: -0.5,
      zacc: -9.75,
      xgyro: 0.125,
      ygyro: 0,
      zgyro: -1,
      xmag: 0.25,
      ymag: 0,
      zmag: 0.5,
      abs_pressure: 1013.25,
      diff_pressure: 0,
      pressure_alt: 12.5,
      temperature: 25,
      fields_updated: 63,
    },
    frame:
      'fd3d0000ff0101690000141a99be1c0000000000003f000000bf00001cc10000003e00000000000080bf' +
      '0000803e000000000000003f00507d4400000000000048410000c8413f2794',
  },
  POSITION_TARGET_LOCAL_NED: {
    sequence: 7,
    fields: {
      time_boot_ms: 123456,
      coordinate_frame: 1,
      type_mask: 2048,
      x: 1.5,
      y: -2.25,
      z: -5,
      vx: 0.5,
      vy: 0,
      vz: -0.125,
      afx: 0.25,
      afy: -0.5,
      afz: 0,
      yaw: 3.5,
      yaw_rate: 0,
    },
    frame:
      'fd33000007010155000040e201000000c03f000010c00000a0c00000003f00000000000000be0000803e000000bf' +
      '0000000000006040000000000008015822',
  },
  EXTENDED_SYS_STATE: {
    sequence: 4,
    fields: { vtol_state: 1, landed_state: 2 },
    frame: 'fd020000040101f50000010247a6',
  },
};

test('CRC_EXTRA, computed from the definitions, is the published one', () => {
  expect(Object.fromEntries(NAMES.map((name) => [name, LAYOUTS[name].crcExtra]))).toEqual({
    HEARTBEAT: 50,
    SYS_STATUS: 124,
    ATTITUDE_QUATERNION: 246,
    LOCAL_POSITION_NED: 185,
    COMMAND_INT: 158,
    COMMAND_LONG: 152,
    SET_ATTITUDE_TARGET: 49,
    SET_POSITION_TARGET_LOCAL_NED: 143,
    COMMAND_ACK: 143,
    POSITION_TARGET_LOCAL_NED: 140,
    HIL_ACTUATOR_CONTROLS: 47,
    HIGHRES_IMU: 93,
    EXTENDED_SYS_STATE: 130,
  });
});

test('the checksum is CRC-16/MCRF4XX: its published check value', () => {
  expect(crcOf(Buffer.from('123456789'), 0, 9)).toBe(0x6f91);
});

test.each(NAMES)('%s has the bytes of another implementation, and reads back', (name) => {
  const golden = GOLDEN[name];
  const writer = new Writer({ systemId: 1, componentId: 1, sequence: (golden.sequence + 255) & 0xff });
  expect(hex(writer.encode(name, golden.fields))).toBe(golden.frame);
  expect(writer.sequence).toBe(golden.sequence);

  const [frame, ...more] = new Parser().read(bytesOf(golden.frame));
  expect(more).toEqual([]);
  expect(frame).toMatchObject({ name, sequence: golden.sequence, systemId: 1, componentId: 1, lost: 0 });
  for (const [field, value] of Object.entries(golden.fields)) {
    const read = (frame as { fields: object } | undefined)?.fields[field as never];
    if (typeof value === 'number') expect(read, field).toBe(value);
    else {
      const given = [...(value as number[])];
      const { length } = LAYOUTS[name].fields.find((each) => each.name === field) ?? { length: 0 };
      expect(read, field).toEqual([...given, ...Array<number>(length - given.length).fill(0)]);
    }
  }
});

test('an all-zero payload keeps one byte; a sender that cuts it to nothing is understood', () => {
  const writer = new Writer({ systemId: 1, componentId: 1, sequence: 3 });
  const frame = writer.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state: 0 });
  expect(frame.length).toBe(MAVLINK_LIMITS.headerBytes + 1 + MAVLINK_LIMITS.checksumBytes);
  const cutToNothing = bytesOf('fd000000040101f50000f842');
  for (const bytes of [frame, cutToNothing]) {
    expect(new Parser().read(bytes)).toMatchObject([{ fields: { vtol_state: 0, landed_state: 0 } }]);
  }
});

test('a longer payload, of a newer definition, is read up to what is known', () => {
  // EXTENDED_SYS_STATE with a third byte, as if an extension had been added.
  const body = bytesOf('fd030000000101f50000010277');
  const crc = crcOf(Buffer.concat([body, Buffer.from([130])]), 1, body.length + 1);
  const frame = Buffer.concat([body, Buffer.from([crc & 0xff, crc >>> 8])]);
  expect(new Parser().read(frame)).toMatchObject([{ fields: { vtol_state: 1, landed_state: 2 } }]);
});

test('u64: exact up to 2^53 - 1, refused by the writer and dropped by the parser above', () => {
  const writer = new Writer({ systemId: 1, componentId: 1 });
  const send = (time_usec: number) =>
    writer.encode('HIL_ACTUATOR_CONTROLS', { time_usec, controls: [1], mode: 0, flags: 1 });
  const largest = send(Number.MAX_SAFE_INTEGER);
  expect(new Parser().read(largest)).toMatchObject([{ fields: { time_usec: Number.MAX_SAFE_INTEGER } }]);
  expect(() => send(2 ** 53)).toThrow(/FIELD_OUT_OF_RANGE: HIL_ACTUATOR_CONTROLS.time_usec/);
  expect(writer.sequence).toBe(0);

  const tooLarge = Buffer.from(largest);
  tooLarge.writeBigUInt64LE(2n ** 53n, 10);
  const end = tooLarge.length - 2;
  const crc = crcOf(Buffer.concat([tooLarge.subarray(0, end), Buffer.from([47])]), 1, end + 1);
  tooLarge.writeUInt16LE(crc, end);
  const parser = new Parser();
  expect(parser.read(tooLarge)).toEqual([]);
  expect(parser.counts).toMatchObject({ frames: 0, inexact: 1, badChecksums: 0, garbageBytes: 0 });
});

test('what does not fit its field is refused with the field named', () => {
  const writer = new Writer({ systemId: 1, componentId: 1 });
  const state = (vtol_state: number) => writer.encode('EXTENDED_SYS_STATE', { vtol_state, landed_state: 0 });
  expect(() => state(256)).toThrow(/FIELD_OUT_OF_RANGE: EXTENDED_SYS_STATE.vtol_state is 256/);
  expect(() => state(-1)).toThrow('FIELD_OUT_OF_RANGE');
  expect(() => state(0.5)).toThrow('FIELD_OUT_OF_RANGE');
  const controls = Array<number>(17).fill(0);
  expect(() => writer.encode('HIL_ACTUATOR_CONTROLS', { time_usec: 0, controls, mode: 0, flags: 0 })).toThrow(
    /FIELD_OUT_OF_RANGE: HIL_ACTUATOR_CONTROLS.controls has 17 elements, 16 fit/,
  );
  expect(() => new Writer({ systemId: 256, componentId: 1 })).toThrow('INVALID_ID');
  expect(() => {
    writer.sequence = 256;
  }).toThrow('INVALID_SEQUENCE');
});

test('frames given to a queue are not overwritten by later ones', () => {
  const writer = new Writer({ systemId: 1, componentId: 1 });
  const frames = Array.from({ length: 2_000 }, (_, index) =>
    writer.encode('EXTENDED_SYS_STATE', { vtol_state: 1, landed_state: (index % 250) + 1 }),
  );
  const parser = new Parser();
  const states = frames.flatMap((frame) => parser.read(frame)).map((frame) => frame.fields);
  expect(states).toEqual(frames.map((_, index) => ({ vtol_state: 1, landed_state: (index % 250) + 1 })));
  expect(parser.counts.lost).toBe(0);
});

test('the successor goes on with the sequence and with the half-read frame', () => {
  const board = new Writer({ systemId: 1, componentId: 1, sequence: 254 });
  const stream = Buffer.concat(
    [1, 2, 3].map((landed_state) => board.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state })),
  );
  for (let cut = 0; cut <= stream.length; cut += 1) {
    const prior = new Parser();
    const before = prior.read(stream.subarray(0, cut));
    const successor = new Parser({ head: prior.partial() });
    const after = successor.read(stream.subarray(cut));
    const frames = [...before, ...after];
    expect(frames.map((frame) => frame.sequence)).toEqual([255, 0, 1]);
    expect(successor.partial().length).toBe(0);
  }

  const prior = new Writer({ systemId: 1, componentId: 191 });
  for (let count = 0; count < 300; count += 1)
    prior.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state: 0 });
  const successor = new Writer({ systemId: 1, componentId: 191 });
  successor.sequence = prior.sequence;
  const frame = successor.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state: 0 });
  expect(new Parser().read(frame)[0]?.sequence).toBe(300 % 256);
  expect(() => new Parser({ head: new Uint8Array(MAVLINK_LIMITS.frameBytesMax + 1) })).toThrow(
    'HEAD_TOO_LONG',
  );
});

test('gaps are counted by sender, over the wrap of the sequence', () => {
  const board = new Writer({ systemId: 1, componentId: 1, sequence: 253 });
  const other = new Writer({ systemId: 9, componentId: 1, sequence: 99 });
  const send = (writer: Writer) => writer.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state: 1 });
  const frames = [send(board), send(other), send(board), send(board), send(other), send(board)];
  const parser = new Parser();
  // The board's 255 and 0 never arrive.
  const lost = [0, 1, 4, 5].flatMap((index) => parser.read(frames[index] as Uint8Array)).map((f) => f.lost);
  expect(lost).toEqual([0, 0, 0, 2]);
  expect(parser.counts).toMatchObject({ frames: 4, lost: 2 });
});

test('unknown flags, MAVLink 1 and unknown messages are dropped, counted, and cost no other frame', () => {
  const good = bytesOf(GOLDEN.HIGHRES_IMU.frame);
  const flagged = Buffer.from(good);
  flagged[2] = 2;
  const unknown = Buffer.from(good);
  unknown[7] = 200;
  const parser = new Parser();
  const mavlink1 = bytesOf('fe09000101000000000002008104038f3b');
  const frames = [flagged, good, unknown, good, mavlink1, good].flatMap((bytes) => parser.read(bytes));
  expect(frames.length).toBe(3);
  expect(parser.counts).toMatchObject({ incompatible: 1, unknownMessages: 1, badChecksums: 0 });
  expect(parser.counts.garbageBytes).toBe(flagged.length + unknown.length + mavlink1.length);
});

test('property: good frames between noise, cut anywhere, all come out, in order; kept bytes stay below one frame', () => {
  const imu = GOLDEN.HIGHRES_IMU;
  fc.assert(
    fc.property(
      // 0xfd may begin a false frame that swallows a good one until its checksum fails; it is found all the same.
      fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 97 }), { minLength: 1, maxLength: 20 }),
      (noises, cuts) => {
        const writer = new Writer({ systemId: 1, componentId: 1 });
        const parts = noises.flatMap((noise) => [noise, writer.encode('HIGHRES_IMU', imu.fields)]);
        // A frame's length of zeros behind: whatever false start is still open is closed by them.
        const stream = Buffer.concat([...parts, new Uint8Array(MAVLINK_LIMITS.frameBytesMax)]);
        const parser = new Parser();
        const sequences: number[] = [];
        for (let at = 0, turn = 0; at < stream.length; turn += 1) {
          const next = at + (cuts[turn % cuts.length] as number);
          for (const frame of parser.read(stream.subarray(at, next))) sequences.push(frame.sequence);
          expect(parser.partial().length).toBeLessThan(MAVLINK_LIMITS.frameBytesMax);
          at = next;
        }
        expect(sequences).toEqual(noises.map((_, index) => index));
      },
    ),
    { seed: 2, numRuns: 300 },
  );
});

test('property: a flipped bit never passes for a frame, and the next frame comes out', () => {
  const frame = bytesOf(GOLDEN.HIGHRES_IMU.frame);
  for (let bit = 0; bit < frame.length * 8; bit += 1) {
    const flipped = Buffer.from(frame);
    flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    const parser = new Parser();
    const frames = parser.read(Buffer.concat([flipped, frame, new Uint8Array(MAVLINK_LIMITS.frameBytesMax)]));
    expect(frames.map((each) => each.sequence)).toEqual([255]);
  }
});
