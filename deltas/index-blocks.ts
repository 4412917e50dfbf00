/** The index of a layer out of its artifact, block by block, and the basis files that it refers to. */
import type { DeltaReader, HeaderLayer } from '#deltas/artifact.ts';
import { type Basis, type List, listBasis } from '#deltas/basis.ts';
import { checkBytesOf } from '#deltas/check.ts';
import { decompress } from '#deltas/compression.ts';
import { DeltaError } from '#deltas/errors.ts';
import type { GroupedContent } from '#deltas/group-reader.ts';
import { basisOf, type Item } from '#deltas/index-format.ts';
import { IndexReader } from '#deltas/index-reader.ts';
import { LIMITS } from '#deltas/limits.ts';

/** Blocks of the index, one after the other; each is forgotten before the next is read. */
export async function* indexBlocks(
  delta: DeltaReader,
  layer: HeaderLayer,
  list: List | undefined,
): AsyncGenerator<IndexReader> {
  const checkBytes = checkBytesOf(delta.header.codecs);
  for (const section of layer.sections) {
    if (section.kind !== 'index') continue;
    if (section.rawBytes > LIMITS.indexBytesMax || section.bytes > LIMITS.indexBytesMax) {
      throw new DeltaError('TOO_LARGE', `a block of the index has ${section.rawBytes} bytes`);
    }
    const parts: Buffer[] = [];
    for await (const piece of delta.stream(section)) parts.push(piece);
    const block = await decompress(Buffer.concat(parts), section.rawBytes, 'a block of the index');
    yield new IndexReader(block, list, checkBytes);
  }
}

/** What a layer's contents are made of, in the index's order. */
async function* contentsOf(
  delta: DeltaReader,
  layer: HeaderLayer,
  list: List | undefined,
): AsyncGenerator<Extract<Item, { kind: 'content' }>> {
  for await (const block of indexBlocks(delta, layer, list)) {
    while (!block.ended) {
      const item = block.next();
      if (item.kind === 'content') yield item;
    }
  }
}

/** A layer's grouped contents, ahead of the items that use them. */
export async function* groupedContents(
  delta: DeltaReader,
  layer: HeaderLayer,
  list: List | undefined,
): AsyncGenerator<GroupedContent> {
  for await (const { length, content } of contentsOf(delta, layer, list))
    if (content.type === 'grouped') yield { length, path: content.path };
}

/**
 * The paths that applying the delta will open in the basis, each once.
 *
 * @param basis its `list` is used, and only for a delta whose `needsList` is true
 * @throws DeltaError as applyLayer does
 */
export async function basisPaths(delta: DeltaReader, basis?: Pick<Basis, 'list'>): Promise<Set<string>> {
  const { listDigest, layers } = delta.header;
  const list = listDigest === undefined ? undefined : await listBasis(basis ?? {}, listDigest);
  const paths = new Set<string>();
  for (const layer of layers) {
    for await (const { content } of contentsOf(delta, layer, list))
      for (const path of basisOf(content)) paths.add(path);
  }
  return paths;
}
