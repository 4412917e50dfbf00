/**
 * Baseline JPEG (ITU-T T.81) of small pictures, made many times with the same tables.
 *
 * Why not jpeg-js: it builds its tables anew in every call, 10 ms for any picture, a fifth of a core at 20 Hz; this is
 * one. Tests decode with jpeg-js. Invariant: three components, no subsampling, one quantisation and one Huffman
 * table pair (Annex K's for luminance) for all, tables and buffers made once.
 */

// T.81 table K.1, in natural order.
const QUANTISATION = [
  16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22,
  29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103,
  121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];
// Figure A.6: natural position of each coefficient in zigzag order.
const ZIGZAG = [
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46,
  53, 60, 61, 54, 47, 55, 62, 63,
];

interface Huffman {
  /** Number of codes by length, 1 to 16. */
  readonly lengths: readonly number[];
  readonly values: Uint8Array;
}
// Tables K.3 and K.5.
const DC: Huffman = {
  lengths: [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
  values: Uint8Array.from({ length: 12 }, (_, index) => index),
};
const AC: Huffman = {
  lengths: [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d],
  values: Buffer.from(
    '01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728' +
      '292a3435363738393a434445464748494a535455565758595a636465666768696a737475767778797a83848586878889' +
      '8a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2' +
      'e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa',
    'hex',
  ),
};

/** Code and its length by value (Annex C). */
const codesOf = ({ lengths, values }: Huffman): { code: Uint16Array; bits: Uint8Array } => {
  const code = new Uint16Array(256);
  const bits = new Uint8Array(256);
  let next = 0;
  let at = 0;
  lengths.forEach((count, index) => {
    for (let i = 0; i < count; i += 1, at += 1, next += 1) {
      code[values[at] as number] = next;
      bits[values[at] as number] = index + 1;
    }
    next <<= 1;
  });
  return { code, bits };
};
const DC_CODES = codesOf(DC);
const AC_CODES = codesOf(AC);

/** Orthonormal 8-point DCT: `COSINES[u * 8 + x]`. */
const COSINES = Float64Array.from({ length: 64 }, (_, i) => {
  const u = i >> 3;
  return (u === 0 ? Math.SQRT1_2 : 1) * 0.5 * Math.cos(((2 * (i & 7) + 1) * u * Math.PI) / 16);
});

const segment = (marker: number, body: ArrayLike<number>): number[] => [
  0xff,
  marker,
  (body.length + 2) >> 8,
  (body.length + 2) & 0xff,
  ...Array.from(body),
];

export class JpegEncoder {
  readonly #width: number;
  readonly #height: number;
  readonly #head: Uint8Array;
  readonly #divisors: Float64Array;
  readonly #block = new Float64Array(64);
  readonly #rows = new Float64Array(64);
  readonly #zigzag = new Int32Array(64);
  readonly #dc = new Int32Array(3);
  #out: Uint8Array;
  #length = 0;
  #bits = 0;
  #bitCount = 0;

  /** @param width, height multiples of 8; @param quality 1 to 100, as libjpeg's */
  constructor(width: number, height: number, quality: number) {
    this.#width = width;
    this.#height = height;
    const scale = quality < 50 ? 5_000 / quality : 200 - 2 * quality;
    const table = QUANTISATION.map((q) => Math.min(255, Math.max(1, Math.floor((q * scale + 50) / 100))));
    this.#divisors = Float64Array.from(table);
    const zigzagged = ZIGZAG.map((at) => table[at] as number);
    const components = [1, 2, 3];
    this.#head = Uint8Array.from([
      0xff,
      0xd8,
      ...segment(0xe0, [...Buffer.from('JFIF\0'), 1, 1, 0, 0, 1, 0, 1, 0, 0]),
      ...segment(0xdb, [0, ...zigzagged]),
      ...segment(0xc0, [
        8,
        height >> 8,
        height & 0xff,
        width >> 8,
        width & 0xff,
        3,
        ...components.flatMap((id) => [id, 0x11, 0]),
      ]),
      ...segment(0xc4, [0x00, ...DC.lengths, ...DC.values]),
      ...segment(0xc4, [0x10, ...AC.lengths, ...AC.values]),
      ...segment(0xda, [3, ...components.flatMap((id) => [id, 0x00]), 0, 63, 0]),
    ]);
    // A coefficient takes at most 27 bits, and a byte may need a stuffed zero behind it.
    this.#out = new Uint8Array(this.#head.length + width * height * 3 * 7 + 2);
  }

  /** @param rgba `width * height * 4` bytes; @returns bytes that are valid until the next call */
  encode(rgba: Uint8Array): Uint8Array {
    this.#out.set(this.#head);
    this.#length = this.#head.length;
    this.#bits = 0;
    this.#bitCount = 0;
    this.#dc.fill(0);
    for (let y = 0; y < this.#height; y += 8) {
      for (let x = 0; x < this.#width; x += 8) {
        this.#component(rgba, x, y, 0, 0.299, 0.587, 0.114, -128);
        this.#component(rgba, x, y, 1, -0.168736, -0.331264, 0.5, 0);
        this.#component(rgba, x, y, 2, 0.5, -0.418688, -0.081312, 0);
      }
    }
    this.#put(0x7f, 7);
    this.#out[this.#length] = 0xff;
    this.#out[this.#length + 1] = 0xd9;
    return this.#out.subarray(0, this.#length + 2);
  }

  #component(
    rgba: Uint8Array,
    x: number,
    y: number,
    index: number,
    red: number,
    green: number,
    blue: number,
    shift: number,
  ): void {
    const block = this.#block;
    for (let i = 0; i < 64; i += 1) {
      const at = ((y + (i >> 3)) * this.#width + x + (i & 7)) * 4;
      block[i] =
        red * (rgba[at] as number) +
        green * (rgba[at + 1] as number) +
        blue * (rgba[at + 2] as number) +
        shift;
    }
    this.#transform();
    this.#writeBlock(index);
  }

  /** Rows, then columns, then quantised in zigzag order. */
  #transform(): void {
    const block = this.#block;
    const rows = this.#rows;
    for (let row = 0; row < 64; row += 8) {
      for (let u = 0; u < 8; u += 1) {
        let sum = 0;
        for (let k = 0; k < 8; k += 1) sum += (block[row + k] as number) * (COSINES[u * 8 + k] as number);
        rows[row + u] = sum;
      }
    }
    for (let i = 0; i < 64; i += 1) {
      const at = ZIGZAG[i] as number;
      const u = at & 7;
      const v = at & 56;
      let sum = 0;
      for (let k = 0; k < 8; k += 1) sum += (rows[k * 8 + u] as number) * (COSINES[v + k] as number);
      this.#zigzag[i] = Math.round(sum / (this.#divisors[at] as number));
    }
  }

  #writeBlock(index: number): void {
    const coefficients = this.#zigzag;
    const dc = coefficients[0] as number;
    this.#putValue(dc - (this.#dc[index] as number), 0, DC_CODES);
    this.#dc[index] = dc;
    let zeros = 0;
    for (let i = 1; i < 64; i += 1) {
      const value = coefficients[i] as number;
      if (value === 0) {
        zeros += 1;
        continue;
      }
      for (; zeros > 15; zeros -= 16) this.#put(AC_CODES.code[0xf0] as number, AC_CODES.bits[0xf0] as number);
      this.#putValue(value, zeros << 4, AC_CODES);
      zeros = 0;
    }
    if (zeros > 0) this.#put(AC_CODES.code[0] as number, AC_CODES.bits[0] as number);
  }

  /** Its magnitude's category as a Huffman code, then the bits that tell which one (F.1.2.1). */
  #putValue(value: number, run: number, codes: { code: Uint16Array; bits: Uint8Array }): void {
    const size = 32 - Math.clz32(Math.abs(value));
    this.#put(codes.code[run | size] as number, codes.bits[run | size] as number);
    if (size > 0) this.#put(value > 0 ? value : value + (1 << size) - 1, size);
  }

  #put(value: number, count: number): void {
    // At most 7 bits wait and 16 come: no overflow of 32.
    this.#bits = (this.#bits << count) | value;
    this.#bitCount += count;
    while (this.#bitCount >= 8) {
      this.#bitCount -= 8;
      const byte = (this.#bits >>> this.#bitCount) & 0xff;
      this.#out[this.#length++] = byte;
      if (byte === 0xff) this.#out[this.#length++] = 0;
    }
    this.#bits &= (1 << this.#bitCount) - 1;
  }
}
