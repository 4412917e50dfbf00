/**
 * The index of a layer: what each byte of the tar is and where it comes from, kept in columns.
 *
 * The index is cut into blocks; each stands alone: names, templates and times start afresh. Like values are kept
 * together because a run of equal bytes compresses to nothing. docs/delta-format.md §4 has the columns byte by byte.
 * Here is what writer and reader share; every number in this file is part of the format.
 */
import type { List } from '#deltas/basis.ts';
import type { Part } from '#deltas/joined-file.ts';

export interface Window {
  codec: 'copy' | 'literal' | 'vcdiff' | 'zstd-dictionary';
  /** Bytes of output. */
  bytes: number;
  /** Range of the basis file; nothing for `literal`. */
  sourceOffset: number;
  sourceBytes: number;
  /** Length in `patches` or `frames`; 0 for `copy` and `literal`. */
  patchBytes: number;
}

/** How a file is made from a basis file; basisBytes are what that has, with its streams opened if they are. */
export type Patched = (
  | { type: 'windows'; windows: Window[] }
  | {
      type: 'moves';
      /** What it takes from the sections `moves` and `solid`. */
      movesBytes: number;
      literalBytes: number;
    }
) & { path: string; basisBytes: number; basisCheck: Buffer };

export interface StreamsContent {
  type: 'streams';
  outputCheck?: Buffer | undefined;
  /** Its length with its streams opened, and what it takes from the section `streams`. */
  openedBytes: number;
  planBytes: number;
  /** How the opened form is made. */
  inside: { type: 'solid' } | (Patched & { closedBasisBytes: number });
}

export type Content =
  | { type: 'meta'; bytes: Buffer }
  | { type: 'copy'; path: string }
  | { type: 'solid' }
  /** From the section `groups`; path of the basis file whose content is in the group's dictionary for it. */
  | { type: 'grouped'; path: string | undefined }
  /** It has a check of its own only in a delta without `crc-32`. */
  | (Patched & { outputCheck?: Buffer | undefined })
  | StreamsContent
  | {
      /** Moves over several basis files, one behind the other. */
      type: 'joined';
      parts: Part[];
      /** Of all of them together. */
      basisCheck: Buffer;
      outputCheck?: Buffer | undefined;
      movesBytes: number;
      literalBytes: number;
    };

/** Basis files that a content is made from, in the order of its references. */
export function basisOf(content: Content): string[] {
  const made = content.type === 'streams' ? content.inside : content;
  if (made.type === 'meta' || made.type === 'solid') return [];
  if (made.type === 'joined') return made.parts.map(({ path }) => path);
  return made.path === undefined ? [] : [made.path];
}

export type Item =
  | { kind: 'raw'; bytes: Buffer }
  | { kind: 'zeros'; length: number }
  | { kind: 'run'; length: number }
  | { kind: 'header'; name: string; block: Buffer }
  | { kind: 'content'; length: number; content: Content }
  | { kind: 'pad' };

export const COLUMNS = [
  'kinds',
  'templateIds',
  'templates',
  'nameModes',
  'nameIds',
  'names',
  'sizes',
  'times',
  'links',
  'operations',
  'lengths',
  'raw',
  'references',
  'windows',
  'checks',
] as const;
export type Column = (typeof COLUMNS)[number];

export const KIND = { raw: 0, zeros: 1, run: 2, header: 3, content: 4, pad: 5 } as const;
export const NAME = {
  listed: 0,
  dotListed: 1,
  front: 2,
  meta: 3,
  metaAgain: 4,
  pax: 5,
  paxToken: 6,
  long: 7,
  moved: 8,
  renamed: 9,
} as const;
export const OPERATION = {
  meta: 0,
  copy: 1,
  solid: 2,
  windows: 3,
  moves: 4,
  longName: 5,
  streams: 6,
  joined: 7,
  grouped: 8,
} as const;
export const EXPLICIT_LENGTH = 0x10;
/** `none` only of what is grouped. */
export const REFERENCE = { same: 0, listed: 1, path: 2, none: 3 } as const;
export const WINDOW = { copy: 0, literal: 1, vcdiff: 2, 'zstd-dictionary': 3 } as const;
export const WINDOW_CODECS = ['copy', 'literal', 'vcdiff', 'zstd-dictionary'] as const;
export const WHOLE_SOURCE = 0x10;
export const REST_OF_CONTENT = 0x20;

export const META_TYPES = /[xgLK]/;

/** As much of a long name as GNU tar repeats in the header behind it. */
export const LONG_NAME_FRONT = 100;

/** Length of a name's folders, with the last slash. */
export const folderLength = (name: string): number => name.lastIndexOf('/') + 1;

/** What both sides know while they go through a block, and must keep alike. */
export class IndexState {
  readonly list: List | undefined;
  readonly templates: Buffer[] = [];
  previousName = '';
  previousMeta = '';
  paxToken = '';
  /** A long name that was told, for the header that follows, and its place in the listing. */
  long: { name: string; listed: number | undefined } | undefined;
  previousMtime = 0;
  /** The listed entry that is expected next. */
  cursor = 0;
  /** Listed entry of the last header's name, if that was how it was written. */
  listed: number | undefined;
  /** Name and size of the last header. */
  name = '';
  size = 0;

  constructor(list: List | undefined) {
    this.list = list;
  }
}

/** `dir/base` with `token` between, as pax headers are named by GNU tar and Go; undefined without a slash. */
export function paxName(name: string, token: string): string {
  const bare = name.endsWith('/') ? name.slice(0, -1) : name;
  const slash = bare.lastIndexOf('/');
  return `${bare.slice(0, slash + 1)}${token}/${bare.slice(slash + 1)}`;
}
