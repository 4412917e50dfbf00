/**
 * The old image as a reader of deltas sees it, and its listing in the one order that both ends derive alike.
 *
 * Invariant: the listing depends only on the paths and lengths of the image's regular files, not on who lists them nor
 * in which order: a device may walk layer folders, or read an `export`. Its digest is in each artifact that uses it.
 */
import { createHash } from 'node:crypto';
import { asDeltaError, DeltaError } from '#deltas/errors.ts';
import { LIMITS } from '#deltas/limits.ts';
import { isEngineFile, isPath } from '#deltas/paths.ts';

export interface BasisFile {
  /** Bytes. */
  readonly size: number;
  /**
   * Exactly `length` bytes, fewer only when the file ends.
   * @param into may be taken for them: memory of at least that length that the caller has done with
   */
  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array>;
  /** Called once when the file is no longer needed. */
  close?(): Promise<void>;
}

/**
 * Random access to the flattened basis image: later layers win, whiteouts are applied, hard links resolved.
 * Symbolic links are not followed and are no files here.
 */
export interface Basis {
  /** @param path relative, without leading slash; undefined when there is no such regular file */
  open(path: string): Promise<BasisFile | undefined>;
  /**
   * All regular files with their lengths in bytes, hard links each by their own name, in any order. Only artifacts
   * whose `needsList` is true ask for it; a basis that cannot list gets DeltaError `UNSUPPORTED` for these.
   */
  list?(): AsyncIterable<ListedFile> | Iterable<ListedFile>;
}

export interface ListedFile {
  path: string;
  size: number;
}

export interface ListEntry {
  /** As tars name it: latin1 (one character a byte), directories with a trailing slash. */
  name: string;
  /** undefined for directories. */
  path: string | undefined;
  /** 0 for directories. */
  size: number;
}

export interface List {
  entries: ListEntry[];
  index: Map<string, number>;
  /** SHA-256 of it all. */
  digest: Buffer;
}

const latin1 = (path: string): string => Buffer.from(path).toString('latin1');

/** Orders as a walk does that sorts each folder by bytes: a folder, what is in it, then its next sibling. */
function walkOrder(a: string, b: string): number {
  const x = a.replaceAll('/', '\0');
  const y = b.replaceAll('/', '\0');
  return x < y ? -1 : x > y ? 1 : 0;
}

/** @throws DeltaError `TOO_LARGE`, or what the iteration throws */
export async function makeList(files: AsyncIterable<ListedFile> | Iterable<ListedFile>): Promise<List> {
  const sizes = new Map<string, ListEntry>();
  let bytes = 0;
  for await (const { path, size } of files) {
    if (!isPath(path) || isEngineFile(path)) continue;
    const name = latin1(path);
    bytes += name.length;
    if (sizes.size >= LIMITS.listEntriesMax || bytes > LIMITS.listBytesMax) {
      throw new DeltaError('TOO_LARGE', 'the basis has more files than a listing may hold');
    }
    sizes.set(name, { name, path, size });
  }
  for (const name of [...sizes.keys()]) {
    for (let at = name.lastIndexOf('/'); at > 0; at = name.lastIndexOf('/', at - 1)) {
      const folder = name.slice(0, at + 1);
      if (sizes.has(folder)) break;
      sizes.set(folder, { name: folder, path: undefined, size: 0 });
    }
  }
  const entries = [...sizes.values()].sort((a, b) => walkOrder(a.name, b.name));
  const hash = createHash('sha256');
  const index = new Map<string, number>();
  for (const [at, { name, size }] of entries.entries()) {
    hash.update(`${name}\0${size}\n`, 'latin1');
    index.set(name, at);
  }
  return { entries, index, digest: hash.digest() };
}

const lists = new WeakMap<object, Promise<List>>();

/**
 * The listing of `basis`, read once for each object.
 * @throws DeltaError `UNSUPPORTED`, `BASIS_MISMATCH` (its digest is not `expected`), `READ_FAILED`
 */
export async function listBasis(basis: Pick<Basis, 'list'>, expected: Uint8Array): Promise<List> {
  if (basis.list === undefined) {
    throw new DeltaError('UNSUPPORTED', 'this delta needs a basis that can list its files');
  }
  let listing = lists.get(basis);
  if (listing === undefined) {
    listing = makeList(basis.list());
    lists.set(basis, listing);
  }
  let list: List;
  try {
    list = await listing;
  } catch (error) {
    lists.delete(basis);
    throw asDeltaError(error, 'READ_FAILED', 'the basis cannot be listed');
  }
  if (!list.digest.subarray(0, expected.length).equals(expected)) {
    throw new DeltaError('BASIS_MISMATCH', 'the basis holds other files, or files of other lengths');
  }
  return list;
}
