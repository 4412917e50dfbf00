/**
 * From a definition to its place on the wire: order, offsets, CRC_EXTRA, reading and writing of a payload.
 *
 * Invariant: everything is derived from messages.ts by MAVLink's own rules
 * (https://mavlink.io/en/guide/serialization.html#field_reordering and #crc_extra), at load, once.
 */
import { CRC_START, crcByte } from '#handover/mavlink/crc.ts';
import { MavlinkError } from '#handover/mavlink/errors.ts';
import { LIMITS } from '#handover/mavlink/limits.ts';
import { type Definition, MESSAGES, type MessageName, type Scalar } from '#handover/mavlink/messages.ts';

const TWO_POW_32 = 0x1_0000_0000;

interface Kind {
  readonly bytes: number;
  /** Undefined: any number. */
  readonly range?: readonly [number, number];
  put(view: DataView, at: number, value: number): void;
  take(view: DataView, at: number): number;
}
const KINDS: Readonly<Record<Scalar, Kind>> = {
  uint8_t: {
    bytes: 1,
    range: [0, 0xff],
    put: (v, at, n) => v.setUint8(at, n),
    take: (v, at) => v.getUint8(at),
  },
  int8_t: {
    bytes: 1,
    range: [-0x80, 0x7f],
    put: (v, at, n) => v.setInt8(at, n),
    take: (v, at) => v.getInt8(at),
  },
  uint16_t: {
    bytes: 2,
    range: [0, 0xffff],
    put: (v, at, n) => v.setUint16(at, n, true),
    take: (v, at) => v.getUint16(at, true),
  },
  int16_t: {
    bytes: 2,
    range: [-0x8000, 0x7fff],
    put: (v, at, n) => v.setInt16(at, n, true),
    take: (v, at) => v.getInt16(at, true),
  },
  uint32_t: {
    bytes: 4,
    range: [0, 0xffff_ffff],
    put: (v, at, n) => v.setUint32(at, n, true),
    take: (v, at) => v.getUint32(at, true),
  },
  int32_t: {
    bytes: 4,
    range: [-0x8000_0000, 0x7fff_ffff],
    put: (v, at, n) => v.setInt32(at, n, true),
    take: (v, at) => v.getInt32(at, true),
  },
  float: { bytes: 4, put: (v, at, n) => v.setFloat32(at, n, true), take: (v, at) => v.getFloat32(at, true) },
  uint64_t: {
    bytes: 8,
    range: [0, LIMITS.u64Max],
    // Two halves: a BigInt for each would be garbage at 250 Hz.
    put: (v, at, n) => {
      v.setUint32(at, n % TWO_POW_32, true);
      v.setUint32(at + 4, Math.floor(n / TWO_POW_32), true);
    },
    take: (v, at) => v.getUint32(at, true) + v.getUint32(at + 4, true) * TWO_POW_32,
  },
};

interface Field {
  readonly name: string;
  readonly type: Scalar;
  /** 0: a scalar. */
  readonly length: number;
  readonly offset: number;
}

export interface Layout {
  readonly name: MessageName;
  readonly id: number;
  readonly crcExtra: number;
  /** Bytes with all extensions; a longer payload comes from a newer definition, its end is ignored. */
  readonly payloadBytes: number;
  /** In the order of the wire. */
  readonly fields: readonly Field[];
}

type Unplaced = Omit<Field, 'offset'>;

const parseFields = (fields: Readonly<Record<string, string>>): Unplaced[] =>
  Object.entries(fields).map(([name, type]) => {
    const [scalar, length] = type.split(/[[\]]/);
    return { name, type: scalar as Scalar, length: length === undefined ? 0 : Number(length) };
  });

const crcExtraOf = (name: string, base: readonly Unplaced[]): number => {
  let crc = CRC_START;
  const text = (value: string): void => {
    for (let at = 0; at < value.length; at += 1) crc = crcByte(crc, value.charCodeAt(at));
    crc = crcByte(crc, 0x20);
  };
  text(name);
  for (const field of base) {
    text(field.type);
    text(field.name);
    if (field.length > 0) crc = crcByte(crc, field.length);
  }
  return (crc & 0xff) ^ (crc >>> 8);
};

const layoutOf = (name: MessageName, definition: Definition): Layout => {
  // Largest element first, equal ones in the order of the definition: Array.prototype.sort is stable.
  const base = parseFields(definition.fields).sort((a, b) => KINDS[b.type].bytes - KINDS[a.type].bytes);
  let offset = 0;
  const fields = [...base, ...parseFields(definition.extensions ?? {})].map((field) => {
    const placed = { ...field, offset };
    offset += KINDS[field.type].bytes * Math.max(1, field.length);
    return placed;
  });
  return { name, id: definition.id, crcExtra: crcExtraOf(name, base), payloadBytes: offset, fields };
};

export const LAYOUTS = Object.fromEntries(
  Object.entries(MESSAGES).map(([name, definition]) => [name, layoutOf(name as MessageName, definition)]),
) as Readonly<Record<MessageName, Layout>>;

export const LAYOUT_BY_ID: ReadonlyMap<number, Layout> = new Map(
  Object.values(LAYOUTS).map((layout) => [layout.id, layout]),
);

const check = (layout: Layout, field: Field, value: unknown): number => {
  const range = KINDS[field.type].range;
  const fits =
    typeof value === 'number' &&
    (range === undefined || (Number.isInteger(value) && value >= range[0] && value <= range[1]));
  if (fits) return value;
  throw new MavlinkError(
    'FIELD_OUT_OF_RANGE',
    `${layout.name}.${field.name} is ${String(value)}, which is no ${field.type}`,
  );
};

/** Writes the whole payload at `start`; the caller truncates. @throws MavlinkError `FIELD_OUT_OF_RANGE` */
export const writePayload = (
  layout: Layout,
  view: DataView,
  start: number,
  values: Readonly<Record<string, number | ArrayLike<number> | undefined>>,
): void => {
  for (const field of layout.fields) {
    const value = values[field.name] ?? 0;
    const at = start + field.offset;
    const kind = KINDS[field.type];
    if (field.length === 0) {
      kind.put(view, at, check(layout, field, value));
      continue;
    }
    const elements = typeof value === 'number' ? [] : value;
    if (elements.length > field.length) {
      const text = `${layout.name}.${field.name} has ${elements.length} elements, ${field.length} fit`;
      throw new MavlinkError('FIELD_OUT_OF_RANGE', text);
    }
    for (let index = 0; index < field.length; index += 1) {
      const element = index < elements.length ? check(layout, field, elements[index]) : 0;
      kind.put(view, at + index * kind.bytes, element);
    }
  }
};

/** Reads a payload that was filled up with zeros. Undefined: a u64 that no JavaScript number holds exactly. */
export const readPayload = (
  layout: Layout,
  view: DataView,
): Record<string, number | number[]> | undefined => {
  const values: Record<string, number | number[]> = {};
  for (const field of layout.fields) {
    const kind = KINDS[field.type];
    const limit = field.type === 'uint64_t' ? LIMITS.u64Max : Infinity;
    const value = field.length === 0 ? kind.take(view, field.offset) : takeArray(kind, view, field);
    if (typeof value === 'number' ? value > limit : value.some((each) => each > limit)) return undefined;
    values[field.name] = value;
  }
  return values;
};

const takeArray = (kind: Kind, view: DataView, field: Field): number[] => {
  const values: number[] = [];
  for (let index = 0; index < field.length; index += 1) {
    values.push(kind.take(view, field.offset + index * kind.bytes));
  }
  return values;
};
