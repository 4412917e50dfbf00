/**
 * The files that a container of an image sees, from its layers' tars.
 *
 * Invariant: later layers win; a whiteout (`.wh.name`) hides what lower layers have under that name, an opaque marker
 * (`.wh..wh..opq`) hides what they have in that folder, neither hides what their own layer brings (OCI image layer
 * specification, "Whiteouts"). Hard links share one content. Memory grows with the number of files, not with bytes.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Basis, ListedFile } from '#deltas/basis.ts';
import { type LayerSource, readLayer } from '#deltas/layer.ts';
import { baseName, dirName, isEngineFile } from '#deltas/paths.ts';
import { below, type SampleRate, sorted } from '#deltas/sketch.ts';
import { Spool } from '#deltas/spool.ts';
import { type SurveyedContent, type SurveyOptions, surveyOf } from '#deltas/survey.ts';
import type { TarEntry } from '#deltas/tar.ts';

export interface FlatFile {
  /** Length once unpacked. */
  readonly bytes: number;
  /** SHA-256 of the content, hexadecimal; '' for a sparse file, whose content the tar does not hold as it is. */
  readonly digest: string;
  /** Where its content is: which layer, and at what offset of that tar. */
  readonly layer: number;
  readonly offset: number;
  /** Features of the content, each once, by rising value, if they were asked for. */
  sketch?: Uint32Array;
}

type Node =
  | { kind: 'folder'; layer: number; children: Map<string, Node> }
  | { kind: 'file'; layer: number; file: FlatFile }
  | { kind: 'other'; layer: number };
type Folder = Extract<Node, { kind: 'folder' }>;

const EMPTY_DIGEST = createHash('sha256').digest('hex');
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';

export class FlatImage {
  readonly #root: Folder = { kind: 'folder', layer: 0, children: new Map() };

  #folder(path: string, layer: number): Folder {
    let folder = this.#root;
    for (const part of path === '' ? [] : path.split('/')) {
      let next = folder.children.get(part);
      if (next?.kind !== 'folder') {
        next = { kind: 'folder', layer, children: new Map() };
        folder.children.set(part, next);
      }
      folder = next;
    }
    return folder;
  }

  #find(path: string): Node | undefined {
    let node: Node | undefined = this.#root;
    for (const part of path === '' ? [] : path.split('/')) {
      if (node?.kind !== 'folder') return undefined;
      node = node.children.get(part);
    }
    return node;
  }

  /** Removes what layers below `layer` brought into `folder`. */
  #hideLower(folder: Folder, layer: number): void {
    for (const [name, child] of folder.children) {
      if (child.kind === 'folder') this.#hideLower(child, layer);
      const keep = child.layer >= layer || (child.kind === 'folder' && child.children.size > 0);
      if (!keep) folder.children.delete(name);
    }
  }

  /** Applies one tar entry of `layer`; for a regular file `file` says where its content is. */
  apply(entry: TarEntry, layer: number, file: FlatFile): void {
    const { path, type } = entry;
    if (path === undefined || path === '') return;
    const name = baseName(path);
    if (name === OPAQUE) {
      this.#hideLower(this.#folder(dirName(path), layer), layer);
      return;
    }
    if (name.startsWith(WHITEOUT)) {
      const hidden = name.slice(WHITEOUT.length);
      const folder = this.#find(dirName(path));
      if (hidden.startsWith(WHITEOUT) || folder?.kind !== 'folder') return;
      const child = folder.children.get(hidden);
      if (child?.kind === 'folder') this.#hideLower(child, layer);
      const empty = child?.kind !== 'folder' || child.children.size === 0;
      if (child !== undefined && child.layer < layer && empty) folder.children.delete(hidden);
      return;
    }
    if (type === '5') {
      this.#folder(path, layer).layer = layer;
      return;
    }
    const children = this.#folder(dirName(path), layer).children;
    if (type === '1') {
      const target = entry.linkPath === undefined ? undefined : this.#find(entry.linkPath);
      children.set(
        name,
        target?.kind === 'file' ? { kind: 'file', layer, file: target.file } : { kind: 'other', layer },
      );
    } else if (type === '0' || type === '\0' || type === '7' || type === 'S') {
      children.set(name, { kind: 'file', layer, file });
    } else if (type !== 'x' && type !== 'g' && type !== 'L' && type !== 'K') {
      children.set(name, { kind: 'other', layer });
    }
  }

  /** Regular files by path, but for those that engines lay over (see isEngineFile). */
  *files(): Generator<[path: string, file: FlatFile]> {
    const stack: [string, Node][] = [['', this.#root]];
    for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
      const [path, node] = top;
      if (node.kind === 'file' && !isEngineFile(path)) yield [path, node.file];
      if (node.kind !== 'folder') continue;
      for (const [name, child] of node.children) stack.push([path === '' ? name : `${path}/${name}`, child]);
    }
  }

  /** What Basis.list gives of this image. */
  *list(): Generator<ListedFile> {
    for (const [path, file] of this.files()) yield { path, size: file.bytes };
  }

  file(path: string): FlatFile | undefined {
    const node = isEngineFile(path) ? undefined : this.#find(path);
    return node?.kind === 'file' ? node.file : undefined;
  }
}

export interface FlattenOptions extends SurveyOptions {
  /** Given: each file is sketched, too. */
  rate?: SampleRate;
}

/**
 * Surveys all layers in order, reading those that no survey is kept of.
 * @throws DeltaError `BAD_INPUT`, `READ_FAILED`; what the store of surveys throws
 */
export async function flatten(
  layers: readonly LayerSource[],
  { rate, ...options }: FlattenOptions = {},
): Promise<FlatImage> {
  const image = new FlatImage();
  for (const [layer, source] of layers.entries()) {
    const { entries, limit } = await surveyOf(source, rate !== undefined, options);
    rate?.lower(limit);
    for (const { entry, offset, content } of entries) {
      const file: FlatFile = { bytes: entry.bytes, digest: digestOf(entry, content), layer, offset };
      if (rate !== undefined && content !== undefined && !entry.sparse) {
        file.sketch = sorted(below(content.features, rate.limit));
        rate.add(file.sketch.length);
      }
      image.apply(entry, layer, file);
    }
  }
  return image;
}

function digestOf(entry: TarEntry, content: SurveyedContent | undefined): string {
  if (entry.sparse) return '';
  // One whose content the tar breaks off has none that could be used.
  return content?.digest ?? (entry.bytes > 0 ? '' : EMPTY_DIGEST);
}

/**
 * Spools the contents of `wanted` out of the layers, reading only the layers that hold some.
 * @returns where each starts in the spool
 */
export async function spoolFiles(
  layers: readonly LayerSource[],
  wanted: ReadonlySet<FlatFile>,
  spool: Spool,
): Promise<Map<FlatFile, number>> {
  const starts = new Map<FlatFile, number>();
  for (const [layer, source] of layers.entries()) {
    const byOffset = new Map<number, FlatFile>();
    for (const file of wanted) if (file.layer === layer) byOffset.set(file.offset, file);
    if (byOffset.size === 0) continue;
    await readLayer(source, async (item) => {
      if (item.kind !== 'content' && item.kind !== 'run') return;
      const file = item.kind === 'content' && !item.meta ? byOffset.get(item.offset) : undefined;
      if (file !== undefined) starts.set(file, await spool.append(item.pieces));
      else for await (const _ of item.pieces);
    });
  }
  return starts;
}

/**
 * A basis made from layer tars, for tests and tools: every file's content is spooled to `scratchDirectory`.
 * @returns the basis; `close` removes the scratch file
 */
export async function basisFromLayers(
  layers: readonly LayerSource[],
  scratchDirectory: string,
): Promise<Basis & { close(): Promise<void> }> {
  const image = await flatten(layers);
  const spool = await Spool.create(join(scratchDirectory, `basis-${process.pid}-${performance.now()}`));
  const wanted = new Set<FlatFile>();
  for (const [, file] of image.files()) if (file.digest !== '' && file.bytes > 0) wanted.add(file);
  const starts = await spoolFiles(layers, wanted, spool);
  return {
    async open(path) {
      const file = image.file(path);
      // A sparse file's content is not in the tar as it is; nothing refers to it.
      return file === undefined || file.digest === ''
        ? undefined
        : spool.file(starts.get(file) ?? 0, file.bytes);
    },
    list: () => image.list(),
    close: () => spool.close(),
  };
}
