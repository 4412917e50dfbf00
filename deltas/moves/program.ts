/**
 * What the prediction of references knows of a program: where its bytes are when it runs, and how its references are written.
 * See elf.ts and wasm.ts, which find that out.
 */

import type { Module } from '#deltas/moves/wasm.ts';

export type Machine = 'x86-64' | 'aarch64' | 'arm' | 'wasm';

/** A part of the file that is loaded. */
export interface Segment {
  /** In the file. */
  offset: number;
  fileBytes: number;
  address: number;
  /** At least fileBytes; what is beyond is zero and not in the file. */
  memoryBytes: number;
}

/** How the references of a part of the file are written. */
export type Form =
  /** Instructions. */
  | 'code'
  /** Addresses of 8 (4 on Arm) bytes, aligned. */
  | 'pointers'
  /** Elf64_Rela: an address, a kind, an address. */
  | 'relocations'
  /** Elf64_Sym: the address is at 8. */
  | 'symbols'
  /** Frame descriptions, each with the address of its code relative to itself. */
  | 'frames'
  /** .eh_frame_hdr's sorted pairs, relative to its start. */
  | 'frame-table'
  /** May hold tables of jumps, each entry relative to its table's start. */
  | 'constants'
  /** Addresses of 8 bytes at any place: what debuggers read. */
  | 'loose-pointers'
  /** i32 from the start of `.rodata`: Go's types. */
  | 'go-types'
  /** Go's function table, .gopclntab. */
  | 'go-functions'
  /** A module's: bodies of functions, one behind the other. */
  | 'module-code'
  /** A module's: segments of data. */
  | 'module-data';

export interface Part {
  form: Form;
  offset: number;
  bytes: number;
  /** Of what is not loaded: UNLOADED + its offset, so that it, too, can be pointed to. */
  address: number;
  /** What its offsets count from; 0: nothing. */
  anchor: number;
}

/** A section, where it is loaded; both versions of a program have most of them, by name. */
export interface Anchor {
  name: string;
  address: number;
  bytes: number;
}

/** Beyond all addresses. */
export const UNLOADED = 2 ** 48;

/** As much of a program, or module, as the prediction of references needs. */
export interface Program {
  machine: Machine;
  /** Linked to a fixed address: instructions may then hold addresses of 4 bytes. */
  fixed: boolean;
  /** Data holds addresses in place; else they are in the relocations, and what looks like one is a small number. */
  inPlace: boolean;
  segments: Segment[];
  /** By offset, without overlaps. */
  parts: Part[];
  anchors: Anchor[];
  /** Of WebAssembly only. */
  module?: Module;
}

/** Reads part of a file; fewer bytes only at its end. */
export type ReadAt = (offset: number, length: number, into?: Uint8Array) => Promise<Uint8Array>;
