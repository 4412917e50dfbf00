/**
 * As much of an ELF file as the prediction of references needs: where its bytes are when it runs, and which are code.
 *
 * Invariant: nothing in the file is believed: a file that is not one in every field that is used is not an ELF here, and is
 * then patched without prediction. Both sides look at the same bytes of the basis and come to the same result.
 * Source: the System V ABI, "Object Files"; its supplements for x86-64, AArch64 and Arm.
 */
import { LIMITS } from '#deltas/limits.ts';
import {
  type Anchor,
  type Form,
  type Machine,
  type Part,
  type Program,
  type ReadAt,
  type Segment,
  UNLOADED,
} from '#deltas/moves/program.ts';

const MACHINES: Record<number, Machine> = { 62: 'x86-64', 183: 'aarch64', 40: 'arm' };
const PT_LOAD = 1;
const SHT_PROGBITS = 1;
const SHT_SYMTAB = 2;
const SHT_RELA = 4;
const SHT_REL = 9;
const SHT_DYNSYM = 11;
const SHT_RELR = 19;
const SHT_INIT_ARRAY = 14;
const SHT_FINI_ARRAY = 15;
const SHT_X86_64_UNWIND = 0x70000001;
const SHF_WRITE = 1;
const SHF_ALLOC = 2;
const SHF_EXECINSTR = 4;
const SHF_COMPRESSED = 0x800;

/** @returns undefined when it is none, or one that is not understood */
export async function readElf(read: ReadAt, size: number): Promise<Program | undefined> {
  const view = async (offset: number, length: number): Promise<Buffer | undefined> => {
    if (!Number.isSafeInteger(offset) || offset < 0 || length > size - offset) return undefined;
    const bytes = await read(offset, length);
    return bytes.length === length ? Buffer.from(bytes.buffer, bytes.byteOffset, length) : undefined;
  };
  const head = await view(0, 64);
  if (head === undefined || head.readUInt32BE(0) !== 0x7f454c46 || head[5] !== 1) return undefined;
  const wide = head[4] === 2;
  const machine = MACHINES[head.readUInt16LE(18)];
  const type = head.readUInt16LE(16);
  if (machine === undefined || wide === (machine === 'arm') || (type !== 2 && type !== 3)) return undefined;
  const word = (bytes: Buffer, at32: number, at64: number): number =>
    wide ? Number(bytes.readBigUInt64LE(at64)) : bytes.readUInt32LE(at32);

  const [segmentBytes, segmentCount] = [head.readUInt16LE(wide ? 54 : 42), head.readUInt16LE(wide ? 56 : 44)];
  const [partBytes, partCount] = [head.readUInt16LE(wide ? 58 : 46), head.readUInt16LE(wide ? 60 : 48)];
  if (segmentBytes < (wide ? 56 : 32) || (partCount > 0 && partBytes < (wide ? 64 : 40))) return undefined;
  if (segmentCount > LIMITS.elfHeadersMax || partCount > LIMITS.elfHeadersMax) return undefined;
  const programs = await view(word(head, 28, 32), segmentBytes * segmentCount);
  if (programs === undefined) return undefined;
  const segments: Segment[] = [];
  for (let at = 0; at < programs.length; at += segmentBytes) {
    const entry = programs.subarray(at, at + segmentBytes);
    if (entry.readUInt32LE(0) !== PT_LOAD) continue;
    const segment = {
      offset: word(entry, 4, 8),
      address: word(entry, 8, 16),
      fileBytes: word(entry, 16, 32),
      memoryBytes: word(entry, 20, 40),
    };
    const { offset, address, fileBytes, memoryBytes } = segment;
    // Beyond 2^47 lie kernels, whose addresses do not fit a number.
    if (address + memoryBytes > 2 ** 47 || memoryBytes < fileBytes || offset + fileBytes > size)
      return undefined;
    segments.push(segment);
  }
  if (segments.length === 0 || segments.length > LIMITS.elfSegmentsMax) return undefined;

  const headers = await view(word(head, 32, 40), partBytes * partCount);
  const parts: Part[] = [];
  let anchors: Anchor[] = [];
  let inPlace = type === 2 || machine === 'arm';
  if (headers !== undefined && partCount > 0) {
    const entries = Array.from({ length: partCount }, (_, at) => {
      const entry = headers.subarray(at * partBytes, (at + 1) * partBytes);
      const offset = word(entry, 16, 24);
      const flags = word(entry, 8, 8);
      return {
        nameAt: entry.readUInt32LE(0),
        type: entry.readUInt32LE(4),
        flags,
        address: (flags & SHF_ALLOC) === 0 ? UNLOADED + offset : word(entry, 12, 16),
        offset,
        bytes: word(entry, 20, 32),
        link: entry.readUInt32LE(wide ? 40 : 24),
      };
    });
    const named = entries[head.readUInt16LE(wide ? 62 : 50)];
    const names =
      named === undefined
        ? undefined
        : await view(named.offset, Math.min(named.bytes, LIMITS.elfNamesBytesMax));
    const nameOf = (from: number): string => {
      const end = names?.indexOf(0, from) ?? -1;
      return names === undefined || end < 0 ? '' : names.toString('latin1', from, end);
    };
    anchors = entries
      .filter(({ bytes, address }) => bytes > 0 && address > 0 && address + bytes < 2 * UNLOADED)
      .slice(0, LIMITS.elfAnchorsMax)
      .map(({ nameAt, address, bytes }) => ({ name: nameOf(nameAt), address, bytes }));
    if (entries.some((entry) => entry.type === SHT_RELR)) inPlace = true;
    for (const { nameAt, type: kind, flags, address, offset, bytes, link } of entries) {
      const name = nameOf(nameAt);
      const form = formOf(name, kind, flags, machine);
      if (form === undefined || bytes === 0 || !(bytes <= size - offset)) continue;
      // Go's table for 32 bits is of another shape.
      if (!wide && form === 'go-functions') continue;
      let anchor = address;
      // Symbols name strings, relocations symbols.
      if (form === 'symbols' || form === 'relocations')
        anchor = link === 0 ? 0 : (entries[link]?.address ?? 0);
      if (form === 'go-types') anchor = anchors.find((one) => one.name === '.rodata')?.address ?? 0;
      parts.push({ form, offset, bytes, address, anchor });
    }
  }
  parts.sort((a, b) => a.offset - b.offset);
  const apart = parts.filter(({ offset }, at) => {
    const before = parts[at - 1];
    return before === undefined || before.offset + before.bytes <= offset;
  });
  return { machine, fixed: type === 2, inPlace, segments, parts: apart, anchors };
}

function formOf(name: string, type: number, flags: number, machine: Machine): Form | undefined {
  if (type === SHT_SYMTAB || type === SHT_DYNSYM) return 'symbols';
  if (type === SHT_RELA) return 'relocations';
  // Only Arm's, of eight bytes.
  if (type === SHT_REL) return machine === 'arm' ? 'relocations' : undefined;
  if (name === '.eh_frame') return 'frames';
  if (name === '.eh_frame_hdr') return 'frame-table';
  if (name === '.gopclntab') return 'go-functions';
  if (name === '.typelink') return 'go-types';
  if (type === SHT_INIT_ARRAY || type === SHT_FINI_ARRAY) return 'pointers';
  if (type !== SHT_PROGBITS && type !== SHT_X86_64_UNWIND) return undefined;
  if ((flags & SHF_ALLOC) === 0)
    return name.startsWith('.debug_') && (flags & SHF_COMPRESSED) === 0 ? 'loose-pointers' : undefined;
  if ((flags & SHF_EXECINSTR) !== 0) return 'code';
  if ((flags & SHF_WRITE) !== 0) return 'pointers';
  return name === '.gcc_except_table' ? undefined : 'constants';
}
