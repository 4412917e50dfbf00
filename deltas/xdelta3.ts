/**
 * VCDIFF patches (RFC 3284) by the module that `xdelta3-wasm` ships.
 *
 * The package's own wrapper keeps one instance for the whole process, never checks `malloc`, and so writes over the
 * start of its memory when the fixed 16 MiB are used up; after one bad patch nothing it says can be trusted. Here the
 * same .wasm file is instantiated by ourselves: every allocation is checked, every length is bounded (`limits.ts` has
 * what was measured), and an instance that failed in any way is thrown away.
 *
 * Invariant: what one patch did to its instance is never seen by the next artifact: an `Xdelta3` belongs to one layer.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { DeltaError } from '#deltas/errors.ts';
import { LIMITS } from '#deltas/limits.ts';

type Call = (
  input: number,
  inputBytes: number,
  source: number,
  sourceBytes: number,
  output: number,
  outputBytes: number,
  outputBytesMax: number,
  flags: number,
) => number;

/** The part of the standard global that is used; Node's types leave it to the DOM's. */
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: object) => { readonly exports: unknown };
};

interface Exports {
  memory: { readonly buffer: ArrayBuffer };
  _initialize: () => void;
  malloc: (bytes: number) => number;
  free: (pointer: number) => void;
  xd3_encode_memory: Call;
  xd3_decode_memory: Call;
}

/** XD3_COMPLEVEL_9; no checksum of its own (the format has one), no secondary compression (the module has none). */
const ENCODE_FLAGS = 9 << 20;

let compiled: object | undefined;

function instantiate(): Exports {
  if (compiled === undefined) {
    const manifest = createRequire(import.meta.url).resolve('xdelta3-wasm/package.json');
    compiled = new WebAssembly.Module(readFileSync(join(dirname(manifest), 'src/native/xdelta3.wasm')));
  }
  const exports = new WebAssembly.Instance(compiled, {}).exports as Exports;
  exports._initialize();
  return exports;
}

export class Xdelta3 {
  #exports: Exports | undefined;

  /** The output, or why there is none. Never throws for what `input` holds. */
  #run(
    name: 'xd3_encode_memory' | 'xd3_decode_memory',
    input: Uint8Array,
    source: Uint8Array,
    outputBytesMax: number,
    flags: number,
  ): Buffer | string {
    this.#exports ??= instantiate();
    const { memory, malloc, free, [name]: call } = this.#exports;
    const pointers: number[] = [];
    const reserve = (bytes: number): number => {
      const pointer = malloc(Math.max(bytes, 1));
      if (pointer === 0) throw new RangeError('out of memory');
      pointers.push(pointer);
      return pointer;
    };
    try {
      const [input_, source_, output_] = [input.length, source.length, outputBytesMax].map(reserve) as [
        number,
        number,
        number,
      ];
      const length_ = reserve(4);
      const bytes = Buffer.from(memory.buffer);
      bytes.set(input, input_);
      bytes.set(source, source_);
      bytes.writeUInt32LE(0, length_);
      const code = call(
        input_,
        input.length,
        source_,
        source.length,
        output_,
        length_,
        outputBytesMax,
        flags,
      );
      if (code !== 0) throw new RangeError(`xdelta3 gave code ${code}`);
      const length = bytes.readUInt32LE(length_);
      if (length > outputBytesMax) throw new RangeError('xdelta3 wrote more than it was given room for');
      const output = Buffer.from(bytes.subarray(output_, output_ + length));
      for (const pointer of pointers) free(pointer);
      return output;
    } catch (error) {
      // A trap, a code or a full heap: in each case this instance's memory is no longer known to be sound.
      this.#exports = undefined;
      return error instanceof Error ? error.message : String(error);
    }
  }

  /**
   * @param target at most `windowTargetBytes`; @param source at most `windowSourceBytes`
   * @returns undefined when no patch smaller than the target was found
   */
  encode(target: Uint8Array, source: Uint8Array): Buffer | undefined {
    const patch = this.#run('xd3_encode_memory', target, source, target.length, ENCODE_FLAGS);
    return typeof patch === 'string' ? undefined : patch;
  }

  /** @throws DeltaError `TOO_LARGE`, `CORRUPT` (the patch does not decode to exactly `outputBytes`) */
  decode(patch: Uint8Array, source: Uint8Array, outputBytes: number): Buffer {
    if (
      patch.length > LIMITS.patchBytesMax ||
      source.length > LIMITS.windowSourceBytesMax ||
      outputBytes > LIMITS.windowTargetBytesMax
    ) {
      throw new DeltaError('TOO_LARGE', 'a patch does not fit the memory of xdelta3');
    }
    const output = this.#run('xd3_decode_memory', patch, source, outputBytes, 0);
    if (typeof output === 'string') throw new DeltaError('CORRUPT', `a patch does not decode: ${output}`);
    if (output.length !== outputBytes) {
      throw new DeltaError('CORRUPT', `a patch gives ${output.length} bytes instead of ${outputBytes}`);
    }
    return output;
  }
}
