/**
 * Writes one block of the index.
 *
 * Invariant: an IndexReader with the same listing gives back the items in order. See index-format.ts.
 */
import type { List } from '#deltas/basis.ts';
import { ByteWriter } from '#deltas/bytes.ts';
import type { Codec } from '#deltas/codecs.ts';
import {
  COLUMNS,
  type Column,
  type Content,
  EXPLICIT_LENGTH,
  folderLength,
  IndexState,
  KIND,
  LONG_NAME_FRONT,
  META_TYPES,
  NAME,
  OPERATION,
  type Patched,
  paxName,
  REFERENCE,
  REST_OF_CONTENT,
  type StreamsContent,
  WHOLE_SOURCE,
  WINDOW,
  type Window,
} from '#deltas/index-format.ts';
import type { Part } from '#deltas/joined-file.ts';
import { bytesToPath } from '#deltas/paths.ts';
import { type HeaderParts, templateType } from '#deltas/tar-header.ts';

export class IndexWriter {
  readonly #columns = Object.fromEntries(COLUMNS.map((name) => [name, new ByteWriter()])) as Record<
    Column,
    ByteWriter
  >;
  readonly #state: IndexState;
  readonly #ids = new Map<string, number>();
  #pendingPax: string | undefined;
  #type = '';
  /** What a reader must know, beside the columns. */
  readonly needs = new Set<Codec>();

  constructor(list: List | undefined) {
    this.#state = new IndexState(list);
  }

  /** Bytes before compression. */
  get length(): number {
    let sum = 0;
    for (const name of COLUMNS) sum += this.#columns[name].length;
    return sum;
  }

  /** False while a pax header waits for the name that it belongs to: the block cannot end here. */
  get complete(): boolean {
    return this.#pendingPax === undefined;
  }

  #kind(kind: keyof typeof KIND): void {
    this.#columns.kinds.byte(KIND[kind]);
  }

  raw(bytes: Uint8Array): void {
    this.#kind('raw');
    this.#columns.lengths.integer(bytes.length);
    this.#columns.raw.bytes(bytes);
  }

  zeros(length: number): void {
    this.#kind('zeros');
    this.#columns.lengths.integer(length);
  }

  run(length: number): void {
    this.#kind('run');
    this.#columns.lengths.integer(length);
  }

  pad(): void {
    this.#kind('pad');
  }

  check(digest: Uint8Array): void {
    this.#columns.checks.bytes(digest);
  }

  /** @param from path of the basis file that the content is made from, if there is one */
  header(parts: HeaderParts, from?: string): void {
    const { templateIds, templates, nameModes, sizes, times, links } = this.#columns;
    const state = this.#state;
    this.#kind('header');
    const key = parts.template.toString('latin1');
    const known = this.#ids.get(key);
    templateIds.integer(known ?? this.#ids.size);
    if (known === undefined) {
      this.#ids.set(key, this.#ids.size);
      templates.bytes(parts.template);
    }
    const type = templateType(parts.template);
    this.#type = type;
    if (META_TYPES.test(type)) {
      state.long = undefined;
      this.#flushPax();
      if (type === 'x') this.#pendingPax = parts.name;
      else this.#metaName(parts.name);
      state.listed = undefined;
    } else if (state.long?.name === parts.name && this.#pendingPax === undefined) {
      nameModes.byte(NAME.long);
      state.listed = state.long.listed;
      state.long = undefined;
    } else {
      state.long = undefined;
      this.#name(parts.name, from);
    }
    const predicted = state.listed === undefined ? 0 : (state.list?.entries[state.listed]?.size ?? 0);
    sizes.integer(parts.size === predicted ? 0 : parts.size + 1);
    times.signed(parts.mtime - state.previousMtime);
    state.previousMtime = parts.mtime;
    links.string(parts.link);
    state.name = parts.name;
    state.size = parts.size;
  }

  /** Writes the waiting pax header's name, as derived from `next` where that gives it, else in full. */
  #flushPax(next?: string): void {
    const waiting = this.#pendingPax;
    if (waiting === undefined) return;
    this.#pendingPax = undefined;
    const { nameModes, names } = this.#columns;
    const state = this.#state;
    if (next !== undefined) {
      const token = /(?:^|\/)([^/]+)\/[^/]*$/.exec(waiting)?.[1] ?? '';
      if (token !== '' && paxName(next, token) === waiting) {
        nameModes.byte(token === state.paxToken ? NAME.pax : NAME.paxToken);
        if (token !== state.paxToken) names.string(token);
        state.paxToken = token;
        return;
      }
    }
    this.#metaName(waiting);
  }

  #metaName(name: string): void {
    const { nameModes, names } = this.#columns;
    const again = name === this.#state.previousMeta;
    nameModes.byte(again ? NAME.metaAgain : NAME.meta);
    if (!again) names.string(name);
    this.#state.previousMeta = name;
  }

  #name(name: string, from?: string): void {
    this.#flushPax(name);
    const { nameModes, nameIds, names } = this.#columns;
    const state = this.#state;
    const dotted = name.startsWith('./');
    const at = state.list?.index.get(dotted ? name.slice(2) : name);
    state.listed = at;
    if (at !== undefined) {
      nameModes.byte(dotted ? NAME.dotListed : NAME.listed);
      nameIds.signed(at - state.cursor);
      state.cursor = at + 1;
    } else if (!this.#movedName(name, from)) {
      nameModes.byte(NAME.front);
      let shared = 0;
      const most = Math.min(name.length, state.previousName.length);
      while (shared < most && name[shared] === state.previousName[shared]) shared += 1;
      nameIds.integer(shared);
      names.string(name.slice(shared));
    }
    state.previousName = name;
  }

  /** By the listed name of the basis file. @returns false where that has too little of it */
  #movedName(name: string, from: string | undefined): boolean {
    const { nameModes, nameIds, names } = this.#columns;
    const state = this.#state;
    const at = from === undefined ? undefined : state.list?.index.get(Buffer.from(from).toString('latin1'));
    const old = at === undefined ? undefined : state.list?.entries[at]?.name;
    if (at === undefined || old === undefined) return false;
    const { front, start, end, middle } = alike(state.previousName, old, name);
    if (middle.length + 4 > name.length - front) return false;
    nameModes.byte(middle === '' && end === 0 ? NAME.moved : NAME.renamed);
    nameIds.signed(at - state.cursor);
    nameIds.signed(front - folderLength(state.previousName));
    nameIds.signed(start - folderLength(old));
    if (middle !== '' || end > 0) {
      nameIds.integer(end);
      names.string(middle);
    }
    state.cursor = at + 1;
    state.listed = at;
    this.needs.add('moved-names');
    return true;
  }

  /**
   * @param from entry of the listing to count from; undefined: that of the last header, or the cursor
   * @returns the entry referred to, if it was told by the listing
   */
  #reference(path: string, from?: number): number | undefined {
    const { references } = this.#columns;
    const state = this.#state;
    if (bytesToPath(Buffer.from(state.name, 'latin1')) === path) {
      references.byte(REFERENCE.same);
      return undefined;
    }
    const at = state.list?.index.get(Buffer.from(path).toString('latin1'));
    if (at !== undefined) {
      references.byte(REFERENCE.listed);
      references.signed(at - (from ?? state.listed ?? state.cursor));
      if (state.listed === undefined) state.cursor = at + 1;
      return at;
    }
    references.byte(REFERENCE.path);
    references.string(Buffer.from(path).toString('latin1'));
    return undefined;
  }

  #joined(parts: readonly Part[]): void {
    const { windows } = this.#columns;
    this.needs.add('joined-1');
    windows.integer(parts.length);
    let from: number | undefined;
    for (const { path, bytes } of parts) {
      const at = this.#reference(path, from);
      from = at === undefined ? undefined : at + 1;
      const listed = at === undefined ? undefined : this.#state.list?.entries[at]?.size;
      windows.integer(bytes === listed ? 0 : bytes + 1);
    }
  }

  content(length: number, content: Content): void {
    const { operations, lengths, raw, references } = this.#columns;
    if (content.type !== 'meta') this.#flushPax();
    this.#kind('content');
    if (
      content.type === 'meta' &&
      this.#type === 'L' &&
      content.bytes.indexOf(0) === length - 1 &&
      length > 1
    ) {
      this.#longName(content.bytes.toString('latin1', 0, length - 1), length);
      return;
    }
    const implied = length === this.#state.size;
    operations.byte(OPERATION[content.type] | (implied ? 0 : EXPLICIT_LENGTH));
    if (!implied) lengths.integer(length);
    if (content.type === 'meta') raw.bytes(content.bytes);
    if (content.type === 'meta' || content.type === 'solid') return;
    if (content.type === 'streams') {
      this.#streams(content);
      return;
    }
    if (content.type === 'joined') this.#joined(content.parts);
    else if (content.path === undefined) references.byte(REFERENCE.none);
    else this.#reference(content.path);
    if (content.type === 'copy' || content.type === 'grouped') return;
    this.#basisCheck(content.basisCheck);
    if (content.type === 'joined') {
      const { windows } = this.#columns;
      for (const bytes of [content.movesBytes, content.literalBytes]) windows.integer(bytes);
    } else {
      this.#patched(length, content);
    }
  }

  #basisCheck(check: Buffer): void {
    this.#columns.checks.bytes(check);
    this.needs.add('crc-32');
  }

  #patched(length: number, content: Patched): void {
    const { windows } = this.#columns;
    if (content.type === 'moves') {
      for (const bytes of [content.basisBytes, content.movesBytes, content.literalBytes])
        windows.integer(bytes);
    } else {
      this.#windows(length, content.basisBytes, content.windows);
    }
  }

  #streams({ inside, openedBytes, planBytes }: StreamsContent): void {
    const { operations, windows } = this.#columns;
    operations.byte(OPERATION[inside.type]);
    windows.integer(openedBytes);
    windows.integer(planBytes);
    if (inside.type !== 'solid') {
      this.#reference(inside.path);
      this.#basisCheck(inside.basisCheck);
      windows.integer(inside.closedBasisBytes);
      this.#patched(openedBytes, inside);
    }
  }

  #longName(name: string, length: number): void {
    const { operations, lengths } = this.#columns;
    const state = this.#state;
    const implied = length === state.size;
    operations.byte(OPERATION.longName | (implied ? 0 : EXPLICIT_LENGTH));
    if (!implied) lengths.integer(length);
    this.#name(name);
    state.long = { name: name.slice(0, LONG_NAME_FRONT), listed: state.listed };
    this.needs.add('long-names');
  }

  #windows(length: number, basisBytes: number, list: Window[]): void {
    const { windows } = this.#columns;
    windows.integer(basisBytes);
    windows.integer(list.length);
    let left = length;
    let expected = 0;
    for (const window of list) {
      const whole = window.sourceOffset === 0 && window.sourceBytes === basisBytes;
      const rest = window.bytes === left;
      windows.byte(WINDOW[window.codec] | (whole ? WHOLE_SOURCE : 0) | (rest ? REST_OF_CONTENT : 0));
      if (!rest) windows.integer(window.bytes);
      left -= window.bytes;
      if (window.codec === 'literal') continue;
      if (!whole) {
        windows.signed(window.sourceOffset - expected);
        if (window.codec !== 'copy') windows.integer(window.sourceBytes);
      }
      expected = window.sourceOffset + window.sourceBytes;
      if (window.codec !== 'copy') windows.integer(window.patchBytes);
    }
  }

  /** The block, to be compressed. Nothing may be written afterwards. */
  finish(): Buffer {
    this.#flushPax();
    const block = new ByteWriter();
    for (const name of COLUMNS) block.integer(this.#columns[name].length);
    for (const name of COLUMNS) block.bytes(this.#columns[name].finish());
    return block.finish();
  }
}

/**
 * How `name` is made: the first `front` bytes of `previous`, then `old` from `start` on with `middle` put in before its last `end`
 * bytes.
 */
function alike(
  previous: string,
  old: string,
  name: string,
): { front: number; start: number; end: number; middle: string } {
  let front = 0;
  while (front < Math.min(previous.length, name.length) && previous[front] === name[front]) front += 1;
  // Whole folders: what is behind them is the old file's.
  front = folderLength(name.slice(0, front));
  const start = folderLength(old);
  const [rest, base] = [name.slice(front), old.slice(start)];
  const newFolders = folderLength(rest);
  let same = 0;
  while (same < Math.min(rest.length - newFolders, base.length) && rest[newFolders + same] === base[same])
    same += 1;
  if (newFolders === 0 && same === base.length && same === rest.length)
    return { front, start, end: 0, middle: '' };
  let end = 0;
  const endMax = Math.min(base.length, rest.length) - (newFolders === 0 ? same : 0);
  while (end < endMax && rest.at(-1 - end) === base.at(-1 - end)) end += 1;
  // New folders before the name, or something within it.
  if (newFolders > 0)
    return { front, start: old.length - end, end, middle: rest.slice(0, rest.length - end) };
  if (same + end === base.length) return { front, start, end, middle: rest.slice(same, rest.length - end) };
  return { front, start: old.length - end, end, middle: rest.slice(0, rest.length - end) };
}
