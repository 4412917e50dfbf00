/**
 * The layers of the base image: which files of this machine go where.
 *
 * Invariant: the same files give the same tar, byte for byte: sorted, owned by root, dated at the epoch. A layer
 * is known by its key (paths, modes, sizes and change times of its sources) and written once.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  createReadStream,
  createWriteStream,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
} from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import tar from 'tar-stream';
import { dependencyDirectories } from '#cli/packages.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';

/** A path in the image (no leading slash) and where its bytes come from. */
export type Entry =
  | { path: string; mode: number; from: string }
  | { path: string; mode: number; text: string }
  | { path: string; mode: number; directory: true };

export interface BaseLayer {
  /** Of the uncompressed tar. */
  diffId: string;
  bytes: number;
  file: string;
}

const NODE = join(PACKAGE_ROOT, 'node_modules', 'node', 'bin', 'node');

/** Node, the libraries that it and the addons need, and the few files that a process expects of a system. */
export function systemEntries(): Entry[] {
  const passwd =
    'root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n';
  return [
    { path: 'usr/bin/node', mode: 0o755, from: NODE },
    ...libraries(NODE).map((from): Entry => ({ path: from.slice(1), mode: 0o755, from })),
    { path: 'etc/passwd', mode: 0o644, text: passwd },
    { path: 'etc/group', mode: 0o644, text: 'root:x:0:\nnogroup:x:65534:\n' },
    { path: 'etc/nsswitch.conf', mode: 0o644, text: 'passwd: files\ngroup: files\nhosts: files dns\n' },
    { path: 'tmp', mode: 0o1777, directory: true },
    { path: 'run', mode: 0o755, directory: true },
    { path: 'app', mode: 0o755, directory: true },
  ];
}

/** Absolute paths as the loader looks for them. */
function libraries(binary: string): string[] {
  const lines = execFileSync('ldd', [binary], { encoding: 'utf8' }).split('\n');
  const paths = lines.map((line) => /^\s*(?:\S+ => )?(\/\S+) \(0x/.exec(line)?.[1]);
  return paths.filter((path) => path !== undefined);
}

/** What apps may import: these packages and all that they depend on, only the files that are run. */
export function moduleEntries(): Entry[] {
  const directories = dependencyDirectories(['ws', 'serialport', 'valibot', 'uplot']);
  return [...directories].flatMap(([directory, path]) => packageFiles(directory, path));
}

function packageFiles(directory: string, path: string): Entry[] {
  const isRun = (file: string) => {
    if (
      /(^|\/)(node_modules|tests?|examples?|docs|src|build)\//.test(file) &&
      !/^(build|src)\/.*\.js$/.test(file)
    ) {
      return false;
    }
    if (file.startsWith('prebuilds/')) {
      return file.startsWith(`prebuilds/linux-${process.arch}/`) && !file.includes('musl');
    }
    return /\.(js|cjs|mjs|json|node|css)$/.test(file) || /^LICEN[CS]E/i.test(file);
  };
  return files(directory)
    .filter(isRun)
    .map((file) => ({ path: join(path, file), mode: 0o644, from: join(directory, file) }));
}

function files(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)));
}

/** The handover SDK as built, as the package `midair`. */
export function sdkEntries(built: string): Entry[] {
  return files(built)
    .filter((file) => file === 'package.json' || file === 'LICENSE' || /^handover\/.*\.(js|node)$/.test(file))
    .map((file) => ({ path: join('node_modules', 'midair', file), mode: 0o644, from: join(built, file) }));
}

/** Changes whenever the layer's bytes may change; cheap: no file is read. */
export function keyOf(entries: Entry[]): string {
  const hash = createHash('sha256');
  for (const entry of sorted(entries)) {
    hash.update(`${entry.path}\0${entry.mode}\0`);
    if ('text' in entry) hash.update(entry.text);
    if ('from' in entry) {
      const { size, mtimeMs } = statSync(entry.from);
      hash.update(`${entry.from}\0${size}\0${mtimeMs}`);
    }
  }
  return hash.digest('hex').slice(0, 32);
}

const sorted = (entries: Entry[]) => [...entries].sort((a, b) => (a.path < b.path ? -1 : 1));

/** Writes the layer's tar below `directory`, or finds it there. */
export async function writeLayer(entries: Entry[], key: string, directory: string): Promise<BaseLayer> {
  const file = join(directory, `${key}.tar`);
  const about = join(directory, `${key}.json`);
  if (existsSync(file) && existsSync(about)) {
    const known = JSON.parse(readFileSync(about, 'utf8'));
    if (statSync(file).size === known.bytes) return { ...known, file };
  }
  const part = `${file}.${process.pid}.part`;
  const hash = createHash('sha256');
  const pack = tar.pack();
  const filled = fill(pack, sorted(entries));
  const hashed = async function* (source: AsyncIterable<Buffer>) {
    for await (const chunk of source) {
      hash.update(chunk);
      yield chunk;
    }
  };
  await Promise.all([pipeline(Readable.from(pack), hashed, createWriteStream(part)), filled]);
  const known = { diffId: `sha256:${hash.digest('hex')}`, bytes: statSync(part).size };
  await rename(part, file);
  await writeFile(about, JSON.stringify(known));
  return { ...known, file };
}

async function fill(pack: tar.Pack, entries: Entry[]): Promise<void> {
  const made = new Set<string>();
  const owner = { uid: 0, gid: 0, uname: '', gname: '', mtime: new Date(0) };
  const folder = (name: string, mode: number) => {
    if (made.has(name)) return;
    made.add(name);
    pack.entry({ ...owner, name: `${name}/`, type: 'directory', mode });
  };
  for (const entry of entries) {
    const parts = dirname(entry.path).split('/');
    if (parts[0] !== '.')
      parts.forEach((_, i) => {
        folder(parts.slice(0, i + 1).join('/'), 0o755);
      });
    if ('directory' in entry) {
      folder(entry.path, entry.mode);
    } else if ('text' in entry) {
      pack.entry({ ...owner, name: entry.path, mode: entry.mode }, entry.text);
    } else {
      const size = statSync(entry.from).size;
      await pipeline(
        createReadStream(entry.from),
        pack.entry({ ...owner, name: entry.path, mode: entry.mode, size }),
      );
    }
  }
  pack.finalize();
}
