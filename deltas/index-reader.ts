/**
 * Reads one block of the index, of which nothing is believed.
 *
 * Invariant: every item is within the bounds of limits.ts or a DeltaError; each takes at least one byte of the block
 * and, but for `pad`, gives at least one byte of the layer: work is bounded by both. Whether lengths agree with the
 * layer is the caller's to check.
 */
import type { List } from '#deltas/basis.ts';
import { ByteReader } from '#deltas/bytes.ts';
import { DeltaError } from '#deltas/errors.ts';
import {
  COLUMNS,
  type Column,
  EXPLICIT_LENGTH,
  folderLength,
  IndexState,
  type Item,
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
  WINDOW_CODECS,
  type Window,
} from '#deltas/index-format.ts';
import type { Part } from '#deltas/joined-file.ts';
import { LIMITS } from '#deltas/limits.ts';
import { bytesToPath, isPath } from '#deltas/paths.ts';
import { joinHeader, TEMPLATE_BYTES, templateType } from '#deltas/tar-header.ts';

/** Patched, as far as the windows column has it. */
type MadeFrom =
  | Pick<Extract<Patched, { type: 'windows' }>, 'type' | 'basisBytes' | 'windows'>
  | Pick<Extract<Patched, { type: 'moves' }>, 'type' | 'basisBytes' | 'movesBytes' | 'literalBytes'>;

export class IndexReader {
  readonly #columns: Record<Column, ByteReader>;
  readonly #state: IndexState;
  readonly #checkBytes: number;
  /** Name of the file that the last pax header belongs to, with its place in the listing. */
  #ahead: { name: string; listed: number | undefined } | undefined;

  /**
   * @param checkBytes of a basis file: see check.ts
   * @throws DeltaError `CORRUPT`
   */
  constructor(block: Buffer, list: List | undefined, checkBytes: number) {
    this.#state = new IndexState(list);
    this.#checkBytes = checkBytes;
    const reader = new ByteReader(block, 'index');
    const lengths = COLUMNS.map(() => reader.integer(LIMITS.indexBytesMax));
    this.#columns = Object.fromEntries(
      COLUMNS.map((name, at) => [
        name,
        new ByteReader(reader.bytes(lengths[at] as number), `index column ${name}`),
      ]),
    ) as Record<Column, ByteReader>;
    if (reader.left > 0) throw new DeltaError('CORRUPT', 'index: bytes after the last column');
  }

  /** True after the last item. */
  get ended(): boolean {
    return this.#columns.kinds.left === 0;
  }

  check(): Buffer {
    return this.#columns.checks.bytes(LIMITS.checkBytes);
  }

  #basisCheck(): Buffer {
    return this.#columns.checks.bytes(this.#checkBytes);
  }

  #outputCheck(): Buffer | undefined {
    return this.#checkBytes === LIMITS.crcBytes ? undefined : this.check();
  }

  /** @throws DeltaError `CORRUPT` when the columns hold more than was read */
  finish(): void {
    for (const name of COLUMNS) {
      if (this.#columns[name].left > 0)
        throw new DeltaError('CORRUPT', `index column ${name}: bytes left over`);
    }
  }

  /** @throws DeltaError `CORRUPT`, `UNSUPPORTED` */
  next(): Item {
    const { kinds, lengths, raw } = this.#columns;
    const kind = kinds.byte();
    switch (kind) {
      case KIND.raw:
        return { kind: 'raw', bytes: raw.bytes(notZero(lengths.integer())) };
      case KIND.zeros:
        return { kind: 'zeros', length: notZero(lengths.integer()) };
      case KIND.run:
        return { kind: 'run', length: notZero(lengths.integer()) };
      case KIND.header:
        return this.#header();
      case KIND.content:
        return this.#content();
      case KIND.pad:
        return { kind: 'pad' };
      default:
        throw new DeltaError('CORRUPT', `index: unknown item ${kind}`);
    }
  }

  #header(): Item {
    const { templateIds, templates, sizes, times, links } = this.#columns;
    const state = this.#state;
    const id = templateIds.integer(state.templates.length);
    if (id === state.templates.length) state.templates.push(templates.bytes(TEMPLATE_BYTES));
    const template = state.templates[id] as Buffer;
    const type = templateType(template);
    let name: string;
    if (META_TYPES.test(type)) {
      name = this.#metaName(type);
      state.listed = undefined;
      state.long = undefined;
    } else if (this.#ahead !== undefined) {
      name = this.#ahead.name;
      state.listed = this.#ahead.listed;
      this.#ahead = undefined;
    } else {
      name = this.#name();
    }
    const code = sizes.integer();
    const predicted = state.listed === undefined ? 0 : (state.list?.entries[state.listed]?.size ?? 0);
    state.size = code === 0 ? predicted : code - 1;
    state.previousMtime += times.signed();
    state.name = name;
    const link = links.string();
    const mtime = state.previousMtime;
    if (!Number.isSafeInteger(mtime) || mtime < 0)
      throw new DeltaError('CORRUPT', 'index: a time before 1970');
    const block = joinHeader({ template, name, size: state.size, mtime, link });
    if (block === undefined) throw new DeltaError('CORRUPT', 'index: a header that does not fit its fields');
    return { kind: 'header', name, block };
  }

  #metaName(type: string): string {
    const { nameModes, names } = this.#columns;
    const state = this.#state;
    const mode = nameModes.byte();
    if (mode === NAME.meta) state.previousMeta = names.string();
    if (mode === NAME.meta || mode === NAME.metaAgain) return state.previousMeta;
    if ((mode !== NAME.pax && mode !== NAME.paxToken) || type !== 'x' || this.#ahead !== undefined) {
      throw new DeltaError('CORRUPT', `index: unknown name mode ${mode}`);
    }
    if (mode === NAME.paxToken) state.paxToken = names.string();
    const name = this.#name();
    this.#ahead = { name, listed: state.listed };
    return paxName(name, state.paxToken);
  }

  #name(): string {
    const { nameModes, nameIds, names } = this.#columns;
    const state = this.#state;
    const mode = nameModes.byte();
    const { long } = state;
    state.long = undefined;
    if (mode === NAME.long && long !== undefined) {
      state.listed = long.listed;
      return long.name;
    }
    if (mode === NAME.listed || mode === NAME.dotListed) {
      const at = state.cursor + nameIds.signed();
      const entry = this.#entry(at);
      state.cursor = at + 1;
      state.listed = at;
      state.previousName = mode === NAME.listed ? entry.name : `./${entry.name}`;
    } else if (mode === NAME.moved || mode === NAME.renamed) {
      state.previousName = this.#movedName(mode === NAME.renamed);
    } else if (mode === NAME.front) {
      const shared = nameIds.integer(state.previousName.length);
      state.listed = undefined;
      state.previousName = state.previousName.slice(0, shared) + names.string();
    } else {
      throw new DeltaError('CORRUPT', `index: unknown name mode ${mode}`);
    }
    return state.previousName;
  }

  #movedName(renamed: boolean): string {
    const { nameIds, names } = this.#columns;
    const state = this.#state;
    const at = state.cursor + nameIds.signed();
    const old = this.#entry(at).name;
    const front = folderLength(state.previousName) + nameIds.signed();
    const start = folderLength(old) + nameIds.signed();
    const end = renamed ? nameIds.integer() : 0;
    if (front < 0 || front > state.previousName.length || start < 0 || end > old.length - start)
      throw new DeltaError('CORRUPT', 'index: a name made from more than there is');
    state.cursor = at + 1;
    state.listed = at;
    const middle = renamed ? names.string() : '';
    const split = old.length - end;
    return state.previousName.slice(0, front) + old.slice(start, split) + middle + old.slice(split);
  }

  #entry(at: number): { name: string; path: string | undefined } {
    const entry = this.#state.list?.entries[at];
    if (entry === undefined) throw new DeltaError('CORRUPT', `index: no listed file ${at}`);
    return entry;
  }

  /**
   * @param from entry of the listing to count from; undefined: that of the last header, or the cursor
   * @param mode if it was read already
   * @returns the path, and its entry in the listing if it was told by that
   */
  #reference(
    from?: number,
    mode = this.#columns.references.byte(),
  ): { path: string; at: number | undefined } {
    const { references } = this.#columns;
    const state = this.#state;
    let path: string | undefined;
    let at: number | undefined;
    if (mode === REFERENCE.same) {
      path = bytesToPath(Buffer.from(state.name, 'latin1'));
    } else if (mode === REFERENCE.listed) {
      at = (from ?? state.listed ?? state.cursor) + references.signed();
      path = this.#entry(at).path;
      if (state.listed === undefined) state.cursor = at + 1;
    } else if (mode === REFERENCE.path) {
      path = bytesToPath(Buffer.from(references.string(), 'latin1'));
    }
    if (path === undefined || !isPath(path)) throw new DeltaError('CORRUPT', 'index: a reference to no file');
    return { path, at };
  }

  #joined(): Part[] {
    const { windows } = this.#columns;
    const count = windows.integer(LIMITS.basisFilesMax);
    if (count < 2) throw new DeltaError('CORRUPT', 'index: a file joined from fewer than two');
    const parts: Part[] = [];
    let left = Number.MAX_SAFE_INTEGER;
    let from: number | undefined;
    for (let number = 0; number < count; number += 1) {
      const { path, at } = this.#reference(from);
      from = at === undefined ? undefined : at + 1;
      const code = windows.integer();
      const listed = at === undefined ? 0 : (this.#state.list?.entries[at]?.size ?? 0);
      const bytes = notZero(code === 0 ? listed : code - 1);
      left -= bytes;
      if (left < 0) throw new DeltaError('CORRUPT', 'index: a file joined from more than there can be');
      parts.push({ path, bytes });
    }
    return parts;
  }

  #content(): Item {
    const { operations, lengths, raw, references, windows } = this.#columns;
    const operation = operations.byte();
    const length = notZero((operation & EXPLICIT_LENGTH) === 0 ? this.#state.size : lengths.integer());
    switch (operation & ~EXPLICIT_LENGTH) {
      case OPERATION.meta:
        return { kind: 'content', length, content: { type: 'meta', bytes: raw.bytes(length) } };
      case OPERATION.copy:
        return { kind: 'content', length, content: { type: 'copy', path: this.#reference().path } };
      case OPERATION.solid:
        return { kind: 'content', length, content: { type: 'solid' } };
      case OPERATION.grouped: {
        const mode = references.byte();
        const path = mode === REFERENCE.none ? undefined : this.#reference(undefined, mode).path;
        return { kind: 'content', length, content: { type: 'grouped', path } };
      }
      case OPERATION.windows:
      case OPERATION.moves: {
        const { path } = this.#reference();
        const [basisCheck, outputCheck] = [this.#basisCheck(), this.#outputCheck()];
        const made = this.#patched(operation & ~EXPLICIT_LENGTH, length);
        return { kind: 'content', length, content: { ...made, path, basisCheck, outputCheck } };
      }
      case OPERATION.streams:
        return { kind: 'content', length, content: this.#streams() };
      case OPERATION.longName: {
        const name = this.#name();
        if (name.length + 1 !== length)
          throw new DeltaError('CORRUPT', 'index: a long name of another length');
        this.#state.long = { name: name.slice(0, LONG_NAME_FRONT), listed: this.#state.listed };
        return {
          kind: 'content',
          length,
          content: { type: 'meta', bytes: Buffer.from(`${name}\0`, 'latin1') },
        };
      }
      case OPERATION.joined: {
        const parts = this.#joined();
        const [basisCheck, outputCheck] = [this.#basisCheck(), this.#outputCheck()];
        const movesBytes = notZero(windows.integer());
        const literalBytes = windows.integer(length);
        const content = { type: 'joined', parts, basisCheck, outputCheck, movesBytes, literalBytes } as const;
        return { kind: 'content', length, content };
      }
      default:
        throw new DeltaError('CORRUPT', `index: unknown operation ${operation}`);
    }
  }

  #patched(operation: number, length: number): MadeFrom {
    if (operation === OPERATION.windows) return { type: 'windows', ...this.#windows(length) };
    const { windows } = this.#columns;
    const basisBytes = windows.integer();
    const movesBytes = notZero(windows.integer());
    return { type: 'moves', basisBytes, movesBytes, literalBytes: windows.integer(length) };
  }

  #streams(): StreamsContent {
    const { operations, windows } = this.#columns;
    const operation = operations.byte();
    const openedBytes = notZero(windows.integer(LIMITS.openedBytesMax));
    const planBytes = notZero(windows.integer(LIMITS.streamsPlanBytesMax));
    let inside: StreamsContent['inside'];
    if (operation === OPERATION.solid) {
      inside = { type: 'solid' };
    } else if (operation === OPERATION.windows || operation === OPERATION.moves) {
      const { path } = this.#reference();
      const basisCheck = this.#basisCheck();
      const closedBasisBytes = windows.integer();
      inside = { ...this.#patched(operation, openedBytes), path, basisCheck, closedBasisBytes };
    } else {
      throw new DeltaError('CORRUPT', `index: unknown operation ${operation} within streams`);
    }
    const outputCheck = this.#outputCheck();
    return { type: 'streams', outputCheck, openedBytes, planBytes, inside };
  }

  #windows(length: number): { basisBytes: number; windows: Window[] } {
    const { windows } = this.#columns;
    const basisBytes = windows.integer();
    const count = windows.integer(LIMITS.windowsMax);
    const list: Window[] = [];
    let left = length;
    let expected = 0;
    for (let at = 0; at < count; at += 1) {
      const flags = windows.byte();
      const codec = WINDOW_CODECS[flags & 0x0f];
      if (codec === undefined) throw new DeltaError('CORRUPT', `index: unknown window codec ${flags & 0x0f}`);
      const bytes = (flags & REST_OF_CONTENT) === 0 ? windows.integer(left) : left;
      left -= bytes;
      if (bytes < LIMITS.windowBytesMin && (bytes === 0 || left > 0)) {
        throw new DeltaError('CORRUPT', 'index: a window too small for its place');
      }
      const window: Window = { codec, bytes, sourceOffset: 0, sourceBytes: 0, patchBytes: 0 };
      if (codec !== 'literal') {
        const whole = (flags & WHOLE_SOURCE) !== 0;
        window.sourceBytes = basisBytes;
        if (!whole) {
          window.sourceOffset = expected + windows.signed();
          window.sourceBytes = codec === 'copy' ? bytes : windows.integer();
        }
        expected = window.sourceOffset + window.sourceBytes;
        if (codec !== 'copy') window.patchBytes = windows.integer();
        checkWindow(window, basisBytes);
      }
      list.push(window);
    }
    if (left > 0) throw new DeltaError('CORRUPT', 'index: windows do not make up their file');
    return { basisBytes, windows: list };
  }
}

function notZero(length: number): number {
  if (length === 0) throw new DeltaError('CORRUPT', 'index: an item of no length');
  return length;
}

function checkWindow(window: Window, basisBytes: number): void {
  const { codec, bytes, sourceOffset, sourceBytes, patchBytes } = window;
  if (sourceOffset < 0 || sourceBytes > basisBytes - sourceOffset) {
    throw new DeltaError('CORRUPT', 'index: a window outside its basis file');
  }
  if (codec === 'copy') {
    if (sourceBytes !== bytes) throw new DeltaError('CORRUPT', 'index: a copied window of another length');
    return;
  }
  if (
    sourceBytes > LIMITS.windowSourceBytesMax ||
    bytes > LIMITS.windowTargetBytesMax ||
    patchBytes > LIMITS.patchBytesMax
  ) {
    throw new DeltaError('TOO_LARGE', 'index: a window larger than a decoder holds');
  }
}
