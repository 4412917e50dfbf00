/** mulberry32: a number in [0, 1), and the next state (32 bits). Pure: chance is an input here. */
export function drawn(dice: number): [number, number] {
  const next = (dice + 0x6d2b79f5) >>> 0;
  let t = Math.imul(next ^ (next >>> 15), next | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return [((t ^ (t >>> 14)) >>> 0) / 2 ** 32, next];
}
