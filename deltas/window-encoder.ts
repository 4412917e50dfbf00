/**
 * Makes one file from another, window by window, each by whichever codec gives the fewest bytes.
 *
 * Invariant: each patch was decoded and compared before it is chosen. Memory is a few windows, whatever the files' size.
 */
import { Anchors } from '#deltas/anchors.ts';
import type { BasisFile } from '#deltas/basis.ts';
import { compress, decompress, isPlain } from '#deltas/compression.ts';
import type { Window } from '#deltas/index-format.ts';
import { LIMITS } from '#deltas/limits.ts';
import { Xdelta3 } from '#deltas/xdelta3.ts';

/** Where the bytes of each codec go; one of each in a layer. */
export interface WindowSinks {
  solid: { write(bytes: Uint8Array): Promise<void> };
  patches: { write(bytes: Uint8Array): Promise<void> };
  frames: { write(bytes: Uint8Array): Promise<void> };
}

/** What the first patch of a file costs beside the patch itself: two checks of 8 bytes, lengths, a reference. */
const FIRST_PATCH_BYTES = 24;
const NEXT_PATCH_BYTES = 8;
/** What a VCDIFF compressed alone costs more than one after others in the solid stream: its header, zstd's frame. */
const SHARED_BYTES = 24;

export class WindowEncoder {
  readonly #sinks: WindowSinks;
  readonly #level: number;
  readonly #encoder = new Xdelta3();
  readonly #verifier = new Xdelta3();

  /** @param level of zstd */
  constructor(sinks: WindowSinks, level: number) {
    this.#sinks = sinks;
    this.#level = level;
  }

  /**
   * @param pieces the new file, `bytes` in all
   * @returns its windows; all `literal` when the basis is of no use, and then `sinks.solid` got the whole file
   */
  async encode(pieces: AsyncIterable<Uint8Array>, bytes: number, basis: BasisFile): Promise<Window[]> {
    const anchors = basis.size > LIMITS.windowSourceBytes ? await Anchors.of(basis) : undefined;
    const windows: Window[] = [];
    let at = 0;
    let patched = false;
    for await (const target of windowsOf(pieces)) {
      const shift = anchors?.shift(target, at);
      const copied = await this.#copied(target, basis, at + (shift ?? 0));
      const previous = windows.at(-1);
      if (copied !== undefined) {
        const follows =
          previous?.codec === 'copy' && previous.sourceOffset + previous.bytes === copied.sourceOffset;
        if (follows) {
          previous.bytes += copied.bytes;
          previous.sourceBytes += copied.bytes;
        } else {
          windows.push(copied);
        }
        patched = true;
      } else {
        const near = shift === undefined ? (at / bytes) * basis.size : at + shift;
        const window = await this.#best(target, basis, near, patched ? NEXT_PATCH_BYTES : FIRST_PATCH_BYTES);
        patched ||= window.codec !== 'literal';
        if (window.codec === 'literal' && previous?.codec === 'literal') previous.bytes += window.bytes;
        else windows.push(window);
      }
      at += target.length;
    }
    return windows;
  }

  async #copied(target: Buffer, basis: BasisFile, offset: number): Promise<Window | undefined> {
    if (offset < 0 || offset + target.length > basis.size) return undefined;
    const source = await basis.read(offset, target.length);
    if (!target.equals(source)) return undefined;
    return {
      codec: 'copy',
      bytes: target.length,
      sourceOffset: offset,
      sourceBytes: target.length,
      patchBytes: 0,
    };
  }

  async #best(target: Buffer, basis: BasisFile, near: number, patchCost: number): Promise<Window> {
    const sourceBytes = Math.min(basis.size, LIMITS.windowSourceBytes);
    const middle = Math.round(near - (sourceBytes - target.length) / 2);
    const sourceOffset = Math.max(0, Math.min(middle, basis.size - sourceBytes));
    const source = await basis.read(sourceOffset, sourceBytes);
    const window = { bytes: target.length, sourceOffset, sourceBytes };

    const vcdiff = this.#encoder.encode(target, source);
    const [frame, squeezed] = await Promise.all([
      isPlain(source) ? compress(target, this.#level, source) : undefined,
      vcdiff === undefined ? undefined : compress(vcdiff, this.#level),
    ]);
    // Where the old file helps that much, it is not worth finding out how the new one would do alone.
    const helps = (frame?.length ?? Infinity) < target.length / 8;
    const literalCost = helps ? target.length : (await compress(target, this.#level)).length;
    const frameCost = frame === undefined ? Infinity : frame.length + patchCost;
    const vcdiffCost =
      squeezed === undefined ? Infinity : Math.max(squeezed.length - SHARED_BYTES, 8) + patchCost;

    if (vcdiff !== undefined && vcdiffCost <= frameCost && vcdiffCost < literalCost) {
      if (this.#decodes(vcdiff, source, target)) {
        await this.#sinks.patches.write(vcdiff);
        return { codec: 'vcdiff', ...window, patchBytes: vcdiff.length };
      }
    }
    if (frame !== undefined && frameCost < literalCost && (await this.#unpacks(frame, source, target))) {
      await this.#sinks.frames.write(frame);
      return { codec: 'zstd-dictionary', ...window, patchBytes: frame.length };
    }
    await this.#sinks.solid.write(target);
    return { codec: 'literal', bytes: target.length, sourceOffset: 0, sourceBytes: 0, patchBytes: 0 };
  }

  #decodes(patch: Buffer, source: Uint8Array, target: Buffer): boolean {
    try {
      return this.#verifier.decode(patch, source, target.length).equals(target);
    } catch {
      return false;
    }
  }

  async #unpacks(frame: Buffer, source: Uint8Array, target: Buffer): Promise<boolean> {
    try {
      return (await decompress(frame, target.length, 'frame', source)).equals(target);
    } catch {
      return false;
    }
  }
}

async function* windowsOf(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let parts: Uint8Array[] = [];
  let held = 0;
  for await (const piece of pieces) {
    let rest = piece;
    while (held + rest.length >= LIMITS.windowTargetBytes) {
      const room = LIMITS.windowTargetBytes - held;
      parts.push(rest.subarray(0, room));
      yield Buffer.concat(parts);
      rest = rest.subarray(room);
      parts = [];
      held = 0;
    }
    if (rest.length > 0) parts.push(rest);
    held += rest.length;
  }
  if (held > 0) yield Buffer.concat(parts);
}
