/**
 * What the cameras look at: a meadow with a grid, a landing pad, trees, a hut, and a person who is hard to see in the
 * visible light and glows in the thermal one.
 *
 * Invariant: a function of the pose alone, by casting one ray a pixel; the world never moves.
 */

/** North, east, down of the centre, radius (m); colour; kelvin above the meadow. */
interface Ball {
  readonly n: number;
  readonly e: number;
  readonly d: number;
  readonly radius: number;
  readonly rgb: readonly [number, number, number];
  readonly warmth: number;
}
const tree = (n: number, e: number): Ball => ({ n, e, d: -1.9, radius: 1.5, rgb: [38, 92, 44], warmth: -2 });
const BALLS: readonly Ball[] = [
  tree(14, -7),
  tree(17, -3.5),
  tree(22, 9),
  tree(30, -12),
  tree(9, 8),
  // The person, in a green coat under a tree.
  { n: 12, e: -5, d: -0.7, radius: 0.7, rgb: [58, 86, 52], warmth: 14 },
  // A hut's chimney, still warm.
  { n: 34, e: 4, d: -1.2, radius: 2.2, rgb: [150, 96, 72], warmth: 4 },
];
const PAD = { n: 7, e: 0, radius: 2 } as const;
const FOV_TAN = Math.tan((80 / 2) * (Math.PI / 180));
/** The camera looks 22 degrees down from the body's forward axis. */
const DOWN = (22 * Math.PI) / 180;

export interface Pose {
  /** NED, m; d negative aloft. */
  readonly n: number;
  readonly e: number;
  readonly d: number;
  /** Body to world. */
  readonly w: number;
  readonly x: number;
  readonly y: number;
  readonly z: number;
}

/** The ball that a ray meets first, and how far off, in module state: no garbage for 400,000 rays a second. */
let hit: Ball | undefined;
let hitAt = 0;
const meet = (p: Pose, dn: number, de: number, dd: number): void => {
  hit = undefined;
  hitAt = Infinity;
  for (const ball of BALLS) {
    const n = ball.n - p.n;
    const e = ball.e - p.e;
    const d = ball.d - p.d;
    const along = n * dn + e * de + d * dd;
    if (along <= 0) continue;
    const inside = ball.radius ** 2 - (n * n + e * e + d * d - along * along);
    if (inside <= 0) continue;
    const at = along - Math.sqrt(inside);
    if (at > 0 && at < hitAt) {
      hit = ball;
      hitAt = at;
    }
  }
};

type Shade = (pose: Pose, dn: number, de: number, dd: number, pixel: number) => void;

const cast = (pose: Pose, width: number, height: number, shade: Shade): void => {
  const { w, x, y, z } = pose;
  const r = [
    1 - 2 * (y * y + z * z),
    2 * (x * y - w * z),
    2 * (x * z + w * y),
    2 * (x * y + w * z),
    1 - 2 * (x * x + z * z),
    2 * (y * z - w * x),
    2 * (x * z - w * y),
    2 * (y * z + w * x),
    1 - 2 * (x * x + y * y),
  ] as const;
  const cosine = Math.cos(DOWN);
  const sine = Math.sin(DOWN);
  for (let row = 0; row < height; row += 1) {
    const v = ((row + 0.5 - height / 2) / (width / 2)) * FOV_TAN;
    const forward = cosine - v * sine;
    const down = sine + v * cosine;
    for (let column = 0; column < width; column += 1) {
      const u = ((column + 0.5) / (width / 2) - 1) * FOV_TAN;
      const norm = 1 / Math.sqrt(1 + u * u + v * v);
      const dn = (r[0] * forward + r[1] * u + r[2] * down) * norm;
      const de = (r[3] * forward + r[4] * u + r[5] * down) * norm;
      const dd = (r[6] * forward + r[7] * u + r[8] * down) * norm;
      shade(pose, dn, de, dd, row * width + column);
    }
  }
};

/** @param rgba `width * height * 4` bytes, overwritten */
export const renderVisible = (pose: Pose, width: number, height: number, rgba: Uint8Array): void => {
  const put = (pixel: number, red: number, green: number, blue: number): void => {
    rgba[pixel * 4] = red;
    rgba[pixel * 4 + 1] = green;
    rgba[pixel * 4 + 2] = blue;
    rgba[pixel * 4 + 3] = 255;
  };
  cast(pose, width, height, (p, dn, de, dd, pixel) => {
    meet(p, dn, de, dd);
    const ground = dd > 1e-4 ? Math.max(0.02, -p.d) / dd : Infinity;
    if (hit !== undefined && hitAt < ground) {
      // Lit from above and behind.
      const up = 0.65 - (0.35 * (p.d + hitAt * dd - hit.d)) / hit.radius;
      put(pixel, hit.rgb[0] * up, hit.rgb[1] * up, hit.rgb[2] * up);
      return;
    }
    if (ground === Infinity) {
      const high = Math.min(1, -dd * 2);
      put(pixel, 205 - 110 * high, 222 - 70 * high, 238 - 20 * high);
      return;
    }
    const n = p.n + ground * dn;
    const e = p.e + ground * de;
    const haze = 1 - Math.exp(-ground / 60);
    const pad = Math.hypot(n - PAD.n, e - PAD.e);
    let red = 96;
    let green = 132;
    let blue = 70;
    if (pad < PAD.radius) {
      const h = Math.abs(e - PAD.e);
      const bar = Math.abs(n - PAD.n);
      const letter = (h > 0.45 && h < 0.8 && bar < 1) || (h <= 0.45 && bar < 0.18);
      const white = letter || pad > PAD.radius - 0.25;
      red = green = blue = white ? 240 : 74;
    } else if (ground < 40) {
      // A grid of 2 m, fading out before it would alias.
      const line = 0.02 + ground * 0.006;
      const onLine = Math.abs(n / 2 - Math.round(n / 2)) < line || Math.abs(e / 2 - Math.round(e / 2)) < line;
      const checker = (Math.floor(n / 2) + Math.floor(e / 2)) % 2 === 0 ? 6 : -6;
      const fade = 1 - ground / 40;
      const shift = (onLine ? 52 : checker) * fade;
      red += shift;
      green += shift;
      blue += shift;
    }
    put(pixel, red + (205 - red) * haze, green + (222 - green) * haze, blue + (238 - blue) * haze);
  });
};

/** @param grey `width * height` bytes, overwritten: 0 cold to 255 warm; @param noise one value a pixel, kelvin */
export const renderThermal = (
  pose: Pose,
  width: number,
  height: number,
  grey: Uint8Array,
  noise: () => number,
): void => {
  cast(pose, width, height, (p, dn, de, dd, pixel) => {
    meet(p, dn, de, dd);
    const ground = dd > 1e-4 ? Math.max(0.02, -p.d) / dd : Infinity;
    let warmth = -18 + 14 * Math.max(0, 1 + dd * 3);
    if (hit !== undefined && hitAt < ground) warmth = hit.warmth;
    else if (ground < Infinity) {
      const pad = Math.hypot(p.n + ground * dn - PAD.n, p.e + ground * de - PAD.e) < PAD.radius;
      warmth = (pad ? 3 : 0) - 4 * (1 - Math.exp(-ground / 60));
    }
    grey[pixel] = Math.min(255, Math.max(0, 110 + 8 * (warmth + noise())));
  });
};

/** Digits of 3 x 5 dots, rows from the top, three bits each. */
const DIGITS = [
  0b111_101_101_101_111, 0b010_110_010_010_111, 0b111_001_111_100_111, 0b111_001_111_001_111,
  0b101_101_111_001_001, 0b111_100_111_001_111, 0b111_100_111_101_111, 0b111_001_001_001_001,
  0b111_101_111_101_111, 0b111_101_111_001_111,
];

/** Writes a number into the lower left corner, light on dark. @param channels 4 (RGBA) or 1 (grey) */
export const stampNumber = (
  value: number,
  width: number,
  height: number,
  bytes: Uint8Array,
  channels: 1 | 4,
): void => {
  const text = String(value);
  const scale = channels === 4 ? 2 : 1;
  for (let row = 0; row < 7; row += 1) {
    for (let column = 0; column < text.length * 4 + 1; column += 1) {
      const digit = DIGITS[Number(text[Math.floor((column - 1) / 4)])] ?? 0;
      const dot = (column - 1) % 4;
      const on = row > 0 && row < 6 && column > 0 && dot < 3 && (digit >> (14 - (row - 1) * 3 - dot)) & 1;
      const shade = on ? 255 : 0;
      for (let y = 0; y < scale; y += 1) {
        for (let x = 0; x < scale; x += 1) {
          const at = (height - 1 - (6 - row) * scale - y) * width + column * scale + x;
          bytes.fill(shade, at * channels, at * channels + Math.min(3, channels));
        }
      }
    }
  }
};
