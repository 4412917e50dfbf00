/**
 * Makes a fresh clone ready to run: the `pre` script of demo, test, check, bench and soak.
 *
 * Invariant: runs under Node 20 and newer with nothing installed, changes nothing that is already right, and is
 * quiet then (well under 300 ms). What it cannot do itself it names, with the command to type.
 *
 *   node scripts/setup.mjs [demo|test|bench|deltas]   default: from npm's script name
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { delimiter, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const ADDONS = ['handover', 'deltas'].map((folder) => join(ROOT, folder, 'native'));
const PURPOSE = process.argv[2] ?? (process.env.npm_lifecycle_event ?? '').replace(/^pre/, '');

/** Commands and the Debian package that brings each; `when` says whether this run needs it. */
const TOOLS = [
  { command: 'git', debian: 'git', why: 'the hub receives pushes through it', when: () => true },
  { command: 'dockerd', debian: 'docker.io', why: 'no Docker engine answers', when: () => !engineNamed() },
  {
    command: 'chromium',
    debian: 'chromium',
    why: 'the browser tests open the control panel in it',
    when: () => ['test', 'check'].includes(PURPOSE),
  },
  {
    command: 'iptables',
    debian: 'iptables',
    why: 'failure injection loses packets with it, in a namespace of its own',
    when: () => ['test', 'check'].includes(PURPOSE),
  },
  {
    command: 'tc',
    debian: 'iproute2',
    why: 'failure injection makes virtual interfaces with it, in a namespace of its own',
    when: () => ['test', 'check'].includes(PURPOSE),
  },
  {
    command: 'wasm-objdump',
    debian: 'wabt',
    why: 'what we find in WebAssembly is compared with what it finds',
    when: () => ['test', 'check'].includes(PURPOSE),
  },
  { command: 'xdelta3', debian: 'xdelta3', why: 'a peer in the benchmark', when: () => PURPOSE === 'deltas' },
  { command: 'bsdiff', debian: 'bsdiff', why: 'a peer in the benchmark', when: () => PURPOSE === 'deltas' },
  { command: 'zstd', debian: 'zstd', why: 'a peer in the benchmark', when: () => PURPOSE === 'deltas' },
  {
    command: 'time',
    debian: 'time',
    why: 'the benchmark measures with it',
    when: () => PURPOSE === 'deltas',
  },
  { command: 'rdiff', debian: 'rdiff', why: 'a peer in the benchmark', when: () => PURPOSE === 'deltas' },
  {
    command: 'aarch64-linux-gnu-gcc',
    // Without recommendations a cross compiler comes without a C library.
    debian: 'gcc-aarch64-linux-gnu libc6-dev-arm64-cross',
    why: 'the benchmark builds a program with it',
    when: () => PURPOSE === 'deltas',
  },
];
const COMPILER = [
  { command: 'g++', debian: 'g++', why: 'the native addons are built from C' },
  { command: 'make', debian: 'make', why: 'the native addons are built from C' },
  { command: 'python3', debian: 'python3', why: 'node-gyp is a Python program' },
];

const say = (text) => process.stderr.write(`setup: ${text}\n`);

function fail(text) {
  say(text);
  process.exit(1);
}

/** Full path of a command, also where a user's PATH does not look (dockerd lives in sbin). */
function find(command) {
  const places = [...(process.env.PATH ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  for (const place of places) {
    try {
      accessSync(join(place, command), constants.X_OK);
      return join(place, command);
    } catch {}
  }
  return undefined;
}

/** An engine that the user named or that is there: whether it answers is for cli/engine.ts to see. */
function engineNamed() {
  return Boolean(process.env.DOCKER_HOST) || existsSync('/var/run/docker.sock');
}

function isDebian() {
  try {
    return /^ID(_LIKE)?=.*(debian|ubuntu)/m.test(readFileSync('/etc/os-release', 'utf8'));
  } catch {
    return false;
  }
}

/** Runs a command; shows its output only when it fails. */
function run(command, args, options = {}) {
  const result = spawnSync(command, args, {
    cwd: ROOT,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    ...options,
  });
  if (result.error) return { ok: false, text: String(result.error.message) };
  const text = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim();
  return { ok: result.status === 0, text };
}

function installTools(tools) {
  const missing = tools.filter((tool) => find(tool.command) === undefined);
  if (missing.length === 0) return;
  const packages = [...new Set(missing.flatMap((tool) => tool.debian.split(' ')))];
  for (const tool of missing) say(`${tool.command} is missing (${tool.why})`);
  const byHand = `apt-get install --no-install-recommends ${packages.join(' ')}`;
  if (!isDebian() || find('apt-get') === undefined) {
    fail(`install these, then run the same command again: ${missing.map((t) => t.command).join(', ')}`);
  }
  if (process.getuid?.() !== 0) fail(`as root, run: ${byHand}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  say(`installing Debian packages: ${packages.join(' ')}`);
  const update = run('apt-get', ['update'], { env });
  if (!update.ok) say(`apt-get update failed, trying with the lists that are here\n${tail(update.text)}`);
  const install = run('apt-get', ['install', '-y', '--no-install-recommends', ...packages], { env });
  if (!install.ok) fail(`${byHand} failed:\n${tail(install.text)}`);
  const still = missing.filter((tool) => find(tool.command) === undefined);
  if (still.length > 0) fail(`still missing after the install: ${still.map((t) => t.command).join(', ')}`);
}

/** The start and the end of a command's output: npm says first what is wrong, compilers last. */
function tail(text) {
  const lines = text.split('\n');
  if (lines.length <= 30) return text;
  return [...lines.slice(0, 12), '…', ...lines.slice(-16)].join('\n');
}

const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'));

/** npm's own record of what it installed, compared with the lock file, package by package. */
function packagesAreInstalled() {
  if (!existsSync(join(ROOT, 'node_modules', 'node', 'bin', 'node'))) return false;
  try {
    const wanted = readJson(join(ROOT, 'package-lock.json')).packages;
    const installed = readJson(join(ROOT, 'node_modules', '.package-lock.json')).packages;
    return Object.entries(wanted).every(([path, entry]) => {
      if (path === '' || entry.optional || entry.devOptional) return true;
      return installed[path]?.version === entry.version;
    });
  } catch {
    return false;
  }
}

function installPackages() {
  if (packagesAreInstalled()) return;
  installTools(COMPILER);
  say('installing npm packages (npm ci), about a minute');
  const npm = process.env.npm_execpath;
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error'];
  const result =
    npm === undefined || !/npm-cli\.c?js$/.test(npm)
      ? run('npm', args)
      : run(process.execPath, [npm, ...args]);
  if (!result.ok) fail(`npm ci failed:\n${tail(result.text)}`);
}

/** The addon that node-gyp built, when it is newer than every one of its sources and loads. */
function addonIsReady(folder) {
  const release = join(folder, 'build', 'Release');
  if (!existsSync(release)) return false;
  const built = readdirSync(release).filter((name) => name.endsWith('.node'));
  if (built.length === 0) return false;
  const sources = readdirSync(folder).filter((name) => /\.(c|cc|cpp|h|gyp)$/.test(name));
  const changedMs = Math.max(...sources.map((name) => statSync(join(folder, name)).mtimeMs));
  return built.every((name) => {
    const file = join(release, name);
    if (statSync(file).mtimeMs < changedMs) return false;
    try {
      process.dlopen({ exports: {} }, file);
      return true;
    } catch {
      return false;
    }
  });
}

function buildAddons() {
  const missing = () =>
    ADDONS.filter((folder) => existsSync(join(folder, 'binding.gyp')) && !addonIsReady(folder)).map(
      (folder) => relative(ROOT, folder),
    );
  const folders = missing();
  if (folders.length === 0) return;
  installTools(COMPILER);
  say(`building native addons (${folders.join(', ')})`);
  const result = run(process.execPath, [join(ROOT, 'scripts', 'native.mjs')]);
  if (!result.ok) fail(`the native addons do not build:\n${tail(result.text)}`);
  const still = missing().map((folder) => join(folder, 'build'));
  if (still.length > 0)
    fail(`a native addon was built but does not load: remove ${still.join(', ')}, then try again`);
}

if (process.platform !== 'linux')
  fail('Midair runs on Linux: it needs containers, ptys and descriptor passing');
installTools(TOOLS.filter((tool) => tool.when()));
installPackages();
buildAddons();
