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

const SIZES: Readonly<Record<Scalar, number>> = {
  uint8_t: 1,
  int8_t: 1,
  uint16_t: 2,
  int16_t: 2,
  uint32_t: 4,
  int32_t: 4,
  uint64_t: 8,
  float: 4,
};
const RANGES: Readonly<Record<Scalar, readonly [number, number] | undefined>> = {
  uint8_t: [0, 0xff],
  int8_t: [-0x80, 0x7f],
  uint16_t: [0, 0xffff],
  int16_t: [-0x8000, 0x7fff],
  uint32_t: [0, 0xffff_ffff],
  int32_t: [-0x8000_0000, 0x7fff_ffff],
  uint64_t: [0, LIMITS.u64Max],
  float: undefined,
};
const TWO_POW_32 = 0x1_0000_0000;

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
  const base = parseFields(definition.fields).sort((a, b) => SIZES[b.type] - SIZES[a.type]);
  let offset = 0;
  const fields = [...base, ...parseFields(definition.extensions ?? {})].map((field) => {
    const placed = { ...field, offset };
    offset += SIZES[field.type] * Math.max(1, field.length);
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

const put = (view: DataView, at: number, type: Scalar, value: number): void => {
  switch (type) {
    case 'uint8_t':
      return view.setUint8(at, value);
    case 'int8_t':
      return view.setInt8(at, value);
    case 'uint16_t':
      return view.setUint16(at, value, true);
    case 'int16_t':
      return view.setInt16(at, value, true);
    case 'uint32_t':
      return view.setUint32(at, value, true);
    case 'int32_t':
      return view.setInt32(at, value, true);
    case 'float':
      return view.setFloat32(at, value, true);
    case 'uint64_t':
      // Two halves: a BigInt for each would be garbage at 250 Hz.
      view.setUint32(at, value % TWO_POW_32, true);
      return view.setUint32(at + 4, Math.floor(value / TWO_POW_32), true);
  }
};

const take = (view: DataView, at: number, type: Scalar): number => {
  switch (type) {
    case 'uint8_t':
      return view.getUint8(at);
    case 'int8_t':
      return view.getInt8(at);
    case 'uint16_t':
      return view.getUint16(at, true);
    case 'int16_t':
      return view.getInt16(at, true);
    case 'uint32_t':
      return view.getUint32(at, true);
    case 'int32_t':
      return view.getInt32(at, true);
    case 'float':
      return view.getFloat32(at, true);
    case 'uint64_t':
      return view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_POW_32;
  }
};

const check = (layout: Layout, field: Field, value: unknown): number => {
  const range = RANGES[field.type];
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
    if (field.length === 0) {
      put(view, at, field.type, check(layout, field, value));
      continue;
    }
    const elements = typeof value === 'number' ? [] : value;
    if (elements.length > field.length) {
      const text = `${layout.name}.${field.name} has ${elements.length} elements, ${field.length} fit`;
      throw new MavlinkError('FIELD_OUT_OF_RANGE', text);
    }
    for (let index = 0; index < field.length; index += 1) {
      const element = index < elements.length ? check(layout, field, elements[index]) : 0;
      put(view, at + index * SIZES[field.type], field.type, element);
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
    if (field.length === 0) {
      const value = take(view, field.offset, field.type);
      if (field.type === 'uint64_t' && value > LIMITS.u64Max) return undefined;
      values[field.name] = value;
      continue;
    }
    const elements: number[] = [];
    for (let index = 0; index < field.length; index += 1) {
      const value = take(view, field.offset + index * SIZES[field.type], field.type);
      if (field.type === 'uint64_t' && value > LIMITS.u64Max) return undefined;
      elements.push(value);
    }
    values[field.name] = elements;
  }
  return values;
};
