/**
 * Reads and writes the field of a reference, whatever its form.
 *
 * Invariant: `write(read())` changes nothing; a value that does not fit its field is cut, the same on every machine.
 */
import { thumbBranch, withThumbBranch } from '#deltas/moves/arm.ts';
import { KIND, LEB_BYTES_MAX } from '#deltas/moves/references.ts';

const PAGE = 4096;
const page = (address: number): number => Math.floor(address / PAGE);

/** Of LEB128, which here keeps its length: more than it has room for is cut. */
const lebBytes = (kind: number): number => {
  const bytes = kind - KIND.leb1 + 1;
  return bytes >= 1 && bytes <= LEB_BYTES_MAX ? bytes : 0;
};

/** The number in the field at `at`. */
export function readField(view: DataView, at: number, kind: number): number {
  const leb = lebBytes(kind);
  if (leb > 0) {
    let value = 0;
    for (let place = leb - 1; place >= 0; place -= 1)
      value = value * 0x80 + (view.getUint8(at + place) & 0x7f);
    return value;
  }
  switch (kind) {
    case KIND.relative8:
      return view.getInt8(at);
    case KIND.absolute64:
    case KIND.length64:
      // Above 2^53 low bits would be lost: such a one is not predicted, see predict.ts.
      return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
    case KIND.absolute32:
    case KIND.backward32:
    case KIND.length32:
    case KIND.offset32:
    case KIND.index32:
    case KIND.go32:
      return view.getUint32(at, true);
    case KIND.branch26:
      return (view.getInt32(at, true) << 6) >> 6;
    case KIND.branch19:
      return (view.getInt32(at, true) << 8) >> 13;
    case KIND.branch14:
      return (view.getInt32(at, true) << 13) >> 18;
    case KIND.thumb24:
    case KIND.thumb24Aligned:
      return thumbBranch(view.getUint16(at, true), view.getUint16(at + 2, true));
    case KIND.branch24:
      return (view.getInt32(at, true) << 8) >> 8;
    case KIND.page21:
    case KIND.near21: {
      const word = view.getInt32(at, true);
      return ((word << 8) >> 13) * 4 + ((word >>> 29) & 3);
    }
    case KIND.low12:
      return (view.getInt32(at, true) >>> 10) & 0xfff;
    default:
      return view.getInt32(at, true);
  }
}

export function writeField(view: DataView, at: number, kind: number, value: number): void {
  const put = (mask: number, bits: number): void =>
    view.setInt32(at, (view.getInt32(at, true) & ~mask) | (bits & mask), true);
  const leb = lebBytes(kind);
  if (leb > 0) {
    let rest = value;
    for (let place = at; place < at + leb; place += 1, rest = Math.floor(rest / 0x80))
      view.setUint8(place, (view.getUint8(place) & 0x80) | (rest & 0x7f));
    return;
  }
  switch (kind) {
    case KIND.relative8:
      view.setInt8(at, value);
      return;
    case KIND.absolute64:
    case KIND.length64:
      view.setUint32(at, value % 2 ** 32, true);
      view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
      return;
    case KIND.branch26:
      put(0x03ffffff, value);
      return;
    case KIND.branch19:
      put(0x00ffffe0, value << 5);
      return;
    case KIND.branch14:
      put(0x0007ffe0, value << 5);
      return;
    case KIND.thumb24:
    case KIND.thumb24Aligned: {
      const [first, second] = withThumbBranch(view.getUint16(at, true), view.getUint16(at + 2, true), value);
      view.setUint16(at, first, true);
      view.setUint16(at + 2, second, true);
      return;
    }
    case KIND.branch24:
      put(0x00ffffff, value);
      return;
    case KIND.page21:
    case KIND.near21:
      // The sign of a negative number must not reach the two bits above.
      put(0x60ffffe0, ((value & 3) << 29) | ((value << 3) & 0x00ffffe0));
      return;
    case KIND.low12:
      put(0x003ffc00, value << 10);
      return;
    default:
      view.setInt32(at, value | 0, true);
  }
}

/** The number that a field at `address` has when it points to `target`; `extra` is of the new file, see `Found`. */
export function valueFor(kind: number, target: number, address: number, extra: number): number {
  switch (kind) {
    case KIND.relative32:
    case KIND.relative8:
      return target - address - extra;
    case KIND.absolute32:
    case KIND.absolute64:
      return target;
    case KIND.branch26:
    case KIND.branch19:
    case KIND.branch14:
      return Math.floor((target - address) / 4);
    case KIND.branch24:
      return Math.floor((target - address - 8) / 4);
    case KIND.thumb24:
      return Math.floor((target - address - 4) / 2);
    case KIND.thumb24Aligned:
      return 2 * Math.floor((target - Math.floor((address + 4) / 4) * 4) / 4);
    case KIND.page21:
      return page(target) - page(address);
    case KIND.low12:
      return Math.floor((target % PAGE) / 2 ** extra);
    case KIND.backward32:
      return address - target;
    case KIND.offset32:
    case KIND.table32:
    case KIND.go32:
      return target - extra;
    case KIND.index32:
      return Math.round((target - extra) / 24);
    default:
      return target - address;
  }
}

/** Where a field points; undefined for one that says only a part of it. */
export function targetFor(kind: number, value: number, address: number, extra: number): number | undefined {
  switch (kind) {
    case KIND.relative32:
    case KIND.relative8:
      return value + address + extra;
    case KIND.absolute32:
    case KIND.absolute64:
      return value;
    case KIND.branch26:
    case KIND.branch19:
    case KIND.branch14:
      return address + 4 * value;
    case KIND.branch24:
      return address + 8 + 4 * value;
    case KIND.thumb24:
      return address + 4 + 2 * value;
    case KIND.thumb24Aligned:
      return Math.floor((address + 4) / 4) * 4 + 2 * value;
    case KIND.backward32:
      return address - value;
    case KIND.offset32:
    case KIND.table32:
    case KIND.go32:
      return value + extra;
    case KIND.index32:
      return 24 * value + extra;
    case KIND.page21:
    case KIND.low12:
    case KIND.length32:
    case KIND.length64:
      return undefined;
    default:
      return value + address;
  }
}
