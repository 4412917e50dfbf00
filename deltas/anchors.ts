/**
 * Where in a large basis file a piece of a new file comes from.
 *
 * Places that both files have alike are found by a rolling hash (Gear: the last 32 bytes decide), which selects the
 * same anchors however far the bytes have moved. Memory is bounded by `anchorsMax` whatever the file's length.
 */
import type { BasisFile } from '#deltas/basis.ts';
import { LIMITS } from '#deltas/limits.ts';

export const GEAR = new Uint32Array(256);
{
  // Any fixed numbers do; xorshift32 with a fixed seed.
  let state = 0x9e3779b9;
  for (let at = 0; at < 256; at += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    GEAR[at] = state >>> 0;
  }
}

export class Anchors {
  /** Position in the basis by hash; -1 where several have the same. */
  readonly #positions = new Map<number, number>();
  readonly #shift: number;

  private constructor(bytes: number) {
    // About one anchor in 1 KiB, fewer in files above 64 MiB.
    const spacing = Math.max(10, Math.ceil(Math.log2(bytes / LIMITS.anchorsMax)));
    this.#shift = 32 - spacing;
  }

  static async of(file: BasisFile): Promise<Anchors> {
    const anchors = new Anchors(file.size);
    let hash = 0;
    for (let at = 0; at < file.size; at += LIMITS.windowTargetBytes) {
      const piece = await file.read(at, Math.min(LIMITS.windowTargetBytes, file.size - at));
      hash = anchors.#each(piece, hash, (position, key) => {
        if (anchors.#positions.size >= 2 * LIMITS.anchorsMax) return;
        anchors.#positions.set(key, anchors.#positions.has(key) ? -1 : at + position);
      });
    }
    return anchors;
  }

  #each(piece: Uint8Array, start: number, found: (position: number, hash: number) => void): number {
    let hash = start;
    for (let at = 0; at < piece.length; at += 1) {
      hash = ((hash << 1) + (GEAR[piece[at] as number] as number)) | 0;
      // The high bits depend on the most bytes.
      if (hash >>> this.#shift === 0) found(at, hash);
    }
    return hash;
  }

  /**
   * How far the basis's bytes lie behind (+) or before (-) the target's, by most anchors in common.
   * @param offset of `piece` in the target; undefined when nothing is recognised
   */
  shift(piece: Uint8Array, offset: number): number | undefined {
    const votes = new Map<number, number>();
    let best: number | undefined;
    this.#each(piece, 0, (position, hash) => {
      const place = this.#positions.get(hash);
      if (place === undefined || place < 0) return;
      const shift = place - offset - position;
      const count = (votes.get(shift) ?? 0) + 1;
      votes.set(shift, count);
      if (best === undefined || count > (votes.get(best) as number)) best = shift;
    });
    return best;
  }
}
