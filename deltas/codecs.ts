/**
 * The codecs and sections of format v1. An artifact declares those it uses, by number and name, so that an older
 * reader can say which one it lacks.
 */

/** Part of the format: numbers are never reused. */
export const CODECS = {
  /** Bytes as they are. */
  raw: 1,
  /** zstd (RFC 8878), window at most 8 MiB. */
  zstd: 2,
  /** The index of a layer in columns, see docs/delta-format.md. */
  'columns-1': 3,
  /** VCDIFF (RFC 3284) of one window, without secondary compression or checksum. */
  vcdiff: 4,
  /** zstd with the basis window as its dictionary. */
  'zstd-dictionary': 5,
  /** Ranges of an old file with predicted references, see docs/delta-format.md §4.5. */
  'moves-1': 6,
  /** Brotli (RFC 7932), window at most 8 MiB. */
  brotli: 7,
  /** The index's operation 5 and name mode 7: GNU tar's long names. */
  'long-names': 8,
  /** Deflate streams of old and new files opened, and closed again as zlib would, see docs/delta-format.md §4.7. */
  'streams-1': 9,
  /** The index's operation 7: a file made by ranges from several old ones, see docs/delta-format.md §4.6. */
  'joined-1': 10,
  /** The index's name modes 8 and 9: a moved file's name, made from that of the one that it was. */
  'moved-names': 11,
  /** Chunks of moves that tell their differences by words of 2 or 4 bytes, see docs/delta-format.md §4.5. */
  'words-1': 12,
  /** The index's operation 8: small contents compressed together, see docs/delta-format.md §4.8. */
  'grouped-1': 13,
  /** Basis files are known by 4 bytes, and contents by the checkpoints alone, see docs/delta-format.md §3. */
  'crc-32': 14,
  /** Moves of WebAssembly modules with predicted references, see docs/delta-format.md §8.4. */
  'modules-1': 15,
  /** Chunks of moves whose differences are in one column, see docs/delta-format.md §4.5. */
  'inline-1': 16,
  /** Groups that brotli tells behind the files that they come from, see docs/delta-format.md §4.8. */
  'behind-1': 17,
} as const;
export type Codec = keyof typeof CODECS;

/** Readers know those up to here by number alone: of a delta of 500 bytes their names would be an eighth. */
export const isUnnamed = (id: number): boolean => id <= CODECS['behind-1'];

export function codecName(id: number): Codec | undefined {
  return (Object.keys(CODECS) as Codec[]).find((name) => CODECS[name] === id);
}

/** What a section of a layer holds. Part of the format. */
export const SECTIONS = {
  /** One block of the index, compressed on its own. */
  index: 1,
  /** All literal bytes of the layer, in the order of the tar, as one stream. */
  solid: 2,
  /** All VCDIFF patches, in order, as one stream. */
  patches: 3,
  /** Patches that are compressed already, in order. */
  frames: 4,
  /** What moved files are made of, but for their literal bytes, in order, as one stream. */
  moves: 5,
  /** Of files whose deflate streams are opened: which, and how they are closed; in order, as one stream. */
  streams: 6,
  /** Contents that are compressed together with what they come from as their dictionary. */
  groups: 7,
} as const;
export type SectionKind = keyof typeof SECTIONS;

export function sectionKind(id: number): SectionKind | undefined {
  return (Object.keys(SECTIONS) as SectionKind[]).find((kind) => SECTIONS[kind] === id);
}

/** What a section of that kind may be compressed with. */
export function packs(kind: SectionKind, codec: Codec | undefined): boolean {
  switch (kind) {
    case 'frames':
    case 'groups':
      return codec === 'raw';
    case 'index':
      return codec === 'zstd';
    case 'solid':
    case 'patches':
    case 'moves':
    case 'streams':
      return codec === 'zstd' || codec === 'brotli';
  }
}
