/**
 * A tree of packages before and after what a change of package manager and bundler does to it: folders renamed and hoisted, names that
 * get the hash of their content, files bundled into one, a bundle cut into others. Nearly all of the text is old; hardly a path is.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** By path. */
export type Tree = Map<string, string>;

const KEPT = ['fast-check', 'lru-cache', 'uplot', 'ws'];
const STORED = ['mqtt', '@grpc/grpc-js', 'ssh2', 'valibot', 'yargs', 'postcss', 'dockerode', 'listr2'];
const HASHED = ['pino', 'aedes', '@mcap/core', 'commander'];
const BUNDLED = ['hono', 'protobufjs', 'tar', 'tar-fs'];
const SPLIT = ['undici', 'bl'];
/** Modules in each of the files that a bundle is cut into. */
const CHUNK_MODULES = 12;

const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 8);

function packageFiles(modules: string, name: string): Tree {
  const files: Tree = new Map();
  for (const one of readdirSync(join(modules, name), { recursive: true, withFileTypes: true })) {
    const path = join(one.parentPath, one.name);
    if (one.isFile() && /\.(?:[cm]?js|d\.ts|json|md)$/.test(one.name))
      files.set(path.slice(modules.length + 1), readFileSync(path, 'utf8'));
  }
  return new Map([...files].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** A small change in every fourth file, as a new version of a package has. */
function edited(text: string, at: number): string {
  const lines = text.split('\n');
  if (at % 4 === 0 && lines.length > 8)
    lines.splice(lines.length >> 1, 1, `// changed ${at}`, lines[lines.length >> 1] as string);
  return lines.join('\n');
}

/** As a bundler does: each module in a function of its own, without what it imports. */
const bundled = (files: Tree): string[] =>
  [...files]
    .filter(([path]) => /\.[cm]?js$/.test(path))
    .map(
      ([path, text]) =>
        `// ${path}\nvar require_${basename(path).replace(/\W/g, '_')} = __commonJS({ "${path}"(exports, module) {\n${text.replace(/^import .*;\n/gm, '')}}});\n`,
    );

/** @param modules the folder `node_modules` */
export function movedTrees(modules: string): { old: Tree; young: Tree } {
  const old: Tree = new Map();
  const young: Tree = new Map();
  const each = (
    names: string[],
    visit: (path: string, text: string, at: number, name: string) => void,
  ): void => {
    let at = 0;
    for (const name of names)
      for (const [path, text] of packageFiles(modules, name)) visit(path, text, at++, name);
  };
  each(KEPT, (path, text, at) => {
    old.set(`app/node_modules/${path}`, text);
    young.set(`app/node_modules/${path}`, at % 40 === 0 ? edited(text, 4 * at) : text);
  });
  each(STORED, (path, text, at, name) => {
    old.set(`app/node_modules/${path}`, text);
    young.set(`app/node_modules/.store/${name.replace('/', '+')}/node_modules/${path}`, edited(text, at));
  });
  each(HASHED, (path, text) => {
    old.set(`app/node_modules/${path}`, text);
    const renamed = text.replace(
      /(['"]\.\.?\/[\w./-]*?)(\.js)?(['"])/g,
      (_, front: string, end = '', quote) => {
        return `${front}-${hashOf(front)}${end}${quote}`;
      },
    );
    young.set(`app/lib/${path.replace(/(?=\.[^/]*$)/, `-${hashOf(text)}`)}`, renamed);
  });
  for (const name of BUNDLED) {
    const files = packageFiles(modules, name);
    for (const [path, text] of files) old.set(`app/node_modules/${path}`, text);
    const bundle = bundled(files).join('');
    young.set(`app/dist/${name}-${hashOf(bundle)}.js`, bundle);
  }
  const modulesOf = SPLIT.flatMap((name) => bundled(packageFiles(modules, name)));
  const whole = modulesOf.join('');
  old.set(`app/dist/main-${hashOf(whole)}.js`, whole);
  for (let chunk = 0; chunk * CHUNK_MODULES < modulesOf.length; chunk += 1) {
    const count = Math.ceil(modulesOf.length / CHUNK_MODULES);
    const text = modulesOf.filter((_, at) => at % count === chunk).join('');
    young.set(`app/dist/chunk-${hashOf(text)}.js`, text);
  }
  return { old, young };
}

export function writeTree(folder: string, tree: Tree): void {
  for (const [path, text] of tree) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
}
