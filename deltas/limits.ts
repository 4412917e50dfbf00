/** Every bound of the delta library, unit last, with its reason. Those marked (format) are part of format v1. */
export const LIMITS = {
  /** (format) Chunks that applyLayer yields. */
  chunkBytes: 64 * 1024,
  /** (format) The body is verified in pieces of this size, so no byte is used before its digest was checked. */
  bodyChunkBytes: 64 * 1024,
  /** (format) A running digest of the output is compared at least this often. */
  checkEveryBytes: 4 * 1024 * 1024,
  /** (format) Truncated SHA-256 of checkpoints, and without `crc-32` of basis files and contents: against accidents; the diffID is the proof. */
  checkBytes: 8,
  /** (format) CRC-32 of basis files. */
  crcBytes: 4,
  /** (format) Truncated SHA-256 of a piece of the body, and of the basis listing. */
  digestBytes: 16,

  /** 16 bytes for each 64 KiB of body: enough for an artifact of 16 GiB. */
  headerBytesMax: 4 * 1024 * 1024 + 64 * 1024,
  /** Docker stops at 127. */
  layersMax: 1_024,
  codecsMax: 64,
  sectionsMax: 65_536,
  /** A layer's tar; a caller who knows the signed length passes that. */
  outputBytesMax: 64 * 1024 ** 3,

  /** An index block is closed at this size, and refused above the second: one item adds at most a pax header. */
  indexBlockBytes: 1024 * 1024,
  indexBytesMax: 4 * 1024 * 1024,
  /** A pax header or GNU long name above this is carried as plain content and not understood. */
  metaBytesMax: 1024 * 1024,
  /** PATH_MAX of Linux. */
  pathBytesMax: 4_096,
  /** A listed basis: about 200 bytes each in memory. */
  listEntriesMax: 1_000_000,
  listBytesMax: 128 * 1024 * 1024,

  /**
   * What xdelta3-wasm is given. Its memory is 16 MiB for ever. Measured: encoding at level 9 with incompressible
   * input takes at most 2,415 KiB of source beside a target of 512 KiB, 4,095 KiB beside 256 KiB, 1,020 KiB beside
   * 1 MiB; decoding 1 MiB takes up to 13,230 KiB of source.
   */
  windowTargetBytes: 512 * 1024,
  windowSourceBytes: 2 * 1024 * 1024,
  /** What a decoder accepts: room to change the two above without a new format, still inside those 16 MiB. */
  windowTargetBytesMax: 1024 * 1024,
  windowSourceBytesMax: 4 * 1024 * 1024,
  /** (format) All windows of a file but its last: a patch that gives less would cost more to apply than it is worth. */
  windowBytesMin: 64 * 1024,
  patchBytesMax: 2 * 1024 * 1024,
  windowsMax: 1_048_576,

  /** Ranges that a moved file is made of: 24 bytes each in the reader. Node's own program of 125 MB takes some 100,000. */
  rangesMax: 500_000,
  /** A chunk of the moves section, whole in the reader's memory; the first of a file holds all its ranges. */
  movesChunkBytesMax: 6 * 1024 * 1024,
  /** A maker ends a chunk here, or after so many copied bytes. */
  movesChunkBytes: 1024 * 1024,
  movesChunkCopiedBytes: 256 * 1024 * 1024,
  /** Old and new file together: a maker's memory is five times as much. Larger ones are patched in windows. */
  movesFilesBytesMax: 1024 * 1024 * 1024,
  /** Old and new file together up to this are tried with ranges of several kinds: two seconds for each 8 MiB. */
  movesTriesBytesMax: 64 * 1024 * 1024,
  /** Files up to this size are tried in windows, too: VCDIFF and zstd's dictionary take a second for each window. */
  windowsFileBytesMax: 1024 * 1024,
  /** What a program's headers are looked at for: more is no program that a linker made. */
  elfHeadersMax: 4_096,
  elfSegmentsMax: 16,
  elfAnchorsMax: 64,
  /** Common parts of frame descriptions that are remembered. */
  elfFramesMax: 65_536,
  elfNamesBytesMax: 1024 * 1024,
  /** Of a WebAssembly module: more is none that a compiler made. */
  wasmSectionsMax: 4_096,
  wasmImportsBytesMax: 1024 * 1024,

  /** What one file's streams are told by, whole in the reader's memory; of them, and of old ones to open; of models. */
  streamsPlanBytesMax: 4 * 1024 * 1024,
  streamsMax: 100_000,
  streamModelsMax: 256,
  /** Of one deflate block: 5 bytes each in the reader. zlib's have at most 32,767, those of other writers some 300,000. */
  blockTokensMax: 1024 * 1024,
  pngChunkBytesMax: 1024 * 1024,
  /** Opened content of an old file; what is above the second goes to scratch. */
  openedBytesMax: 1024 * 1024 * 1024,
  openedMemoryBytes: 4 * 1024 * 1024,
  /**
   * (format) Content that is compressed anew in one layer, and candidates for matches looked at for that. Measured: 6 MB/s at level 9,
   * 9 at level 6, 16 at level 1, or 55 million candidates a second: some 20 s a layer at most, whatever the artifact says.
   */
  closedBytesMax: 128 * 1024 * 1024,
  closedStepsMax: 1_000_000_000,
  /** (format) What counts as so many candidates, since it takes as long: a block's codes; an old stream to open, and 8 bytes of it; another model. */
  blockSteps: 2_000,
  streamSteps: 10_000,
  openedBytesPerStep: 8,
  /** A maker holds old and new file opened, and their tokens. */
  openedFilesBytesMax: 256 * 1024 * 1024,

  /** Contents that are compressed together, and their dictionary: each in the reader's memory. */
  groupBytesMax: 8 * 1024 * 1024,
  groupFilesMax: 1_024,
  /** (format) Contents and files together that brotli may tell behind these: its history is as long again. A maker takes a second for each 700 KiB. */
  groupBehindBytesMax: 12 * 1024 * 1024,
  /** A maker puts no longer ones together: with what they come from they would soon fill a group alone. */
  groupFileBytesMax: 4 * 1024 * 1024,

  /** 8 MiB of history in the decoder for each of the two solid streams of a layer. */
  zstdWindowLogMax: 23,
  /** Streams up to this size are compressed in one call, which knows their length and does a little better. */
  solidBufferBytes: 4 * 1024 * 1024,
  /** Sections up to this size are tried with brotli, too: some 1 MB/s. */
  brotliBytesMax: 32 * 1024 * 1024,

  /** (format) Files of the basis that one file may be made from; so many of them a reader holds open. */
  basisFilesMax: 4_096,
  basisFilesOpenMax: 16,
  /** Features of the basis's files that a maker keeps, 12 bytes each: one in 128 bytes of images up to 256 MiB. */
  sketchFeaturesMax: 2_000_000,
  /** Those of one layer's survey, 4 bytes each: some 512 MiB of it at the full rate, twice as much as is compared at that rate. */
  surveyFeaturesMax: 4_000_000,

  /** Below this a listing of the basis is not asked of the device: it would cost more than it saves. */
  listSavingBytesMin: 1_024,
  /** Of a small artifact this is enough, if it is so much of it. */
  listSavingOfSmallBytesMin: 256,
  listSavingPartMin: 0.02,
  /** Anchors of a large basis file that are remembered, whatever its size. */
  anchorsMax: 65_536,
} as const;
