/** CRC-16/MCRF4XX, which MAVLink calls X.25: polynomial 0x1021 reflected, start 0xffff, no final inversion. */
export const CRC_START = 0xffff;

const TABLE = Uint16Array.from({ length: 256 }, (_, index) => {
  let crc = index;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0x8408 : crc >>> 1;
  return crc;
});

/** One byte more; `crc` starts as {@link CRC_START}. */
export const crcByte = (crc: number, byte: number): number =>
  (crc >>> 8) ^ (TABLE[(crc ^ byte) & 0xff] as number);

/** Bytes `from` (included) to `to` (not included). */
export const crcOf = (bytes: Uint8Array, from: number, to: number, crc = CRC_START): number => {
  let value = crc;
  for (let at = from; at < to; at += 1) value = crcByte(value, bytes[at] as number);
  return value;
};
